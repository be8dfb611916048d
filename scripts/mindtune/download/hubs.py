"""Fetching from ModelScope and Hugging Face by their own clients, at a pinned revision.

The clients resume, follow proxies and know the hubs' accounts. What they bring is verified
here like any other file, and only then takes its name.
"""

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mindtune.download.store import (
    Wanted,
    check_space,
    is_there,
    need_line,
    weakness,
    with_lock,
    write_receipt,
)
from mindtune.errors import UserError
from mindtune.files import sha256_file

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Repository:
    """Where on a hub: `hub` is modelscope or huggingface, `kind` model or dataset."""

    hub: str
    kind: str
    id: str
    revision: str
    endpoint: str | None = None

    def __str__(self) -> str:
        return f"{self.hub} {self.kind} {self.id} at {self.revision}"


def fetch_from_hub(target: Path, wanted: Wanted, repository: Repository, offline: bool) -> None:
    """Have a file of a hub's repository at `target`.

    Raises
    ------
    UserError: the client is missing or fails, or what it brings is another file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if is_there(target, wanted):
        return
    need_line(target, wanted, offline)
    download = CLIENTS[repository.hub](repository)
    with_lock(target, lambda: _fetch(target, wanted, repository, download))


def _fetch(target: Path, wanted: Wanted, repository: Repository, download: Callable) -> None:
    staging = target.with_name(f".{target.name}.{repository.hub}")  # where the client resumes
    staging.mkdir(exist_ok=True)
    if wanted.size:
        there = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file())
        check_space(target.parent, max(0, wanted.size - there), wanted.name)
    log.info("fetching %s of %s", wanted.name, repository)
    try:
        brought = Path(download(wanted.name, staging))
    except Exception as error:  # the clients raise whatever the layers below them raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise UserError(
            f"{wanted.name} can't be fetched from {repository} ({reason}); run the same command "
            "again to go on, or choose another `use`."
        ) from error
    found = sha256_file(brought)
    size = brought.stat().st_size
    if wanted.size not in (None, size) or wanted.sha256 not in (None, found):
        aside = target.with_name(f"{target.name}.wrong")
        brought.replace(aside)
        raise UserError(
            f"{wanted.name} of {repository} has {size} bytes and sha256 {found}, but should have "
            f"{wanted.size or 'any number of'} bytes and {wanted.sha256}{weakness(wanted)}; it is "
            f"kept as {aside}."
        )
    brought.replace(target)
    shutil.rmtree(staging)
    write_receipt(target, found, str(repository))


def _is_open(endpoint: str) -> bool:
    """Whether what is sent there can be read on the way, so that no token may be."""
    if endpoint.lower().startswith("http://"):
        log.warning(
            "%s is plain http: no token (HF_TOKEN, MODELSCOPE_API_TOKEN, or a saved one) is sent there",
            endpoint,
        )
        return True
    return False


def _modelscope(repository: Repository) -> Callable[[str, Path], str]:
    try:
        from modelscope.hub.file_download import dataset_file_download, model_file_download
    except ImportError as error:
        raise UserError(
            "`use: modelscope` needs the package modelscope, which is not installed; run "
            "`pip install -r envs/modelscope.txt`, or choose another `use`."
        ) from error
    function = model_file_download if repository.kind == "model" else dataset_file_download
    named = repository.endpoint or os.environ.get("MODELSCOPE_ENDPOINT")
    endpoint = named or os.environ.get("MODELSCOPE_DOMAIN") or ""
    options = {"endpoint": repository.endpoint} if repository.endpoint else {}
    if _is_open(endpoint):
        options["token"] = ""  # no token, not even a saved one

    def download(name: str, staging: Path) -> str:
        return function(
            repository.id, name, revision=repository.revision, local_dir=str(staging), **options
        )

    return download


def _huggingface(repository: Repository) -> Callable[[str, Path], str]:
    from huggingface_hub import constants, hf_hub_download

    endpoint = repository.endpoint or constants.ENDPOINT

    def download(name: str, staging: Path) -> str:
        return hf_hub_download(
            repository.id, name, revision=repository.revision, repo_type=repository.kind,
            local_dir=staging, endpoint=endpoint, token=False if _is_open(endpoint) else None,
        )  # fmt: skip

    return download


CLIENTS = {"modelscope": _modelscope, "huggingface": _huggingface}
