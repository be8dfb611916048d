"""Answering by a token budget: the answers of one prompt at a time, with each picture seen once."""

import json
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mindtune.demo.drawing import draw_scene
from mindtune.demo.scenes import conversation, scenes
from mindtune.engines.hf import answer as answering
from mindtune.engines.hf.grouping import groups
from mindtune.engines.requests import AnswerJob
from mindtune.errors import UserError
from mindtune.files import read_json_lines

PICTURES = 8


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Pictures, some smaller and one larger, and 41 prompts about them in a shuffled order."""
    place = tmp_path_factory.mktemp("answering")
    rng = random.Random(3)
    prompts = []
    for number, (_, scene) in enumerate(scenes(PICTURES, 7)):
        picture = draw_scene(scene, rng)[0]
        if number % 3 == 1:
            picture = picture.resize((224, 168))
        if number == 2:
            picture = picture.resize((560, 448))
        picture.save(place / f"{number}.jpg")
        for question, _ in conversation(scene, rng):
            prompts.append({"image": f"{number}.jpg", "prompt": question})
    two = "<image>\n<image>\nWhat is the color of the bus in each of the pictures?"
    prompts += [
        {"images": ["0.jpg", "1.jpg"], "prompt": two},
        {"images": ["5.jpg", "5.jpg"], "prompt": two},
        {"images": ["2.jpg", "1.jpg", "0.jpg"], "prompt": "<image>" * 3 + "\nWhat differs?"},
    ]
    texts = (
        "Hello.",
        "What is a bus?",
        "Where are you?",
        "Is blue a color?",
        "Why?",
        "Count to 3.",
    )
    prompts += [{"images": [], "prompt": text} for text in texts]
    rng.shuffle(prompts)
    (place / "prompts.jsonl").write_text(
        "".join(json.dumps({"id": str(n)} | prompt) + "\n" for n, prompt in enumerate(prompts))
    )
    return place


def answers(place, base, **settings):
    """The lines of an answers file, less the seconds."""
    job = AnswerJob.of(
        "hf",
        prompts=place / "prompts.jsonl", images=place, model_dir=base, hf_dir=base,
        answers=place / "answers.jsonl", answer={"max_new_tokens": 12} | settings,
        processor={"image_resolution": 512 * 512}, parallel={},
        machine={"device": "cpu", "precision": "fp32", "threads": 1},
    )  # fmt: skip
    answering.answer(job)
    return [
        {key: value for key, value in line.items() if key != "seconds"}
        for line in read_json_lines(job.answers)
    ]


@pytest.fixture
def seen(monkeypatch):
    """How often the vision tower ran, and over how many pictures."""
    count = Counter()
    load = answering.load_model

    def note(module, arguments, named, output):
        count["runs"] += 1
        count["pictures"] += len(named["grid_thw"])

    def watched(*arguments):
        model = load(*arguments)
        model.model.visual.register_forward_hook(note, with_kwargs=True)
        return model

    monkeypatch.setattr(answering, "load_model", watched)
    return count


def test_grouped_answers_are_those_of_one_at_a_time_in_the_prompts_order(place, base, seen):
    alone = answers(place, base, batch_size=1)
    assert len(alone) == 41 and [line["id"] for line in alone] == [str(n) for n in range(41)]
    assert seen["pictures"] == 32 + 7  # one for each time that a picture is shown
    assert len({line["answer"] for line in alone}) > 10
    for budget, most in ((300, 64), (4096, 16)):
        seen.clear()
        assert answers(place, base, batch_size=most, tokens_per_batch=budget) == alone
        assert seen == {"runs": PICTURES, "pictures": PICTURES}


def test_a_picture_that_is_gone_is_reported_in_one_sentence(place, base, monkeypatch):
    """It went after its size was read, so that a loader process misses it."""
    measured = answering.tokens_of_all

    def and_gone(*arguments):
        found = measured(*arguments)
        (place / "4.jpg").rename(place / "elsewhere")
        return found

    monkeypatch.setattr(answering, "tokens_of_all", and_gone)
    try:
        with pytest.raises(UserError, match=r"^[^\n]*4\.jpg[^\n]*$"):
            answers(place, base, batch_size=64, tokens_per_batch=4096)
    finally:
        (place / "elsewhere").rename(place / "4.jpg")
    assert not list(place.glob(".*partial"))


def test_without_a_budget_prompts_are_answered_as_they_come(place, base, monkeypatch):
    parts = []
    batch = answering.answer_batch
    monkeypatch.setattr(
        answering, "answer_batch",
        lambda model, processor, part, *rest: (
            parts.append([line["id"] for line in part]) or batch(model, processor, part, *rest)),
    )  # fmt: skip
    answers(place, base, batch_size=16, tokens_per_batch=None)
    wanted = [str(n) for n in range(41)]
    assert parts == [wanted[:16], wanted[16:32], wanted[32:]]


PROMPTS = st.lists(
    st.tuples(st.integers(1, 50), st.sampled_from([(), ("a",), ("b",), ("a", "b")])), max_size=30
)


@given(prompts=PROMPTS, most_tokens=st.integers(1, 200), most_prompts=st.integers(1, 6))
def test_groups_keep_to_the_budget_and_put_questions_of_a_picture_together(
    prompts, most_tokens, most_prompts
):
    lengths, shown = [length for length, _ in prompts], [pictures for _, pictures in prompts]
    found = groups(lengths, shown, most_tokens, most_prompts)
    order = [number for group in found for number in group]
    assert sorted(order) == list(range(len(prompts)))
    for group in found:
        widest = max(lengths[number] for number in group)
        assert len(group) == 1 or (
            len(group) <= most_prompts and widest * len(group) <= most_tokens
        )
    places = [shown[number] for number in order if shown[number]]
    runs = [pictures for n, pictures in enumerate(places) if not n or places[n - 1] != pictures]
    assert len(runs) == len(set(runs))
    assert groups(lengths, shown, most_tokens, most_prompts) == found


def test_prompts_of_like_length_are_answered_together_and_the_longest_first():
    lengths = [10, 30, 11, 29, 40, 12]
    shown = [(), ("a",), (), ("b",), (), ("a",)]
    assert groups(lengths, shown, 64, 8) == [[4], [1, 5], [3, 2], [0]]
    assert groups(lengths, shown, 1000, 8) == [[4, 1, 5, 3, 2, 0]]
    assert groups(lengths, shown, 1000, 4) == [[4, 1, 5, 3], [2, 0]]
    assert groups([], [], 10, 1) == []
