"""Whether the cut at train.seq_length falls within a picture."""

import json
import math
import random

import pytest
import torch
from mindtune.data.opening import BadPicture
from mindtune.data.shrinking import shrunk_size
from mindtune.demo.base_model import write_base_model
from mindtune.engines.cutting import (
    Lengths,
    PictureTokens,
    check_pictures_kept,
    keeps_pictures,
    surely_keeps_pictures,
)
from mindtune.engines.hf.processing import Processor
from mindtune.engines.tokenizer import encoder
from mindtune.errors import UserError
from mindtune.models.template import template_of
from PIL import Image

WORDS = (
    "bus",
    "<image>",
    "What is the color of the",
    "红色的",
    "\n",
    " ",
    "\u0958",
    "e\u0301",
    "12",
)


@pytest.fixture(scope="module")
def lengths(base):
    return Lengths(encoder(base), PictureTokens.of_model(base, 512 * 512), template_of(base))


def conversation(rng):
    texts = ["".join(rng.choices(WORDS, k=rng.randrange(12))) for _ in range(2 * rng.randint(1, 3))]
    roles = ("user", "assistant") * len(texts)
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    if rng.random() < 0.3:
        system = "".join(rng.choices(WORDS, k=3)).replace("<image>", "")
        messages.insert(0, {"role": "system", "content": system})
    return messages, [rng.randint(1, 40) for _ in range("".join(texts).count("<image>"))]


def test_lengths_are_those_of_the_processor(lengths, processor):
    """And bounds are bounds: what is sure by them, is so."""
    rng = random.Random(3)
    outcomes = set()
    for _ in range(600):
        messages, tokens = conversation(rng)
        grids = [torch.tensor([1, 2, 2 * count]) for count in tokens]
        seq_length = rng.randint(20, 200)
        ids, _ = processor.encode_conversation(messages, grids, seq_length)
        whole = ids.count(processor.image_token_id) == sum(tokens)
        exact = lengths.exact(messages, tokens)
        uncut, _ = processor.encode_conversation(messages, grids, 1 << 40)
        assert sum(turn.source + turn.target for turn in exact) == len(uncut)
        assert keeps_pictures(exact, seq_length) == whole
        larger = [token + rng.randrange(3) for token in tokens]
        bounds = lengths.bounds(messages, larger, tokenize=rng.random() < 0.5)
        for bound, turn in zip(bounds, exact, strict=False):
            assert all(b >= t for b, t in zip(bound, turn, strict=True)), messages
        sure = surely_keeps_pictures(bounds, seq_length)
        assert whole or not sure
        outcomes.add((whole, sure))
    assert outcomes == {(True, True), (True, False), (False, False)}


@pytest.mark.parametrize("resolution", [28 * 28, 100 * 100, 512 * 512, 1 << 30])
@pytest.mark.parametrize("saved_by", ["preprocessor_config.json", "processor_config.json"])
def test_tokens_of_a_picture_follow_from_its_size(base, tmp_path, resolution, saved_by):
    settings = json.loads((base / "preprocessor_config.json").read_text())
    rng = random.Random(resolution)
    model = tmp_path / "model"
    write_base_model(model)
    for least, most in ((56 * 56, 16384), (4 * 28 * 28, 1 << 20), (200_000, 300_000)):
        (model / "preprocessor_config.json").unlink(missing_ok=True)
        settings |= {"min_pixels": least, "max_pixels": most}
        shown = settings if saved_by.startswith("pre") else {"image_processor": settings}
        (model / saved_by).write_text(json.dumps(shown))
        processor = Processor(model, resolution)
        pictures = PictureTokens.of_model(model, resolution)
        sizes = [(6000, 28), (28, 6000), (1, 1), (641, 479)]
        sizes += [(rng.randint(1, 900), rng.randint(1, 900)) for _ in range(12)]
        for size in sizes:
            Image.new("RGB", size).save(tmp_path / "a.bmp")
            image = processor.open_image(tmp_path / "a.bmp")
            assert image.size == shrunk_size(size, resolution)
            grid = processor.picture(image).grid_thw[0]
            assert pictures.of(size) == int(grid.prod()) // 4 <= pictures.bound


def test_no_picture_has_more_tokens_than_the_bound():
    rng = random.Random(1)
    refused = 0
    for _ in range(20_000):
        least = rng.randint(28 * 28, 300_000)
        pictures = PictureTokens(rng.randint(784, 1 << 20), least, rng.randint(least, 1 << 21), 28)
        side = math.exp(rng.uniform(0, 9))
        size = max(1, round(side)), max(1, round(math.exp(rng.uniform(0, 9))))
        try:
            assert pictures.of(size) <= pictures.bound, (pictures, size)
        except BadPicture:
            refused += 1
    assert refused < 1000


def record(names, *texts):
    roles = ("user", "assistant") * len(texts)
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    return {"images": names, "messages": messages}


@pytest.fixture
def images(tmp_path):
    place = tmp_path / "images"
    place.mkdir()
    for name in "abcd":
        Image.new("RGB", (400, 320)).save(place / f"{name}.jpg")
    return place


def check(records, images, lengths, seq_length):
    check_pictures_kept(records, images.parent / "train.json", images, lengths, seq_length)


def test_a_cut_within_a_picture_names_the_record(images, lengths):
    four = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    asked = "<image> <image> <image> <image>\nWhat differs between the first and the last?"
    records = [record(["a.jpg"], "<image>\nQ?", "A."), record(four, asked, "The colour.")]
    with pytest.raises(UserError) as told:
        check(records, images, lengths, 64)
    found = str(told.value)
    assert (
        "record 1 of" in found
        and "train.json (counted from 0; of a.jpg, b.jpg, c.jpg, d.jpg)" in found
    )
    assert (
        "train.seq_length 64 would cut it within its pictures, as it would 1 of 2 records" in found
    )
    needed = int(found.split("set train.seq_length to ")[1].split()[0])
    check(records, images, lengths, needed)  # what it advises is enough
    assert needed == sum(
        t.source + t.target for t in lengths.exact(records[1]["messages"], [20] * 4)
    )


def test_a_long_answer_may_be_cut_but_no_picture(images, lengths, processor):
    long = record(["a.jpg"], "<image>\nQ?", "word " * 400)
    check([long], images, lengths, 100)
    ids, _ = processor.encode_conversation(long["messages"], [torch.tensor([1, 8, 10])], 100)
    assert len(ids) == 100 and ids.count(processor.image_token_id) == 20


def test_a_picture_in_a_turn_that_is_left_out(images, lengths):
    late = record(["a.jpg"], "Q?", "word " * 400, "And <image>?", "A.")
    with pytest.raises(UserError, match="would cut it within its pictures"):
        check([late], images, lengths, 100)


def test_pictures_in_a_zip_file_are_measured_there(images, lengths, tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as made:
        for file in images.iterdir():
            made.write(file, file.name)
        made.writestr("broken.jpg", b"\xff\xd8\xffbroken")
    ok = record(["a.jpg"], "<image>\n" + "Q" * 60, "A " * 60)
    check_pictures_kept([ok], tmp_path / "t.json", tmp_path / "all.zip", lengths, 100)
    for name, why in (
        ("x.jpg", "can't be used: the image is missing"),
        ("broken.jpg", "can't be used"),
    ):
        ok["images"] = [name]
        with pytest.raises(UserError, match=rf"{name} {why}"):
            check_pictures_kept([ok], tmp_path / "t.json", tmp_path / "all.zip", lengths, 100)


def test_most_records_cost_no_look_at_a_picture(lengths, tmp_path):
    """None of these pictures is there."""
    records = [record([f"{n}.jpg"], "<image>\nWhat is it?", "A bus. " * 50) for n in range(1000)]
    check(records, tmp_path, lengths, 1024)
