"""Data on which the framework stops or drops samples without a count, and our converter's answer.

The framework's own preprocessing gets what our converter would write if it refused nothing.
"""

import json
from itertools import cycle
from pathlib import Path

import pytest
from mindtune.data.formats.llava import FORM
from mindtune.errors import UserError
from place import TUTORIAL

pytestmark = pytest.mark.mindspeed

SOUND = ("<image>\nWhat is it?", "A bus.")
# Turns; how the framework ends (the samples left of two, or an error); how our converter refuses.
TRAPS = {
    "sound": (SOUND, 2, None),
    "an odd number of turns": ((*SOUND, "And?"), "AttributeError", "an odd number"),
    "a mark too many": (
        ("<image><image>", "Two."), "ValueError: `len(images)` is less", "2 `<image>` marks",
    ),
    "no mark": (("What is it?", "A bus."), "ValueError: The number of images", "0 `<image>` marks"),
    "a mark of a video": (
        ("<image>\nWhat is <video>?", "A mark."), "ValueError: `len(videos)` is less", "`<video>`",
    ),
    "a user's turn twice": (
        (*SOUND, ("human", "And?"), ("human", "And?")), 1, "human's turn twice",
    ),
    "a system text": ((("system", "Answer in French."), *SOUND), 2, None),
    "a system text later": (
        (*SOUND, ("system", "Answer in French."), ("gpt", "Oui.")), 1, "`from` is 'system'",
    ),
    "no turns": ((), 1, "has no `conversations`"),
}  # fmt: skip


def llava(turns, image) -> dict:
    roles = cycle(("human", "gpt"))
    said = [turn if isinstance(turn, tuple) else (next(roles), turn) for turn in turns]
    return {
        "id": "1",
        "image": image,
        "conversations": [{"from": role, "value": text} for role, text in said],
    }


def to_mllm(record) -> dict:
    """What the converter would write if it refused nothing."""
    names = {"human": "user", "gpt": "assistant"}
    return {
        "images": [record["image"]],
        "messages": [
            {"role": names.get(turn["from"], turn["from"]), "content": turn["value"]}
            for turn in record["conversations"]
        ],
    }


@pytest.fixture(scope="module")
def outcomes(mindspeed, place, tmp_path_factory):
    out = tmp_path_factory.mktemp("traps")
    image = next(path.name for path in sorted(place.images.iterdir()))
    cases = {}
    records = {name: llava(turns, image) for name, (turns, _, _) in TRAPS.items()}
    for number, (name, record) in enumerate(records.items()):
        cases[name] = str(out / f"{number}.json")
        Path(cases[name]).write_text(json.dumps([to_mllm(llava(SOUND, image)), to_mllm(record)]))
    gone = to_mllm(llava(SOUND, "gone.jpg"))
    cases["a picture that is gone"] = str(out / "gone.json")
    (out / "gone.json").write_text(json.dumps([gone, gone]))
    (out / "cases.json").write_text(json.dumps(cases))
    arguments = [out / "cases.json", out / "answers.json"]
    arguments += place.command_line(mindspeed, out, TUTORIAL)
    mindspeed.torchrun(Path(__file__).with_name("traps.py"), arguments, out)
    return json.loads((out / "answers.json").read_text())


@pytest.mark.parametrize("name", TRAPS)
def test_what_stops_the_framework_is_refused_by_the_converter(outcomes, name):
    turns, ending, refusal = TRAPS[name]
    found = outcomes[name]
    assert found == ending if isinstance(ending, int) else found.startswith(ending), found
    if refusal is None:
        FORM.check(llava(turns, "a.jpg"), 0)
        return
    with pytest.raises(UserError) as caught:
        FORM.check(llava(turns, "a.jpg"), 0)
    assert refusal in str(caught.value)


def test_a_picture_that_is_gone_stops_the_framework(outcomes):
    """The converter drops such records and counts them (tests/unit/test_mllm.py)."""
    assert outcomes["a picture that is gone"].startswith("FileNotFoundError")
