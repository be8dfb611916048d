"""Files dated in the future: Snakemake would take all that is made from them for old."""

import shlex
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from mindtune.errors import UserError

# Clocks of machines that share files are never quite the same.
TOLERATED_SECONDS = 60.0
# Snakemake dates a directory by this file in it.
STAMP = ".snakemake_timestamp"


def refuse_future(paths: Iterable[Path]) -> None:
    """
    Raises
    ------
    UserError: one of the paths is dated later than now.
    """
    now = time.time()
    for path in paths:
        stamped = path / STAMP if (path / STAMP).exists() else path
        dated = stamped.stat().st_mtime
        if dated > now + TOLERATED_SECONDS:
            raise UserError(
                f"{path} is dated {_told(dated)}, but this machine's clock says {_told(now)}, so that "
                "what is made from it would be made again each time; set the clock right or type "
                f"`touch {shlex.quote(str(stamped))}`, and run the same command again."
            )


def _told(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}"
