"""The held-out questions with other pictures: which ones, and that no question meets its own."""

import random

import pytest
from mindtune.comparison.stages import CONTROLS
from mindtune.data.controls import GREY, blinded, exchanged, held_out, shuffled, write_prompts
from mindtune.data.prompts import pictures_of
from mindtune.errors import UserError
from mindtune.estimates.parameters import Parameters
from mindtune.estimates.scale import estimate
from mindtune.files import read_json_lines
from mindtune.settings import ConfigError, load
from mindtune.settings.sections.compare import Compare
from PIL import Image


def prompt(name, *images, split="held_out"):
    pictures = {"image": images[0]} if len(images) == 1 else {"images": list(images)}
    return {"id": name, "split": split, **pictures, "prompt": "What?", "reference": "That."}


def draw(directory, sizes):
    for number, (name, size) in enumerate(sizes.items()):
        Image.new("RGB", size, (number, 9, 200)).save(directory / name)


def by_name(prompts):
    return {name: name for one in prompts for name in pictures_of(one)}


def assert_exchanged(prompts, found, content):
    assert sorted(found) == sorted(found.values()) == sorted(by_name(prompts))
    for one in prompts:
        own = {content[name] for name in pictures_of(one)}
        assert own.isdisjoint(content[found[name]] for name in pictures_of(one))


def test_grey_pictures_have_the_sizes_of_the_questions_own_and_are_painted_once_a_size(tmp_path):
    images, grey = tmp_path / "images", tmp_path / "grey"
    images.mkdir()
    grey.mkdir()
    draw(images, {"a.png": (40, 30), "b.png": (30, 40), "c.png": (40, 30)})
    asked = [prompt("1", "a.png"), prompt("2", "b.png"), prompt("3", "c.png", "a.png")]
    changed = blinded(asked, images, grey)
    assert [pictures_of(one) for one in changed] == [
        ["40x30.png"], ["30x40.png"], ["40x30.png", "40x30.png"]
    ]  # fmt: skip
    assert {path.name for path in grey.iterdir()} == {"40x30.png", "30x40.png"}
    for path in grey.iterdir():
        with Image.open(path) as picture:
            assert f"{picture.width}x{picture.height}.png" == path.name
            assert picture.getcolors() == [(1200, GREY)]
    unchanged = ("id", "prompt", "reference", "split")
    assert [[one[key] for key in unchanged] for one in changed] == [
        [one[key] for key in unchanged] for one in asked
    ]


def test_a_picture_that_is_gone_is_a_sentence(tmp_path):
    for make in (lambda asked: blinded(asked, tmp_path, tmp_path),
                 lambda asked: shuffled(asked, tmp_path)):  # fmt: skip
        with pytest.raises(UserError, match=r"a\.png can't be used: the image is missing"):
            make([prompt("1", "a.png"), prompt("2", "b.png")])


def test_no_question_meets_its_own_picture_whatever_hangs_together():
    rng, exchanges = random.Random(5), 0
    for _ in range(300):
        names = [f"{number}.jpg" for number in range(rng.randrange(4, 60))]
        most = rng.choice([1, 1, 2, 3])
        asked = [
            prompt(str(number), *rng.sample(names, rng.randint(1, most)))
            for number in range(rng.randrange(4, 80))
        ]
        content = by_name(asked)
        try:
            found = exchanged(asked, content)
        except UserError:
            assert most > 1 or len(content) == 1  # so where all may hang together
            continue
        assert_exchanged(asked, found, content)
        exchanges += 1
    assert exchanges > 200


def test_a_copy_under_another_name_is_the_same_picture(tmp_path):
    draw(tmp_path, {"a.png": (8, 8), "b.png": (8, 8), "c.png": (8, 8)})
    (tmp_path / "copy.png").write_bytes((tmp_path / "a.png").read_bytes())
    asked = [prompt(name, f"{name}.png") for name in ("a", "b", "c", "copy")]
    found = {one["id"]: one["image"] for one in shuffled(asked, tmp_path)}
    assert {found["a"], found["copy"]} == {"b.png", "c.png"}


def test_the_exchange_follows_from_the_ids_alone():
    asked = [prompt(f"{number}.0", f"{number}.jpg") for number in range(30)]
    asked += [prompt(f"{number}.1", f"{number}.jpg") for number in range(30)]
    found = exchanged(asked, by_name(asked))
    assert exchanged(asked[::-1], by_name(asked[::-1])) == found
    others = [{**one, "id": f"other.{one['id']}"} for one in asked]
    assert exchanged(others, by_name(asked)) != found
    # Both questions about one picture get the same other one.
    assert len(set(found.values())) == 30


def test_pictures_that_all_hang_together_are_exchanged_where_they_can_be():
    chain = [prompt(str(n), f"{n}.jpg", f"{n + 1}.jpg") for n in range(9)]
    assert_exchanged(chain, exchanged(chain, by_name(chain)), by_name(chain))


@pytest.mark.parametrize(
    "asked",
    [
        [prompt("1", "a.jpg"), prompt("2", "a.jpg")],
        [prompt("1", "a.jpg", "b.jpg"), prompt("2", "b.jpg", "c.jpg")],
    ],
    ids=["one picture", "three that hang together"],
)
def test_pictures_that_cannot_be_exchanged_are_a_sentence(asked):
    with pytest.raises(UserError, match=r"^compare\.controls has `shuffled`, but .* can't be exch"):
        exchanged(asked, by_name(asked))


def test_named_prompts_are_not_asked_again(tmp_path):
    asked = [prompt("named.0", "a.jpg", split="named"), prompt("1", "b.jpg")]
    assert [one["id"] for one in held_out(asked)] == ["1"]
    with pytest.raises(UserError, match=r"there are none; raise data\.held_out_fraction"):
        held_out(asked[:1])
    write_prompts(asked, tmp_path / "prompts.jsonl")
    assert read_json_lines(tmp_path / "prompts.jsonl") == asked


def test_controls_are_off_unless_asked_for_and_keep_one_order():
    assert "controls" not in load({}).common["compare"]
    found = load({"compare": {"controls": ["shuffled", "blind"]}})
    assert found.common["compare"]["controls"] == list(CONTROLS)
    assert Compare.model_json_schema()["properties"]["controls"]["items"] == {"enum": [*CONTROLS]}


def test_the_estimate_counts_the_jobs_of_controls():
    experiments = {"a": {}, "b": {"train": {"lr": 1e-4}}}
    parameters = Parameters(language=10, vision=10, projector=10)
    plain, asked = (
        estimate(load({"experiments": experiments, "compare": {"controls": controls}}), parameters)
        for controls in ([], ["blind", "shuffled"])
    )
    assert asked.jobs - plain.jobs == 2 * (1 + 2)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({"compare": {"controls": "blind"}}, "compare.controls is \"blind\", but must be a list, such as"),
        ({"compare": {"controls": None}}, "compare.controls is null, but must be a list, such as [blind]."),
        ({"compare": {"controls": ["grey"]}}, "compare.controls[0] is \"grey\", but must be one of blind, shuf"),
        ({"compare": {"controls": ["blind", "blind"]}}, "compare.controls[1] is \"blind\" once more; write each"),
        ({"compare": {"controls": ["blind"]}, "prompts": {"held_out_questions": 0}},
         "with other pictures, but prompts.held_out_questions is 0;"),
        ({"compare": {"controls": ["blind"]}, "data": {"held_out_fraction": 0}, "train": {"eval_iters": 0}},
         "with other pictures, but data.held_out_fraction is 0;"),
    ],
)  # fmt: skip
def test_mistakes_are_sentences(raw, says):
    with pytest.raises(ConfigError) as error:
        load(raw)
    assert [says in problem for problem in error.value.problems] == [True], error.value.problems
