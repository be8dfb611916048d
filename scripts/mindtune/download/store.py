"""Files that are fetched once, verified, and kept where no re-run deletes them.

A verified file has a receipt beside it: its size, time stamp and SHA-256. With the receipt,
a later run needs no look at the content; without one, a file that somebody put there is
verified like a download.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from mindtune.download.parts import PartFile
from mindtune.download.transfer import (
    Line,
    Unfit,
    fetch_missing,
    fetch_stream,
    now,
    probe,
)
from mindtune.errors import UserError
from mindtune.files import sha256_file, write_json, writing

log = logging.getLogger(__name__)
WEAK = "one"


@dataclass(frozen=True)
class Wanted:
    """A file as it should be. support: of the table; `one` marks a weak checksum."""

    name: str
    size: int | None = None
    sha256: str | None = None
    support: str = "strong"


def receipt_path(target: Path) -> Path:
    return target.with_name(f".{target.name}.verified.json")


def write_receipt(target: Path, sha256: str, origin: str) -> None:
    status = target.stat()
    write_json(
        receipt_path(target),
        {
            "bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": sha256,
            "from": origin, "at": now(),
        },
    )  # fmt: skip


def is_there(target: Path, wanted: Wanted) -> bool:
    """Whether the finished file is there; it is verified unless its receipt holds.

    Raises
    ------
    UserError: a file of the name is there, and is another.
    """
    if not target.is_file():
        return False
    status = target.stat()
    try:
        receipt = json.loads(receipt_path(target).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        receipt = {}
    known = (receipt.get("bytes"), receipt.get("mtime_ns")) == (status.st_size, status.st_mtime_ns)
    if known and wanted.sha256 in (None, receipt["sha256"]):
        return True
    log.info("%s is there; verifying it", target)
    if wanted.size is not None and status.st_size != wanted.size:
        raise UserError(
            f"{target} is there, but has {status.st_size} bytes and not {wanted.size}; move it "
            "away to have it fetched."
        )
    found = sha256_file(target)
    if wanted.sha256 not in (None, found):
        raise UserError(
            f"{target} is there, but its sha256 is {found} and not {wanted.sha256}"
            f"{weakness(wanted)}; move it away to have it fetched."
        )
    write_receipt(target, found, "found there")
    return True


def weakness(wanted: Wanted) -> str:
    if wanted.support != WEAK:
        return ""
    return (
        " (a sum that a single public record supports: if you trust the file, put its sum into "
        "the table of sources)"
    )


def check_space(directory: Path, needed: int, what: str) -> None:
    """Refuse to begin what won't fit on the disk."""
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise UserError(
            f"{what} needs {gigabytes(needed)} more in {directory}, but {gigabytes(free)} are "
            "free; free some space, or set sources.download.directory."
        )


def gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count} bytes"


def with_lock(target: Path, work: Callable[[], None]) -> None:
    """Run `work` unless another process is at the same file."""
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        with lock.acquire(timeout=0):
            work()
    except Timeout:
        raise UserError(
            f"another process is fetching {target}; wait for it, or end it, and run again."
        ) from None


def is_offline(configured: bool) -> bool:
    """Whether nothing may be fetched: by the configuration, or as the hubs' clients are told."""
    says = (os.environ.get("HF_HUB_OFFLINE", "").upper(), os.environ.get("MINDTUNE_OFFLINE", ""))
    return configured or any(value in ("1", "ON", "YES", "TRUE") for value in says)


def need_line(target: Path, wanted: Wanted, offline: bool) -> None:
    """Refuse to fetch while offline, and say what to put where."""
    if is_offline(offline):
        size = f" ({wanted.size} bytes)" if wanted.size else ""
        raise UserError(
            f"{target} is not there, and nothing may be fetched offline; copy {wanted.name}{size} "
            "to that place, where it will be verified, or unset sources.download.offline and "
            "HF_HUB_OFFLINE."
        )


def fetch(
    target: Path, wanted: Wanted, urls: Sequence[str], line: Line, offline: bool = False
) -> None:
    """Have a file at `target`, fetched from the first address that has it.

    Raises
    ------
    UserError: the file can't be had. What has arrived stays for the next run.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if is_there(target, wanted):
        return
    need_line(target, wanted, offline)
    with_lock(target, lambda: _fetch(target, wanted, list(urls), line))


def _fetch(target: Path, wanted: Wanted, urls: list[str], line: Line) -> None:
    identity: dict = {"sha256": wanted.sha256}
    size, validator = wanted.size, None
    if wanted.sha256 is None or size is None:
        remote = _probe_any(urls, line)
        if size is not None and remote.size not in (None, size):
            raise UserError(f"{urls[0]} has {remote.size} bytes and not {size}, as `bytes` says.")
        size = remote.size if size is None else size
        if wanted.sha256 is None:
            validator = remote.validator
            identity |= {"url": urls[0], "validator": validator}
    if size is None:
        with writing(target, "wb") as handle:
            fetch_stream(urls[0], handle, line, wanted.name)
        found = sha256_file(target)
        if wanted.sha256 not in (None, found):
            raise _wrong(target, target, wanted, found)
    else:
        with PartFile(target, size, identity) as part:
            check_space(target.parent, size - part.present, wanted.name)
            if part.present:
                log.info("going on with %s: %d of %d bytes are there", target, part.present, size)
            fetch_missing(urls, part, line, wanted.name, validator)
            found = part.finish()
            if wanted.sha256 not in (None, found):
                raise _wrong(target, part, wanted, found)
            part.rename(target)
    if wanted.sha256 is None:
        log.warning("%s is not verified, as no sha256 is known; it is %s", target, found)
    write_receipt(target, found, urls[0])


def _wrong(target: Path, held: Path | PartFile, wanted: Wanted, found: str) -> UserError:
    aside = target.with_name(f"{target.name}.wrong")
    if isinstance(held, PartFile):
        held.rename(aside)
    else:
        held.replace(aside)
    return UserError(
        f"{wanted.name} has arrived with sha256 {found}, but should have {wanted.sha256}"
        f"{weakness(wanted)}; it is kept as {aside}: look at it, and run again to fetch it again."
    )


def _probe_any(urls: list[str], line: Line):
    reasons = []
    while urls:
        try:
            return probe(urls[0], line)
        except Unfit as error:
            reasons.append(f"{urls[0]}: {error}")
        except (OSError, ValueError) as error:
            reasons.append(f"{urls[0]}: {str(error)[:160]}")
        urls.pop(0)
    raise UserError(f"no address answers ({'; '.join(reasons)}); fix `url`, or the connection.")
