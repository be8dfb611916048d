"""One command ends with what it was asked for, or with an error, whatever was broken off before."""

import json
import shutil
from base64 import urlsafe_b64encode

import pytest
import yaml
from sources.server import Server
from sources.test_chosen_sources import llava, pictures_zip
from workflow.conftest import SMALL, Checkout, merged

TRAIN = "results/shared/data/train.json"
HELD_OUT = "results/shared/data/held_out.json"


@pytest.fixture(scope="module")
def fetched(tmp_path_factory):
    """A checkout with pictures, fetched and unpacked, and instructions, from which data were made."""
    checkout = Checkout.make(tmp_path_factory.mktemp("fetched"))
    with Server() as server:
        server.files = {"coco.zip": pictures_zip(20), "llava.json": llava(20)}
        change = {
            "sources": {
                "images": {"use": "url", "url": server.url("coco.zip")},
                "instructions": {"use": "url", "url": server.url("llava.json")},
            },
            "prompts": {"named": []},
            "data": {"held_out_fraction": 0.2},
        }
        checkout.configure(merged(SMALL, change))
        checkout.snakemake(TRAIN)
    return checkout


@pytest.fixture
def mine(fetched, tmp_path):
    shutil.copytree(fetched.path, tmp_path / "mine", symlinks=True)
    return Checkout(tmp_path / "mine")


def break_off(checkout, pattern):
    """Leave things as a SIGKILL leaves them while the rule of the one output that fits runs."""
    [path] = checkout.path.glob(pattern)
    name = str(path.relative_to(checkout.path))
    marker = checkout.path / ".snakemake/incomplete" / urlsafe_b64encode(name.encode()).decode()
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.write_text('{"external_jobid": null}')
    return name


SOURCES = {
    "unpack_images": "results/sources/pictures/*/*",
    "download_file": "results/sources/files/*/*.zip",
    "download_file of instructions": "results/sources/files/*/*.json",
}


@pytest.mark.parametrize("rule", SOURCES)
def test_a_source_that_was_broken_off_does_not_keep_the_target_from_being_made(mine, rule):
    wanted = mine.read(TRAIN)
    shutil.rmtree(mine.path / "results/shared")
    break_off(mine, SOURCES[rule])
    mine.snakemake(TRAIN)
    assert mine.read(TRAIN) == wanted
    assert "Nothing to be done" in mine.snakemake(TRAIN)


@pytest.mark.parametrize("rule", SOURCES)
def test_nor_does_it_hide_an_edit(mine, rule):
    path = mine.path / "config/config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(merged(config, {"data": {"held_out_fraction": 0.4}})))
    break_off(mine, SOURCES[rule])
    before = json.loads(mine.read(HELD_OUT))
    assert mine.asked(TRAIN)[0].needed()[-1].rule == "convert_data"
    mine.snakemake(TRAIN)
    assert len(json.loads(mine.read(HELD_OUT))) > len(before)
    assert "Nothing to be done" in mine.snakemake(TRAIN)


@pytest.mark.parametrize("rule", SOURCES)
def test_what_is_finished_is_not_made_again_for_it(mine, rule):
    break_off(mine, SOURCES[rule])
    assert {job.rule for job in mine.asked(TRAIN)[0].needed()} == {rule.split()[0]}
    mine.snakemake(TRAIN)
    assert "Nothing to be done" in mine.snakemake(TRAIN)


@pytest.mark.parametrize(
    "output", ["results/sources/COCO2017/train2017", "results/sources/Qwen2-VL-demo"]
)
def test_a_part_of_the_demo_that_was_broken_off(tmp_path, output):
    checkout = Checkout.make(tmp_path)
    targets = (TRAIN, "results/shared/mm")
    checkout.snakemake(output)
    break_off(checkout, output)
    checkout.snakemake(*targets)
    assert (checkout.path / TRAIN).exists() and (checkout.path / "results/shared/mm").is_dir()
    assert "Nothing to be done" in checkout.snakemake(*targets)


def test_what_changes_while_a_command_works_is_said_at_its_end(mine):
    """The instructions are another file when the pictures are ready: nobody looked at that."""
    instructions = mine.path / "own.json"
    instructions.write_bytes(llava(20))
    path = mine.path / "config/config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["sources"]["instructions"] = {"use": "path", "path": "own.json"}
    path.write_text(yaml.safe_dump(config))
    mine.snakemake(TRAIN)
    break_off(mine, SOURCES["unpack_images"])
    script = mine.path / "scripts/unpack_images.py"
    line = f"open({str(instructions)!r}, 'a').write(' ')\n"
    script.write_text(line + script.read_text(encoding="utf-8"), encoding="utf-8")
    said = mine.snakemake(TRAIN, fails=True)
    assert "Not everything that was asked for is done: convert_data must still run" in said
    assert "Traceback" not in said
    mine.snakemake(TRAIN)
    assert "Nothing to be done" in mine.snakemake(TRAIN)
