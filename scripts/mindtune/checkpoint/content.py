"""What a checkpoint holds, as one hash."""

import hashlib
import zipfile
from pathlib import Path

from mindtune.errors import UserError
from mindtune.files import regular


def content_of_checkpoint(mm_dir: Path) -> str:
    """A hash of an mm checkpoint's content, from the checksums that its zip files carry.

    It reads the directories of the archives only, so that it costs nothing at any size.

    Raises
    ------
    UserError: a file of it is not whole.
    """
    digest = hashlib.sha256()
    for path in sorted(mm_dir.rglob("*.pt")):
        digest.update(f"{path.relative_to(mm_dir)}\0".encode())
        for entry in _entries(path):
            digest.update(f"{entry.filename} {entry.file_size} {entry.CRC}\0".encode())
    return digest.hexdigest()


def _entries(path: Path) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(regular(path)) as archive:
            return archive.infolist()
    except zipfile.BadZipFile as error:
        raise UserError(
            f"the checkpoint file {path} is not whole ({error}); remove the checkpoint, and run the "
            "same command again to have it written again."
        ) from error
