"""What `doctor` found out about the framework and its machine, as the other rules read it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mindtune.errors import UserError
from mindtune.files import write_json


@dataclass(frozen=True)
class Machine:
    """A framework that is ready to run, and how to run it. All paths are absolute.

    home: the root of MindSpeed-MM, with `megatron` and `MindSpeed` in it. python: its own
    interpreter. set_env: CANN's script of variables, or None. stand_in: the directory of
    stand-ins for a CPU, or None. cache: where preprocessed data is kept. versions: package ->
    version. commits: repository -> commit. The others are keys of the `mindspeed` section.
    """

    home: Path
    python: Path
    set_env: Path | None
    stand_in: Path | None
    cache: Path
    hosts: tuple[str, ...] = ()
    master_port: int | None = None
    num_workers: int = 8
    preprocessing_num_workers: int = 16
    distributed_timeout_minutes: int = 120
    versions: Mapping[str, str] = field(default_factory=dict)
    commits: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[Mapping[str, Any], ...] = ()

    def write(self, path: Path) -> None:
        """Keep it as JSON; paths become text."""
        plain = {
            key: str(value) if isinstance(value, Path) else value
            for key, value in asdict(self).items()
        }
        write_json(path, plain)

    @classmethod
    def read(cls, path: Path) -> "Machine":
        """
        Raises
        ------
        UserError: the file is not one that `write` left.
        """
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            for key in ("home", "python", "set_env", "stand_in", "cache"):
                plain[key] = None if plain[key] is None else Path(plain[key])
            plain["hosts"] = tuple(plain["hosts"])
            return cls(**plain)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} is no record of the rule doctor ({error}); remove it and run the same "
                "command again."
            ) from error
