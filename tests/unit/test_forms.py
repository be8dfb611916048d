"""The forms of instructions: found by content, read alike, and what is said of what isn't read."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mindtune.data import formats
from mindtune.data.formats import FORMS, find_form
from mindtune.data.mllm import convert, forms_of
from mindtune.data.prompts import select
from mindtune.errors import UserError
from mindtune.files import write_json
from PIL import Image

# Conversations: the pictures, the system text, and questions and answers in turns.
CONVERSATIONS = [
    (["a.jpg"], None, ["<image>\nWhat is on the bus?", "An advertisement – für Saft, 果汁."]),
    ([], None, ["What is a bus?", "A <b>car</b>.", "And 1 < 2?", "Yes."]),
    (["b.jpg", "a.jpg"], "Answer in French.", ["<image> or <image>?", "L'un.", "Why?", "Non."]),
    (["sub/c.jpg"], None, ["Where?\n<image>", "<|box_start|>(1,2),(3,4)<|box_end|>"]),
    (["b.jpg"], "You are a helpful assistant.", ["<image>\nWhat?", "A tree.\u2028"]),
    (["b.jpg"], "", ["<image>\nWhat?", "A tree."]),
]


def llava(images, system, values):
    return {"image": images[0] if len(images) == 1 else images} | turns(system, values)


def turns(system, values, place="conversations", keys=("from", "value"), roles=("human", "gpt")):
    said = [dict(zip(keys, (roles[n % 2], value), strict=True)) for n, value in enumerate(values)]
    return {place: said} | ({} if system is None else {"system": system})


def sharegpt(images, system, values):
    return {"images": images} | turns(system, values)


def sharegpt_turn(images, system, values):
    record = sharegpt(images, None, values)
    if system is not None:
        record["conversations"].insert(0, {"from": "system", "value": system})
    return record


def messages(images, system, values):
    record = turns(None, values, "messages", ("role", "content"), ("user", "assistant"))
    if system is not None:
        record["messages"].insert(0, {"role": "system", "content": system})
    return record | {"images": images}


def in_parts(images, system, values, picture):
    """Each text in parts, a picture wherever a mark was."""
    record, left = messages(images, system, values), iter(images)
    for message in record["messages"]:
        texts = message["content"].split("<image>")
        parts = [{"type": "text", "text": texts[0]}]
        for text in texts[1:]:
            parts += [picture(left), {"type": "text", "text": text}]
        message["content"] = parts
    return record


def parts(images, system, values):
    return in_parts(images, system, values, lambda left: {"type": "image"})


def inline(images, system, values):
    record = in_parts(images, system, values, lambda left: {"type": "image", "image": next(left)})
    del record["images"]
    return record


def addressed(images, system, values):
    record = in_parts(
        images, system, values, lambda left: {"type": "image_url", "image_url": {"url": next(left)}}
    )
    del record["images"]
    return record


WAYS = {
    llava: "llava", sharegpt: "sharegpt", sharegpt_turn: "sharegpt", messages: "messages",
    parts: "messages", inline: "messages", addressed: "messages",
}  # fmt: skip


def expected():
    """What is to be trained on, in mllm format."""
    for images, system, values in CONVERSATIONS:
        said = turns(None, values, "messages", ("role", "content"), ("user", "assistant"))
        if system:
            said["messages"].insert(0, {"role": "system", "content": system})
        yield {"images": images} | said


@pytest.fixture
def place(tmp_path):
    (tmp_path / "images" / "sub").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "sub/c.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / name)
    return tmp_path


def write(place, records, lines=False, name="mine.txt"):
    if lines:
        text = "\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    else:
        text = json.dumps(records, indent=1)
    (place / name).write_text(text, encoding="utf-8")
    return place / name


def converted(place, **options):
    outputs = [place / name for name in ("train.json", "held_out.json", "report.json")]
    settings = {"held_out_fraction": 0.0, "split_seed": 1} | options
    report = convert(place / "mine.txt", place / "images", *outputs, **settings)
    return report, (place / "train.json").read_bytes()


@pytest.mark.parametrize("lines", [False, True], ids=["list", "lines"])
@pytest.mark.parametrize("way", WAYS)
def test_a_conversation_is_the_same_in_every_form(place, way, lines):
    write(place, [way(*conversation) for conversation in CONVERSATIONS], lines)
    report, train = converted(place)
    assert train.decode() == json.dumps(list(expected()), ensure_ascii=False)
    assert report["form"] == WAYS[way] and forms_of(report) == [WAYS[way]]
    assert report["dropped"] == report["unread_keys"] == {}


def test_absolute_names_within_the_directory_of_pictures_are_those_of_the_pictures(place):
    images = [str(place / "images" / "sub" / "c.jpg"), str(place / "images" / "a.jpg")]
    write(place, [messages(images, None, ["<image><image>?", "So."])])
    assert json.loads(converted(place)[1])[0]["images"] == ["sub/c.jpg", "a.jpg"]
    write(place, [messages(["/elsewhere/a.jpg"], None, ["<image>?", "So."])])
    with pytest.raises(UserError, match=r"`images` is '/elsewhere/a.jpg', but must be a file name"):
        converted(place)


def test_files_of_several_forms_are_mixed(place):
    write(place, [llava(*CONVERSATIONS[0])])
    other = write(place, [messages(*CONVERSATIONS[2])] * 2, lines=True, name="other.jsonl")
    report, train = converted(place, mixture=[{"path": other, "weight": 1.0}])
    assert [part["form"] for part in report["mixture"]] == forms_of(report) == ["llava", "messages"]
    wanted = list(expected())
    assert json.loads(train) == [wanted[0], wanted[2], wanted[2]]


def test_the_form_is_found_by_the_first_record_that_has_but_one(place):
    text_only = llava([], None, ["What?", "So."])
    del text_only["image"]
    path = write(place, [text_only] * 3 + [sharegpt(*CONVERSATIONS[0])])
    assert find_form(path).name == "sharegpt"
    assert find_form(write(place, [text_only] * 3)).name == "llava"
    assert find_form(write(place, [])).name == "llava"


ASKED = ("<image>?", "So.")


def changed(record, position=None, **change):
    target = record if position is None else record["messages"][position]
    target.update(change)
    return record


def one(values=ASKED, images=("a.jpg",), system=None):
    return messages(list(images), system, list(values))


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([one(), llava(*CONVERSATIONS[0])],
         "record 1 is in the form `llava`, but others of the file are in the form `messages`"),
        ([llava(*CONVERSATIONS[0]), sharegpt(*CONVERSATIONS[0])],
         "record 1 is in the form `sharegpt`, but others of the file are in the form `llava`"),
        ([{"prompt": "q", "response": "a"}],
         r"record 0 has the keys \['prompt', 'response'\], so it is in none of the forms"),
        ([{"conversations": [{"role": "user", "content": "q"}]}], "so it is in none of the forms"),
        ([one(["<image>?"])], "record 0 has 1 turns, an odd number"),
        ([one([], system="Be short.")], "record 0 has a system turn and no other"),
        ([one(["?", "So."])], "0 `<image>` marks, but 1 image; there must be as many"),
        ([one(images=["https://a.example/a.jpg"])], "an address or a picture's own data"),
        ([one(images=["data:image/png;base64,iVBO/Rw0="])], "an address or a picture's own data"),
        ([changed(one(), images=[{"path": "a.jpg", "bytes": None}])], "`images` is .*must be a file name"),
        ([changed(one(), 0, role="human")], "turn 0: `role` is 'human', but must be `user` or `assistant`"),
        ([changed(one(), 0, content=None)], "turn 0: `content` is None, but must be text"),
        ([changed(one(), 0, content=[{"type": "picture"}])],
         r"turn 0: `content\[0\]` is {'type': 'picture'}, but must be of the type"),
        ([changed(one(), 0, content=[{"type": "text", "text": None}])], r"`content\[0\]` has the `text` None"),
        ([changed(one(), 0, content=[{"type": "image", "image": 7}])], "has the picture 7, but it must be"),
        ([changed(one(), 0, content=[{"type": "image", "image": "b.jpg"}])],
         "pictures in `images` and others in its parts"),
        ([changed(one(system="Be short."), system="Be long.")],
         "a system text in `system` and another one in its first turn"),
        ([changed(one(), system=["Be short."])], r"`system` is \['Be short.'\], but must be text"),
    ],
)  # fmt: skip
def test_what_a_record_may_not_be_is_said(place, records, words):
    write(place, records)
    with pytest.raises(UserError, match=words) as caught:
        converted(place, max_dropped_fraction=1.0)
    assert "\n" not in str(caught.value) and str(place / "mine.txt") in str(caught.value)
    assert not (place / "train.json").exists()


DROPPED = [
    (changed(one(["<video>?", "So."], []), videos=["a.mp4"]), "it is about a video (`videos`), which is not read"),
    (changed(one(), 0, content=[{"type": "video", "video": "a.mp4"}]),
     "it is about a video (a part `video`), which is not read"),
    (changed(one(), 0, content=[{"type": "input_audio"}]),
     "it is about a sound (a part `input_audio`), which is not read"),
    (changed(one(), 1, role="tool_call"), "it has a turn of `tool_call`"),
    (changed(one((*ASKED, "?", "!")), 2, role="system"), "a system turn stands within its conversation"),
    (changed(one(), tools="[{}]"), "`tools` is not read"),
    (changed(one(), image="a.jpg"), "`image` is not read"),
    (changed(one(), rejected_response="No."), "`rejected_response` is not read"),
    (changed(one(), 1, loss=False), "`loss` of a turn is not read"),
    (one(system="See <image>."), "an `<image>` mark is in its system text"),
    (one(["?", "<image>"]), "an `<image>` mark is in an answer"),
]  # fmt: skip


@pytest.mark.parametrize(("record", "reason"), DROPPED, ids=[reason for _, reason in DROPPED])
def test_what_can_not_be_trained_on_is_dropped_with_its_reason(place, record, reason):
    write(place, [one(), record, one()])
    with pytest.raises(UserError, match=r"1 of 3 records .* the first is record 1"):
        converted(place)
    report, train = converted(place, max_dropped_fraction=0.5)
    assert report["dropped"] == {reason: 1} and len(json.loads(train)) == 2


def test_keys_that_mean_nothing_are_named(place):
    write(place, [changed(changed(one(), channel="x"), 1, name="y")])
    assert converted(place)[0]["unread_keys"] == {"channel": 1, "messages[].name": 1}


def test_a_question_is_asked_under_its_system_text(place):
    write(place, [one(["<image>\nWhat?", "Quoi."], system="Answer in French."),
                  one(["<image>\nWhat?", "So."], ["b.jpg"])])  # fmt: skip
    records = json.loads(converted(place)[1])
    found = select(
        records, records, place / "images", held_out_questions=None, turns="all", families={},
        named=[{"image": "a.jpg", "prompt": "What?"}],
    )  # fmt: skip
    assert [prompt.get("system") for prompt in found] == [None, "Answer in French.", None]
    assert [prompt["reference"] for prompt in found] == ["Quoi.", "Quoi.", "So."]
    both = [*records, {**records[0], "messages": records[1]["messages"]}]
    found = select(
        both, both, place / "images", held_out_questions=None, turns="all", families={},
        named=[{"image": "a.jpg", "prompt": "What?"}],
    )  # fmt: skip
    assert found[0]["reference"] == "So."  # of the question without a system text


TOY = """
from mindtune.data.formats.form import Form

class Toy(Form):
    def plain(self, record, here):
        first, *rest = record["talk"]
        return record | {"talk": [dict(first, said="<image>" * len(record["pics"]) + first["said"]), *rest]}

FORM = Toy("toy", '{"pics": ["a.jpg"], "talk": [{"who": "q", "said": "?"}, {"who": "a", "said": "!"}]}',
           images="pics", turns="talk", role="who", value="said", user="q", assistant="a")
"""


def test_a_form_is_a_file_and_a_line(place):
    """A copy of the package with another form converts and names it, and still knows the others."""
    package = Path(formats.__file__).parents[2]
    shutil.copytree(package, place / "scripts" / "mindtune", ignore=shutil.ignore_patterns("base"))
    room = place / "scripts" / "mindtune" / "data" / "formats"
    (room / "toy.py").write_text(TOY)
    with open(room / "__init__.py", "a") as registry:
        registry.write("from mindtune.data.formats import toy; FORMS += (toy.FORM,)\n")
    talk = [{"who": "q", "said": "\nWhat?"}, {"who": "a", "said": "So."}]
    write(place, [{"pics": ["a.jpg"], "talk": talk}], lines=True)
    other = write(place, [one()], name="other.json")
    options = {
        "held_out_fraction": 0.0,
        "split_seed": 1,
        "mixture": [{"path": str(other), "weight": 1.0}],
    }
    write_json(place / "options.json", options)
    code = (
        "import json, sys; from pathlib import Path; from mindtune.data.mllm import convert;"
        " p = Path(sys.argv[1]); convert(p / 'mine.txt', p / 'images', p / 'train.json', p / 'held.json',"
        " p / 'report.json', **json.loads((p / 'options.json').read_text()))"
    )
    environment = os.environ | {"PYTHONPATH": str(place / "scripts")}
    subprocess.run([sys.executable, "-c", code, place], check=True, env=environment)
    report = json.loads((place / "report.json").read_text())
    assert forms_of(report) == ["toy", "messages"]
    assert json.loads((place / "train.json").read_text())[0] == {
        "images": ["a.jpg"],
        "messages": [
            {"role": "user", "content": "<image>\nWhat?"}, {"role": "assistant", "content": "So."},
        ],
    }  # fmt: skip
    assert {form.name for form in FORMS} == {"llava", "sharegpt", "messages"}
