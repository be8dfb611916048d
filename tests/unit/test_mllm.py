"""mllm-format data: the format, the split, what is dropped, and that nothing is overwritten."""

import json

import pytest
from mindtune.data.mllm import convert, to_mllm
from mindtune.data.pictures import fault, open_pictures
from mindtune.data.prompts import family_of, questions, select
from mindtune.data.split import is_held_out
from mindtune.errors import UserError
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
    found = to_mllm(record(33471) | {"model": "x"})
    assert json.dumps(found) == (
        '{"images": ["000000033471.jpg"], "messages": [{"role": "user", "content": '
        '"<image>\\nquestion 0 of 33471?"}, {"role": "assistant", "content": "answer 0 of 33471."}, '
        '{"role": "user", "content": "question 1 of 33471?"}, {"role": "assistant", "content": '
        '"answer 1 of 33471."}]}'
    )
    assert to_mllm(record(1, image=False))["images"] == []


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


def test_a_share_that_leaves_a_part_empty_is_refused(place):
    with pytest.raises(UserError, match="holds out none of 40 images"):
        run(place, held_out_fraction=1e-9)
    text = json.dumps([record(number) for number in range(40)])
    (place / "llava.json").write_text(text)
    with pytest.raises(UserError, match="no record is left to train on"):
        run(place, held_out_fraction=0.999999)
    (place / "llava.json").write_text("[]")
    with pytest.raises(UserError, match="holds no records"):
        run(place)


def test_max_samples_takes_the_first(place):
    assert run(place, max_samples=10)["records"] == 10


def test_a_missing_directory_of_pictures_is_said(place):
    with pytest.raises(UserError, match="nowhere is not a directory of pictures"):
        convert(place / "llava.json", place / "nowhere", *[place / "x.json"] * 3,
                held_out_fraction=0.3, split_seed=1)  # fmt: skip


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_pictures_are_known_by_their_first_bytes(tmp_path, kind):
    Image.new("RGB", (4, 4)).save(tmp_path / "a", kind)
    assert fault(open_pictures(tmp_path), "a") is None


def prompts(place, **changes):
    run(place)
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


def test_a_named_prompt_without_its_picture_is_said(place):
    with pytest.raises(UserError, match=r"prompts.named\[0\].image: there is no gone.jpg"):
        prompts(place, named=[{"image": "gone.jpg", "prompt": "q"}])


def test_the_first_family_that_fits_wins():
    families = {"kind": "^What type", "what": "^What"}
    assert family_of("What type is it?", families) == "kind"
    assert family_of("What is it?", families) == "what"
    assert family_of("Where is it?", families) == "other"
