"""Files dated in the future: Snakemake would take all that is made from them for old."""

import shlex
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from mindtune.errors import UserError

# Clocks of machines that share files are never quite the same.
TOLERATED_SECONDS = 60.0
# Snakemake dates a directory by this file in it.
STAMP = ".snakemake_timestamp"
# Below this the workflow makes everything, and links to what it fetched.
RESULTS = "results"


def refuse_future(paths: Iterable[Path]) -> None:
    """
    Raises
    ------
    UserError: one of the paths is dated later than now.
    """
    now = time.time()
    for path in paths:
        for command, dated in _dates(path):
            if dated > now + TOLERATED_SECONDS:
                raise UserError(
                    f"{path} is dated {_told(dated)}, but this machine's clock says {_told(now)}; "
                    "Snakemake would take all that is made from it for old, and delete it. Set the "
                    f"clock right or type `{command}`, and run the same command again."
                )


def _dates(path: Path) -> Iterator[tuple[str, float]]:
    """What Snakemake takes for a file's date, in seconds, and how to change it.

    A link has a date of its own. That of what it leads to matters too, but not of what the
    workflow fetched: a server dates it, and the link is an ancient input.
    """
    if path.is_symlink():
        yield f"touch -h {shlex.quote(str(path))}", path.lstat().st_mtime
        if path.parts[0] == RESULTS:
            return
    stamped = path / STAMP if (path / STAMP).exists() else path
    yield f"touch {shlex.quote(str(stamped))}", stamped.stat().st_mtime


def _told(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}"
