"""The installation as a whole: made or found, checked, and recorded."""

import logging
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindtune.engines.mindspeed.framework import asking
from mindtune.engines.mindspeed.framework.checking import commits, framework_rows
from mindtune.engines.mindspeed.framework.installing import Plan, install
from mindtune.engines.mindspeed.framework.pins import Pins, normalized
from mindtune.engines.mindspeed.framework.rows import stop_on_failures
from mindtune.errors import UserError

if TYPE_CHECKING:
    from mindtune.settings.sections.mindspeed import Install, Mindspeed

log = logging.getLogger(__name__)

REPOSITORIES = ("mindspeed_mm", "megatron_lm", "mindspeed", "apex")


def make_sure(settings: "Mindspeed", pins: Pins) -> dict[str, Any]:
    """Check the installation at `home`, or make one; the record of it, for installation.json.

    settings: of the section `mindspeed`: home, python, set_env, stand_in, install.

    Raises
    ------
    UserError: it can't be made, or isn't what this project works with.
    """
    stand_in = directory(settings.stand_in, "mindspeed.stand_in")
    set_env = script(settings.set_env, stand_in)
    python = asking.interpreter(settings.python, pins.python)
    if settings.home is None:
        check_platform(pins)
        plan = plan_of(settings.install, python, pins, stand_in, set_env)
        install(plan)
        home, python = plan.root, plan.environment_python
    else:
        home = directory(settings.home, "mindspeed.home")
    record = record_of(home, python, stand_in, set_env, pins, made=settings.home is None)
    log.info("MindSpeed-MM is ready in %s", home)
    return record


def check_platform(pins: Pins) -> None:
    """Raises UserError: the lock has nothing for this processor or system."""
    system, processor = platform.system(), platform.machine()
    if system != "Linux" or not pins.requirements(stand_in=True):
        raise UserError(
            f"this is {system} on {processor}, but MindSpeed-MM's packages are pinned for Linux on aarch64 "
            "and x86_64; run there, or name an installation of your own in mindspeed.home."
        )


def record_of(
    home: Path, python: Path, stand_in: Path | None, set_env: Path | None, pins: Pins, made: bool
) -> dict[str, Any]:
    """Check an installation and say what it is.

    Raises
    ------
    UserError: with a sentence for each thing that is wrong with it.
    """
    found = asking.packages(python, home, stand_in)
    rows = framework_rows(home, python, found, pins, stand_in is not None)
    for row in rows:
        log.info("%s: %s, %s", row.name, row.status, row.sentence)
    stop_on_failures(rows, f"MindSpeed-MM in {home} can't be used:")
    known = commits(home)
    return {
        "home": str(home),
        "python": str(python),
        "set_env": None if set_env is None else str(set_env),
        "stand_in": None if stand_in is None else str(stand_in),
        "versions": versions_of(found, pins, stand_in is not None),
        # Without Git data the content was compared, and is that of the pinned commit.
        "commits": {
            name: known.get(name) or pins.repositories[name].commit
            for name in REPOSITORIES
            if name != "apex" or (made and stand_in is None)
        },
        "installed_by": "mindtune" if made else "user",
    }


def versions_of(found: asking.Packages, pins: Pins, stand_in: bool) -> dict[str, str]:
    """Versions of the packages that matter; what a stand-in replaces is named as such."""
    names = [*pins.packages, "apex", "mindspeed", "mindspeed_mm"]
    versions = {"python": found.python}
    for name in names:
        if stand_in and name in ("torch_npu", "apex"):
            versions[name] = "stand-in"
        elif normalized(name) in found.versions:
            versions[name] = found.versions[normalized(name)]
    return versions


def plan_of(
    chosen: "Install", python: Path, pins: Pins, stand_in: Path | None, set_env: Path | None
) -> Plan:
    """The section `mindspeed.install`, as a plan."""
    wheels, apex_wheel = chosen.wheels, chosen.apex_wheel
    return Plan(
        directory=Path(chosen.directory).expanduser().absolute(),
        python=python,
        pins=pins,
        sources={name: getattr(chosen, name) for name in REPOSITORIES},
        stand_in=stand_in,
        set_env=set_env,
        apex_wheel=Path(apex_wheel).expanduser().absolute() if apex_wheel else None,
        wheels=directory(wheels, "mindspeed.install.wheels"),
        package_index=chosen.package_index,
    )


def directory(value: str | None, key: str) -> Path | None:
    """The absolute path of a directory that a key names.

    Raises
    ------
    UserError: there is none.
    """
    if value is None:
        return None
    path = Path(value).expanduser().absolute()
    if not path.is_dir():
        raise UserError(f"{key} is {value}, which is not a directory; write the path of one.")
    return path


def script(value: str | None, stand_in: Path | None) -> Path | None:
    """CANN's script of variables; a stand-in needs none, and none is looked for then.

    Raises
    ------
    UserError: there is none.
    """
    if value is None or stand_in is not None:
        return None
    path = Path(value).expanduser().absolute()
    if not path.is_file():
        raise UserError(
            f"mindspeed.set_env is {value}, but there is no such file; install CANN, write where its "
            "set_env.sh is, or null where its variables are set already."
        )
    return path
