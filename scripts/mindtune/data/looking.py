"""Judging pictures before training: which can't be used, and which the model sees unlike a person."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import orjson

from mindtune.data.headers import ALTERED, cut_off, sound
from mindtune.data.pictures import Pictures
from mindtune.files import writing

log = logging.getLogger(__name__)
SHOWN = 10
VERSION = 1


class Looking:
    """Looks at pictures by their headers; what a picture is, is the same however fast one looks.

    Parameters
    ----------
    memory: a file with what was seen before; a picture of the same size and time stamp is not
        opened again. None: each is opened.
    """

    def __init__(self, pictures: Pictures, memory: Path | None = None) -> None:
        self.pictures = pictures
        self.memory = memory
        self.altered: dict[str, tuple[str, ...]] = {}
        self.before = _recall(memory, pictures) if memory else {}
        self.seen: dict[str, list] = {}

    def fault(self, name: str) -> str | None:
        """Why a picture can't be used; None when it can.

        Raises
        ------
        UserError: a zip file is damaged.
        """
        if self.memory:
            fault, altered = self._remembered(name)
        else:
            fault, altered, _ = self._look(name)
        if altered:
            self.altered[name] = altered
        return fault

    def remember(self) -> None:
        """Write down what was seen, for the next time."""
        if self.memory:
            with writing(self.memory, "wb") as handle:
                handle.write(orjson.dumps([VERSION, _place(self.pictures), self.seen]))

    def report(self) -> dict[str, dict]:
        """Keys of opening.ALTERED -> how many pictures, and the first names."""
        found: dict[str, list[str]] = {}
        for name, keys in self.altered.items():
            for key in keys:
                found.setdefault(key, []).append(name)
        return {key: {"count": len(names), "first": names[:SHOWN]} for key, names in found.items()}

    def _remembered(self, name: str) -> tuple[str | None, tuple[str, ...]]:
        known = self.before.get(name)
        if known and (stamp := self.pictures.stamp(name)) and known[0] == list(stamp):
            _, fault, altered = self.seen[name] = known
            return fault, tuple(altered)
        fault, altered, stamp = self._look(name)
        if stamp:
            self.seen[name] = [list(stamp), fault, altered]
        return fault, altered

    def _look(self, name: str) -> tuple[str | None, tuple[str, ...], tuple[int, int] | None]:
        glance = self.pictures.glance(name)
        if isinstance(glance, str):
            return glance, (), None
        if sound(glance.head, glance.tail):
            return None, (), glance.stamp
        # Not at the top: most conversions need no Pillow, whose import takes a tenth of their time.
        from mindtune.data.opening import BadPicture, read_header

        # A JPEG or PNG file without its end is decoded, as it may be cut off.
        cut = cut_off(glance.head, glance.tail)
        try:
            header = read_header(self.pictures.source(name), decode=cut)
        except BadPicture as error:
            return error.kind, (), glance.stamp
        return None, header.altered, glance.stamp


def phrases(altered: Mapping[str, Mapping]) -> Iterator[str]:
    """What to say of a report's `altered` pictures, a phrase without a full stop for each kind."""
    for key, found in altered.items():
        more = " …" if found["count"] > len(found["first"]) else ""
        yield (
            f"the model sees {found['count']} pictures in another way than you may ({ALTERED[key]}): "
            f"{', '.join(found['first'])}{more}; convert them first if that matters"
        )


def _recall(memory: Path, pictures: Pictures) -> Mapping[str, list]:
    """What was seen of these pictures; nothing when the file is gone, damaged or of others."""
    try:
        version, place, seen = orjson.loads(memory.read_bytes())
    except (OSError, ValueError, TypeError):
        return {}
    ours = (version, place) == (VERSION, _place(pictures)) and isinstance(seen, dict)
    return seen if ours else {}


def _place(pictures: Pictures) -> str:
    return str(pictures.path.resolve())
