"""The key `hf.feature_cache`: whether features of pictures are kept, and how much room they get.

Kept features are computed picture by picture, so that they are the same whatever else is kept. On a
CPU that costs nothing, so `auto` keeps them there. On other devices a picture alone takes longer than
among others, and its last digits may differ, so there it is for the user to choose.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mindtune.settings.sections.hf import Hf

KEY = "feature_cache"
AUTO, OFF, ON = "auto", "off", "on"
SIZE = r"[1-9][0-9]{0,5} ?[MGT]B"
ROOM = 10 * 10**9
_UNITS = {"M": 10**6, "G": 10**9, "T": 10**12}


def is_kept(machine: "Hf") -> bool:
    """Whether a training keeps features. machine: the section `hf`, or what `in_effect` left of it."""
    chosen = machine.feature_cache
    return _by_itself(machine) if chosen == AUTO else chosen != OFF


def room(operation: "Hf") -> int:
    """Bytes that kept features may take on the disk. operation: the section `hf`."""
    chosen = operation.feature_cache
    if chosen in (AUTO, OFF, ON):
        return ROOM
    return int(chosen[:-2]) * _UNITS[chosen[-2]]


def in_effect(plain: Mapping[str, Any], machine: "Hf") -> dict[str, Any]:
    """Plain settings of a machine with what a result depends on in place of the key: nothing
    where features are kept as this device does by itself, and else `on` or `off`."""
    found = {name: value for name, value in plain.items() if name != KEY}
    if KEY in plain and is_kept(machine) != _by_itself(machine):
        found[KEY] = ON if is_kept(machine) else OFF
    return found


def place_of_features(save_dir: Path) -> Path:
    """The directory of all kept features, which the experiments share. save_dir: of one of them."""
    return save_dir.parent.parent / "shared" / "features"


def _by_itself(machine: "Hf") -> bool:
    return machine.device == "cpu"
