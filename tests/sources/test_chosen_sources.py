"""The table of sources, what a configuration may choose from it, and a whole run that fetches."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import forking
import pytest
import yaml
from mindtune.errors import UserError
from mindtune.glue.settings_reading import Sources, read_configuration
from mindtune.settings import ConfigError
from mindtune.settings.sources import KINDS, load_table
from PIL import Image
from sources.server import GOOD, Server

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "config" / "data_sources.yaml"
DEMO = {name: {"use": "demo"} for name in ("images", "instructions", "model")}
NAMED = {"prompts": {"named": []}}


def chosen(**sources):
    """The places of sources, for a configuration with the demo's where nothing else is said."""
    raw = NAMED | {"sources": DEMO | sources}
    configuration, _ = read_configuration(raw)
    return Sources(configuration, TABLE)


def test_the_table_has_what_the_tutorial_needs():
    table = load_table(TABLE)
    assert table["coco-train2017"]["pictures"] == 118287
    assert sum(file["bytes"] for file in table["qwen2-vl-2b-instruct"]["files"]) == 4_429_592_647
    files = [file for name in KINDS.values() for file in table[name]["files"]]
    assert all(file["sha256"] for file in files)
    weak = [file["name"] for file in files if file["support"] == "one"]
    assert weak == ["chat_template.json", "tokenizer.json", "tokenizer_config.json"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("coco: {}", "coco lacks the key `kind`"),
        ("a: {kind: video, licence: x, place: x, files: [], from: {}}", "must be one of images"),
        ("[1, 2", "is not YAML"),
        ("a: {kind: images, licence: x, place: x, from: {}, files: [{name: ../x, bytes: 1, "
         "sha256: null, support: one}]}", "a file name without directories"),
    ],
)  # fmt: skip
def test_a_broken_table_is_said(tmp_path, change, words):
    (tmp_path / "table.yaml").write_text(change)
    with pytest.raises(UserError, match=words):
        load_table(tmp_path / "table.yaml")


def test_an_address_in_the_table_may_name_a_variable(tmp_path, monkeypatch):
    text = TABLE.read_text(encoding="utf-8").replace(
        "http://images.cocodataset.org", "https://$MIRROR"
    )
    (tmp_path / "table.yaml").write_text(text)
    monkeypatch.setenv("MIRROR", "mirror.example")
    urls = load_table(tmp_path / "table.yaml")["coco-train2017"]["from"]["official"]["urls"]
    assert urls[0] == "https://mirror.example/zips/{file}"
    monkeypatch.delenv("MIRROR")
    with pytest.raises(UserError, match="the environment variable MIRROR is not set"):
        load_table(tmp_path / "table.yaml")


@pytest.mark.parametrize("use", ["official", "modelscope", "huggingface"])
def test_each_source_may_be_taken_from_each_place(use):
    sources = chosen(**{name: {"use": use} for name in DEMO})
    assert sources.path("images", "shared") == "results/sources/pictures/coco-train2017/train2017"
    assert sources.path("model", "shared") == "results/sources/models/qwen2-vl-2b-instruct"
    download = sources.files["coco-train2017"]
    assert bool(download.repository) == (use != "official")
    assert download.directory == "data/COCO2017" and download.pictures == 118287
    unpacking = sources.pictures["coco-train2017"]
    assert unpacking.target == "data/COCO2017/train2017"
    kept = chosen(images={"use": use, "unpack": False}, instructions={"use": use})
    assert kept.path("images", "shared").endswith("coco-train2017/train2017.zip")


@pytest.mark.parametrize(
    ("name", "source", "words"),
    [
        ("model", {"use": "url", "url": "http://x/y"}, "a model has several files"),
        ("images", {"use": "url"}, "sources.images.url is missing"),
        ("images", {"use": "url", "url": "ftp://x/y.zip"}, "must begin with http"),
        ("images", {"use": "url", "url": "http://x/"}, "ends in no file name"),
        ("images", {"use": "official", "name": "nothing"}, "which the table of sources lacks"),
        ("images", {"use": "official", "name": "llava-instruct-150k"}, "under instructions"),
        ("images", {"use": "modelscope", "url": "http://x/y"}, "write `use: url` for it to count"),
        ("images", {"use": "official", "sha256": "0" * 64}, "counts with `use: url` only"),
        ("instructions", {"use": "official", "unpack": True}, "counts for sources.images only"),
        ("images", {"use": "path", "path": "none.zip"}, "is not a directory"),
        ("images", {"use": "mirror"}, "must be one of demo, path, official"),
        ("images", {"use": "url", "url": "http://x/y", "sha256": "12"}, "64 hexadecimal digits"),
        ("mixture", [{"path": "gone.json"}], r"sources.mixture\[0\].path is gone.json"),
        ("mixture", [{"path": "gone.json", "weight": 0}], "must be greater than 0"),
    ],
)
def test_a_choice_that_cannot_be_is_a_sentence(name, source, words):
    with pytest.raises(ConfigError, match=words):
        chosen(**{"instructions": {"use": "official"}, "images": {"use": "official"}, name: source})


def test_the_mindspeed_engine_reads_no_zip(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", b"x")
    raw = NAMED | {
        "engine": "mindspeed",
        "sources": DEMO
        | {"images": {"use": "path", "path": str(path)}, "instructions": {"use": "official"}},
    }
    with pytest.raises(ConfigError, match=r"unpack: true|which this version does not have yet"):
        read_configuration(raw)


def pictures_zip(count):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(count):
            picture = io.BytesIO()
            Image.new("RGB", (32, 32), (number, 0, 0)).save(picture, "JPEG")
            archive.writestr(f"train2017/{number:012d}.jpg", picture.getvalue())
    return buffer.getvalue()


def llava(count):
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "Ein Bus, 车."}]
    return json.dumps(
        [
            {"id": str(n), "image": f"{n:012d}.jpg", "conversations": turns}
            for n in range(count)
        ]
    ).encode()  # fmt: skip


def snakemake(place, config, *targets):
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    given = ("-s", str(ROOT / "Snakefile"), "--cores", "2", "--configfile", "config.yaml")
    status, said = forking.snakemake(place, (*given, "--directory", str(place), *targets), 300)
    assert status == 0, said
    return said


def test_a_run_fetches_unpacks_converts_and_does_none_of_it_twice(tmp_path):
    with Server([GOOD, "drop"], seed=3) as server:
        server.files = {"coco.zip": pictures_zip(20), "llava.json": llava(20)}
        sources = {
            "images": {"use": "url", "url": server.url("coco.zip"),
                       "sha256": hashlib.sha256(server.files["coco.zip"]).hexdigest()},
            "instructions": {"use": "url", "url": server.url("llava.json")},
            "download": {"directory": "kept"},
        }  # fmt: skip
        config = {"sources": sources, "data": {"held_out_fraction": 0.2}} | NAMED
        target = "results/shared/data/train.json"
        snakemake(tmp_path, config, target)
        report = json.loads((tmp_path / "results/shared/data/conversion.json").read_text())
        assert sum(report["kept"].values()) == 20 and not report["dropped"]
        assert len(list((tmp_path / "kept").glob("*/coco/*.jpg"))) == 20
        sent = server.sent
        assert "Nothing to be done" in snakemake(tmp_path, config, target)
        # What was fetched outlives the results, and how to fetch is no reason to convert again.
        sources["download"]["connections"] = 2
        links = list((tmp_path / "results/sources/files").glob("*/*"))
        assert all(link.is_symlink() for link in links) and len(links) == 2
        snakemake(tmp_path, config, target, "--forcerun", "download_file", "-q")
        assert server.sent == sent
        # The same, read from the zip.
        sources["images"]["unpack"] = False
        train = (tmp_path / target).read_bytes()
        snakemake(tmp_path, config, target)
        assert (tmp_path / target).read_bytes() == train and server.sent == sent
