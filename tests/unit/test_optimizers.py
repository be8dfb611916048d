"""hf.optimizer: moments of 8 bits, resumed exactly. It wants `pip install -r envs/optimizers.txt`."""

import builtins
import shutil

import pytest
import torch
from mindtune.engines import training_check
from mindtune.engines.checks import checkpoint_bytes
from mindtune.engines.hf.optimizer import MainWeightsAdamW, optimizer_of
from mindtune.errors import UserError
from mindtune.memory import Step, training_memory
from mindtune.models.published import PUBLISHED
from mindtune.models.shape import model_shape, read_config
from mindtune.settings import ConfigError, load
from mindtune.settings.typed import typed
from test_finetune import TRAIN, job_of, rows, train
from test_finetune import place as place_of_finetune

place = place_of_finetune  # a fixture
EIGHT = {"optimizer": "adamw_8bit"}


class Model(torch.nn.Module):
    device = torch.device("cpu")

    def __init__(self, inputs, outputs):
        super().__init__()
        self.layer = torch.nn.Linear(inputs, outputs)


@pytest.fixture
def bitsandbytes():
    return pytest.importorskip("bitsandbytes", reason="pip install -r envs/optimizers.txt")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_halves_are_one_whole(bitsandbytes, place, tmp_path, precision):
    machine = EIGHT | {"precision": precision}
    whole = train(place, tmp_path / "a", machine=machine)
    shutil.rmtree(tmp_path / "a/iter_0000004")
    assert train(place, tmp_path / "a", machine=machine) == whole
    usual = train(place, tmp_path / "b", machine={"precision": precision})
    assert len(whole) < 0.75 * len(usual)
    config = read_config(place / "base")
    sizes = [
        checkpoint_bytes(config, typed("train", TRAIN), precision, name)
        for name in ("adamw_8bit", "adamw")
    ]
    # Each tensor has the table of its 8-bit values beside it, which a tiny model's feel.
    assert sizes == pytest.approx([len(whole), len(usual)], rel=0.05)
    ours, theirs = ([float(row["loss"]) for row in rows(tmp_path / one)] for one in "ab")
    assert ours == pytest.approx(theirs, rel=0.03) and ours != theirs


def test_moments_have_eight_bits(bitsandbytes):
    model = Model(128, 64)
    optimizer = optimizer_of(model, typed("train", TRAIN), "adamw_8bit")
    model.layer(torch.ones(1, 128)).sum().backward()
    optimizer.step()
    weight, bias = model.layer.weight, model.layer.bias
    assert optimizer.state[weight]["state1"].dtype == torch.uint8
    assert optimizer.state[bias]["state1"].dtype == torch.float32  # of less than 4,096 numbers
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]


def test_without_the_package_a_sentence_says_what_to_install(place, tmp_path, monkeypatch):
    found = builtins.__import__

    def without(name, *rest, **named):
        if name.startswith("bitsandbytes"):
            raise ImportError("No module named 'bitsandbytes'")
        return found(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"`pip install -r envs/optimizers\.txt`, or write adamw"):
        training_check("hf")(job_of(place, tmp_path / "a", machine=EIGHT), 0)


def test_on_other_devices_it_is_refused():
    with pytest.raises(
        ConfigError, match=r"adamw_8bit, which runs on cpu and cuda, but hf\.device is npu"
    ):
        load({"hf": EIGHT | {"device": "npu"}})


def test_the_usual_one_is_todays():
    model = Model(3, 2)
    assert type(optimizer_of(model, typed("train", TRAIN), None)) is MainWeightsAdamW


def test_the_estimate_counts_six_bytes_less():
    shape = model_shape(PUBLISHED["Qwen2-VL-2B"])
    usual, eight = (
        training_memory(
            shape, 10**9, typed("train", TRAIN), "bf16", Step(64, 64, optimizer=name)
        ).optimizer
        for name in ("adamw", "adamw_8bit")
    )
    assert usual - eight == pytest.approx(6 * usual / 12, rel=0.01)


def test_room_on_the_disk_is_asked_for_as_it_will_be_taken(place, tmp_path, monkeypatch):
    """The 2B of the tutorial: 22.9 GB, and 13.9 with moments of 8 bits."""
    config = PUBLISHED["Qwen2-VL-2B"]
    usual, eight = (
        checkpoint_bytes(config, typed("train", TRAIN), "bf16", name)
        for name in ("adamw", "adamw_8bit")
    )
    trained = 1_543_714_304
    assert usual == 2 * 2_208_985_600 + 12 * trained
    assert eight == usual - 8 * trained + int(2.03125 * trained)
    asked = checkpoint_bytes(
        read_config(place / "base"), typed("train", TRAIN), "fp32", "adamw_8bit"
    )
    disk = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr("mindtune.engines.hf.finetune.check_optimizer", lambda kind: None)
    job = job_of(place, tmp_path / "a", machine=EIGHT)
    monkeypatch.setattr("mindtune.engines.checks.shutil.disk_usage", lambda _: disk(0, 0, asked))
    training_check("hf")(job, 0)
    monkeypatch.setattr(
        "mindtune.engines.checks.shutil.disk_usage", lambda _: disk(0, 0, asked - 1)
    )
    with pytest.raises(UserError, match=f"a checkpoint of this training takes {asked:,} bytes"):
        training_check("hf")(job, 0)
