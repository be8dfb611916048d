"""Boxes as each family writes them: one form of them for tables and pictures."""

import json
import time
from types import SimpleNamespace

import pytest
import tiny_qwen3
import tiny_qwen25
from mindtune.comparison.answers import read_answers
from mindtune.comparison.content import content
from mindtune.comparison.controls import compare_controls, said
from mindtune.comparison.text import boxes
from mindtune.engines.box_sizes import BoxSizes
from mindtune.engines.cutting import PictureTokens
from mindtune.engines.hf.processing import Processor
from mindtune.engines.journal import Journal
from mindtune.engines.talk import asking
from mindtune.files import read_json_lines
from mindtune.models import FAMILIES
from mindtune.models.box_text import corners, in_thousandths
from mindtune.models.boxes import boxes_of
from mindtune.settings.typed import typed
from PIL import Image

PIXELS = {"qwen2_vl": False, "qwen2_5_vl": True, "qwen3_vl": False}
SIZE = (1000, 400)
TOWER = (
    196,
    56,
)  # what is left of it for this Qwen2.5-VL, in whole tokens; for the Qwen3-VL 192 x 64
BOX = '{"bbox_2d": [49, 14, 98, 56], "label": "the bus"}'
TEXT = "the bus(250,250),(500,1000)"


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (BOX, TEXT),
        (f"```json\n[\n\t{BOX}\n]\n```", TEXT),
        (f"[{BOX}, {BOX}]", f"{TEXT}, {TEXT}"),
        (f"It is here: {BOX}. Yes", f"It is here: {TEXT}. Yes"),
        ('{"bbox_2d": [0, 0, 196.0, 56]}', "(0,0),(1000,1000)"),
        ('{"label": "a \\"b\\" 车", "bbox_2d":[0,0,98,28]}', 'a "b" 车(0,0),(500,500)'),
        (f'```json\n[{BOX}, {{"bbox_2d": [1', f'{TEXT}, {{"bbox_2d": [1'),  # an answer that is cut
        ('{"bbox_2d": [1, 2, 3]}', '{"bbox_2d": [1, 2, 3]}'),
        ('{"point_2d": [1, 2]}', '{"point_2d": [1, 2]}'),
        ("the bus(1,2),(3,4) {x}", "the bus(1,2),(3,4) {x}"),
        (
            '{"label": "a \\ud83d", "bbox_2d": [0,0,98,28]}',
            "a \\ud83d(0,0),(500,500)",
        ),  # a cut sign
        ('{"label": "a \\ud83d\\ude00", "bbox_2d": [0,0,98,28]}', "a \U0001f600(0,0),(500,500)"),
    ],
)
def test_json_becomes_text_in_thousandths(said, found):
    assert in_thousandths(said, TOWER) == found
    assert in_thousandths(said, None) == said


def test_white_space_without_end_is_read_in_no_time():
    """Models fall into it; the time to read it is not to grow with its square."""
    gap = "\n\t" * 25_000
    begun = time.perf_counter()
    assert in_thousandths(f"{BOX}{gap}x", TOWER) == f"{TEXT}{gap}x"
    assert in_thousandths(f"[{BOX},{gap}x", TOWER) == f"{TEXT},{gap}x"
    assert time.perf_counter() - begun < 10  # it was minutes


def test_each_family_says_what_its_numbers_are_out_of(tmp_path):
    assert set(PIXELS) == set(FAMILIES)
    for name, pixels in PIXELS.items():
        (tmp_path / "config.json").write_text(json.dumps({"model_type": name}))
        assert boxes_of(tmp_path).out_of(TOWER) == (TOWER if pixels else (1000, 1000))


def test_corners_in_pixels_of_another_size():
    assert corners((250, 250, 500, 1000), (200, 80)) == (50, 20, 100, 80)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    place = tmp_path_factory.mktemp("boxes")
    Image.new("RGB", SIZE, "red").save(place / "a.png")
    Image.new("RGB", (300, 300)).save(place / "b.png")
    tiny_qwen25.write_base(place / "qwen2_5_vl")
    tiny_qwen3.write_base(place / "qwen3_vl")
    return place


def job_of(models, name):
    return SimpleNamespace(
        images=models,
        hf_dir=models / name,
        processor=typed("processor", {"image_resolution": 512 * 1024}),
    )


def prompt(number, *pictures, reference=None):
    return {"id": str(number), "prompt": "Where?", "images": pictures, "reference": reference}


def line(answer):
    return {"id": "0", "answer": answer}


@pytest.mark.parametrize(("name", "sides"), [("qwen2_5_vl", TOWER), ("qwen3_vl", (192, 64))])
def test_sides_are_those_that_the_tower_gets(models, name, sides):
    processor = Processor(models / name, 512 * 1024)
    grid = processor.picture(processor.open_image(models / "a.png")).grid_thw[0]
    patch = processor.image_processor.patch_size
    measure = PictureTokens.of_model(models / name, 512 * 1024)
    assert measure.sides(SIZE) == sides == (int(grid[2]) * patch, int(grid[1]) * patch)


def test_a_line_says_what_its_boxes_are_out_of(models):
    prompts = [prompt(0, "a.png"), prompt(1, "a.png", "b.png"), prompt(2), prompt(3, "a.png", reference=BOX)]  # fmt: skip
    of = BoxSizes(job_of(models, "qwen2_5_vl"), prompts).complete
    assert of(0, line(BOX))["boxes_out_of"] == list(TOWER)
    assert of(0, line("none")) == line("none")  # and the picture isn't opened
    assert of(1, line(BOX)) == line(BOX)  # it doesn't say in which
    assert of(2, line(BOX)) == line(BOX)
    assert of(3, line("none"))["boxes_out_of"] == list(TOWER)
    of = BoxSizes(job_of(models, "qwen3_vl"), prompts).complete
    assert of(0, line(BOX))["boxes_out_of"] == of(1, line(BOX))["boxes_out_of"] == [1000, 1000]


@pytest.mark.parametrize(
    ("reference", "before", "scores"),
    [(TEXT, "the bus(0,250),(250,1000)", (0.0, 1.0)), (BOX, BOX, (1.0, 1.0))],
)
def test_tables_compare_boxes_of_either_form(models, tmp_path, reference, before, scores):
    """A base that answers in JSON and a model that was trained on text, and both in JSON."""
    asked = prompt(0, "a.png", reference=reference)
    files = {name: tmp_path / f"{name}.jsonl" for name in ("prompts", "before", "after")}
    files["prompts"].write_text(json.dumps(asked))
    for stage, answer in (("before", before), ("after", BOX)):
        of = BoxSizes(job_of(models, "qwen2_5_vl"), [asked]).complete
        journal = Journal(tmp_path / "journal", 1, {0: line(answer)}, complete=of)
        journal.finish(files[stage])
    ((shown, first, second),) = read_answers("baseline", **files)
    assert second["answer"] == TEXT and boxes(second["answer"]) == [(250, 250, 500, 1000)]
    found = [content(one["answer"], shown["reference"], "Where?") for one in (first, second)]
    assert tuple(found) == scores
    (kept,) = read_json_lines(files["after"])
    assert kept["answer"] == BOX and said(kept) == TEXT  # the file has what the model said


def test_answers_of_earlier_code_are_read_as_those_beside_them(tmp_path):
    """Adopted answers don't say what their boxes are out of; those to the same prompt do."""
    asked = prompt(0, "a.png", reference=BOX) | {"split": "held_out"}
    files = {"prompts": asked, "before": line(BOX), "after": line(BOX) | {"boxes_out_of": TOWER}}
    paths = {name: tmp_path / f"{name}.jsonl" for name in files}
    for name, content_of in files.items():
        paths[name].write_text(json.dumps(content_of) + "\n")
    for before, after in (("before", "after"), ("after", "before")):
        given = {"prompts": paths["prompts"], "before": paths[before], "after": paths[after]}
        ((shown, *lines),) = read_answers("baseline", **given)
        assert [shown["reference"], *(one["answer"] for one in lines)] == [TEXT] * 3
        found = compare_controls(
            "baseline", [asked], {f"blind_{stage}": given[stage] for stage in ("before", "after")}
        )
        assert found["blind_before"].tolist() == found["blind_after"].tolist() == [TEXT]


def test_a_talk_draws_them_where_they_are(models, monkeypatch):
    speaker = asking.Speaker(models / "qwen2_5_vl", image_resolution=512 * 1024)
    said = {"answer": BOX, "tokens": 1, "cut": False, "seconds": 0.0}
    monkeypatch.setattr(asking, "lines_of", lambda *given: [said])
    answer = speaker.answer(models / "a.png", "Where?", 1)
    assert answer.text == BOX and answer.placed == TEXT
    shown = asking.drawn(models / "a.png", 512 * 1024, [answer.placed])
    frame = tuple(bytes.fromhex(asking.COLOURS[0][1:]))
    assert shown.getpixel((250, 300)) == shown.getpixel((500, 300)) == frame
    assert shown.getpixel((375, 300)) == shown.getpixel((100, 300)) == (255, 0, 0)
