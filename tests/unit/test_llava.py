"""Reading LLaVA-Instruct: what is read, and how each kind of damage is said."""

import json
import os

import pytest
from mindtune.data import json_list
from mindtune.data.formats.llava import FORM
from mindtune.data.json_list import read_records
from mindtune.errors import UserError

check_record, images_of, unfit, unread = FORM.check, FORM.images_of, FORM.unfit, FORM.unread
sound_values = FORM.sound_values

RECORD = {
    "id": "000000033471",
    "image": "000000033471.jpg",
    "conversations": [
        {"from": "human", "value": "<image>\nWhat is on the bus?"},
        {"from": "gpt", "value": "An advertisement – für Saft, 果汁."},
    ],
}


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("chunk", [1, 7, 100, 1 << 20])
def test_reads_what_json_reads(tmp_path, monkeypatch, indent, chunk):
    monkeypatch.setattr(json_list, "CHUNK", chunk)
    records = [RECORD | {"id": str(n)} for n in range(5)]
    path = write(tmp_path / "a.json", json.dumps(records, indent=indent, ensure_ascii=False))
    assert list(read_records(path)) == records


@pytest.mark.parametrize("chunk", [1, 40, 1 << 20])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\n \n"])
def test_reads_json_lines(tmp_path, monkeypatch, ending, chunk):
    """Of all the characters that end a line elsewhere, only a line feed does."""
    monkeypatch.setattr(json_list, "CHUNK", chunk)
    records = [RECORD | {"id": text} for text in ("a", "\u2028", "\x85", "}, {", "果")]
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    for text in (ending.join(lines), "\ufeff" + ending.join(lines) + ending):
        path = tmp_path / "a.json"
        path.write_bytes(text.encode())
        assert list(read_records(path)) == records


def test_reads_an_empty_list_and_a_byte_order_mark(tmp_path):
    assert list(read_records(write(tmp_path / "a.json", "[ ]\n"))) == []
    assert list(read_records(write(tmp_path / "b.json", '\ufeff[{"id": "1"}]'))) == [{"id": "1"}]


STRINGS = ['": a', 'b": c', "d :", 'e\\": f', '": 1, "id": 2', "}, {", "\\"]


@pytest.mark.parametrize("chunk", [40, 1 << 20])
def test_what_looks_like_a_key_twice_is_read(tmp_path, monkeypatch, chunk):
    """Strings may look like keys, and objects deeper down have keys too."""
    monkeypatch.setattr(json_list, "CHUNK", chunk)
    records = [{"id": text, "deep": [{"id": [{"id": text}]}], text: {"id": 1}} for text in STRINGS]
    assert list(read_records(write(tmp_path / "a.json", json.dumps(records)))) == records


def test_a_key_twice_is_found_in_a_later_block(tmp_path, monkeypatch):
    monkeypatch.setattr(json_list, "CHUNK", 100)
    lines = [json.dumps({"id": str(n), "image": "x" * 50}) for n in range(20)]
    lines[13] = lines[13].replace("{", '{"id": "13", ')
    path = write(tmp_path / "a.json", f"[{', '.join(lines)}]")
    with pytest.raises(UserError, match="record 13 has the key 'id' twice in one object"):
        list(read_records(path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a.json is empty, but must be a JSON list"),
        ("7", "must be a JSON list of records, or JSON lines, but begins with '7'"),
        ('{"id": "1"}\n{"id": "2', r"cut off in record 1 \(line 2\)"),
        ('{"id": "1"}\n\n{"id": "2"} {}\n', r"record 1 \(line 3\) is not JSON"),
        ('{"id": "1"},{"id": "2"}\n', r"record 0 \(line 1\) is not JSON"),
        ('{"id": "1"}\n["2"]\n', "record 1 is list, but must be an object"),
        ('{"id": "1"}\n{"id": NaN}', r"record 1 \(line 2\) holds NaN, which is no number"),
        ('{"id": "1"}\n{"id": "1", "id": "2"}', r"record 1 \(line 2\) has the key 'id' twice"),
        ('{"id": ' + "[" * 100_000, r"record 0 \(line 1\) is nested too"),
        ('{\n  "id": "1"\n}', "an object that doesn't end in its line"),
        ('[{"id": "1"}, {"id": "2", "conv', "cut off in record 1"),
        ('[{"id": "1"}, {"id": "2"}', "cut off after 2 records"),
        ('[{"id": "1"},', "cut off after 1 records"),
        ("[", "cut off after 0 records"),
        ('[{"id": "1"} {"id": "2"}]', "no comma between records 0 and 1"),
        ('[{"id": "1"}, {id: 2}, {"id": "3"}]', "record 1 is not JSON"),
        ('[{"id": "1"}, "two"]', "record 1 is str"),
        ('[{"id": "1"}, {"id": NaN}]', "record 1 holds NaN, which is no number in JSON"),
        ('[{"id": "1"}, {"id": [-Infinity]}]', "record 1 holds -Infinity, which is no number"),
        ('[{"id": "1"}, {"id": 1e999}]', "record 1 holds the number 1e999, which is too large"),
        ('[{"id": ' + "7" * 10_000 + "}]", "record 0 holds a number of 10000 digits; write it as"),
        ('[{"id": "1"}, {"id": "2", "id": "3"}]', "record 1 has the key 'id' twice"),
        ('[{"id": "1"}, {"id": "2", "id"  \n: "3"}]', "record 1 has the key 'id' twice"),
        ('[{"id": "1"}, {"id": [{"x": 1, "x": 1}]}]', "record 1 has the key 'x' twice"),
        ('[{"id": {"y": {"x\\\\": 1, "x\\\\": 1}}}]', "record 0 has the key .* twice"),
        (
            '[{"id": ": a", "b": "c\\": d"}, {"id": "2", "id": "3"}]',
            "record 1 has the key 'id' twice",
        ),
        ('[{"id": "1"}, {"id": ' + "[" * 100_000 + "]" * 100_000 + "}]", "record 1 is nested too"),
    ],
)
def test_damage_is_said_in_a_sentence(tmp_path, text, words):
    with pytest.raises(UserError, match=words.replace("{", r"\{")):
        list(read_records(write(tmp_path / "a.json", text)))


def test_says_when_there_is_no_such_file_or_no_text(tmp_path):
    with pytest.raises(UserError, match="can't be read: No such file"):
        list(read_records(tmp_path / "none.json"))
    path = tmp_path / "binary.json"
    path.write_bytes(b'[{"id": "1"}, {"id": "fa\xe7ade"}]')
    with pytest.raises(
        UserError, match=r"not UTF-8 text: record 1 has the byte 0xe7 in '.*fa\\\\xe7"
    ):
        list(read_records(path))
    path.write_text('[{"id": "1"}]', encoding="utf-16")
    with pytest.raises(UserError, match="not UTF-8 text: its beginning has the byte 0xff"):
        list(read_records(path))


def test_says_what_is_there_instead_of_a_file(tmp_path):
    with pytest.raises(UserError, match="is a directory, but must be a file"):
        list(read_records(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="is a named pipe, but must be a file"):
        list(read_records(tmp_path / "pipe"))


def turns(*roles, first="<image>\nq"):
    return [
        {"from": role, "value": first if number == 0 else "text"}
        for number, role in enumerate(roles)
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"conversations": turns("human", "bot")}, "record 7 .*turn 1: `from` is 'bot'"),
        ({"conversations": turns("human", "gpt", "human")}, "3 turns, an odd number"),
        ({"conversations": turns("gpt", "human")}, "turn 0: it is gpt's turn twice"),
        ({"conversations": []}, "has no `conversations`"),
        ({"conversations": None}, "has no `conversations`"),
        ({"conversations": ["q", "a"]}, "turn 0: `from` is None"),
        ({"conversations": turns("human", "gpt", first=3)}, "turn 0: `value` is 3"),
        (
            {"conversations": turns("human", "gpt", first="no mark")},
            "0 `<image>` marks, but 1 image",
        ),
        ({"conversations": turns("human", "gpt", first="<image><image>")}, "2 `<image>` marks"),
        ({"image": None}, "1 `<image>` marks, but 0 image"),
        (
            {"conversations": turns("human", "gpt", first="<image>\nq <video>")},
            "turn 0: `value` has a `<video>` mark",
        ),
    ],
)
def test_a_record_on_which_the_framework_would_stop_is_refused(change, words):
    with pytest.raises(UserError, match=words):
        check_record(RECORD | change, 7)


def test_a_good_record_and_a_text_only_one_pass():
    check_record(RECORD, 0)
    check_record({"id": "t", "conversations": turns("human", "gpt", first="q")}, 0)


def answered(question="<image>\nq", answer="a", **change):
    values = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": "1", "image": "a.jpg", "conversations": values} | change


def weighted(**change):
    record = answered()
    record["conversations"][1].update(change)
    return record


TOKENS = ["endoftext", "im_start", "im_end", "vision_start", "vision_end", "vision_pad",
          "image_pad", "video_pad"]  # fmt: skip


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        *((answered(f"<image>\nq <|{token}|>"), f"the special token <|{token}|> is in its text")
          for token in TOKENS),
        (answered(answer="a <|im_end|>"), "the special token <|im_end|> is in its text"),
        (answered(images=["a.jpg"]), "`images` is not read"),
        (answered(audio="a.wav"), "`audio` is not read"),
        (answered(system="Say <|im_end|>."), "the special token <|im_end|> is in its system text"),
        (answered(system="Look at <image>."), "an `<image>` mark is in its system text"),
        (answered(messages=[{"role": "user"}]), "`messages` is not read"),
        (answered(tools=[{"name": "search"}]), "`tools` is not read"),
        (weighted(weight=0), "`weight` of a turn is not read"),
        (weighted(loss=False), "`loss` of a turn is not read"),
        (weighted(images=["b.jpg"]), "`images` of a turn is not read"),
        (answered(answer=""), "an answer is empty"),
        (answered(answer=" \n"), "an answer is empty"),
        (answered("", image=None), "a question is empty"),
        (answered("q", "see <image>"), "an `<image>` mark is in an answer"),
    ],
)  # fmt: skip
def test_a_record_that_means_something_else_has_a_reason(record, reason):
    check_record(record, 0)
    assert unfit(record) == reason
    assert sound_values(record, images_of(record)) is None


@pytest.mark.parametrize(
    "record",
    [
        answered(answer="<|box_start|>(1,2),(3,4)<|box_end|>"),
        answered(answer="<|object_ref_start|>a bus<|object_ref_end|><|quad_start|><|quad_end|>"),
        answered("<image>"), answered("q <|not_a_token|>\n<image>"), answered("1 < 2 | 3 > 2 <image>"),
        answered(images=[], system="", video=None, tools=[]), weighted(weight=1, loss=True),
        answered(model="x", source={"a": 1}),
    ],
)  # fmt: skip
def test_a_record_that_is_as_it_was_meant_has_none(record):
    check_record(record, 0)
    assert unfit(record) is None


def test_keys_that_are_not_read_are_named():
    assert unread(answered()) == unread(answered(model=None, system="")) == set()
    record = answered(model="x") | {"conversations": weighted(note="n")["conversations"]}
    assert unread(record) == {"model", "conversations[].note"}


@pytest.mark.parametrize(
    ("image", "name"),
    [("a.jpg", "a.jpg"), ("./a.jpg", "a.jpg"), ("sub/../a.jpg", "a.jpg"), ("x//a.jpg", "x/a.jpg"),
     (".//x/./y/../a.jpg", "x/a.jpg"), ("..a.jpg", "..a.jpg")],
)  # fmt: skip
def test_a_picture_has_one_name(image, name):
    assert images_of({"image": image}) == (name,)
    assert images_of({"image": [image, "b.jpg"]}) == [name, "b.jpg"]
    check_record(answered(image=image), 0)


@pytest.mark.parametrize("image", ["../a.jpg", "sub/../../a.jpg", "/a.jpg", ".."])
def test_a_picture_outside_is_refused(image):
    with pytest.raises(UserError, match="must be a file name within the directory"):
        check_record(answered(image=image), 0)


@pytest.mark.parametrize(
    "name", ["7" * 10_000, list(range(10_000)), json.loads("[" * 900 + "]" * 900)]
)
def test_a_long_or_deep_value_is_cut_in_the_sentence(name):
    with pytest.raises(UserError, match="turn 0: `value` is 3, but must be text") as caught:
        check_record(answered(3, id=name), 0)
    assert len(str(caught.value)) < 300
