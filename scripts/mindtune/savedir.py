"""A training's save_dir: one training at a time, and of one set of settings."""

import hashlib
import json
import logging
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mindtune.errors import UserError
from mindtune.files import sha256_file, write_json

log = logging.getLogger(__name__)

SETTINGS = "settings.json"


def fingerprint(settings: Mapping[str, Any]) -> str:
    """A short hash of everything that a training's result depends on."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def content_of(files: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of some files, by the name they are given."""
    return {name: sha256_file(path) for name, path in files.items()}


def content_of_checkpoint(mm_dir: Path) -> str:
    """A hash of an mm checkpoint's content, from the checksums that its zip files carry.

    It reads the directories of the archives only, so that it costs nothing at any size.
    """
    digest = hashlib.sha256()
    for path in sorted(mm_dir.rglob("*.pt")):
        digest.update(f"{path.relative_to(mm_dir)}\0".encode())
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                digest.update(f"{entry.filename} {entry.file_size} {entry.CRC}\0".encode())
    return digest.hexdigest()


@contextmanager
def claimed(save_dir: Path, settings: Mapping[str, Any]) -> Iterator[str]:
    """Hold a save_dir for one training of these settings; yields their fingerprint.

    Checkpoints of the same settings are kept, and the training can go on from them. Those of
    other settings are put aside as `save_dir.superseded` (one generation of them), never
    continued.

    Raises
    ------
    UserError: another training holds it.
    """
    save_dir.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(save_dir.with_name(f".{save_dir.name}.lock"))
    try:
        with lock.acquire(timeout=0):
            mark = fingerprint(settings)
            _put_aside_other_settings(save_dir, mark)
            save_dir.mkdir(exist_ok=True)
            write_json(save_dir / SETTINGS, {"fingerprint": mark, **settings})
            yield mark
    except Timeout as error:
        raise UserError(
            f"another training is writing to {save_dir}; wait until it ends, or stop it, and run "
            "the same command again."
        ) from error


def _put_aside_other_settings(save_dir: Path, mark: str) -> None:
    if not save_dir.exists():
        return
    found = None
    if (save_dir / SETTINGS).is_file():
        found = json.loads((save_dir / SETTINGS).read_text(encoding="utf-8")).get("fingerprint")
    if found == mark:
        return
    aside = save_dir.with_name(f"{save_dir.name}.superseded")
    if aside.exists():
        shutil.rmtree(aside)
    save_dir.rename(aside)
    log.info("%s holds checkpoints of other settings: put aside as %s", save_dir, aside)
