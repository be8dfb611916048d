"""Reading files that users name: what isn't a file is refused, and lines end where JSON lines do."""

import os

import pytest
from mindtune.errors import UserError
from mindtune.files import bytes_below, read_json, read_json_lines, read_text, regular


def test_only_line_feeds_end_json_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"a": "x\u2028y\u0085z"}\r\n{"a": 2}\n'.encode())
    assert read_json_lines(path) == [{"a": "x\u2028y\u0085z"}, {"a": 2}]


def test_a_pipe_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="is a named pipe, but must be a file"):
        regular(tmp_path / "pipe")
    with pytest.raises(UserError, match="is a directory"):
        read_text(tmp_path)
    with pytest.raises(UserError, match="is a device"):
        read_json("/dev/zero")
    with pytest.raises(UserError, match="No such file"):
        read_text(tmp_path / "none")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"{", "is not JSON"), (b"\xff", "is not UTF-8"), (b"[" * 100_000, "nested too deeply"),
     (b"1" * 10_000, "is not JSON")],
)  # fmt: skip
def test_what_is_no_json(tmp_path, content, words):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_json(tmp_path / "a.json")


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}


def test_bytes_below_count_each_file_once_and_follow_no_link(tmp_path):
    assert bytes_below(tmp_path / "none") == 0
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/five").write_bytes(b"12345")
    (tmp_path / "a/three").write_bytes(b"123")
    (tmp_path / "outside").write_bytes(bytes(1000))
    assert bytes_below(tmp_path / "a") == 8
    (tmp_path / "a/again").symlink_to("b")
    (tmp_path / "a/link").symlink_to("../outside")
    assert bytes_below(tmp_path / "a") == 8 + len("../outside")
