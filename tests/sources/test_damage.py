"""Each kind of damage to the instructions, the pictures and the zip has its sentence.

Each case damages sound data in one way. What comes of it: a sentence that stops the job, or a
reason under which records are dropped and counted, or a remark of the deep check. Nothing that
was there before is overwritten in any of them.
"""

import io
import json
import struct
import zipfile
from pathlib import Path

import pytest
from mindtune.data.archive import Archive
from mindtune.data.check import look_at
from mindtune.data.mllm import convert
from mindtune.data.unpack import unpack
from mindtune.errors import UserError
from PIL import Image

COUNT = 12


def jpeg(shade=0, size=(48, 32)):
    buffer = io.BytesIO()
    Image.effect_noise(size, 50 + shade).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


def records():
    return [
        {
            "id": f"{number:012d}",
            "image": f"{number:012d}.jpg",
            "conversations": [
                {"from": "human", "value": "<image>\nWhat is on the bus?"},
                {"from": "gpt", "value": "An advertisement – für Saft, 果汁."},
            ],
        }
        for number in range(COUNT)
    ]


@pytest.fixture
def place(tmp_path):
    (tmp_path / "train2017").mkdir()
    for number in range(COUNT):
        (tmp_path / "train2017" / f"{number:012d}.jpg").write_bytes(jpeg(number))
    (tmp_path / "llava.json").write_text(json.dumps(records(), indent=2), encoding="utf-8")
    (tmp_path / "train.json").write_text("from an earlier run")
    return tmp_path


def converted(place, images="train2017", **options):
    settings = {"held_out_fraction": 0.0, "split_seed": 1} | options
    outputs = [place / name for name in ("train.json", "held_out.json", "report.json")]
    return convert(place / "llava.json", place / images, *outputs, **settings)


def untouched(place):
    return (place / "train.json").read_text() == "from an earlier run" and not list(
        place.glob(".*.partial")
    )


def text(change):
    """Damage to the file of instructions, as text or bytes."""

    def apply(place):
        path = place / "llava.json"
        result = change(path.read_text(encoding="utf-8"))
        path.write_bytes(result if isinstance(result, bytes) else result.encode())

    return apply


def record(change, number=7):
    """Damage to one record."""

    def apply(place):
        found = records()
        result = change(found[number])
        found[number] = found[number] if result is None else result
        (place / "llava.json").write_text(json.dumps(found, indent=2))

    return apply


def turn(**change):
    return record(lambda r: r["conversations"][1].update(change))


def cut_in_record(content):
    return content[: content.index('"id": "000000000007"') + 60]


def cut_after_comma(content):
    return content[: content.index('{\n    "id": "000000000007"')]


INSTRUCTIONS = [
    ("empty file", text(lambda t: ""), "llava.json is empty, but must be a JSON list"),
    ("an object", text(lambda t: '{"data": []}'), "must be a JSON list"),
    ("an error page", text(lambda t: "<!DOCTYPE html><html>"), "begins with '<!DOCTYPE html>"),
    ("a pointer of git-lfs", text(lambda t: "version https://git-lfs"), "begins with 'version http"),
    ("UTF-16", text(lambda t: t.encode("utf-16")), "is not UTF-8 text"),
    ("Latin-1", text(lambda t: t.replace("Saft", "S\\u00e4").replace("What", "W§").encode("latin-1")),
     "is not UTF-8 text"),
    ("no records", text(lambda t: "[]"), "holds no records"),
    ("cut off in a record", text(cut_in_record), "is cut off in record 7"),
    ("cut off between records", text(cut_after_comma), "is cut off after 7 records"),
    ("end of the list missing", text(lambda t: t.rstrip()[:-1]), "cut off after 12 records"),
    ("no comma", text(lambda t: t.replace("},\n  {\n    \"id\": \"000000000007\"",
     "}\n  {\n    \"id\": \"000000000007\"")), "no comma between records 6 and 7"),
    ("two files in one", text(lambda t: t + t), "text follows the end of the list after record 11"),
    ("a key without quotes", text(lambda t: t.replace('"id": "000000000007"', "id: 7")),
     "record 7 is not JSON"),
    ("a comma too many", text(lambda t: t.replace("\n]", ",\n]")), "a comma and no record after record 11"),
    ("lines of JSON", text(lambda t: "\n".join(map(json.dumps, records()))), "must be a JSON list"),
    ("nested without end", text(lambda t: "[" + "[" * 100_000), "record 0 is nested too deeply"),
    ("a record that is text", record(lambda r: "seven"), "record 7 is str, but must be an object"),
    ("no conversations", record(lambda r: r.pop("conversations") and None),
     r"record 7 \(id '000000000007'\) has no `conversations`"),
    ("empty conversations", record(lambda r: r["conversations"].clear()), "record 7 .* has no `conv"),
    ("an unknown role", turn(**{"from": "system"}), "turn 1: `from` is 'system'"),
    ("a role that is a list", turn(**{"from": ["gpt"]}), r"turn 1: `from` is \['gpt'\]"),
    ("one side twice", turn(**{"from": "human"}), "turn 1: it is human's turn twice"),
    ("an odd number of turns", record(lambda r: r["conversations"].pop() and None),
     "has 1 turns, an odd number"),
    ("a turn that is text", record(lambda r: r["conversations"].__setitem__(1, "yes")),
     "turn 1: `from` is None"),
    ("a value that is a number", turn(value=7), "turn 1: `value` is 7, but must be text"),
    ("half a character", turn(value="\ud83d!"), "turn 1: `value` holds half of a surrogate pair"),
    ("no mark", record(lambda r: r["conversations"][0].update(value="q")),
     "0 `<image>` marks, but 1 image;"),
    ("two marks", turn(value="see <image>"), "2 `<image>` marks, but 1 image;"),
    ("a mark and no image", record(lambda r: r.pop("image") and None), "1 `<image>` marks, but 0"),
    ("an image that is a number", record(lambda r: r.update(image=7)), "`image` is 7, but must be"),
    ("an image that is a mapping", record(lambda r: r.update(image={"a": 1})), "`image` is {'a': 1}"),
    ("a list of images with a number", record(lambda r: r.update(image=["a", 7])),
     r"`image` is \['a', 7\]"),
    ("fewer marks than images", record(lambda r: r.update(image=["a.jpg", "b.jpg"])),
     "1 `<image>` marks, but 2 images;"),
    ("an image elsewhere", record(lambda r: r.update(image="../../etc/passwd")),
     "must be a file name within the directory"),
    ("an absolute image", record(lambda r: r.update(image="/etc/passwd")), "must be a file name"),
    ("a NUL in the name", record(lambda r: r.update(image="a\0.jpg")), "must be a file name"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "words"), [i[1:] for i in INSTRUCTIONS],
                         ids=[i[0] for i in INSTRUCTIONS])  # fmt: skip
def test_damaged_instructions_stop_with_a_sentence(place, damage, words):
    damage(place)
    with pytest.raises(UserError, match=words) as caught:
        converted(place)
    assert "\n" not in str(caught.value) and untouched(place)


def picture(content):
    """Damage to one picture; None removes it."""

    def apply(place):
        path = place / "train2017" / f"{7:012d}.jpg"
        path.unlink()
        if content is not None:
            path.write_bytes(content)

    return apply


def directory(place):
    picture(None)(place)
    (place / "train2017" / f"{7:012d}.jpg").mkdir()


def dangling(place):
    picture(None)(place)
    (place / "train2017" / f"{7:012d}.jpg").symlink_to(place / "nowhere")


PICTURES = [
    ("missing", picture(None), "the image is missing"),
    ("a dangling link", dangling, "the image is missing"),
    ("empty", picture(b""), "the file is empty"),
    ("an error page", picture(b"<html>404</html>"), "the file is not a picture"),
    ("a directory", directory, "the file is not a picture"),
    ("only zeros", picture(bytes(5000)), "the file is not a picture"),
]


@pytest.mark.parametrize(("damage", "reason"), [p[1:] for p in PICTURES],
                         ids=[p[0] for p in PICTURES])  # fmt: skip
def test_a_damaged_picture_is_dropped_and_counted_up_to_the_threshold(place, damage, reason):
    damage(place)
    with pytest.raises(UserError, match=f"1 of 12 records .* can't be used .*{reason}: 1;"):
        converted(place)
    assert untouched(place)
    report = converted(place, max_dropped_fraction=0.1)
    assert report["dropped"] == {reason: 1} and report["kept"]["train"] == COUNT - 1


def bomb():
    """The head of a bitmap of 3.6 thousand million pixels."""
    head = struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 24, 0, 0, 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 64, 0, 0, 54) + head + bytes(64)


DECODED = [
    ("cut off", jpeg()[:-300], "can't be decoded: "),
    ("a header and no more", b"\xff\xd8\xff\xe0", "is not a picture"),
    ("a bomb", bomb(), "far too large to be a photograph"),
    ("an error page", b"<html>", "is not a picture"),
    ("missing", None, "it is missing"),
]


@pytest.mark.parametrize(("content", "words"), [d[1:] for d in DECODED],
                         ids=[d[0] for d in DECODED])  # fmt: skip
def test_a_picture_that_cannot_be_decoded_is_remarked_by_the_deep_check(place, content, words):
    picture(content)(place)
    assert words in look_at(place / "train2017", f"{7:012d}.jpg").fault


def zipped(place, names=None, method=zipfile.ZIP_STORED, change=lambda info: None):
    path = place / "train2017.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for number in range(COUNT):
            name = f"train2017/{number:012d}.jpg"
            info = zipfile.ZipInfo((names or {}).get(number, name))
            info.compress_type = method
            info.external_attr = 0o644 << 16
            if number == 7:
                change(info)
            archive.writestr(info, jpeg(number))
    return path


def patched(place, find, replace, method=zipfile.ZIP_STORED, last=False):
    path = zipped(place, method=method)
    data = bytearray(path.read_bytes())
    at = (data.rfind if last else data.find)(find)
    data[at : at + len(replace)] = replace
    path.write_bytes(data)


def flag_encrypted(place):
    path = zipped(place)
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\1\2")
    data[at + 8] |= 1
    path.write_bytes(data)


def in_data(place, method):
    """Turn some bytes of the middle of the first picture around."""
    path = zipped(place, method=method)
    data = bytearray(path.read_bytes())
    for at in range(300, 340):
        data[at] ^= 0xFF
    path.write_bytes(data)


def twice(place):
    with pytest.warns(UserWarning, match="Duplicate name"):
        zipped(place, {8: f"train2017/{7:012d}.jpg"})


ARCHIVES = [
    ("an error page", lambda p: (p / "train2017.zip").write_bytes(b"<html>"), "is no whole zip file"),
    ("empty", lambda p: (p / "train2017.zip").write_bytes(b""), "is no whole zip file"),
    ("cut off", lambda p: zipped(p).write_bytes(zipped(p).read_bytes()[:-200]), "is no whole zip file"),
    ("no files", lambda p: zipfile.ZipFile(p / "train2017.zip", "w").close(), "holds no files"),
    ("a file above", lambda p: zipped(p, {7: "train2017/../../x.jpg"}), "leads out of the directory"),
    ("an absolute name", lambda p: zipped(p, {7: "/etc/x.jpg"}), "leads out of the directory"),
    ("a drive", lambda p: zipped(p, {7: "C:/x.jpg"}), "leads out of the directory"),
    ("backslashes", lambda p: zipped(p, {7: "..\\..\\x.jpg"}), "leads out of the directory"),
    ("a link", lambda p: zipped(p, change=lambda i: setattr(i, "external_attr", 0o120777 << 16)),
     "is a symbolic link"),
    ("encrypted", flag_encrypted, "is encrypted"),
    ("another method", lambda p: zipped(p, method=zipfile.ZIP_BZIP2), "is packed by method 12"),
    ("a name twice", twice, "has 1 members whose names other members have too"),
    ("flipped bytes", lambda p: in_data(p, zipfile.ZIP_STORED), "its checksum is wrong"),
    ("flipped packed bytes", lambda p: in_data(p, zipfile.ZIP_DEFLATED), "is damaged"),
    ("a header overwritten", lambda p: patched(p, b"PK\3\4", b"XXXX"), "its header is not where"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "words"), [a[1:] for a in ARCHIVES],
                         ids=[a[0] for a in ARCHIVES])  # fmt: skip
def test_a_damaged_zip_is_a_sentence_and_nothing_is_unpacked(place, damage, words):
    damage(place)
    target = place / "kept" / "train2017"
    with pytest.raises(UserError, match=words) as caught:
        unpack(place / "train2017.zip", target)
    assert "\n" not in str(caught.value) and not target.exists()
    assert not (place / "x.jpg").exists() and not Path("/etc/x.jpg").exists()


def test_a_zip_with_too_few_pictures_is_a_sentence(place):
    with pytest.raises(UserError, match="holds 12 files, but must hold 118287"):
        unpack(zipped(place), place / "kept", pictures=118287)


def test_a_directory_that_is_in_the_way_is_left_alone(place):
    (place / "kept").mkdir()
    (place / "kept" / "mine.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match="is there, but holds 1 files and not the 12"):
        unpack(zipped(place), place / "kept")
    assert [path.name for path in (place / "kept").iterdir()] == ["mine.jpg"]


def test_a_picture_that_a_zip_lacks_is_dropped_like_any_other(place):
    zipped(place, {7: "train2017/other.jpg"})
    report = converted(place, "train2017.zip", max_dropped_fraction=0.1)
    assert report["dropped"] == {"the image is missing": 1}


def test_there_are_forty_kinds():
    assert len(INSTRUCTIONS) + len(PICTURES) + len(DECODED) + len(ARCHIVES) >= 40


def test_sound_data_passes_all_of_it(place):
    assert converted(place)["kept"]["train"] == COUNT
    assert look_at(place / "train2017", f"{7:012d}.jpg").fault is None
    assert len(Archive(zipped(place))) == unpack(zipped(place), place / "kept") == COUNT
