"""mllm-format data: the format, the split, what is dropped, and that nothing is overwritten."""

import json
import re
import shutil
from pathlib import Path

import pytest
from mindtune.data.formats.llava import FORM
from mindtune.data.mllm import convert, encode, remarks
from mindtune.data.prompts import (
    family_of,
    named_problems,
    pictures_of,
    questions,
    select,
    shortfall,
    text_of,
)
from mindtune.data.split import is_held_out
from mindtune.errors import UserError
from mindtune.settings.checks import source_problems
from mindtune.settings.sections import Settings
from mindtune.settings.typed import made_of
from PIL import Image


def record(number, image=True, turns=2):
    name = f"{number:012d}"
    values = []
    for turn in range(turns):
        mark = "<image>\n" if image and turn == 0 else ""
        values += [
            {"from": "human", "value": f"{mark}question {turn} of {number}?"},
            {"from": "gpt", "value": f"answer {turn} of {number}."},
        ]
    return {"id": name, **({"image": f"{name}.jpg"} if image else {}), "conversations": values}


@pytest.fixture
def place(tmp_path):
    images = tmp_path / "train2017"
    images.mkdir()
    for number in range(40):
        Image.new("RGB", (8, 8)).save(images / f"{number:012d}.jpg")
    records = [record(number % 40) for number in range(80)] + [record(99, image=False)]
    (tmp_path / "llava.json").write_text(json.dumps(records), encoding="utf-8")
    return tmp_path


def run(place, **changes):
    options = {"held_out_fraction": 0.3, "split_seed": 1} | changes
    paths = [place / name for name in ("train.json", "held_out.json", "report.json")]
    return convert(place / "llava.json", place / "train2017", *paths, **options)


def load(place, name):
    return json.loads((place / name).read_text(encoding="utf-8"))


def test_the_format_is_that_of_the_framework():
    found = encode(FORM.read(record(33471) | {"model": "x"}, 0)).decode()
    assert found == (
        '{"images": ["000000033471.jpg"], "messages": [{"role": "user", "content": '
        '"<image>\\nquestion 0 of 33471?"}, {"role": "assistant", "content": "answer 0 of 33471."}, '
        '{"role": "user", "content": "question 1 of 33471?"}, {"role": "assistant", "content": '
        '"answer 1 of 33471."}]}'
    )
    assert encode(FORM.read(record(1, image=False), 0)).startswith(b'{"images": [], ')


def test_the_parts_share_no_image_and_lose_no_record(place):
    report = run(place)
    train, held_out = load(place, "train.json"), load(place, "held_out.json")
    seen = {image for item in train for image in item["images"]}
    unseen = {image for item in held_out for image in item["images"]}
    assert seen and unseen and not seen & unseen
    assert len(seen | unseen) == 40
    assert len(train) + len(held_out) == 81
    assert report["kept"] == {"train": len(train), "held_out": len(held_out)}
    assert report["images"] == {"train": len(seen), "held_out": len(unseen)}
    assert report["text_only"] == 1 and report == load(place, "report.json")
    assert (place / "train.json").read_text() == json.dumps(train, ensure_ascii=False)


def test_the_split_depends_on_name_seed_and_share_only(place):
    names = [f"{n:012d}.jpg" for n in range(4000)]
    first = {name for name in names if is_held_out(name, 0.2, 1)}
    assert 0.17 < len(first) / len(names) < 0.23
    assert first != {name for name in names if is_held_out(name, 0.2, 2)}
    assert first <= {name for name in names if is_held_out(name, 0.3, 1)}
    assert not any(is_held_out(name, 0.0, 1) for name in names)


def test_bytes_are_the_same_twice(place):
    run(place)
    first = {path.name: path.read_bytes() for path in place.glob("*.json")}
    run(place)
    assert first == {path.name: path.read_bytes() for path in place.glob("*.json")}


def test_records_without_a_usable_picture_are_dropped_and_counted(place):
    (place / "train2017" / f"{3:012d}.jpg").unlink()
    (place / "train2017" / f"{4:012d}.jpg").write_text("<html>not found</html>")
    (place / "train2017" / f"{5:012d}.jpg").write_bytes(b"")
    report = run(place, max_dropped_fraction=0.1)
    assert report["dropped"] == {
        "the file is empty": 2,
        "the file is not a picture": 2,
        "the image is missing": 2,
    }
    assert report["first_dropped"][0] == {
        "record": 3,
        "image": f"{3:012d}.jpg",
        "reason": "the image is missing",
    }
    assert sum(report["kept"].values()) == 81 - 6


def test_too_many_dropped_records_stop_it_and_nothing_is_overwritten(place):
    run(place)
    before = {path.name: path.read_bytes() for path in place.glob("*.json")}
    (place / "train2017" / f"{3:012d}.jpg").unlink()
    with pytest.raises(
        UserError,
        match=r"2 of 81 records .* can't be used .*record 3, with .*max_dropped_fraction 0.01",
    ):
        run(place, max_dropped_fraction=0.01)
    assert before == {path.name: path.read_bytes() for path in place.glob("*.json")}
    assert not list(place.glob(".*.partial"))


def proposed(caught):
    """The value of data.held_out_fraction that a sentence proposes."""
    return float(re.search(r"(?:raise|lower) it to ([\d.e-]+[\de])", str(caught.value))[1])


def test_a_share_that_leaves_a_part_empty_is_refused(place):
    with pytest.raises(UserError, match="holds out none of 40 images; raise it to ") as caught:
        run(place, held_out_fraction=1e-9)
    assert run(place, held_out_fraction=proposed(caught))["images"]["held_out"] == 1
    text = json.dumps([record(number) for number in range(40)])
    (place / "llava.json").write_text(text)
    with pytest.raises(
        UserError, match=r"no record is left to train on: 40 .*; lower it"
    ) as caught:
        run(place, held_out_fraction=0.999999)
    assert run(place, held_out_fraction=proposed(caught))["images"]["train"] == 1
    (place / "llava.json").write_text(json.dumps([record(1), record(2, image=False)]))
    with pytest.raises(UserError, match="holds out none of 1 images; write 0"):
        run(place, held_out_fraction=1e-9)
    (place / "llava.json").write_text(json.dumps([record(1)]))
    with pytest.raises(
        UserError, match=r"no record is left to train on: 1 are held out .*; write 0"
    ):
        run(place, held_out_fraction=0.999999)
    (place / "llava.json").write_text("[]")
    with pytest.raises(UserError, match="holds no records"):
        run(place)


def test_max_samples_takes_the_first(place):
    assert run(place, max_samples=10)["records"] == 10
    assert remarks(run(place, max_samples=81)) == []
    assert remarks(run(place, max_samples=82)) == [
        "data.max_samples is 82, but there are 81 records; all are taken"
    ]


def test_records_that_mean_something_else_are_dropped_and_named(place):
    records = [record(number % 40) for number in range(80)]
    records[3]["conversations"][0]["value"] += " What is <|image_pad|>?"
    records[4]["tools"] = [{"name": "search"}]
    records[5]["conversations"][1]["value"] = ""
    records[6]["images"] = [f"{6:012d}.jpg"]
    for number in (7, 8):
        records[number]["model"] = "x"
    (place / "llava.json").write_text(json.dumps(records))
    with pytest.raises(
        UserError, match=r"4 of 80 records .* can't be used .*first is record 3\), more than"
    ):
        run(place, max_dropped_fraction=0.04)
    report = run(place, max_dropped_fraction=0.05)
    assert sum(report["kept"].values()) == 76
    assert report["dropped"] == {
        "`images` is not read": 1,
        "`tools` is not read": 1,
        "an answer is empty": 1,
        "the special token <|image_pad|> is in its text": 1,
    }
    assert [dropped["record"] for dropped in report["first_dropped"]] == [3, 4, 5, 6]
    assert report["unread_keys"] == {"images": 1, "model": 2, "tools": 1}
    said = remarks(report)
    assert "the key `model` of 2 records is not read" in said
    assert "1 of 80 records are dropped: an answer is empty" in said


def test_every_record_of_another_form_stops_it(place):
    """Sounds, videos and objects in keys that are not read: nothing was text-only."""
    records = [{"objects": {"ref": ["bus"]}, "conversations": [
        {"from": "human", "value": "What is on the bus?"}, {"from": "gpt", "value": "Une pub."},
    ]} | more for more in ({"audios": ["a.wav"]}, {"video": "clip.mp4"})]  # fmt: skip
    (place / "llava.json").write_text(json.dumps(records))
    with pytest.raises(
        UserError,
        match=r"2 of 2 records .*`audios` and `objects` are not read: 1, it is about a video \(`video`\)",
    ):
        run(place, max_dropped_fraction=0.5)


def test_one_picture_under_two_names_is_on_one_side(place):
    records = []
    for number in range(40):
        for name in ("{}", "./{}", "sub/../{}", ".//{}"):
            records.append(record(number) | {"image": name.format(f"{number:012d}.jpg")})
    (place / "llava.json").write_text(json.dumps(records))
    report = run(place)
    train, held_out = load(place, "train.json"), load(place, "held_out.json")
    seen = {image for item in train for image in item["images"]}
    unseen = {image for item in held_out for image in item["images"]}
    assert seen | unseen == {f"{number:012d}.jpg" for number in range(40)} and not seen & unseen
    assert report["images"] == {"train": len(seen), "held_out": len(unseen)}
    assert len(train) + len(held_out) == 160


def test_a_missing_directory_of_pictures_is_said(place):
    with pytest.raises(UserError, match="nowhere is not a directory of pictures"):
        convert(place / "llava.json", place / "nowhere", *[place / "x.json"] * 3,
                held_out_fraction=0.3, split_seed=1)  # fmt: skip


def prompts(place, held_out_fraction=0.3, **changes):
    run(place, held_out_fraction=held_out_fraction)
    options = {"named": [], "held_out_questions": None, "turns": "all", "families": {}} | changes
    return select(
        load(place, "train.json"), load(place, "held_out.json"), place / "train2017", **options
    )


def test_held_out_questions_are_asked_one_by_one(place):
    found = prompts(place, families={"first": "^question 0"})
    assert len(found) == 2 * len(load(place, "held_out.json"))
    assert {prompt["split"] for prompt in found} == {"held_out"}
    assert not any(prompt["image_in_training"] for prompt in found)
    assert [prompt["family"] for prompt in found[:2]] == ["first", "other"]
    assert found[0]["prompt"].startswith("question 0") and found[0]["reference"].startswith(
        "answer 0"
    )
    assert len({prompt["id"] for prompt in found}) == len(found)
    assert len(prompts(place, turns="first")) == len(found) / 2


def test_a_smaller_number_of_questions_is_a_stable_part(place):
    everything = prompts(place)
    some = prompts(place, held_out_questions=5)
    fewer = prompts(place, held_out_questions=3)
    assert len(some) == 5 and [p for p in everything if p in some] == some
    assert all(prompt in some for prompt in fewer)


def test_named_prompts_come_first_and_find_their_reference(place):
    run(place)
    trained = load(place, "train.json")[0]
    first = next(questions(trained))
    question, answer = first.words, first.answer
    image = trained["images"][0]
    found = prompts(
        place,
        named=[{"image": image, "prompt": question}, {"image": image, "prompt": "And?"},
               {"image": image, "prompt": "And?", "reference": "So."}],
    )[:3]  # fmt: skip
    assert [prompt["reference"] for prompt in found] == [answer, None, "So."]
    assert all(prompt["image_in_training"] and prompt["split"] == "named" for prompt in found)


def turn(question, answer="A."):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


@pytest.mark.parametrize(
    ("images", "messages", "asked"),
    [
        (["a"], turn("<image>\nQ?"), [{"image": "a", "prompt": "Q?"}]),
        (["a"], turn("Q?\n<image>"), [{"images": ["a"], "prompt": "Q?\n<image>"}]),
        (["a"], turn("<image>Q?"), [{"images": ["a"], "prompt": "<image>Q?"}]),
        (["a"], turn("<image>\nQ? "), [{"images": ["a"], "prompt": "<image>\nQ? "}]),
        (["a"], turn("<image>\n"), [{"images": ["a"], "prompt": "<image>\n"}]),
        (["a", "b"], turn("<image>\n<image>\nWhich is red?"),
         [{"images": ["a", "b"], "prompt": "<image>\n<image>\nWhich is red?"}]),
        (["a", "b"], turn("<image> or <image>?") + turn("And why?"),
         [{"images": ["a", "b"], "prompt": "<image> or <image>?"},
          {"images": ["a", "b"], "prompt": "<image>\n<image>\nAnd why?"}]),
        (["a", "b"], turn("<image>\nQ?") + turn("<image>\nAnd this?") + turn(" Why? "),
         [{"image": "a", "prompt": "Q?"}, {"image": "b", "prompt": "And this?"},
          {"images": ["a", "b"], "prompt": "<image>\n<image>\nWhy?"}]),
        (["a"], turn("Hello!") + turn("<image>\nQ?") + turn("Why?"),
         [{"image": "a", "prompt": "Q?"}, {"image": "a", "prompt": "Why?"}]),
    ],
)  # fmt: skip
def test_a_question_is_asked_with_all_its_pictures_in_their_places(images, messages, asked):
    found = select(
        [], [{"images": images, "messages": messages}], None,
        named=[], held_out_questions=None, turns="all", families={},
    )  # fmt: skip
    keys = ("image", "images", "prompt")
    assert [{key: prompt[key] for key in keys if key in prompt} for prompt in found] == asked
    for prompt in found:
        assert text_of(prompt).count("<image>") == len(pictures_of(prompt)) > 0
        assert not prompt["image_in_training"] and prompt["reference"] == "A."


@pytest.mark.parametrize("image", ["{}", "./{}", "sub/../{}", "ABSOLUTE/{}"])
@pytest.mark.parametrize("question", ["{}", "<image>\n{}", "{}\n<image>", " {}\n"])
def test_a_named_prompt_finds_its_reference_however_it_is_written(place, image, question):
    run(place)
    trained = load(place, "train.json")[0]
    first = next(questions(trained))
    name = image.replace("ABSOLUTE", str(place / "train2017")).format(*trained["images"])
    [found] = prompts(
        place, named=[{"image": name, "prompt": question.format(first.words)}], held_out_questions=0
    )
    assert found["reference"] == first.answer and found["image_in_training"]
    assert pictures_of(found) == trained["images"]
    at_end = question.endswith("<image>")
    assert text_of(found) == (f"{first.words}\n<image>" if at_end else f"<image>\n{first.words}")
    assert ("images" in found) == at_end


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("What does <|image_pad|> mean?", r"prompts.named\[0\].prompt holds <\|image_pad\|>"),
        ("Say <|im_end|>", r"holds <\|im_end\|>"),
        ("<image> or <image>?", "has 2 `<image>` marks, but a named prompt has one picture"),
        (" \n", "is blank; write a question"),
    ],
)
def test_a_named_prompt_that_can_not_be_asked_is_refused(place, prompt, words):
    [problem] = named_problems([{"image": f"{1:012d}.jpg", "prompt": prompt}])
    assert re.search(words, problem)
    with pytest.raises(UserError, match=words):
        prompts(place, named=[{"image": f"{1:012d}.jpg", "prompt": prompt}])


@pytest.mark.parametrize("zipped", [False, True])
def test_the_configuration_knows_a_picture_by_any_of_its_names(place, zipped):
    images = place / "train2017"
    if zipped:
        images = Path(shutil.make_archive(str(images), "zip", images))
    name = f"{1:012d}.jpg"
    sources = {
        "images": {"use": "path", "path": str(images), "unpack": None},
        "instructions": {"use": "path", "path": str(place / "llava.json")},
        "model": {"use": "official"},
        "mixture": [],
    }

    def problems(image):
        named = [{"image": image, "prompt": "What?"}]
        settings = {"engine": "hf", "answer": {"engine": None}, "prompts": {"named": named}}
        return list(source_problems(made_of(Settings, {**settings, "sources": sources})))

    assert [problems(form + name) for form in ("", "./", "sub/../", ".//")] == [[]] * 4
    [problem] = problems("./gone.jpg")
    assert "prompts.named[0].image is ./gone.jpg, but there is no such" in problem


def test_a_blank_reference_is_refused():
    named = [
        {"image": "a.jpg", "prompt": "What?", "reference": text} for text in ("", " ", "a", None)
    ]
    problems = list(named_problems(named))
    assert [problem.split()[0] for problem in problems] == [
        "prompts.named[0].reference", "prompts.named[1].reference",
    ]  # fmt: skip


def test_a_named_prompt_may_speak_of_boxes():
    named = [{"image": "a.jpg", "prompt": "What is in <|box_start|>(1,2),(3,4)<|box_end|>?"}]
    assert not list(named_problems(named))


def test_more_questions_than_there_are_is_said(place):
    there_are = len(prompts(place, turns="first"))
    held_out = load(place, "held_out.json")
    assert shortfall(held_out, None, "first") is None
    assert shortfall(held_out, there_are, "first") is None
    assert shortfall(held_out, there_are + 1, "first") == (
        f"prompts.held_out_questions is {there_are + 1}, but there are {there_are} held-out "
        f"questions; write {there_are} or null to ask just these, or raise data.held_out_fraction, "
        f"or write `prompts.turns: all`, with which there are {2 * there_are}"
    )
    assert "turns: all" not in shortfall(held_out, 1000, "all")
    assert len(prompts(place, turns="first", held_out_questions=there_are + 1)) == there_are


def test_nothing_to_ask_is_said(place):
    with pytest.raises(UserError, match=r"there is nothing to ask: prompts.named is empty"):
        prompts(place, held_out_fraction=0.0)


def test_a_named_prompt_without_its_picture_is_said(place):
    with pytest.raises(UserError, match=r"prompts.named\[0\].image: there is no gone.jpg"):
        prompts(place, named=[{"image": "gone.jpg", "prompt": "q"}])


def test_the_first_family_that_fits_wins():
    families = {"kind": "^What type", "what": "^What"}
    assert family_of("What type is it?", families) == "kind"
    assert family_of("What is it?", families) == "what"
    assert family_of("Where is it?", families) == "other"
