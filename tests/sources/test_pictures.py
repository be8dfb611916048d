"""Unpacking that goes on after a stop, pictures out of a zip, and the deep check's report."""

import io
import json
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from mindtune.data import unpack as unpacking
from mindtune.data.archive import Archive, open_archive
from mindtune.data.check import look_at_all, summarize
from mindtune.data.check_page import contact_sheet, page, verdict
from mindtune.data.pictures import has_picture, open_pictures, picture_file
from mindtune.data.unpack import unpack
from mindtune.errors import UserError
from PIL import Image


def jpeg(number, **options):
    buffer = io.BytesIO()
    Image.new("RGB", (64 + number, 48), (number * 9 % 256, 80, 90)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


CONTENTS = {f"train2017/{number:012d}.jpg": jpeg(number) for number in range(200)}


def make_zip(path, contents=CONTENTS, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.mkdir("train2017")
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_zip_is_unpacked_without_the_directory_its_files_share(tmp_path, method, threads):
    source, target = make_zip(tmp_path / "a.zip", method=method), tmp_path / "kept" / "a"
    assert unpack(source, target, pictures=200, threads=threads) == 200
    assert {f"train2017/{p.name}": p.read_bytes() for p in target.iterdir()} == CONTENTS
    assert unpack(source, target) == 200  # it is there
    assert not list(target.parent.glob(".*.partial"))


def test_unpacking_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    source, target = make_zip(tmp_path / "a.zip"), tmp_path / "a"
    written = []
    write = unpacking._Unpacking._write

    def stopping(self, name, data):
        if len(written) == 120:
            raise OSError(28, "No space left on device")
        written.append(name)
        write(self, name, data)

    monkeypatch.setattr(unpacking._Unpacking, "_write", stopping)
    with pytest.raises(OSError, match="No space"):
        unpack(source, target, threads=1)
    assert not target.exists()
    partial = tmp_path / ".a.partial"
    (partial / written[5]).write_bytes(b"half")  # what a kill leaves
    size = (partial / written[6]).stat().st_size
    (partial / written[6]).write_bytes(bytes(size))  # what a power cut leaves
    again = []
    monkeypatch.setattr(
        unpacking._Unpacking, "_write",
        lambda self, name, data: (again.append(name), write(self, name, data)),
    )  # fmt: skip
    unpack(source, target, threads=2)
    assert sorted(again) == sorted({*written[5:7], *(set(written) ^ {n[10:] for n in CONTENTS})})
    assert {f"train2017/{p.name}": p.read_bytes() for p in target.iterdir()} == CONTENTS


def test_a_full_disk_is_seen_before_anything_is_unpacked(tmp_path, monkeypatch):
    class Full:
        f_bavail, f_frsize = 1, 100

    monkeypatch.setattr(os, "statvfs", lambda path: Full)
    with pytest.raises(UserError, match=r"unpacking .*a.zip needs 0.00 GB .*`unpack: false`"):
        unpack(make_zip(tmp_path / "a.zip"), tmp_path / "a")


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path):
    (tmp_path / ".a.partial").mkdir()
    (tmp_path / "other").write_bytes(b"mine")
    (tmp_path / ".a.partial" / f"{0:012d}.jpg").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic links"):
        unpack(make_zip(tmp_path / "a.zip"), tmp_path / "a")
    assert (tmp_path / "other").read_bytes() == b"mine"


def test_pictures_are_opened_from_a_zip_as_from_a_directory(tmp_path):
    source = make_zip(tmp_path / "a.zip")
    unpack(source, tmp_path / "a")
    for name in (f"{3:012d}.jpg", f"{177:012d}.jpg"):
        with (
            Image.open(picture_file(source / name)) as one,
            Image.open(tmp_path / "a" / name) as two,
        ):
            assert one.tobytes() == two.tobytes()
        assert has_picture(source / name) and has_picture(tmp_path / "a" / name)
    assert not has_picture(source / "x.jpg") and not has_picture(tmp_path / "a" / "x.jpg")
    with pytest.raises(FileNotFoundError):
        picture_file(source / "x.jpg")
    assert sorted(open_pictures(source).names()) == sorted(open_pictures(tmp_path / "a").names())


def test_threads_and_forks_share_an_archive(tmp_path):
    archive = open_archive(make_zip(tmp_path / "a.zip"))
    names = list(archive.members) * 5
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(archive.read, names))
    assert found == [CONTENTS[f"train2017/{name}"] for name in names]
    pid = os.fork()
    if not pid:
        os._exit(0 if archive.read(names[0]) == found[0] else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_an_archive_that_was_replaced_is_opened_anew(tmp_path):
    path = make_zip(tmp_path / "a.zip")
    assert len(open_archive(path)) == 200
    make_zip(path, {"train2017/1.jpg": jpeg(1)})
    assert len(open_archive(path)) == 1


def test_names_lose_only_the_directory_that_all_share(tmp_path):
    make_zip(tmp_path / "a.zip", {"coco/train/1.jpg": b"x", "coco/val/1.jpg": b"y"})
    assert sorted(Archive(tmp_path / "a.zip").members) == ["train/1.jpg", "val/1.jpg"]


def item(*images, turns=1):
    return {"images": list(images), "messages": [{"role": "user", "content": "q"}] * 2 * turns}


def test_the_deep_check_says_what_there_is_to_say(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures = {f"{n}.jpg": jpeg(n) for n in range(6)}
    pictures["turned.jpg"] = jpeg(50, exif=exif)
    pictures["twin.jpg"] = pictures["0.jpg"]
    pictures["cut.jpg"] = jpeg(9)[:-200]
    for name, content in pictures.items():
        (tmp_path / name).write_bytes(content)
    Image.new("L", (9, 9)).save(tmp_path / "grey.jpg")
    names = [*pictures, "grey.jpg", "gone.jpg"]
    seen = {picture.name: picture for picture in look_at_all(tmp_path, names, 2)}
    parts = {
        "train": [item(name) for name in names if name != "twin.jpg"] + [item(turns=3)],
        "held_out": [item("twin.jpg")],
    }
    summary = summarize(parts, seen, lambda record, found: 90 + 30 * len(found), 100, (), ["llava"])
    assert summary["records"] == {"train": 11, "held_out": 1} and summary["pictures"] == 11
    assert summary["faults"] == 2 and summary["modes"]["L"] == 1
    assert summary["altered"] == {"turned": {"count": 1, "first": ["turned.jpg"]}}
    assert "the model sees 1 pictures in another way than you may (the pixels are" in verdict(
        summary
    )
    assert [fault["image"] for fault in summary["first_faults"]] == ["cut.jpg", "gone.jpg"]
    assert summary["duplicates"] == summary["duplicates_across_parts"] == 1
    assert summary["cut"] == 9 and summary["lengths"] == {"90": 1, "120": 9}
    assert summary["turns"] == {"1": 11, "3": 1}
    assert "1 held-out pictures are in training too" in verdict(summary)
    assert (
        len(summary["problems"]) == 4 and verdict(summary) == f"{'; '.join(summary['problems'])}."
    )
    shown = page(summary, seen, contact_sheet(tmp_path, seen))
    assert "<td>form of the instructions<td>llava<" in shown
    assert shown.count("<svg") == 4 and "data:image/jpeg;base64," in shown
    assert "cut.jpg: the picture can&#x27;t be decoded" in shown
    json.dumps(summary)


def test_nothing_is_wrong_only_where_nothing_is(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    seen = {"a.jpg": next(look_at_all(tmp_path, ["a.jpg"], 1))}

    def judged(*problems):
        parts = {"train": [item("a.jpg")], "held_out": []}
        return summarize(parts, seen, lambda record, found: 9, 100, problems)

    assert verdict(judged()) == "Nothing is wrong with the data."
    said = "1 of 12 records are dropped: an answer is empty"
    assert verdict(judged(said)) == f"{said}."
    assert said in page(judged(said), seen, "") and judged(said)["problems"] == [said]


def test_the_report_of_nothing_is_a_page_too(tmp_path):
    summary = summarize({"train": [], "held_out": []}, {}, lambda record, found: 0, 100)
    assert "there is no record to train on." in page(summary, {}, contact_sheet(tmp_path, {}))
