"""Holding an installation against the pins: every row, sound and unsound."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from mindtune.engines.mindspeed.framework import checking
from mindtune.engines.mindspeed.framework.asking import MODULES, Packages
from mindtune.engines.mindspeed.framework.installation import record_of
from mindtune.engines.mindspeed.framework.rows import (
    FAIL,
    OK,
    REHEARSED,
    WARNING,
    Row,
    stop_on_failures,
    table,
)
from mindtune.errors import UserError
from tiny_framework import PATCHED, PYTHON, git, make_home

VERSIONS = {
    "torch": "2.1.0",
    "torch-npu": "2.1.0.post12",
    "transformers": "4.45.0",
    "numpy": "1.26.4",
}


@pytest.fixture
def home(tmp_path):
    return make_home(tmp_path / "MindSpeed-MM")


def found(home, **versions):
    return Packages(
        f"{PYTHON}.9", VERSIONS | versions, places={name: str(home) for name in MODULES}
    )


def rows(home, pins, packages=None, stand_in=False):
    given = checking.framework_rows(home, Path("/p"), packages or found(home), pins, stand_in)
    return {row.name: row for row in given}


def failing(given):
    return {name for name, row in given.items() if row.status == FAIL}


def test_a_sound_home_has_no_bad_row_and_is_not_touched(home, origins):
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    given = rows(home, origins.pins)
    assert {row.status for row in given.values()} == {OK}
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == before


@pytest.mark.parametrize(
    ("package", "version", "status", "said"),
    [
        ("torch", "2.1.0+cpu", OK, "2.1.0+cpu"),
        ("torch", "2.6.0", FAIL, "install torch==2.1.0"),
        ("transformers", "4.46.0", FAIL, "install transformers==4.45.0"),
        ("numpy", "1.24.0", OK, "any 1.x will do"),
        ("numpy", "2.0.1", FAIL, "built for numpy 1"),
        ("torch-npu", "2.1.0.post10", WARNING, "was made with 2.1.0.post12"),
        ("torch-npu", "2.6.0", FAIL, "install torch_npu==2.1.0.post12"),
    ],
)
def test_versions_against_the_matrix(home, origins, package, version, status, said):
    row = rows(home, origins.pins, found(home, **{package: version}))[package.replace("-", "_")]
    assert row.status == status and said in row.sentence


def test_a_package_that_is_missing_or_cut(home, origins):
    less = replace(found(home), versions={"torch": "2.1.0"}, damaged={"torch": "torch/lib/x.so"})
    given = rows(home, origins.pins, less)
    assert "isn't installed" in given["numpy"].sentence
    assert "torch/lib/x.so" in given["torch"].sentence
    assert failing(given) == {"torch", "torch_npu", "transformers", "numpy"}


def test_a_stand_in_is_rehearsed_and_not_ok(home, origins):
    less = found(home)
    del less.versions["torch-npu"]
    given = rows(home, origins.pins, less, stand_in=True)
    assert given["torch_npu"].status == REHEARSED and failing(given) == set()


def test_another_python(home, origins):
    given = rows(home, origins.pins, replace(found(home), python="3.9.1"))
    assert "mindspeed.python" in given["Python"].sentence and failing(given) == {"Python"}


def test_parts_that_are_missing(home, origins):
    shutil.rmtree(home / "megatron")
    given = rows(home, origins.pins)
    assert "megatron" in given["MindSpeed-MM"].sentence and failing(given) == {"MindSpeed-MM"}


def test_the_patched_file_that_was_forgotten(home, origins):
    (home / PATCHED[1]).write_text("KV_CACHE = False\n")
    given = rows(home, origins.pins)
    assert failing(given) == {"patched file"} and "`cp " in given["patched file"].sentence


def test_an_edited_file_is_a_warning_that_names_it(home, origins):
    (home / "pretrain_vlm.py").write_text("print('mine')\n")
    given = rows(home, origins.pins)
    assert given["files"].status == WARNING and "pretrain_vlm.py" in given["files"].sentence


def test_missing_or_many_other_files_are_another_version(home, origins):
    (home / "megatron/core/__init__.py").unlink()
    assert failing(rows(home, origins.pins)) == {"files"}
    many = [f"file{number}.py is another" for number in range(checking.EDITS + 1)]
    assert checking.content_row(many, origins.pins).status == FAIL


def test_commits_where_git_knows_them(home, origins):
    for place in (home, home / "MindSpeed"):
        git(place, "init", "-q")
        git(place, "commit", "-q", "--allow-empty", "-m", "another")
    given = rows(home, origins.pins)
    assert failing(given) == {"commit of mindspeed_mm", "commit of mindspeed"}
    pinned = origins.pins.repositories["mindspeed"].commit
    assert f"git checkout {pinned}" in given["commit of mindspeed"].sentence
    known = {"mindspeed": pinned}
    assert [row.status for row in checking.commit_rows(known, origins.pins)] == [OK]


@pytest.mark.parametrize(("name", "mode"), [("ckpt", 0o640), ("pretrain_vlm.py", 0o040)])
def test_modes_that_the_frameworks_own_scripts_leave(home, origins, name, mode):
    (home / "ckpt").mkdir()
    (home / name).chmod(mode)
    problems = checking.mode_problems(home)
    (home / name).chmod(0o755)
    row = checking.mode_row(problems, home)
    assert row.status == FAIL and name in row.sentence and "chmod -R u+rwX" in row.sentence


def test_modules_of_another_installation(home, origins):
    elsewhere = replace(found(home), places=dict.fromkeys(MODULES, "/other/x"))
    given = rows(home, origins.pins, elsewhere)
    assert failing(given) == {"modules"} and "/other/x" in given["modules"].sentence
    nowhere = replace(found(home), places=dict.fromkeys(MODULES))
    assert "pip install -e ." in rows(home, origins.pins, nowhere)["modules"].sentence


def test_all_failures_are_told_at_once_with_their_remedies(home, origins, monkeypatch):
    monkeypatch.setattr(
        "mindtune.engines.mindspeed.framework.asking.packages",
        lambda *given: found(home, numpy="2.0.0", torch="2.0.0"),
    )
    with pytest.raises(UserError) as told:
        record_of(home, Path("/p"), None, None, origins.pins, made=False)
    assert "torch==2.1.0" in str(told.value) and "numpy==1.26.4" in str(told.value)


def test_the_record_of_ones_own_installation(home, origins, monkeypatch):
    monkeypatch.setattr(
        "mindtune.engines.mindspeed.framework.asking.packages", lambda *given: found(home)
    )
    record = record_of(home, Path("/p"), None, Path("/s.sh"), origins.pins, made=False)
    assert record["installed_by"] == "user" and record["home"] == str(home)
    assert "apex" not in record["commits"] and json.dumps(record)


def test_the_table_is_aligned_and_only_failures_stop():
    given = [Row("a", OK, "one"), Row("longer", REHEARSED, "two"), Row("b", WARNING, "three")]
    assert (
        len(
            {
                line.index(word)
                for line, word in zip(
                    table(given).splitlines(), ("one", "two", "three"), strict=True
                )
            }
        )
        == 1
    )
    stop_on_failures(given, "head")
    with pytest.raises(UserError, match=r"head\n  - c: four"):
        stop_on_failures([*given, Row("c", FAIL, "four")], "head")
