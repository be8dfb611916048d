"""What `doctor` found out about the framework and its machine, as the other rules read it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindtune.errors import UserError
from mindtune.files import write_json

if TYPE_CHECKING:
    from mindtune.settings.sections.mindspeed import Mindspeed

RECORDED = ("home", "python", "set_env", "stand_in", "versions", "commits", "rows")
OPERATION = (
    "master_port", "num_workers", "preprocessing_num_workers", "distributed_timeout_minutes",
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """A framework that is ready to run, and how to run it. All paths are absolute.

    home: the root of MindSpeed-MM, with `megatron` and `MindSpeed` in it. python: its own
    interpreter. set_env: CANN's script of variables, or None. stand_in: the directory of
    stand-ins for a CPU, or None. versions: package -> version. commits: repository -> commit.
    rows: the doctor's table. cache: where preprocessed data is kept. The others are keys of the
    `mindspeed` section. What doctor recorded comes from its file, the rest from the configuration
    as it is now.
    """

    home: Path
    python: Path
    set_env: Path | None
    stand_in: Path | None
    versions: Mapping[str, str] = field(default_factory=dict)
    commits: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[Mapping[str, Any], ...] = ()
    cache: Path = Path("cache")
    hosts: tuple[str, ...] = ()
    master_port: int | None = None
    num_workers: int = 8
    preprocessing_num_workers: int = 16
    distributed_timeout_minutes: int = 120

    def write(self, path: Path) -> None:
        """Keep what was found out as JSON; paths become text."""
        plain = {
            key: str(value) if isinstance(value, Path) else value
            for key, value in asdict(self).items()
            if key in RECORDED
        }
        write_json(path, plain)

    @classmethod
    def read(cls, path: Path, section: "Mindspeed") -> "Machine":
        """What doctor recorded, with the keys of the `mindspeed` section that a launch needs.

        Raises
        ------
        UserError: the file is not one that `write` left.
        """
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            for key in ("home", "python", "set_env", "stand_in"):
                plain[key] = None if plain[key] is None else Path(plain[key])
            found = cls(**{key: plain[key] for key in RECORDED})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} is no record of the rule doctor ({error}); remove it and run the same "
                "command again."
            ) from error
        return replace(
            found,
            cache=Path(section.cache).expanduser().absolute(),
            hosts=tuple(section.hosts),
            **{key: getattr(section, key) for key in OPERATION},
        )
