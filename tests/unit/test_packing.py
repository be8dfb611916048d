"""Packed passes give the loss and the gradients of micro batches one after another."""

import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mindtune.engines.hf.dataset import Collator
from mindtune.engines.hf.model import load_model
from mindtune.engines.hf.packing import Packer, answer_tokens, packed_loss, passes, token_weights
from mindtune.engines.hf.processing import IGNORE_INDEX
from mindtune.engines.hf.segments import use_segments
from PIL import Image

# Summed in another order; of float32's 1.2e-7 the sums of these models leave about this.
LOSS, GRADIENT = 1e-6, 1e-5


@pytest.fixture(scope="module")
def models(base):
    """One model as it was and one that attends by segments, with the same weights."""
    plain, packed = (load_model(base, torch.float32).train() for _ in range(2))
    use_segments(packed)
    return plain, packed


def picture(processor, seed: int, width: int, height: int):
    noise = random.Random(seed).randbytes(width * height * 3)
    return processor.picture(Image.frombytes("RGB", (width, height), noise))


def sample(processor, seed: int, sizes, turns: int, seq_length: int = 1024) -> dict:
    """A conversation of random words about pictures of the given sizes."""
    chance = random.Random(seed)
    pictures = [picture(processor, seed + n, *size) for n, size in enumerate(sizes)]
    messages = []
    for turn in range(turns):
        marks = "<image>\n" * len(pictures) if turn == 0 else ""
        words = " ".join(chance.choices(["bus", "red", "Where", "is", "the", "sign"], k=5))
        answer = " ".join(chance.choices(["left", "blue", "car"], k=chance.randint(1, 12)))
        messages += [{"role": "user", "content": marks + words},
                     {"role": "assistant", "content": answer}]  # fmt: skip
    ids, labels = processor.encode_conversation(
        messages, [p.grid_thw[0] for p in pictures], seq_length
    )
    return {"input_ids": ids, "labels": labels, "pictures": pictures}


def one_by_one(model, processor, samples, micro_batch_size: int) -> float:
    """The plain way: a forward and a backward for each micro batch, padded."""
    collate = Collator(processor)
    groups = [samples[n : n + micro_batch_size] for n in range(0, len(samples), micro_batch_size)]
    total = 0.0
    for group in groups:
        loss = model(**collate(group), use_cache=False).loss / len(groups)
        loss.backward()
        total += loss.item()
    return total


def together(model, processor, samples, micro_batch_size: int, tokens_per_pass: int) -> float:
    merge = processor.image_processor.merge_size
    packer = Packer(micro_batch_size, tokens_per_pass, processor.image_token_id, merge)
    total = 0.0
    for part in packer(samples)["passes"]:
        loss = packed_loss(model, part)
        loss.backward()
        total += loss.item()
    return total


def gradients(model) -> dict[str, torch.Tensor]:
    found = {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    model.zero_grad()
    return found


def difference(expected, found) -> float:
    """The largest relative difference of two sets of gradients, by tensors' norms."""
    assert expected.keys() == found.keys()
    scale = max(tensor.norm() for tensor in expected.values())
    return max(
        ((expected[name] - found[name]).norm() / expected[name].norm().clamp(min=1e-3 * scale))
        for name in expected
    ).item()


SIZES = st.tuples(st.integers(28, 100), st.integers(28, 100))
SAMPLES = st.lists(
    st.tuples(st.integers(0, 10**6), st.lists(SIZES, max_size=3), st.integers(1, 3)),
    min_size=1, max_size=7,
)  # fmt: skip


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    drawn=SAMPLES,
    micro_batch_size=st.integers(1, 4),
    tokens_per_pass=st.sampled_from([1, 60, 200, 4096]),
    frozen=st.booleans(),
)
def test_any_samples_give_the_same_loss_and_gradients(
    models, processor, drawn, micro_batch_size, tokens_per_pass, frozen
):
    plain, packed = models
    for model in models:
        model.model.visual.requires_grad_(not frozen)
    whole = len(drawn) // micro_batch_size * micro_batch_size or len(drawn)
    samples = [sample(processor, *one) for one in drawn[:whole]]
    expected = one_by_one(plain, processor, samples, min(micro_batch_size, whole))
    found = together(packed, processor, samples, min(micro_batch_size, whole), tokens_per_pass)
    assert found == pytest.approx(expected, rel=LOSS)
    assert difference(gradients(plain), gradients(packed)) < GRADIENT


def test_no_segment_sees_another(models, processor):
    """Exactly: with another neighbour of the same length, not a bit of the others' states moves."""
    _, model = models
    first, second, third = (sample(processor, seed, [(56, 56)], 2) for seed in (1, 2, 3))
    packer = Packer(1, 4096, processor.image_token_id, processor.image_processor.merge_size)
    with torch.no_grad():
        alone = packed_loss(model, packer.packed([first], [1.0]))
        for other in (second, third):
            both = packer.packed([other, first], [0.0, 1.0])
            assert packed_loss(model, both).item() == pytest.approx(alone.item(), rel=LOSS)


def test_without_lengths_there_would_be_a_leak(models, processor):
    """The test above can fail: as one segment, the second sample does see the first."""
    _, model = models
    first, second = (sample(processor, seed, [(56, 56)], 2) for seed in (1, 2))
    packer = Packer(1, 4096, processor.image_token_id, processor.image_processor.merge_size)
    with torch.no_grad():
        part = packer.packed([second, first], [0.0, 1.0])
        right = packed_loss(model, part).item()
        joined = type(part)(**{**vars(part), "lengths": (sum(part.lengths),)})
        assert packed_loss(model, joined).item() != pytest.approx(right, rel=1e-3)


def test_positions_are_those_of_transformers(models, processor):
    plain, _ = models
    packer = Packer(1, 4096, processor.image_token_id, processor.image_processor.merge_size)
    for seed, sizes in enumerate([[], [(56, 84)], [(84, 28), (28, 112), (56, 56)]]):
        one = sample(processor, seed, sizes, 2)
        ids = torch.tensor([one["input_ids"]])
        expected, _ = plain.model.get_rope_index(
            ids, (ids == processor.image_token_id).long(),
            torch.cat([p.grid_thw for p in one["pictures"]]) if sizes else None,
        )  # fmt: skip
        assert torch.equal(packer.positions(ids[0], one["pictures"]), expected[:, 0])


def test_a_cut_conversation_counts_what_is_left(models, processor):
    plain, packed = models
    samples = [sample(processor, seed, [(56, 56)], 3, seq_length=length)
               for seed, length in ((1, 40), (2, 52), (3, 1024))]  # fmt: skip
    expected = one_by_one(plain, processor, samples, 1)
    assert together(packed, processor, samples, 1, 4096) == pytest.approx(expected, rel=LOSS)
    plain.zero_grad()
    packed.zero_grad()


def test_weights_are_those_of_means_of_means():
    assert token_weights([2, 3, 5, 0], 2) == [1 / 10, 1 / 10, 1 / 10, 1 / 10]
    weights = token_weights([2, 0], 1)
    assert weights[0] == 1 / 4
    assert weights[1] != weights[1]  # a mean over nothing
    assert answer_tokens([7, IGNORE_INDEX, 7]) == 1  # nothing predicts the first


def test_passes_hold_what_fits():
    assert list(passes([5, 5, 5], 10)) == [slice(0, 2), slice(2, 3)]
    assert list(passes([50, 5, 50], 10)) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert list(passes([], 10)) == []
