"""Fetching a repository at exactly one commit, from Git, a mirror, or a plain directory."""

import contextlib
import logging
import re
import shutil
import subprocess
from pathlib import Path

from mindtune.engines.mindspeed.framework import environment
from mindtune.engines.mindspeed.framework.pins import Repository
from mindtune.errors import UserError

log = logging.getLogger(__name__)

PINNED = "refs/mindtune/pinned"
# Of MindSpeed-MM, what nothing runs: pictures, videos and pages for its website.
UNWANTED = ("/sources", "/docs/*/images")
# A repository on this machine may be asked for any commit, and for less than all of it.
LOCAL = (
    "git -c uploadpack.allowFilter=true -c uploadpack.allowAnySHA1InWant=true "
    "-c safe.directory=* upload-pack"
)
LEFT_OUT = shutil.ignore_patterns(
    ".git", "__pycache__", "*.egg-info", "MindSpeed", "megatron", "logs", "data", "ckpt", "save_dir"
)


def fetch(repository: Repository, source: str | None, directory: Path) -> None:
    """Have a repository's tree at its commit in `directory`, which may be half-made.

    source: a Git address or directory, or a directory with the files and no Git data; None for the
    published address.

    Raises
    ------
    UserError: the source can't be read, or doesn't have that commit.
    """
    source = source or repository.address
    plain = Path(source).is_dir() and not is_git(Path(source))
    if plain:
        shutil.copytree(source, directory, ignore=_left_out(repository), dirs_exist_ok=True)
        return
    directory.mkdir(parents=True, exist_ok=True)
    for left in (directory / ".git").rglob("*.lock"):
        left.unlink()  # of a git that was killed
    _git(directory, "init", "--quiet", "--template=")
    if resolved(directory, PINNED) != repository.commit:
        _fetch_somehow(repository, source, directory)
    _git(
        directory, "-c", "core.autocrlf=false", "checkout", "--quiet", "--force", "--detach", PINNED
    )
    found = head(directory)
    if found != repository.commit:
        raise UserError(f"{directory} is at {found} and not at {repository.commit}; remove it.")


def _left_out(repository: Repository):
    """Of a directory of files: of MindSpeed-MM's root, nothing that is brought by others."""
    if repository.name == "mindspeed_mm":
        return LEFT_OUT
    return shutil.ignore_patterns(".git", "__pycache__", "*.egg-info")


def _fetch_somehow(repository: Repository, source: str, directory: Path) -> None:
    """The commit alone; else its branch in full; else without the files that nothing runs.

    Some servers give no single commits, and some mirrors lack large files.
    """
    local = Path(source).is_dir()
    address = str(Path(source).resolve()) if local else source
    with contextlib.suppress(UserError):  # of another source, that was given before
        _git(directory, "config", "--remove-section", "remote.origin")
    _git(directory, "config", "remote.origin.url", address)
    if local:
        _git(directory, "config", "remote.origin.uploadpack", LOCAL)
    ways = (
        ("--depth=1", repository.commit),
        (repository.ref,),
        ("--depth=1", "--filter=blob:none", repository.commit),
    )
    reasons = []
    for *options, wanted in ways:
        if any("filter" in option for option in options):
            _leave_out_unwanted(directory)
        try:
            _git(directory, "fetch", "--quiet", "--no-tags", "--force", *options, "origin",
                 f"+{wanted}:refs/mindtune/fetched")  # fmt: skip
            _git(directory, "update-ref", PINNED, f"{repository.commit}^{{commit}}")
        except UserError as error:
            reasons.append(re.sub(r"\s+", " ", str(error)).strip())
        else:
            return
    raise UserError(
        f"{repository.name} at commit {repository.commit} can't be had from {source}; give a mirror, "
        f"or a directory that has it, in mindspeed.install.{repository.name}. Git said: "
        f"{reasons[0]}"
    )


def _leave_out_unwanted(directory: Path) -> None:
    _git(directory, "config", "core.sparseCheckout", "true")
    _git(directory, "config", "remote.origin.promisor", "true")
    patterns = ["/*", *(f"!{path}" for path in UNWANTED)]
    info = directory / ".git" / "info"
    info.mkdir(exist_ok=True)
    (info / "sparse-checkout").write_text("\n".join(patterns) + "\n", encoding="utf-8")


def is_git(directory: Path) -> bool:
    """Whether a directory is the root of a repository, bare or with files."""
    return (directory / ".git").exists() or (
        (directory / "objects").is_dir() and (directory / "HEAD").is_file()
    )


def head(directory: Path) -> str | None:
    """The commit of a checkout; None where there is no Git data. Nothing is written."""
    return resolved(directory, "HEAD") if (directory / ".git").exists() else None


def resolved(directory: Path, name: str) -> str | None:
    """The commit of a name in a repository."""
    command = ["git", "-c", "safe.directory=*", "-C", str(directory), "rev-parse", "--verify", "-q"]
    try:
        done = subprocess.run(  # noqa: S603
            [*command, f"{name}^{{commit}}"], env=_environment(), text=True,
            capture_output=True, check=False,
        )  # fmt: skip
    except OSError:
        return None
    return done.stdout.strip() or None


def _git(directory: Path, *arguments: str) -> None:
    environment.run(
        ["git", "-c", "safe.directory=*", "-C", str(directory), *arguments],
        f"git {arguments[0]}",
        environ=_environment(),
    )


def _environment() -> dict[str, str]:
    """Git without questions, without translations, and not in another repository's place."""
    clean = environment.clean_environment(GIT_TERMINAL_PROMPT="0", LC_ALL="C", GIT_ASKPASS="true")
    return {key: value for key, value in clean.items() if key not in ("GIT_DIR", "GIT_WORK_TREE")}
