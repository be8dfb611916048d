"""`keep_checkpoints: last`: a training's older checkpoints go when a newer one is whole."""

import logging
from pathlib import Path

from mindtune.checkpoint.megatron import iteration_name, iterations
from mindtune.engines.superseded import REMOVING, Generation, place_of, remove_leftovers
from mindtune.files import sync_directory

log = logging.getLogger(__name__)

ALL, LAST = "all", "last"


def keep_last(save_dir: Path, newest: int) -> None:
    """Remove the checkpoints before `newest`, which the caller knows to be whole.

    Nothing is removed unless it is there and the tracker names it, or a later one: at any moment, and
    after any kill, a whole checkpoint is tracked. Each removal begins with a rename, so that what is
    half gone is taken for nothing. What can't be removed stays, with a warning.
    """
    place = place_of(save_dir)
    found = Generation.read(place)
    if newest not in found.saved or found.tracked < newest:
        return
    try:
        older = [number for number in iterations(place) if number < newest]
        remove_leftovers(place)
        for number in older:
            name = iteration_name(number)
            (place / name).rename(place / f"{REMOVING}{name}")
        sync_directory(place)
        remove_leftovers(place)
    except OSError as error:
        log.warning(
            "older checkpoints in %s can't be removed (%s); remove all but %s yourself",
            save_dir, error.strerror, iteration_name(newest),
        )  # fmt: skip
        return
    if older:
        log.info(
            "keep_checkpoints is last: %d older checkpoint%s of %s removed",
            len(older), "s" if len(older) > 1 else "", save_dir,
        )  # fmt: skip
