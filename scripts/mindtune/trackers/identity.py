"""The name under which a tracker knows a training, however often it is taken up."""

import secrets
from pathlib import Path

from mindtune.files import writing

FILE = "run_id"


def identity(directory: Path) -> str:
    """The name in a tracker's directory, a new one at first."""
    path = directory / FILE
    if not path.is_file():
        with writing(path) as handle:
            handle.write(secrets.token_hex(8))
    return path.read_text(encoding="utf-8").strip()
