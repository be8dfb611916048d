"""Reading LLaVA-Instruct: what is read, and how each kind of damage is said."""

import json

import pytest
from mindtune.data import json_list
from mindtune.data.json_list import read_records
from mindtune.data.llava import check_record
from mindtune.errors import UserError

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


def test_reads_an_empty_list_and_a_byte_order_mark(tmp_path):
    assert list(read_records(write(tmp_path / "a.json", "[ ]\n"))) == []
    assert list(read_records(write(tmp_path / "b.json", '\ufeff[{"id": "1"}]'))) == [{"id": "1"}]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must be a JSON list"),
        ('{"id": "1"}', "must be a JSON list of records, but begins with '{"),
        ('[{"id": "1"}, {"id": "2", "conv', "cut off in record 1"),
        ('[{"id": "1"}, {"id": "2"}', "cut off after 2 records"),
        ('[{"id": "1"},', "cut off after 1 records"),
        ("[", "cut off after 0 records"),
        ('[{"id": "1"} {"id": "2"}]', "no comma between records 0 and 1"),
        ('[{"id": "1"}, {id: 2}, {"id": "3"}]', "record 1 is not JSON"),
        ('[{"id": "1"}, "two"]', "record 1 is str"),
    ],
)
def test_damage_is_said_in_a_sentence(tmp_path, text, words):
    with pytest.raises(UserError, match=words.replace("(", r"\(").replace("{", r"\{")):
        list(read_records(write(tmp_path / "a.json", text)))


def test_says_when_there_is_no_such_file_or_no_text(tmp_path):
    with pytest.raises(UserError, match="can't be read: No such file"):
        list(read_records(tmp_path / "none.json"))
    path = tmp_path / "binary.json"
    path.write_bytes(b'[{"id": "\xff\xfe"}]')
    with pytest.raises(UserError, match="not UTF-8"):
        list(read_records(path))


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
