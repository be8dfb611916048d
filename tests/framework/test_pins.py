"""The pins agree with one another, and with the real tree."""

import os
import re
from pathlib import Path

import pytest
from mindtune.engines.mindspeed.framework.checking import content_problems, patched
from mindtune.engines.mindspeed.framework.pins import DIRECTORY, NPU_ONLY, load_pins, normalized

PINS = load_pins()
LOCKED = {item.name: item for item in PINS.lock}


def test_every_package_of_the_lock_has_a_version_and_hashes():
    assert len(PINS.lock) > 90 and len(LOCKED) == len(PINS.lock)
    for item in PINS.lock:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", item.lines), item.name


def test_the_lock_has_what_the_requirements_name():
    text = (DIRECTORY / "requirements.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        match = re.match(r"([A-Za-z0-9_.-]+)(?:\[\w+\])?(==|>=|<)?([\w.]+)?", line)
        if match and not line.startswith("#"):
            name, sign, version = match.groups()
            locked = LOCKED[normalized(name)].version
            assert sign != "==" or locked == version, line
            assert sign != "<" or int(locked.split(".")[0]) < int(version), line


def test_the_matrix_is_that_of_the_lock():
    assert {name: LOCKED[normalized(name)].version for name in PINS.packages} == PINS.packages


@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
def test_both_processors_get_all_they_need(machine):
    names = {item.name for item in PINS.requirements(stand_in=False, machine=machine)}
    assert {"torch", "torch-npu", "transformers", "numpy", "datasets", "wheel"} <= names
    # torch's wheel for x86_64 is linked against NVIDIA's libraries; that for aarch64 isn't.
    assert any(name.startswith("nvidia-") for name in names) == (machine == "x86_64")
    rehearsed = {item.name for item in PINS.requirements(stand_in=True, machine=machine)}
    assert names - rehearsed == set(NPU_ONLY)


def test_commits_are_whole_and_no_package_index_is_named():
    for repository in PINS.repositories.values():
        assert re.fullmatch(r"[0-9a-f]{40}", repository.commit)
    for path in DIRECTORY.iterdir():
        assert not re.search(r"index-url|find-links|pypi|simple/", path.read_text(encoding="utf-8"))


def test_the_patched_file_is_the_copied_one():
    source, target = PINS.patched
    assert PINS.files[source] == PINS.files[target]


HOME = os.environ.get("MINDSPEED_MM_HOME")


@pytest.mark.mindspeed
@pytest.mark.skipif(
    not HOME, reason="pins not held against a real tree: MINDSPEED_MM_HOME is not set"
)
def test_the_real_tree_is_the_pinned_one():
    assert content_problems(Path(HOME), PINS) == []
    assert patched(Path(HOME), PINS)
