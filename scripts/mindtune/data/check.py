"""Looking at all data as training will: every picture decoded, every conversation tokenized."""

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from mindtune.data.looking import phrases
from mindtune.data.opening import BadPicture, read_header, source_of
from mindtune.data.pictures import EMPTY
from mindtune.data.shrinking import within
from mindtune.errors import UserError

LISTED = 20
BATCH = 256


@dataclass(frozen=True)
class Seen:
    """What a picture turned out to be.

    fault: why it can't be used, or None. altered: keys of headers.ALTERED that hold for it.
    """

    name: str
    width: int = 0
    height: int = 0
    mode: str = ""
    altered: tuple[str, ...] = ()
    digest: str = ""
    fault: str | None = None


def look_at(images: Path, name: str, image_resolution: int = 512 * 512) -> Seen:
    """Decode a picture to its last line, and see that something is left when it is shrunk."""
    digest = ""
    try:
        opened = source_of(images / name)
        data = opened.getvalue() if isinstance(opened, io.BytesIO) else opened.read_bytes()
        if not data:
            return Seen(name, fault=EMPTY)
        digest = hashlib.sha256(data).hexdigest()
        found = read_header(io.BytesIO(data), decode=True)
        within((found.width, found.height), image_resolution)
    except BadPicture as error:
        return Seen(name, digest=digest, fault=error.why)
    except OSError as error:
        return Seen(name, fault=f"the file can't be read ({error.strerror or error})")
    except UserError as error:  # a member of a zip is damaged
        return Seen(name, fault=str(error))
    return Seen(name, found.width, found.height, found.mode, found.altered, digest)


def look_at_all(
    images: Path, names: Iterable[str], threads: int, image_resolution: int = 512 * 512
) -> Iterator[Seen]:
    """Decode pictures, some at a time, in the order of their names."""
    names = iter(names)
    with ThreadPoolExecutor(threads) as pool:
        while batch := list(islice(names, BATCH)):
            yield from pool.map(lambda name: look_at(images, name, image_resolution), batch)


Encode = Callable[[Mapping, Sequence[Seen]], int]


def summarize(
    parts: Mapping[str, Iterable[Mapping]],
    seen: Mapping[str, Seen],
    encode: Encode,
    seq_length: int,
    problems: Sequence[str] = (),
    forms: Sequence[str] = (),
) -> dict:
    """What there is to say of the data: counts, faults, duplicates, lengths, and the problems.

    encode: a record and its pictures -> tokens, as training will count them before it cuts.
    problems: phrases about what was found before, such as `mllm.remarks`.
    forms: of the instructions, as `mllm.forms_of` says.
    """
    sound = [picture for picture in seen.values() if picture.fault is None]
    same: dict[str, list[str]] = {}
    for picture in sound:
        same.setdefault(picture.digest, []).append(picture.name)
    twins = sorted(names for names in same.values() if len(names) > 1)
    part_of: dict[str, set[str]] = {}
    lengths: dict[str, list[int]] = {}
    turns, records_of = Counter(), Counter(dict.fromkeys(parts, 0))
    for part, records in parts.items():
        lengths[part] = []
        for record in records:
            turns[len(record["messages"]) // 2] += 1
            for name in record["images"]:
                part_of.setdefault(name, set()).add(part)
            pictures = [seen[name] for name in record["images"]]
            records_of[part] += 1
            if not any(picture.fault for picture in pictures):
                lengths[part].append(encode(record, pictures))
    leaks = [
        names for names in twins if len(set().union(*(part_of.get(n, set()) for n in names))) > 1
    ]
    faults = [
        {"image": picture.name, "why": picture.fault} for picture in seen.values() if picture.fault
    ]
    every = [tokens for found in lengths.values() for tokens in found]
    summary = {
        "forms": list(forms),
        "records": dict(records_of),
        "pictures": len(seen),
        "faults": len(faults),
        "first_faults": faults[:LISTED],
        "modes": dict(Counter(picture.mode for picture in sound).most_common()),
        "altered": _altered(sound),
        "sizes": {
            "width": _span([picture.width for picture in sound]),
            "height": _span([picture.height for picture in sound]),
        },
        "duplicates": sum(len(names) - 1 for names in twins),
        "first_duplicates": twins[:LISTED],
        "duplicates_across_parts": len(leaks),
        "first_duplicates_across_parts": leaks[:LISTED],
        "turns": {str(number): turns[number] for number in sorted(turns)},
        "seq_length": seq_length,
        "tokens": _span(every),
        "cut": sum(tokens > seq_length for tokens in every),
        "lengths": {str(number): n for number, n in sorted(Counter(every).items())},
    }
    return summary | {"problems": [*problems, *_problems(summary)]}


def _problems(summary: Mapping) -> Iterator[str]:
    """What is wrong with the data, a phrase without a full stop for each kind."""
    if not summary["records"].get("train"):
        yield "there is no record to train on"
    if summary["faults"]:
        yield f"{summary['faults']} pictures can't be used"
    yield from phrases(summary["altered"])
    if summary["duplicates_across_parts"]:
        yield f"{summary['duplicates_across_parts']} held-out pictures are in training too"
    if summary["cut"]:
        share = summary["cut"] / sum(summary["records"].values())
        yield f"{summary['cut']} conversations ({share:.1%}) will be cut"


def _altered(sound: Iterable[Seen]) -> dict[str, dict]:
    """Keys of headers.ALTERED -> how many pictures, and the first names."""
    found: dict[str, list[str]] = {}
    for picture in sound:
        for key in picture.altered:
            found.setdefault(key, []).append(picture.name)
    return {key: {"count": len(names), "first": names[:LISTED]} for key, names in found.items()}


def _span(values: list[int]) -> dict[str, int]:
    if not values:
        return {}
    ordered = sorted(values)
    return {
        "smallest": ordered[0],
        "median": ordered[len(ordered) // 2],
        "largest": ordered[-1],
    }
