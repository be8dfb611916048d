"""Holding an installation of MindSpeed-MM against the pins. Nothing of it is changed."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from mindtune.engines.mindspeed.framework import repositories
from mindtune.engines.mindspeed.framework.asking import MODULES, Packages
from mindtune.engines.mindspeed.framework.pins import Pins, normalized
from mindtune.engines.mindspeed.framework.rows import FAIL, OK, REHEARSED, WARNING, Row
from mindtune.files import sha256_file
from mindtune.models import NAMES

# More changed files than this are another version, and not somebody's edits.
EDITS = 20
SHOWN = 3


def content_problems(home: Path, pins: Pins) -> list[str]:
    """Pinned files that are missing or have other content, a phrase each."""
    problems = []
    for name, digest in pins.files.items():
        path = home / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif sha256_file(path) != digest:
            problems.append(f"{name} is another")
    return problems


def patched(home: Path, pins: Pins) -> bool:
    """Whether the file that the tutorial copies over MindSpeed's was copied."""
    source, target = (home / part for part in pins.patched)
    return source.is_file() and target.is_file() and source.read_bytes() == target.read_bytes()


def commits(home: Path) -> dict[str, str | None]:
    """The commits that Git data tells of; None where there is none, as in a copied directory."""
    return {
        "mindspeed_mm": repositories.head(home),
        "mindspeed": repositories.head(home / "MindSpeed"),
    }


def layout_row(home: Path) -> Row:
    """Whether the parts are where the framework looks for them."""
    parts = ("pretrain_vlm.py", "mindspeed_mm", "checkpoint", "megatron", "MindSpeed/mindspeed")
    lacking = [part for part in parts if not (home / part).exists()]
    if not lacking:
        return Row("MindSpeed-MM", OK, str(home))
    return Row(
        "MindSpeed-MM", FAIL,
        f"{home} has no {', '.join(lacking)}; mindspeed.home must be the root of MindSpeed-MM, with "
        "Megatron-LM's folder `megatron` copied into it and MindSpeed cloned into it.",
    )  # fmt: skip


def commit_rows(found: Mapping[str, str | None], pins: Pins) -> Iterator[Row]:
    """Commits against the pinned ones, where Git knows them."""
    for name, commit in found.items():
        pinned = pins.repositories[name].commit
        if commit is None:
            yield Row(f"commit of {name}", OK, "no Git data; its files are compared instead")
        elif commit == pinned:
            yield Row(f"commit of {name}", OK, commit[:8])
        else:
            yield Row(
                f"commit of {name}", FAIL,
                f"{commit[:8]} instead of {pinned[:8]}, with which this project works; run "
                f"`git checkout {pinned}` there, or leave mindspeed.home out to have it installed.",
            )  # fmt: skip


def content_row(problems: list[str], pins: Pins) -> Row:
    """The framework's Python files against their checksums; the patched one has its own row."""
    problems = [text for text in problems if not text.startswith(f"{pins.patched[1]} ")]
    if not problems:
        return Row("files", OK, f"{len(pins.files)} are those of the pinned commits")
    named = ", ".join(problems[:SHOWN]) + (", …" if len(problems) > SHOWN else "")
    if len(problems) <= EDITS and not any(text.endswith("missing") for text in problems):
        return Row(
            "files", WARNING,
            f"{len(problems)} of {len(pins.files)} differ from the pinned commits ({named}): results "
            "are those of the changed code; `git diff` shows it.",
        )  # fmt: skip
    return Row(
        "files", FAIL,
        f"{len(problems)} of {len(pins.files)} are not those of the pinned commits ({named}); check "
        "the commits of MindSpeed-MM, Megatron-LM and MindSpeed out that docs/installation.md names.",
    )  # fmt: skip


def patched_row(is_patched: bool, pins: Pins) -> Row:
    """The copied dot_product_attention.py, whose absence the framework doesn't notice."""
    source, target = pins.patched
    if is_patched:
        return Row("patched file", OK, f"{target} is the copy of {source}")
    return Row(
        "patched file", FAIL,
        f"{target} isn't {source}, and {NAMES} would be computed wrongly without a word; in the "
        f"root of MindSpeed-MM run `cp {source} {target}`.",
    )  # fmt: skip


def mode_problems(home: Path) -> list[Path]:
    """Directories that can't be entered and files that can't be read, also by another than root.

    The framework's own scripts leave such ones (`chmod -R 640`); it then takes a checkpoint for
    missing, and trains from random weights.
    """
    problems = []
    for place, directories, files in os.walk(home):
        directories[:] = [name for name in directories if name not in (".git", "__pycache__")]
        here = Path(place)
        for name, needed in [
            *((name, 0o500) for name in directories),
            *((name, 0o400) for name in files),
        ]:
            path = here / name
            if path.is_symlink():
                continue
            mode = path.stat().st_mode
            if mode & needed != needed or not os.access(path, os.R_OK):
                problems.append(path)
    return problems


def mode_row(problems: list[Path], home: Path) -> Row:
    if not problems:
        return Row("modes", OK, "all files can be read, all directories entered")
    first = problems[0].relative_to(home)
    return Row(
        "modes", FAIL,
        f"{len(problems)} files or directories of MindSpeed-MM can't be read or entered, such as "
        f"{first}; run `chmod -R u+rwX {home}`, or ask their owner to.",
    )  # fmt: skip


def python_row(found: Packages, python: Path, pins: Pins) -> Row:
    if found.python.rsplit(".", 1)[0] == pins.python:
        return Row("Python", OK, f"{found.python}, {python}")
    return Row(
        "Python", FAIL,
        f"{python} is Python {found.python}, but the framework wants {pins.python}; write another "
        "in mindspeed.python.",
    )  # fmt: skip


def package_rows(found: Packages, pins: Pins, stand_in: bool) -> Iterator[Row]:
    """torch, torch_npu, transformers and numpy against the matrix."""
    for name, wanted in pins.packages.items():
        version = found.versions.get(normalized(name))
        if stand_in and name == "torch_npu":
            yield Row(name, REHEARSED, "the stand-in's; no NPU's code runs")
        elif version is None:
            yield Row(
                name, FAIL,
                f"isn't installed in mindspeed.python; install {name}=={wanted} there.",
            )  # fmt: skip
        elif normalized(name) in found.damaged:
            yield Row(
                name, FAIL,
                f"{version} is installed in part ({found.damaged[normalized(name)]} is missing or "
                f"cut); install {name}=={version} again.",
            )  # fmt: skip
        else:
            yield _version_row(name, version, wanted)


def _version_row(name: str, version: str, wanted: str) -> Row:
    public = version.split("+")[0]
    if public == wanted:
        return Row(name, OK, version)
    if name == "numpy" and public.split(".")[0] == wanted.split(".")[0]:
        return Row(name, OK, f"{version}, any 1.x will do")
    same_release = public.split(".post")[0] == wanted.split(".post")[0]
    if name == "torch_npu" and same_release:
        return Row(
            name, WARNING,
            f"{version}, where MindSpeed-MM 2.0.0 was made with {wanted}; if operators fail, "
            f"install {name}=={wanted}.",
        )  # fmt: skip
    why = {"numpy": "torch 2.1.0 is built for numpy 1"}.get(
        name, "MindSpeed-MM 2.0.0 wants that one"
    )
    return Row(name, FAIL, f"{version} instead of {wanted} ({why}); install {name}=={wanted}.")


def place_row(found: Packages, home: Path) -> Row:
    """Whether the framework's Python takes the framework's modules from this root."""
    for module in MODULES:
        place = found.places.get(module)
        if place is None:
            return Row(
                "modules", FAIL,
                f"`{module}` isn't found by mindspeed.python; run `pip install -e .` of that Python "
                f"in {home} and in {home / 'MindSpeed'}.",
            )  # fmt: skip
        if not Path(place).resolve().is_relative_to(home.resolve()):
            return Row(
                "modules", FAIL,
                f"`{module}` would be taken from {place} and not from {home}; uninstall the other one.",
            )  # fmt: skip
    return Row("modules", OK, f"{', '.join(MODULES)} come from there")


def framework_rows(
    home: Path, python: Path, found: Packages, pins: Pins, stand_in: bool
) -> list[Row]:
    """All that is to be said of an installation, whoever made it."""
    layout = layout_row(home)
    rows = [python_row(found, python, pins), *package_rows(found, pins, stand_in), layout]
    if layout.status == FAIL:
        return rows
    return [
        *rows,
        place_row(found, home),
        *commit_rows(commits(home), pins),
        content_row(content_problems(home, pins), pins),
        patched_row(patched(home, pins), pins),
        mode_row(mode_problems(home), home),
    ]
