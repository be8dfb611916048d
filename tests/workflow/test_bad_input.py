"""Mistakes of a user: a sentence, a status that says so, and nothing overwritten."""

import io
import json
import shutil
import subprocess
import sys

import pytest
import yaml
from PIL import Image
from workflow.conftest import HOSTILE_PATH, SMALL, Checkout, merged


@pytest.fixture(scope="module")
def sources(finished, tmp_path_factory):
    """Pictures, instructions and model as a user would have them."""
    place = tmp_path_factory.mktemp("sources")
    shutil.copytree(finished.path / "results/sources", place, dirs_exist_ok=True)
    return place


@pytest.fixture
def real(tmp_path, sources):
    """A checkout that is given paths, and a copy of the sources to damage."""
    mine = tmp_path / f"-{HOSTILE_PATH}"
    shutil.copytree(sources, mine)
    checkout = Checkout.make(
        tmp_path / "checkout",
        merged(
            SMALL,
            {
                "sources": {
                    "images": {"use": "path", "path": str(mine / "COCO2017/train2017")},
                    "instructions": {"use": "path", "path": str(mine / "llava_instruct_150k.json")},
                    "model": {"use": "path", "path": str(mine / "Qwen2-VL-demo")},
                }
            },
        ),
    )
    return checkout, mine


def refused(checkout, *words, target="results/compare.csv"):
    """The run fails with these words, and no traceback."""
    said = checkout.snakemake(target, fails=True)
    for word in words:
        assert word in said, said
    assert "Traceback" not in said, said
    return said


def records(mine):
    return json.loads((mine / "llava_instruct_150k.json").read_text(encoding="utf-8"))


def write(mine, value):
    (mine / "llava_instruct_150k.json").write_text(json.dumps(value), encoding="utf-8")


DATA = "results/shared/data/train.json"


def test_paths_of_ones_own_give_what_the_demo_gives(real, finished):
    checkout, _ = real
    checkout.snakemake(DATA, "results/shared/mm")
    for name in (DATA, "results/shared/mm/release/mp_rank_00/model_optim_rng.pt"):
        assert checkout.read(name) == finished.read(name)


def test_mistakes_in_the_configuration_stop_it_before_anything_runs(tmp_path):
    checkout = Checkout.make(tmp_path, merged(SMALL, {"train": {"train_iter": 3}}))
    refused(checkout, "train.train_iter is not a key; did you mean `train_iters`?")
    assert not (checkout.path / "results").exists()


def test_paths_that_are_not_there(real):
    checkout, mine = real
    shutil.rmtree(mine / "COCO2017")
    (mine / "llava_instruct_150k.json").unlink()
    (mine / "Qwen2-VL-demo" / "tokenizer.json").unlink()
    (mine / "Qwen2-VL-demo" / "model-00002-of-00002.safetensors").unlink()
    refused(
        checkout,
        "train2017, which is not a directory",
        "llava_instruct_150k.json, but there is no such file",
        "tokenizer.json is missing",
        "lacks 1 of 2 weight files",
    )
    assert not (checkout.path / "results").exists()


def test_a_prompt_whose_image_does_not_exist(real):
    checkout, mine = real
    (mine / "COCO2017/train2017/000000033471.jpg").unlink()
    refused(checkout, "prompts.named[0].image is 000000033471.jpg, but there is no such file")


def cut_off(mine):
    path = mine / "llava_instruct_150k.json"
    path.write_bytes(path.read_bytes()[:5000])


def no_list(mine):
    write(mine, {"records": []})


def change_turns(change):
    def damage(mine):
        found = records(mine)
        change(next(record for record in found if "image" in record)["conversations"])
        write(mine, found)

    return damage


def no_picture(mine):
    for record in records(mine)[:8]:
        if "image" in record:
            (mine / "COCO2017/train2017" / record["image"]).write_text("<html>")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_off, "is cut off in record"),
        (no_list, "record 0 has the key ['records'], so it is in none of the forms"),
        (change_turns(lambda turns: turns[1].update({"from": "bot"})), "`from` is 'bot'"),
        (change_turns(lambda turns: turns.pop()), "an odd number"),
        (change_turns(lambda turns: turns[0].update(value="q")), "0 `<image>` marks, but 1 image"),
        (no_picture, "the file is not a picture"),
    ],
    ids=["cut off", "no list", "unknown role", "odd turns", "image marks", "no picture"],
)
def test_damaged_data_is_told_and_nothing_is_written(real, damage, words):
    checkout, mine = real
    damage(mine)
    before = {path: path.read_bytes() for path in mine.rglob("*") if path.is_file()}
    refused(checkout, "convert_data: ", words, target=DATA)
    assert before == {path: path.read_bytes() for path in mine.rglob("*") if path.is_file()}
    assert not [path for path in (checkout.path / "results").rglob("*") if path.is_file()]


def test_pictures_that_are_cut_off_are_told_before_training(real):
    checkout, mine = real
    for path in (mine / "COCO2017/train2017").glob("*.jpg"):
        path.write_bytes(path.read_bytes()[:400])
    refused(checkout, "convert_data: ", "the picture can't be decoded: ", target=DATA)


def test_a_picture_that_cannot_be_decoded_stops_training_with_its_name(real):
    checkout, mine = real
    picture = io.BytesIO()
    Image.new("RGB", (40, 40)).save(picture, "PNG")
    content = picture.getvalue()
    begin = content.index(b"IDAT") + 4
    damaged = content[:begin] + bytes(20) + content[begin + 20 :]
    for path in (mine / "COCO2017/train2017").glob("*.jpg"):
        path.write_bytes(damaged)
    refused(
        checkout,
        "finetune_model: the picture",
        "can't be used: the picture can't be decoded (",
        target="results/baseline/hf",
    )


def test_weights_of_another_model_are_told(real):
    checkout, mine = real
    path = mine / "Qwen2-VL-demo/config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"num_hidden_layers": 5}))
    refused(checkout, "prepare_checkpoint: ", target="results/shared/mm")


def test_a_full_disk_is_told(finished, tmp_path):
    """A tiny file system of its own, where this may be done."""
    whole = Checkout.make(tmp_path / "whole").path
    needed = sum(path.stat().st_blocks * 512 for path in whole.rglob("*"))
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={needed + 800_000}", "tmpfs", str(place)],
        check=False, capture_output=True,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip("mounting a small file system is not allowed here: the full disk is not tested")
    try:
        checkout = Checkout.make(place)
        said = checkout.snakemake("results/sources/llava_instruct_150k.json", fails=True)
        assert "the disk is full" in said, said
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_second_training_on_one_save_dir_is_refused(finished, tmp_path):
    from filelock import FileLock

    checkout = Checkout.make(tmp_path)
    shutil.copytree(finished.path / "results/shared", checkout.path / "results/shared")
    shutil.copytree(finished.path / "results/sources", checkout.path / "results/sources")
    (checkout.path / "results/baseline").mkdir()
    with FileLock(checkout.path / "results/baseline/.save_dir.lock"):
        refused(checkout, "another training is writing to results/baseline/save_dir",
                target="results/baseline/finetune.json")  # fmt: skip


def test_the_configuration_of_the_tutorial_says_what_is_missing(tmp_path):
    """On a machine without CANN, and before 24 GB are fetched."""
    checkout = Checkout.make(tmp_path)
    said = checkout.snakemake(
        "results/compare.csv", "--configfile", "config/qwen2-vl-2b.yaml", fails=True
    )
    assert "install_mindspeed_mm: mindspeed.set_env is" in said and "Traceback" not in said
    assert not (checkout.path / "data").exists()
    assert yaml.safe_load((checkout.path / "config/qwen2-vl-2b.yaml").read_text())


def test_a_template_in_the_default_configuration_is_not_run(tmp_path):
    checkout = Checkout.make(tmp_path)
    path = checkout.path / "config/config.yaml"
    code = "__import__('pathlib').Path('ran').touch() or 'hf'"
    path.write_text(f"__use_yte__: true\n{path.read_text()}\nengine: ?{code}\n")
    refused(checkout, "config/config.yaml has `__use_yte__` in line 1: such templates run code")
    refused(checkout, "has `__use_yte__`", target="-n")
    assert not (checkout.path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"hf: { device: \xe9 }\n", "config/config.yaml is not UTF-8 text (byte 14)"),
        (b"hf: [\n", "config/config.yaml is not YAML: line 2: "),
        (b"", "config/config.yaml is empty; write at least `engine: hf`"),
        (None, "the configuration config/config.yaml is not there; write it"),
        (b"train:\n  lr: fast\n", "config/config.yaml, line 2: train.lr is \"fast\", but must be a number."),
    ],
    ids=["latin-1", "broken", "empty", "none", "line"],
)  # fmt: skip
def test_the_default_configuration_is_read_with_care(tmp_path, content, words):
    checkout = Checkout.make(tmp_path)
    path = checkout.path / "config/config.yaml"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert refused(checkout, words, target="-n").count("\n") <= 4
    assert not (checkout.path / "results").exists()


def test_check_config_says_all_mistakes_of_a_file_that_snakemake_would_run(tmp_path):
    checkout = Checkout.make(tmp_path)
    (checkout.path / "my.yaml").write_text("train:\n  lr: 2\n  seed: x\nhf: { threads: 010 }\n")
    command = [sys.executable, "scripts/check_config.py", "my.yaml"]
    done = subprocess.run(command, cwd=checkout.path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "hf.threads is 010 in my.yaml, line 4" in done.stderr
    (checkout.path / "my.yaml").write_text("train:\n  lr: 2\n  seed: x\n")
    done = subprocess.run(command, cwd=checkout.path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert "my.yaml, line 2: train.lr is 2, but must be at most 1." in done.stderr
    assert 'my.yaml, line 3: train.seed is "x", but must be a whole number.' in done.stderr
    done = subprocess.run(
        command[:2], cwd=checkout.path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (
        0,
        "Nothing is wrong; the experiments: baseline, hot.\n",
    )


def test_names_that_look_like_numbers_are_experiments_of_their_own(tmp_path):
    checkout = Checkout.make(tmp_path)
    (checkout.path / "config/config.yaml").write_text(
        "experiments:\n  1.0e-3: { train: { seed: 1 } }\n  0.001: { train: { seed: 2 } }\n"
        "  1e-3: { train: { seed: 3 } }\n  010:\n"
    )
    said = checkout.snakemake("-n", "results/compare.csv")
    for name in ("1.0e-3", "0.001", "1e-3", "010"):
        assert f"results/{name}/finetune.json" in said
