"""Parity of the `hf` engine with the real MindSpeed-MM on the CPU stand-in.

The same base model, data and settings on both sides: order of samples, batches, learning rates and loss.
`plot_parity.py` makes the curves of docs/parity.md the same way, with the tutorial's global batch.
"""

import json
from pathlib import Path

import numpy
import pytest
import torch
from mindtune.data.mllm import read_mllm
from mindtune.engines.hf.dataset import Collator, Conversations
from mindtune.engines.hf.processing import Processor
from mindtune.engines.hf.schedule import learning_rate, sample_order
from place import RESOLUTION, TUTORIAL
from transformers.models.qwen2_vl import modeling_qwen2_vl

pytestmark = pytest.mark.mindspeed

# Smaller than the tutorial's global batch, for time.
SHORT = TUTORIAL | {"global_batch_size": 6}
BATCHES = 200  # more than an epoch
_RATE = {"lr": 1e-5, "min_lr": 0.0, "lr_decay_style": "cosine", "lr_warmup_fraction": 0.1}
RATES = [
    _RATE | {"train_iters": 100},
    _RATE | {"train_iters": 10000, "lr": 1e-3, "min_lr": 1e-5},
    _RATE | {"train_iters": 77, "lr_decay_style": "linear", "lr_warmup_fraction": 0.13},
    _RATE | {"train_iters": 50, "lr_decay_style": "constant"},
    _RATE | {"train_iters": 3, "lr_warmup_fraction": 0.0},
]
ORDERS = [(97, 1, 0, 500), (97, 4, 0, 500), (97, 4, 96 * 3 + 8, 300), (8, 8, 0, 40)]


@pytest.fixture(scope="module")
def dumped(mindspeed, place, tmp_path_factory):
    """What the framework feeds its training with; the cache of its data set is filled on the way."""
    out = tmp_path_factory.mktemp("dump")
    questions = {"batches": BATCHES, "rates": RATES, "orders": ORDERS}
    (out / "questions.json").write_text(json.dumps(questions))
    arguments = [out / "questions.json", out / "answers"]
    arguments += place.command_line(mindspeed, out, SHORT)
    mindspeed.torchrun(Path(__file__).with_name("dump.py"), arguments, out)
    return out / "answers"


@pytest.fixture(scope="module")
def answers(dumped):
    return json.loads((dumped / "answers.json").read_text())


def test_the_order_of_samples_is_the_framework_samplers(answers):
    for (samples, micro_batch_size, consumed, wanted), theirs in zip(
        ORDERS, answers["orders"], strict=True
    ):
        ours = sample_order(samples, micro_batch_size, consumed)
        assert [next(ours) for _ in range(wanted)] == theirs


def test_batches_are_equal_to_the_last_bit(place, dumped):
    """Token ids, labels, masks, pixel values and grids of each batch, in the order of training."""
    processor = Processor(place.base, RESOLUTION)
    records = read_mllm(place.train)
    data = Conversations(records, place.images, processor, SHORT["seq_length"])
    collate = Collator(processor)
    order = sample_order(len(data), 1, 0)
    without_pictures = 0
    for number in range(BATCHES):
        ours = collate([data[next(order)]])
        with numpy.load(dumped / f"{number:05d}.npz") as theirs:
            assert set(theirs) == ours.keys() - {"mm_token_type_ids"}  # transformers 5's own
            for name in theirs:
                assert torch.equal(ours[name], torch.from_numpy(theirs[name])), (number, name)
        without_pictures += "pixel_values" not in ours
    assert len(data) < BATCHES
    assert without_pictures >= 4


def test_learning_rates_are_megatrons(answers):
    """To 1e-12 of each, in each iteration, over styles, warm-ups and lengths."""
    for settings, theirs in zip(RATES, answers["rates"], strict=True):
        assert len(theirs) == settings["train_iters"] + 1
        for step, rate in enumerate(theirs):
            assert learning_rate(step, settings) == pytest.approx(rate, rel=1e-12, abs=1e-22)


def compare(theirs, ours, tolerance):
    """Each iteration's loss, within `tolerance` of the framework's."""
    assert len(theirs) == len(ours) == SHORT["train_iters"]
    for one, other in zip(theirs, ours, strict=True):
        assert one.number == int(other["iteration"])
        assert one.consumed_samples == int(other["consumed_samples"])
        assert f"{one.lr:.6E}" == f"{float(other['lr']):.6E}"  # as many digits as its log has
        assert float(other["loss"]) == pytest.approx(one.loss, rel=tolerance), one.number
    # The comparison would say nothing of a training that leads nowhere.
    assert theirs[-1].loss < 0.95 * theirs[0].loss


def test_losses_of_the_tutorials_settings_are_within_a_percent(mindspeed, place, dumped, tmp_path):
    theirs = place.train_by_framework(mindspeed, tmp_path / "framework", SHORT)
    compare(theirs, place.train_by_hf(tmp_path / "hf", SHORT, "bf16"), 0.01)


def test_losses_without_rounding_are_equal_to_the_logs_digits(
    mindspeed, place, dumped, tmp_path, rounded_angles
):
    """In fp32, at a learning rate that would show any difference of the algorithms.

    In bfloat16 differences of rounding grow with the learning rate. Without it nothing is left but
    the angles of rotary embeddings, which the framework rounds to bfloat16 in any case.
    """
    settings = SHORT | {"lr": 1e-3}
    theirs = place.train_by_framework(mindspeed, tmp_path / "framework", settings, precision="fp32")
    compare(theirs, place.train_by_hf(tmp_path / "hf", settings, "fp32"), 1e-5)


@pytest.fixture
def rounded_angles(monkeypatch):
    """transformers' Qwen2-VL with rotary angles as MindSpeed-MM has them.

    Vision: inverse frequencies and their products with positions in bfloat16 (the framework's
    VisionRotaryEmbedding). Text: cosines and sines in bfloat16 (MMGPTModel).
    """

    def vision(self, x, position_ids):
        size = self.inv_freq.shape[0] * 2
        exponents = torch.arange(0, size, 2, dtype=torch.bfloat16) / size
        angles = position_ids[..., None].bfloat16() * (1.0 / 10000.0**exponents)
        parts = (angles.cos().float(), angles.sin().float())
        return tuple(self.recomposition_frequencies(part) for part in parts)

    exact = modeling_qwen2_vl.Qwen2VLRotaryEmbedding.forward

    def text(self, x, position_ids):
        return tuple(part.bfloat16().to(x.dtype) for part in exact(self, x, position_ids))

    monkeypatch.setattr(modeling_qwen2_vl.Qwen2VLVisionRotaryEmbedding, "forward", vision)
    monkeypatch.setattr(modeling_qwen2_vl.Qwen2VLRotaryEmbedding, "forward", text)
