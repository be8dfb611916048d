"""YAML files that a user names."""

from pathlib import Path
from typing import Any

import yaml

from mindtune.errors import UserError


def read_yaml(path: Path, name: str) -> Any:
    """The content of a file that was named by `name`, a key or an option.

    Raises
    ------
    UserError: it can't be read, or is not YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{name} {path} can't be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise UserError(f"{name} {path} is not YAML: {error}.") from error
