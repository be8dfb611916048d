"""Each kind of damage to the instructions, the pictures and the zip has its sentence.

Each case damages sound data in one way. What comes of it: a sentence that stops the job, or a
reason under which records are dropped and counted, or a remark of the deep check. Nothing that
was there before is overwritten in any of them.
"""

import io
import json
import os
import re
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from mindtune.data.archive import Archive
from mindtune.data.check import look_at
from mindtune.data.mllm import convert
from mindtune.data.pictures import open_pictures
from mindtune.data.shrinking import read_shrunk
from mindtune.data.unpack import unpack
from mindtune.errors import UserError
from PIL import Image, PngImagePlugin

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
    ("an object", text(lambda t: '{"data": []}'),
     r"record 0 has the key \['data'\], so it is in none of the forms that are read"),
    ("an object over several lines", text(lambda t: '{\n  "data": []\n}'),
     "an object that doesn't end in its line"),
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
    ("JSON lines, cut off", text(lambda t: "\n".join(map(json.dumps, records()))[:-9]),
     r"is cut off in record 11 \(line 12\)"),
    ("nested without end", text(lambda t: "[" + "[" * 100_000), "record 0 is nested too deeply"),
    ("a record that is text", record(lambda r: "seven"), "record 7 is str, but must be an object"),
    ("no conversations", record(lambda r: r.pop("conversations") and None),
     r"record 7 \(id '000000000007'\) has no `conversations`"),
    ("empty conversations", record(lambda r: r["conversations"].clear()), "record 7 .* has no `conv"),
    ("an unknown role", turn(**{"from": "narrator"}), "turn 1: `from` is 'narrator'"),
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


def pipe(place):
    picture(None)(place)
    os.mkfifo(place / "train2017" / f"{7:012d}.jpg")


def bomb():
    """The head of a bitmap of 3.6 thousand million pixels."""
    head = struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 24, 0, 0, 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 64, 0, 0, 54) + head + bytes(64)


def png(size=(48, 32), text=0):
    """A PNG with so many bytes of text, packed."""
    info = PngImagePlugin.PngInfo()
    if text:
        info.add_text("Comment", "x" * text, zip=True)
    buffer = io.BytesIO()
    Image.new("RGB", size, (9, 90, 200)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


PICTURES = [
    ("missing", picture(None), "the image is missing"),
    ("a dangling link", dangling, "the image is missing"),
    ("empty", picture(b""), "the file is empty"),
    ("an error page", picture(b"<html>404</html>"), "the file is not a picture"),
    ("a directory", directory, "it is not a file, but a directory, a pipe or a device"),
    ("only zeros", picture(bytes(5000)), "the file is not a picture"),
    ("a named pipe", pipe, "it is not a file, but a directory, a pipe or a device"),
    ("a JPEG cut off", picture(jpeg()[:-300]), "the picture can't be decoded"),
    ("a JPEG's header", picture(b"\xff\xd8\xff\xe0"), "the file is not a picture"),
    ("a bomb", picture(bomb()), "the picture has more than 178956970 pixels"),
    (
        "3 MiB of text",
        picture(png(text=3 << 20)),
        "the picture's text or colour profile has more than 1 MiB",
    ),
    ("a PNG cut off", picture(png()[:-30]), "the picture can't be decoded"),
    ("1 x 400,000", picture(png((1, 400_000))), "the picture is too slender to be shrunk"),
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


DECODED = [
    ("cut off", jpeg()[:-300], r"can't be decoded \(image file is truncated"),
    ("a header and no more", b"\xff\xd8\xff\xe0", "is not a picture"),
    ("a bomb", bomb(), r"has more than 178956970 pixels \(3600000000\)"),
    ("3 MiB of text", png(text=3 << 20), "text or colour profile has more than 1 MiB"),
    ("1 x 400,000", png((1, 400_000)), r"too slender to be shrunk \(1 x 400000 pixels"),
    ("an error page", b"<html>", "is not a picture"),
    ("missing", None, "the image is missing"),
]


@pytest.mark.parametrize(("content", "words"), [d[1:] for d in DECODED],
                         ids=[d[0] for d in DECODED])  # fmt: skip
def test_a_picture_that_cannot_be_decoded_is_remarked_by_the_deep_check(place, content, words):
    picture(content)(place)
    assert re.search(words, look_at(place / "train2017", f"{7:012d}.jpg").fault)
    with pytest.raises(UserError, match=rf"{7:012d}.jpg can't be used: .*{words}") as caught:
        read_shrunk(place / "train2017" / f"{7:012d}.jpg", 512 * 512)
    assert "\n" not in str(caught.value)


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


def many_twice(place):
    with pytest.warns(UserWarning, match="Duplicate name"):
        zipped(place, {number + 4: f"train2017/{number:012d}.jpg" for number in (5, 6, 7)})


def declaring(place, size, packed=None):
    """The first member declares other sizes than it has."""
    path = zipped(place, method=zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\1\2")
    data[at + 24 : at + 28] = struct.pack("<I", size)
    if packed:
        data[at + 20 : at + 24] = struct.pack("<I", packed)
    path.write_bytes(data)


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
    ("a name twice", twice, r"several members of the name 'train2017/000000000007.jpg'; only"),
    ("three names twice", many_twice, "of the name 'train2017/000000000005.jpg', and so have 2 other names"),
    ("one name in two spellings", lambda p: zipped(p, {8: f"train2017/./{7:012d}.jpg"}),
     f"several members of the name 'train2017/{7:012d}.jpg'"),
    ("a file and a directory", lambda p: zipped(p, {8: f"train2017/{7:012d}.jpg/8.jpg"}),
     f"a file and a directory of the name 'train2017/{7:012d}.jpg'"),
    ("a file and an empty directory", lambda p: zipped(p, {8: f"train2017/{7:012d}.jpg/"}),
     f"a file and a directory of the name 'train2017/{7:012d}.jpg'"),
    ("300 characters", lambda p: zipped(p, {7: f"train2017/{'x' * 296}.jpg"}), "310 bytes, 300 of them"),
    ("Chinese of 270 bytes", lambda p: zipped(p, {7: f"{'果' * 90}.jpg"}), "274 bytes, 274 of them"),
    ("2,000 levels", lambda p: zipped(p, {7: "a/" * 2000 + "x.jpg"}), "has 4005 bytes, 5 of them"),
    ("900 levels", lambda p: zipped(p, {7: "a/" * 900 + "x.jpg"}), "lies 900 directories deep"),
    ("no name", lambda p: zipped(p, {7: "."}), "has no name"),
    ("more than it declares", lambda p: declaring(p, 100), "holds more than the 100 bytes it declares"),
    ("less than it declares", lambda p: declaring(p, 3000), "bytes and not 3000"),
    ("more than can be", lambda p: declaring(p, 1 << 31), "which can't be; get the zip file again"),
    ("packed beyond the end", lambda p: declaring(p, 1000, 1 << 30), "which can't be"),
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


def test_a_member_is_inflated_no_further_than_it_declares(place):
    path = place / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.jpg", bytes(1 << 30))
        archive.writestr("a/2.jpg", sound := jpeg())
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\1\2")
    data[at + 24 : at + 28] = struct.pack("<I", 100)
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(
            UserError, match=r"a/1.jpg is damaged \(it holds more than the 100 bytes"
        ):
            Archive(path).read("1.jpg")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert open_pictures(path).glance("2.jpg").head == sound


def test_a_path_that_gets_too_long_where_it_is_unpacked_is_a_sentence(place):
    source = zipped(place, {7: "train2017/" + "/".join(["x" * 250] * 7)})
    deep = place.joinpath(*["y" * 250] * 8)
    deep.mkdir(parents=True)
    with pytest.raises(UserError, match="with a name of 1756 bytes can't be unpacked to"):
        unpack(source, deep.joinpath(*["z" * 200] * 3))
    assert not list(deep.iterdir())


def test_a_pipe_in_the_place_of_a_zip_is_a_sentence(place):
    os.mkfifo(place / "train2017.zip")
    with pytest.raises(UserError, match="is a named pipe, but must be a file"):
        unpack(place / "train2017.zip", place / "kept")


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
