"""Writing mllm-format data: a training part and a held-out part that share no image.

The format is that of MindSpeed-MM's `llava_instruct_2_mllm_demo_format.py`: a JSON list
on one line of `{"images": [path], "messages": [{"role", "content"}]}`, in the order of
the input. Paths are relative to the directory of pictures, which MindSpeed-MM is given
as `dataset_dir`, so that the file holds wherever that directory is.
"""

import gc
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import orjson

from mindtune.data.llava import (
    IMAGE_MARK,
    ROLES,
    VIDEO_MARK,
    check_record,
    images_of,
    leads_out,
    read_records,
)
from mindtune.data.looking import Looking
from mindtune.data.mixture import Mixture
from mindtune.data.pictures import open_pictures
from mindtune.data.split import components, is_held_out
from mindtune.errors import UserError
from mindtune.files import write_json, writing

SHOWN = 10
BUFFER = 1 << 20
USER, ASSISTANT = (f'{{"role": "{role}", "content": %b}}'.encode() for role in ROLES.values())
ALTERNATING = {turns: ["human", "gpt"] * (turns // 2) for turns in range(2, 201, 2)}


def to_mllm(record: dict) -> dict:
    """One LLaVA record in mllm format; `id` and other keys are dropped, as the tool does."""
    return {
        "images": list(images_of(record)),
        "messages": [
            {"role": ROLES[turn["from"]], "content": turn["value"]}
            for turn in record["conversations"]
        ],
    }


@lru_cache(maxsize=256)
def _template(turns: int) -> bytes:
    messages = b", ".join((USER, ASSISTANT) * (turns // 2))
    return b'{"images": [%b], "messages": [' + messages + b"]}"


def _sound_values(record: dict, images: Sequence[str]) -> list[str] | None:
    """The texts of a record's turns, or None when `check_record` should look at it.

    A short way for the many records in which nothing is wrong.
    """
    try:
        turns = record["conversations"]
        values = [turn["value"] for turn in turns]
        alternating = [turn["from"] for turn in turns] == ALTERNATING.get(len(turns))
        text = "".join(values)
    except (KeyError, TypeError):
        return None
    sound = (
        alternating
        and type(images) is tuple
        and text.count(IMAGE_MARK) == len(images)
        and VIDEO_MARK not in text
    )
    return values if sound else None


def encode(record: dict, number: int, images: Sequence[str], prefix: str = "") -> bytes:
    """A checked record in mllm format, in the very bytes of `json.dumps(ensure_ascii=False)`."""
    values = _sound_values(record, images)
    if values is None:
        check_record(record, number)
        values = [turn["value"] for turn in record["conversations"]]
    paths = [posixpath.join(prefix, image) for image in images] if prefix else images
    try:
        return _template(len(values)) % (
            b", ".join(map(orjson.dumps, paths)),
            *map(orjson.dumps, values),
        )
    except TypeError:  # half a surrogate pair
        check_record(record, number)
        raise


class ListWriter:
    """Writes a JSON list item by item, in the very form of `json.dump(items)`."""

    def __init__(self, handle) -> None:
        self.handle = handle
        self.count = 0

    def __enter__(self) -> "ListWriter":
        self.handle.write(b"[")
        return self

    def __exit__(self, failed, *rest) -> None:
        if not failed:
            self.handle.write(b"]")

    def add(self, item: bytes) -> None:
        if self.count:
            self.handle.write(b", ")
        self.handle.write(item)
        self.count += 1


class Placement(NamedTuple):
    """How records are given to the parts."""

    pictures: Looking
    fraction: float
    seed: int
    tied: Mapping[str, str] | None  # of split.components; None: each record has one picture

    def of(self, images: Sequence[str], known: dict[str, str]) -> str:
        """`train`, `held_out`, or why the record is dropped; `known` remembers it by image."""
        if len(images) == 1:
            image = images[0]
            if image not in known:
                stands = self.tied.get(image, image) if self.tied else image
                held_out = is_held_out(stands, self.fraction, self.seed)
                known[image] = self.pictures.fault(image) or ("held_out" if held_out else "train")
            return known[image]
        parts = [self.of((image,), known) for image in images]
        return next((part for part in parts if part not in ("train", "held_out")), parts[0])


class _Tied(Exception):
    """A record has several pictures, and nobody knows yet which others they are tied to."""


def convert(
    instructions: Path,
    images: Path,
    train: Path,
    held_out: Path,
    report: Path,
    *,
    held_out_fraction: float,
    split_seed: int,
    max_samples: int | None = None,
    subset_seed: int | None = None,
    max_dropped_fraction: float = 0.0,
    check_pictures: str = "signature",
    mixture: Sequence[Mapping] = (),
    image_prefix: str = "",
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict:
    """Convert instructions to mllm format; returns the report that is written beside.

    Records without a picture go to the training part. Records whose picture is missing or
    is none are dropped and counted.

    Parameters
    ----------
    max_samples, subset_seed: take so many records only; the first ones, or a seeded choice.
    check_pictures: `signature` looks at each picture, `size` at those whose size or time stamp is
        another than at the last conversion.
    mixture: further files, each a `path` and a `weight`, how often each record is trained on.
    image_prefix: put before the images' paths; MindSpeed-MM's tool does so.

    Raises
    ------
    UserError: broken JSON or a broken record, too many dropped records, an empty part.
        Nothing is written then.
    """
    remembered = report.with_name(".pictures.json") if check_pictures == "size" else None
    pictures = Looking(open_pictures(images), remembered)
    files = [(instructions, 1.0), *((Path(part["path"]), part["weight"]) for part in mixture)]
    mixed = Mixture(files, max_samples, subset_seed, split_seed)
    outputs = (train, held_out)
    tied = None
    while True:
        placement = Placement(pictures, held_out_fraction, split_seed, tied)
        try:
            with ExitStack() as stack:
                stack.enter_context(_no_collection())
                parts = {
                    name: stack.enter_context(
                        ListWriter(stack.enter_context(writing(path, "wb", buffering=BUFFER)))
                    )
                    for name, path in zip(("train", "held_out"), outputs, strict=True)
                }
                summary = _write(mixed, placement, parts, image_prefix, progress)
                summary["altered"] = pictures.report()
                _judge(summary, instructions, images, max_dropped_fraction, held_out_fraction)
            break
        except _Tied:
            tied = components(_groups(mixed))
    pictures.remember()
    write_json(report, summary)
    return summary


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without Python's search for cycles: records have none, and it takes a tenth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _groups(mixed: Mixture) -> Iterable[Sequence[str]]:
    """The pictures of each record that has several."""
    for path, _ in mixed.files:
        for number, record in enumerate(read_records(path)):
            if isinstance(record.get("image"), list):
                check_record(record, number)
                yield images_of(record)


def _write(mixed: Mixture, placement: Placement, parts, prefix: str, progress) -> dict:
    known: dict[str, str] = {}
    records = text_only = 0
    dropped, trained_on = Counter(), Counter()
    shown: list[dict] = []
    for file, number, record, times in progress(mixed):
        records += 1
        images = images_of(record)
        try:
            item = encode(record, number, images, prefix)
            if images and images[0] not in known and any(map(leads_out, images)):
                check_record(record, number)
        except UserError as error:
            raise UserError(f"{mixed.files[file][0]}: {error}") from None
        if not images:
            part = "train"
            text_only += 1
        elif len(images) > 1 and placement.tied is None:
            raise _Tied
        else:
            part = known.get(images[0]) if len(images) == 1 else None
            part = part or placement.of(images, known)
        if part == "train":
            for _ in range(times):
                parts["train"].add(item)
            trained_on[file] += times
        elif part == "held_out":
            parts["held_out"].add(item)
        else:
            dropped[part] += 1
            if len(shown) < SHOWN:
                image = next(image for image in images if known[image] == part)
                shown.append({"record": number, "image": image, "reason": part})
    used = Counter(known.values())
    summary = {
        "records": records,
        "kept": {name: writer.count for name, writer in parts.items()},
        "text_only": text_only,
        "images": {name: used[name] for name in parts},
        "dropped": dict(sorted(dropped.items())),
        "first_dropped": shown,
    }
    if len(mixed.files) > 1:
        summary["mixture"] = [
            {"path": str(path), "weight": weight, "trained_on": trained_on[number]}
            for number, (path, weight) in enumerate(mixed.files)
        ]
    return summary


def _judge(summary, instructions, images, max_dropped_fraction, held_out_fraction) -> None:
    records, dropped = summary["records"], sum(summary["dropped"].values())
    if not records:
        raise UserError(f"{instructions} holds no records.")
    if dropped > max_dropped_fraction * records:
        reasons = ", ".join(f"{reason}: {n}" for reason, n in summary["dropped"].items())
        first = summary["first_dropped"][0]
        raise UserError(
            f"{dropped} of {records} records have no usable picture in {images} ({reasons}; the "
            f"first is {first['image']} of record {first['record']}), more than "
            f"data.max_dropped_fraction {max_dropped_fraction} allows; complete the pictures or "
            "raise it."
        )
    if not summary["kept"]["train"]:
        raise UserError(
            f"no record is left to train on: {summary['kept']['held_out']} are held out; lower "
            f"data.held_out_fraction {held_out_fraction}."
        )
    if held_out_fraction and not summary["kept"]["held_out"]:
        raise UserError(
            f"data.held_out_fraction {held_out_fraction} holds out none of "
            f"{summary['images']['train']} images; raise it, or write 0."
        )


def read_mllm(path: Path) -> list[dict]:
    """The records of an mllm-format file."""
    return list(read_records(path))
