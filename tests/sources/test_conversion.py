"""Conversion: the framework's bytes, streamed, several pictures, mixtures, parts of the data."""

import io
import json
import os
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mindtune.data import json_list
from mindtune.data.conversation import leads_out, one_name
from mindtune.data.formats.form import Conversation
from mindtune.data.formats.llava import FORM
from mindtune.data.json_list import read_records
from mindtune.data.mllm import convert, encode
from mindtune.data.split import components, is_held_out
from mindtune.errors import UserError
from PIL import Image

BUFFER = io.BytesIO()
Image.new("RGB", (8, 8)).save(BUFFER, "JPEG")
JPEG = BUFFER.getvalue()
TOOL = "examples/qwen2vl/llava_instruct_2_mllm_demo_format.py"
TEXTS = [
    "What?",
    "é ü 果汁 🚌",
    'a "quoted" \\ back',
    "\n\ttab\r",
    "\x00\x1f\x7f\u2028",
    "</s>/",
]


def make(rng, number, images):
    """A record as LLaVA-Instruct has them, with keys in any order and some more keys."""
    image = rng.choice(images) if rng.random() < 0.9 else rng.choice([None, "", "absent"])
    turns = []
    for turn in range(rng.randrange(1, 4)):
        mark = "<image>\n" if image not in (None, "", "absent") and turn == 0 else ""
        turns += [
            {"from": "human", "value": mark + rng.choice(TEXTS)},
            {"value": rng.choice(TEXTS), "from": "gpt", "extra": [1, {"id": 2}]},
        ]
    record = {"id": str(number), "image": image, "conversations": turns, "model": None}
    if image == "absent":
        del record["image"]
    if rng.random() < 0.2:
        record = dict(reversed(record.items()))
    return record


@pytest.fixture
def place(tmp_path):
    images = tmp_path / "data" / "COCO2017" / "train2017"
    images.mkdir(parents=True)
    names = [f"{number:012d}.jpg" for number in range(30)] + ["süß 果.jpg"]
    for name in names[1:]:
        (images / name).write_bytes(JPEG)
    rng = random.Random(0)
    records = [make(rng, number, names) for number in range(400)]
    (tmp_path / "data" / "llava_instruct_150k.json").write_text(json.dumps(records, indent=2))
    return tmp_path


def run(place, source="data/llava_instruct_150k.json", images="data/COCO2017/train2017", **change):
    options = {"held_out_fraction": 0.0, "split_seed": 1, "max_dropped_fraction": 1.0} | change
    out = [place / "ours" / name for name in ("train.json", "held_out.json", "report.json")]
    return convert(place / source, place / images, *out, **options)


def load(place, name="train.json"):
    return json.loads((place / "ours" / name).read_text(encoding="utf-8"))


@pytest.mark.mindspeed
@pytest.mark.parametrize("layout", ["indented", "one line", "unescaped"])
def test_the_very_bytes_of_the_frameworks_tool(place, layout):
    home = os.environ.get("MINDSPEED_MM_HOME")
    if not home:
        pytest.skip("MINDSPEED_MM_HOME is not set: the framework's own tool was NOT compared")
    source = place / "data" / "llava_instruct_150k.json"
    records = json.loads(source.read_text())
    if layout != "indented":
        source.write_text(json.dumps(records, ensure_ascii=layout == "one line"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, Path(home, TOOL)], cwd=place, capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONUTF8": "1"},
    )  # fmt: skip
    assert "finish converting" in done.stdout
    report = run(place, image_prefix="./data/COCO2017/train2017")
    theirs = (place / "data" / "mllm_format_llava_instruct_data.json").read_bytes()
    assert (place / "ours" / "train.json").read_bytes() == theirs
    assert report["dropped"]["the image is missing"] > 0 and report["text_only"] > 0


VALUES = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
IMAGES = VALUES.filter(lambda name: name and one_name(name) == name and not leads_out(name))


@given(values=st.lists(VALUES, min_size=2, max_size=6), image=IMAGES)
@settings(max_examples=200, deadline=None)
def test_a_record_is_written_as_json_writes_it(values, image):
    values = [value.replace("<image>", "") for value in values[: len(values) // 2 * 2]]
    values[0] += "<image>"
    expected = {
        "images": [image],
        "messages": [
            {"role": ("user", "assistant")[n % 2], "content": value}
            for n, value in enumerate(values)
        ],
    }
    found = encode(Conversation((image,), values))
    assert found == json.dumps(expected, ensure_ascii=False).encode()


@given(
    data=st.data(),
    chunk=st.integers(1, 400),
    indent=st.sampled_from([None, 0, 1, 3]),
    separators=st.sampled_from([None, (",", ":"), (" , ", " : ")]),
    ascii_only=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_any_layout_is_read_as_json_reads_it(
    tmp_path_factory, data, chunk, indent, separators, ascii_only
):
    """Blocks are cut where records end, and not where a string or a deeper object looks so."""
    tricky = st.sampled_from(
        ['}, {"id"', '"}, {"id": "', "}]}, {", '\\"}, {"id', "]", "果}, {", '{"id']
    )
    scalar = st.one_of(tricky, st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
    nested = st.lists(st.dictionaries(st.sampled_from(["id", "x"]), scalar, max_size=2), max_size=3)
    record = st.fixed_dictionaries({"id": scalar, "n": nested}, optional={"image": scalar})
    records = data.draw(st.lists(record, max_size=12))
    path = tmp_path_factory.mktemp("read") / "a.json"
    path.write_text(
        json.dumps(records, indent=indent, separators=separators, ensure_ascii=ascii_only),
        encoding="utf-8",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_list, "CHUNK", chunk)
        assert list(read_records(path)) == records


def test_memory_does_not_grow_with_the_file(tmp_path):
    """Ten times the records take the memory of once, give or take five megabytes."""
    script = (
        "import re, sys\nfrom pathlib import Path\n"
        "from mindtune.data.mllm import convert\n"
        "p = Path(sys.argv[1])\n"
        "convert(p / sys.argv[2], p / 'i', p / 't', p / 'h', p / 'r', held_out_fraction=0.0,"
        " split_seed=1)\n"
        # ru_maxrss would be that of the process which started this one, too
        "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])"
    )
    (tmp_path / "i").mkdir()
    (tmp_path / "i" / "a.jpg").write_bytes(JPEG)
    turns = [{"from": "human", "value": "<image>" + "q" * 900}, {"from": "gpt", "value": "a" * 500}]
    record = json.dumps({"id": "1", "image": "a.jpg", "conversations": turns})
    peaks = []
    for name, count in (("one", 6000), ("ten", 60000)):
        (tmp_path / name).write_text("[" + ", ".join([record] * count) + "]")
        done = subprocess.run(
            [sys.executable, "-c", script, tmp_path, name], capture_output=True, text=True,
            check=True, env=os.environ | {"PYTHONPATH": str(Path(json_list.__file__).parents[2])},
        )  # fmt: skip
        peaks.append(int(done.stdout))
    assert peaks[1] < peaks[0] + 5_000


def test_pictures_read_from_a_zip_give_the_same_bytes(place):
    run(place, held_out_fraction=0.2)
    loose = {path.name: path.read_bytes() for path in (place / "ours").iterdir()}
    with zipfile.ZipFile(place / "train2017.zip", "w") as archive:
        for path in (place / "data/COCO2017/train2017").iterdir():
            archive.write(path, f"train2017/{path.name}")
    run(place, images="train2017.zip", held_out_fraction=0.2)
    assert loose == {path.name: path.read_bytes() for path in (place / "ours").iterdir()}


def write(place, name, records):
    (place / name).write_text(json.dumps(records), encoding="utf-8")


def about(number, *images):
    marks = "<image>" * len(images)
    turns = [{"from": "human", "value": f"{marks}q{number}"}, {"from": "gpt", "value": "a"}]
    image = {} if not images else {"image": images[0] if len(images) == 1 else list(images)}
    return {"id": str(number), "conversations": turns} | image


NAMES = [f"{number:012d}.jpg" for number in range(1, 30)]


@given(
    ties=st.lists(
        st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True), max_size=40
    ),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_tied_pictures_are_held_out_together(ties, seed):
    stands = components(group for group in ties if len(group) > 1)
    part = {
        name: is_held_out(stands.get(name, name), 0.4, seed) for group in ties for name in group
    }
    for group in ties:
        assert len({part[name] for name in group}) == 1


def test_no_picture_leaks_through_records_with_several(place):
    rng = random.Random(3)
    records = [about(n, *rng.sample(NAMES, rng.choice([1, 1, 1, 2]))) for n in range(40)]
    records += [about(99)]
    write(place, "multi.json", records)
    report = run(place, "multi.json", held_out_fraction=0.3, split_seed=5)
    train, held_out = load(place), load(place, "held_out.json")
    seen = {image for item in train for image in item["images"]}
    unseen = {image for item in held_out for image in item["images"]}
    assert seen and unseen and not seen & unseen
    assert len(train) + len(held_out) == 41 and report["text_only"] == 1
    assert any(len(item["images"]) == 2 for item in train)


def test_a_broken_record_with_several_pictures_names_its_file(place):
    broken = about(1, *NAMES[2:4])
    broken["conversations"].pop()
    write(place, "multi.json", [about(0, *NAMES[:2]), broken])
    with pytest.raises(UserError, match=r"multi.json: record 1 \(id '1'\) has 1 turns, an odd"):
        run(place, "multi.json")


def test_a_record_that_is_left_out_ties_no_pictures(place):
    left_out = about(99, *NAMES) | {"objects": {"ref": ["bus"]}}
    records = [about(n, *NAMES[2 * n : 2 * n + 2]) for n in range(10)]
    write(place, "multi.json", records)
    alone = run(place, "multi.json", held_out_fraction=0.4)
    write(place, "multi.json", [*records, left_out])
    report = run(place, "multi.json", held_out_fraction=0.4)
    assert report["kept"] == alone["kept"] and report["dropped"] == {"`objects` is not read": 1}


def test_what_is_dropped_from_a_mixture_names_its_file(place):
    write(place, "a.json", [about(0, NAMES[0])])
    write(place, "b.json", [about(0, NAMES[0]), about(1, NAMES[1]) | {"video": "clip.mp4"}])
    report = run(place, "a.json", mixture=[{"path": place / "b.json", "weight": 1.0}])
    assert report["first_dropped"] == [
        {
            "file": str(place / "b.json"),
            "record": 1,
            "reason": "it is about a video (`video`), which is not read",
        }
    ]


def test_a_record_is_dropped_when_one_of_its_pictures_is_missing(place):
    write(place, "multi.json", [about(0, NAMES[0], "gone.jpg"), about(1, NAMES[1], NAMES[2])])
    report = run(place, "multi.json")
    assert report["dropped"] == {"the image is missing": 1}
    assert report["first_dropped"][0]["image"] == "gone.jpg"
    assert load(place) == [json.loads(encode(FORM.read(about(1, *NAMES[1:3]), 1)))]


def test_a_mixture_sees_its_files_by_weight(place):
    write(place, "a.json", [about(n, NAMES[n % 20]) for n in range(100)])
    write(place, "b.json", [about(1000 + n, NAMES[n % 20]) for n in range(100)])
    write(place, "c.json", [about(2000 + n) for n in range(400)])
    mixture = [
        {"path": place / "b.json", "weight": 2.0},
        {"path": place / "c.json", "weight": 0.25},
    ]
    report = run(place, "a.json", mixture=mixture, held_out_fraction=0.2, split_seed=2)
    parts = [part["trained_on"] for part in report["mixture"]]
    assert parts[1] == 2 * parts[0] and 70 < parts[2] < 130
    assert report["kept"]["train"] == sum(parts)
    assert report["kept"]["held_out"] == 2 * (100 - parts[0])
    first = (place / "ours" / "train.json").read_bytes()
    run(place, "a.json", mixture=mixture, held_out_fraction=0.2, split_seed=2)
    assert (place / "ours" / "train.json").read_bytes() == first


def test_a_broken_record_of_a_mixture_names_its_file(place):
    write(place, "a.json", [about(0, NAMES[0])])
    write(place, "b.json", [about(0, NAMES[0]), {"id": "x"}])
    with pytest.raises(UserError, match=r"b.json: record 1 \(id 'x'\) has no `conversations`"):
        run(place, "a.json", mixture=[{"path": place / "b.json", "weight": 1.0}])


def test_a_subset_is_the_first_records_or_a_seeded_choice(place):
    write(place, "a.json", [about(n, NAMES[n % 20]) for n in range(100)])

    def asked(**options):
        run(place, "a.json", **options)
        return [int(r["messages"][0]["content"].removeprefix("<image>q")) for r in load(place)]

    assert asked(max_samples=10) == list(range(10))
    chosen = asked(max_samples=10, subset_seed=1)
    assert len(chosen) == 10 and chosen == sorted(chosen) != list(range(10))
    assert chosen == asked(max_samples=10, subset_seed=1) != asked(max_samples=10, subset_seed=2)
    with pytest.raises(UserError, match=r"max_samples is 101, but there are 100 records"):
        asked(max_samples=101, subset_seed=1)
