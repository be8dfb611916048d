"""A machine that does not play along: a sentence, and the same command goes on when it does."""

import os
import shutil
import signal
import subprocess
import time

import pytest
from chaos import contents, without_times
from mindtune.errors import UserError
from mindtune.glue.clock import refuse_future
from workflow.conftest import SMALL, Checkout, merged
from workflow.test_kill import MODEL, start, wait_for

PROMPTS = "results/shared/prompts.jsonl"
MM = "results/shared/mm"
# root may write everywhere, except without these capabilities.
AS_OTHERS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A checkout in which the questions are not chosen yet."""
    checkout = Checkout.make(tmp_path_factory.mktemp("prepared"))
    checkout.snakemake("results/shared/data/train.json")
    return checkout


@pytest.fixture
def mine(prepared, tmp_path):
    return copied(prepared, tmp_path / "mine")


def copied(prepared, place):
    shutil.copytree(prepared.path, place, symlinks=True, dirs_exist_ok=True)
    return Checkout(place)


def refused(checkout, *words, target=PROMPTS):
    said = checkout.snakemake(target, fails=True)
    assert all(word in said for word in words), said
    assert "Traceback" not in said, said
    return said


def mount(*arguments):
    done = subprocess.run(["mount", *map(str, arguments)], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("NOT TESTED: MOUNTING IS NOT ALLOWED HERE")


def goes_on(checkout, finished, target=PROMPTS):
    checkout.snakemake(target)
    assert "Nothing to be done" in checkout.snakemake(target)
    assert checkout.read(PROMPTS) == finished.read(PROMPTS)


def test_files_of_another_user(finished, mine):
    able = os.getuid() == 0 and shutil.which("setpriv")
    if not able or subprocess.run([*AS_OTHERS, "true"], check=False).returncode:
        pytest.skip(
            "NOT TESTED: FILES OF ANOTHER USER NEED ROOT AND THE RIGHT TO DROP CAPABILITIES"
        )
    before = contents(mine.path)
    for theirs in (".snakemake", "results/shared", "logs/convert_data/shared.log"):
        os.chown(mine.path / theirs, 65534, 65534)
        done = subprocess.run(
            [*AS_OTHERS, *mine.command(PROMPTS)], cwd=mine.path, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300,
        )  # fmt: skip
        said = done.stdout
        assert f"{theirs} can't be written by root (it is nobody's, mode" in said, said
        assert done.returncode == 1 and "Traceback" not in said, said
        os.chown(mine.path / theirs, 0, 0)
    assert contents(mine.path) == before
    goes_on(mine, finished)


def test_read_only_results(finished, mine):
    place = mine.path / "results"
    mount("--bind", place, place)
    try:
        mount("-o", "remount,ro,bind", place)
        refused(mine, "results can't be written: the file system is read-only")
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
    goes_on(mine, finished)


def test_a_disk_that_fills_up(finished, prepared, tmp_path):
    """Too full for a job's result, then too full for Snakemake itself; then there is room."""
    (tmp_path / "small").mkdir()
    mount("-t", "tmpfs", "-o", "size=100m", "tmpfs", tmp_path / "small")
    try:
        checkout = copied(prepared, tmp_path / "small")
        filler = checkout.path / "filler"
        fill(filler, leaving=6 << 20)
        said = refused(checkout, "prepare_checkpoint: the result needs", "left", target=MM)
        assert "Error in rule prepare_checkpoint" in said
        fill(filler, leaving=1 << 16)
        refused(checkout, "the disk is full (", "free some space and run the same command again")
        filler.unlink()
        goes_on(checkout, finished)
        checkout.snakemake(MM)
        name = f"{MM}/release/mp_rank_00/model_optim_rng.pt"
        assert checkout.read(name) == finished.read(name)
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "small")], check=True)


def fill(filler, leaving):
    free = shutil.disk_usage(filler.parent).free
    with open(filler, "ab") as handle:
        handle.write(bytes(max(free - leaving, 0)))


def test_two_at_once(finished, mine):
    answers = "results/shared/answers_before.jsonl"
    first = start(mine, answers)
    wait_for(mine.path / "logs/answer_prompts/shared_before.log", first)
    said = refused(
        mine, f"Snakemake is at work here already (process {first.pid} of ", target=answers
    )
    assert "LockException" in said and first.poll() is None
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    goes_on(mine, finished)


def test_files_from_the_future(finished, mine):
    train = "results/shared/data/train.json"
    later = time.time() + 1e8
    os.utime(mine.path / train, (later, later))
    refused(mine, f"{train} is dated ", f"type `touch {train}`")
    os.utime(mine.path / train)
    goes_on(mine, finished)


@pytest.mark.parametrize("name", ["images", "instructions", "model"])
def test_a_source_from_the_future_is_said_before_any_work(prepared, tmp_path, name):
    """A directory too: Snakemake would delete what is made of it, when all work is done."""
    sources = prepared.path / "results/sources"
    places = {
        "images": sources / "COCO2017/train2017",
        "instructions": sources / "llava_instruct_150k.json",
        "model": tmp_path / "model",
    }
    prepared.snakemake("results/sources/Qwen2-VL-demo")
    shutil.copytree(sources / "Qwen2-VL-demo", places["model"])
    chosen = {kind: {"use": "path", "path": str(path)} for kind, path in places.items()}
    checkout = Checkout.make(tmp_path / "mine", merged(SMALL, {"sources": chosen}))
    stamp = places[name] / ".snakemake_timestamp"
    dated = stamp if stamp.exists() else places[name]
    later = time.time() + 1e8
    os.utime(dated, (later, later))
    try:
        said = refused(
            checkout, f"{places[name]} is dated ", f"type `touch {dated}`",
            target="results/baseline/finetune.json",
        )  # fmt: skip
    finally:
        os.utime(dated)
    assert "Finished jobid" not in said and not list((checkout.path / "results").rglob("*.json"))
    checkout.snakemake(PROMPTS)


def test_a_link_from_the_future_and_a_link_to_something_from_the_future(tmp_path):
    later = time.time() + 1e8
    (tmp_path / "pictures").mkdir()
    link = tmp_path / "link"
    link.symlink_to("pictures")
    refuse_future([link])
    os.utime(link, (later, later), follow_symlinks=False)
    with pytest.raises(UserError, match=f"type `touch -h {link}`"):
        refuse_future([link])
    os.utime(link, follow_symlinks=False)
    os.utime(tmp_path / "pictures", (later, later))
    with pytest.raises(UserError, match=f"type `touch {link}`"):
        refuse_future([link])


def test_pictures_that_vanish_in_the_middle_of_a_training(finished, mine):
    mine.snakemake(MM)
    process = start(mine, "results/baseline/finetune.json")
    wait_for(mine.path / "results/baseline/save_dir/iter_0000002", process)
    shutil.rmtree(mine.path / "results/sources/COCO2017")
    assert process.wait(timeout=300) == 1
    log = (mine.path / "logs/finetune_model/baseline.log").read_text()
    assert "000" in log and "Traceback" not in log, log
    mine.snakemake("results/baseline/finetune.json")
    assert mine.read(MODEL) == finished.read(MODEL)
    assert without_times("loss.csv", mine.read("results/baseline/loss.csv")) == without_times(
        "loss.csv", finished.read("results/baseline/loss.csv")
    )
