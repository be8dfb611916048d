"""Installing MindSpeed-MM, in the tutorial's order, in an environment of its own.

    DIRECTORY/env            the environment, from the lock
    DIRECTORY/MindSpeed-MM   the root, with `megatron` and `MindSpeed` in it
    DIRECTORY/apex           where apex for Ascend is built, on an NPU

Each step first looks whether what it brings is there and sound. The root is filled under a
temporary name; the environment can't be (its programs have its place written in them), and is
held against the lock instead, file by file.
"""

import logging
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from mindtune.engines.mindspeed.framework import asking, environment, repositories
from mindtune.engines.mindspeed.framework.checking import content_problems, patched
from mindtune.engines.mindspeed.framework.pins import BUILD_TOOLS, Pins, Requirement
from mindtune.errors import UserError
from mindtune.files import partial_name, sha256_file, writing_directory
from mindtune.progress import Progress

log = logging.getLogger(__name__)

ROOT, ENVIRONMENT, APEX = "MindSpeed-MM", "env", "apex"


@dataclass(frozen=True)
class Plan:
    """What is installed, where, and from where.

    directory: absolute. python: a Python of the right version. sources: repository -> Git address
    or directory, None for the published one. stand_in: the directory of stand-ins, for which
    nothing that only an NPU needs is installed. wheels: a directory with all of the lock's.
    """

    directory: Path
    python: Path
    pins: Pins
    sources: Mapping[str, str | None] = field(default_factory=dict)
    stand_in: Path | None = None
    set_env: Path | None = None
    apex_wheel: Path | None = None
    wheels: Path | None = None
    package_index: str | None = None

    @property
    def root(self) -> Path:
        return self.directory / ROOT

    @property
    def environment_python(self) -> Path:
        return self.directory / ENVIRONMENT / "bin" / "python"


def install(plan: Plan) -> None:
    """Bring the installation about, or go on with it; what is there and sound is kept.

    Raises
    ------
    UserError: something can't be had or built, another installation is at work on it, or what is
    there has been changed by hand.
    """
    plan.directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(plan.directory / ".lock")
    try:
        with lock.acquire(timeout=0):
            _make_root(plan)
            _make_environment(plan)
            _install_packages(plan)
            if plan.stand_in is None:
                _install_apex(plan)
            _install_in_place(plan)
    except Timeout as error:
        raise UserError(
            f"another run is installing into {plan.directory}; wait until it ends, or stop it, and "
            "run the same command again."
        ) from error


# --- The root ----------------------------------------------------------------------------


def _make_root(plan: Plan) -> None:
    pins, root = plan.pins, plan.root
    if root.is_dir():
        problems = content_problems(root, pins)
        if problems:
            raise UserError(
                f"{root} isn't MindSpeed-MM at the pinned commits ({problems[0]}); move it away to have "
                "it recreated, or, if it was changed on purpose, name it in mindspeed.home."
            )
        log.info("MindSpeed-MM is there: %d files are those of the pinned commits", len(pins.files))
        return
    partial = partial_name(root)
    for name, place in (("mindspeed_mm", partial), ("mindspeed", partial / "MindSpeed")):
        _fetch(plan, name, place)
    if not (partial / "megatron").is_dir():
        whole = partial_name(plan.directory / "Megatron-LM")
        _fetch(plan, "megatron_lm", whole)
        with writing_directory(partial / "megatron") as copy:
            shutil.copytree(whole / "megatron", copy, dirs_exist_ok=True)
        shutil.rmtree(whole)
    source, target = (partial / part for part in pins.patched)
    shutil.copyfile(source, target)
    if not patched(partial, pins):
        raise UserError(f"{target} is no copy of {source}; is the disk full?")
    for folder in pins.folders:
        (partial / folder).mkdir(exist_ok=True)
    problems = content_problems(partial, pins)
    if problems:
        raise UserError(
            f"what was fetched isn't MindSpeed-MM at the pinned commits ({problems[0]}); give other "
            f"sources in mindspeed.install, and remove {partial}."
        )
    partial.rename(root)
    log.info("MindSpeed-MM is in %s: %d files checked", root, len(pins.files))


def _fetch(plan: Plan, name: str, place: Path) -> None:
    repository = plan.pins.repositories[name]
    source = plan.sources.get(name)
    log.info("Fetching %s at %s", source or repository.address, repository.commit[:8])
    repositories.fetch(repository, source, place)


# --- Its environment ---------------------------------------------------------------------


def _make_environment(plan: Plan) -> None:
    place = plan.directory / ENVIRONMENT
    if (place / "pyvenv.cfg").is_file() and _has_pip(plan.environment_python):
        return
    if place.exists():
        shutil.rmtree(place)  # cut off while it was made
    log.info("Making an environment of %s", plan.python)
    environment.run(
        [str(plan.python), "-m", "venv", str(place)],
        "making the framework's environment (a Python with the module venv is needed: "
        "python3.10-venv on Debian and Ubuntu)",
    )


def _has_pip(python: Path) -> bool:
    try:
        environment.run([str(python), "-m", "pip", "--version"], "asking for pip")
    except UserError:
        return False
    return True


def _install_packages(plan: Plan) -> None:
    wanted = plan.pins.requirements(stand_in=plan.stand_in is not None)
    tools = [requirement for requirement in wanted if requirement.name in BUILD_TOOLS]
    for some in (tools, wanted):
        found = asking.packages(plan.environment_python)
        missing = lacking(some, found)
        if not missing:
            continue
        again = [item.name for item in missing if item.name in found.damaged]
        if again:
            log.info("Installing again, as they were cut off: %s", ", ".join(again))
        _pip_install(plan, missing, again=bool(again))
    still = lacking(wanted, asking.packages(plan.environment_python))
    if still:
        names = ", ".join(requirement.name for requirement in still)
        raise UserError(
            f"pip said that it was done, but {names} are not there as the lock has them."
        )
    log.info("The environment has all %d packages of the lock", len(wanted))


def lacking(wanted: Iterable[Requirement], found: asking.Packages) -> list[Requirement]:
    """Those that aren't there in the locked version, with all their files."""
    return [
        item
        for item in wanted
        if found.versions.get(item.name) != item.version or item.name in found.damaged
    ]


def _pip_install(plan: Plan, wanted: list[Requirement], again: bool) -> None:
    listed = plan.directory / "requirements.txt"
    listed.write_text("\n".join(item.lines for item in wanted) + "\n", encoding="utf-8")
    options = ["--require-hashes", "--no-deps", "--no-build-isolation", "-r", str(listed)]
    if again:
        options.append("--force-reinstall")
    log.info("Installing %d packages, each held against its hash", len(wanted))
    with Progress("Installing packages", "packages", total=len(wanted)) as shown:

        def line(text: str) -> None:
            if text.startswith(("Collecting ", "Processing ")):
                shown.advance(note=text.split()[1])
            elif text.startswith(("Building wheel", "Installing collected")):
                log.info("%s", text.split(":")[0])

        _pip(plan, options, "installing the framework's packages", line=line)
    listed.unlink()


def pip_sources(plan: Plan) -> list[str]:
    """pip's options for where packages come from; none leaves it to pip's own configuration."""
    if plan.wheels is not None:
        return ["--no-index", "--find-links", str(plan.wheels)]
    if plan.package_index is not None:
        return ["--index-url", plan.package_index]
    return []


def _pip(
    plan: Plan, options: list[str], what: str, cwd: Path | None = None, line=None, **more: str
) -> None:
    command = [
        str(plan.environment_python), "-m", "pip", "install", "--disable-pip-version-check",
        "--no-input", "--progress-bar", "off", *pip_sources(plan), *options,
    ]  # fmt: skip
    try:
        environment.run(
            command, what, cwd=cwd, environ=environment.clean_environment(**more),
            line=line or (lambda text: None),
        )  # fmt: skip
    except UserError as error:
        raise UserError(f"{error}\n{pip_remedy(str(error), plan)}") from error


def pip_remedy(said: str, plan: Plan) -> str:
    """What to do about a failure of pip, by what it said."""
    if "THESE PACKAGES DO NOT MATCH THE HASHES" in said:
        return (
            "The package index gave a file that isn't the one of the lock: use another "
            "mindspeed.install.package_index."
        )
    if "No matching distribution" in said or "Could not find a version" in said:
        if plan.wheels is not None:
            return (
                f"mindspeed.install.wheels is {plan.wheels}, which lacks it; docs/installation.md "
                "says how to fill it."
            )
        return (
            "The package index doesn't have it, or can't be reached: give "
            "mindspeed.install.package_index, or mindspeed.install.wheels without internet."
        )
    if "No space left" in said or "Errno 28" in said:
        return "The disk is full: free some space and run the same command again."
    return "Run the same command again to resume from there."


# --- apex, and the framework itself ------------------------------------------------------


def _install_apex(plan: Plan) -> None:
    found = asking.packages(plan.environment_python)
    if "apex" in found.versions and "apex" not in found.damaged:
        return
    wheel = plan.apex_wheel or _build_apex(plan)
    check_apex(wheel, plan.pins.python)
    log.info("Installing %s (SHA-256 %s)", wheel.name, sha256_file(wheel))
    options = ["--no-deps", "--no-index", "--force-reinstall", str(wheel)]
    _pip(plan, options, "installing apex for Ascend")


def check_apex(wheel: Path, python: str) -> None:
    """Raises UserError: this is no whole wheel of apex for the framework's Python."""
    if not wheel.is_file():
        raise UserError(f"mindspeed.install.apex_wheel is {wheel}, but there is no such file.")
    tag = f"cp{python.replace('.', '')}"
    parts = wheel.name.split("-")
    if parts[0] != "apex" or tag not in parts or wheel.suffix != ".whl":
        raise UserError(
            f"mindspeed.install.apex_wheel is {wheel.name}, which isn't named as a wheel of apex for "
            f"Python {python}, such as apex-0.1+ascend-{tag}-{tag}-linux_aarch64.whl."
        )
    if not zipfile.is_zipfile(wheel) or zipfile.ZipFile(wheel).testzip() is not None:
        raise UserError(f"mindspeed.install.apex_wheel {wheel} is damaged; copy it again.")


def _build_apex(plan: Plan) -> Path:
    """Build apex for Ascend by its own script; a wheel that an earlier run built is taken."""
    place = plan.directory / APEX
    if not place.is_dir():
        partial = partial_name(place)
        _fetch(plan, "apex", partial)
        partial.rename(place)
    built = sorted(place.rglob("dist/apex-*.whl"))
    if not built:
        log.info("Building apex for Ascend; this takes some minutes")
        programs = plan.environment_python.parent
        clean = environment.clean_environment()
        environment.run(
            environment.in_framework(
                ["bash", "scripts/build.sh", f"--python={plan.pins.python}"],
                None,
                None,
                plan.set_env,
            ),
            "building apex for Ascend (with a wheel that is built already, give "
            "mindspeed.install.apex_wheel)",
            cwd=place,
            environ={**clean, "PATH": f"{programs}:{clean['PATH']}"},
        )
        built = sorted(place.rglob("dist/apex-*.whl"))
    if not built:
        raise UserError(
            f"apex's scripts/build.sh ended well in {place}, but left no wheel in a directory "
            "`dist`; build it by hand and give mindspeed.install.apex_wheel."
        )
    return built[0]


def _install_in_place(plan: Plan) -> None:
    """`pip install -e` of MindSpeed and the root, without what they need: the lock has brought it."""
    places = {"mindspeed": plan.root / "MindSpeed", "mindspeed-mm": plan.root}
    found = asking.packages(plan.environment_python)
    left = [
        place
        for name, place in places.items()
        if found.urls.get(name) != place.resolve().as_uri() or name in found.damaged
    ]
    if not left:
        return
    log.info("Installing MindSpeed and MindSpeed-MM in place")
    options = ["--no-deps", "--no-build-isolation", "--use-pep517", "--force-reinstall"]
    for place in left:
        options += ["-e", str(place)]
    # CI_BUILD keeps MindSpeed's setup.py from a pip install of its own.
    _pip(plan, options, "installing MindSpeed-MM in place", CI_BUILD="1")
