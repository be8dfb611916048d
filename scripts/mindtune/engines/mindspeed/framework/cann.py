"""CANN, Ascend's toolkit: its script of variables and its version."""

import platform
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from mindtune.engines.mindspeed.framework import environment
from mindtune.engines.mindspeed.framework.rows import FAIL, OK, REHEARSED, WARNING, Row
from mindtune.errors import UserError

HOME = "ASCEND_TOOLKIT_HOME"
OLDEST = (8, 0)
_VERSION = re.compile(
    r"^\s*version\s*=\s*\[?(?:[\d.]+:)?v?(\d+\.\d+[\w.]*)", re.IGNORECASE | re.MULTILINE
)


def toolkit_home(set_env: Path | None, environ: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Where the toolkit is once the script was sourced, and why it can't be, or None."""
    if set_env is None:
        return environ.get(HOME), None
    script = f'source "$0" >/dev/null || exit 1; printf "\\n%s" "${HOME}"'
    try:
        said = environment.run(
            ["bash", "-c", script, str(set_env)],
            f"sourcing {set_env}",
            environ=environment.clean_environment(environ),
        )
    except UserError as error:
        return None, str(error)
    return said.rpartition("\n")[2] or None, None


def version(home: Path | None, machine: str = "") -> str | None:
    """CANN's version, as its installation files have it."""
    if home is None:
        return None
    machine = machine or platform.machine()
    for name in (
        f"{machine}-linux/ascend_toolkit_install.info",
        f"{machine}-linux/ascend_nnrt_install.info",
        "compiler/version.info",
        "runtime/version.info",
        "version.cfg",
    ):
        try:
            match = _VERSION.search((home / name).read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
        if match:
            return match[1]
    return None


def set_env_row(set_env: Path | None, home: str | None, trouble: str | None) -> Row:
    name = "set_env.sh"
    if trouble:
        return Row(name, FAIL, f"{trouble}; reinstall CANN, or write another mindspeed.set_env.")
    if home is None:
        where = "the environment" if set_env is None else str(set_env)
        return Row(
            name, FAIL,
            f"{where} doesn't set {HOME}, so torch_npu will not find CANN; write the path of CANN's own "
            "set_env.sh in mindspeed.set_env.",
        )  # fmt: skip
    return Row(name, OK, str(set_env) if set_env else f"null, and {HOME} is set")


def version_row(found: str | None, wanted: str) -> Row:
    if found is None:
        return Row(
            "CANN", FAIL,
            f"no version file is in {HOME}; install CANN {wanted}, toolkit and kernels, or fix "
            "mindspeed.set_env.",
        )  # fmt: skip
    if found.lower() == wanted.lower():
        return Row("CANN", OK, found)
    numbers = tuple(int(part) for part in found.split(".")[:2])
    if numbers < OLDEST:
        return Row(
            "CANN", FAIL,
            f"{found} is older than torch_npu 2.1.0.post12 can use; install CANN {wanted}.",
        )  # fmt: skip
    return Row(
        "CANN", WARNING,
        f"{found}, where MindSpeed-MM 2.0.0 names {wanted}; if operators fail or results differ, "
        f"install CANN {wanted}.",
    )  # fmt: skip


def rows(set_env: Path | None, wanted: str, environ: Mapping[str, str]) -> Iterator[Row]:
    """All about CANN."""
    home, trouble = toolkit_home(set_env, environ)
    yield set_env_row(set_env, home, trouble)
    yield version_row(version(Path(home) if home else None), wanted)


def rehearsed() -> Iterator[Row]:
    """The rows with a stand-in."""
    for name in ("set_env.sh", "CANN"):
        yield Row(name, REHEARSED, "mindspeed.stand_in takes its place")
