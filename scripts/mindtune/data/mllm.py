"""Writing mllm-format data: a training part and a held-out part that share no image.

The format is that of MindSpeed-MM's `llava_instruct_2_mllm_demo_format.py`: a JSON list
on one line of `{"images": [path], "messages": [{"role", "content"}]}`, in the order of
the input. Paths are relative to the directory of pictures, which MindSpeed-MM is given
as `dataset_dir`, so that the file holds wherever that directory is.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

from mindtune.data.llava import ROLES, check_record, read_records
from mindtune.errors import UserError
from mindtune.files import write_json, writing

SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"RIFF")
MISSING, NO_PICTURE = "the image is missing", "the file is not a picture"
SHOWN = 10


def to_mllm(record: dict) -> dict:
    """One LLaVA record in mllm format; `id` and other keys are dropped, as the tool does."""
    image = record.get("image")
    return {
        "images": [image] if image else [],
        "messages": [
            {"role": ROLES[turn["from"]], "content": turn["value"]}
            for turn in record["conversations"]
        ],
    }


def is_held_out(image: str, fraction: float, seed: int) -> bool:
    """Whether an image belongs to the held-out part.

    A pure function of name, seed and share: the same on every machine, for every order of
    the records, and an image that is added moves no other.
    """
    digest = hashlib.sha256(f"{seed}/{image}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def image_fault(path: Path) -> str | None:
    """Why a file can't be a picture, judged by its first bytes; None when it can."""
    try:
        with open(path, "rb") as handle:
            return None if handle.read(8).startswith(SIGNATURES) else NO_PICTURE
    except FileNotFoundError:
        return MISSING
    except OSError:
        return NO_PICTURE


class ListWriter:
    """Writes a JSON list item by item, in the very form of `json.dump(items)`."""

    def __init__(self, handle) -> None:
        self.handle = handle
        self.count = 0

    def __enter__(self) -> "ListWriter":
        self.handle.write("[")
        return self

    def __exit__(self, failed, *rest) -> None:
        if not failed:
            self.handle.write("]")

    def add(self, item: dict) -> None:
        self.handle.write((", " if self.count else "") + json.dumps(item, ensure_ascii=False))
        self.count += 1


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
    max_dropped_fraction: float = 0.0,
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict:
    """Convert instructions to mllm format; returns the report that is written beside.

    Records without a picture go to the training part. Records whose picture is missing or
    is none are dropped and counted.

    Raises
    ------
    UserError: broken JSON or a broken record, too many dropped records, an empty part.
        Nothing is written then.
    """
    if not images.is_dir():
        raise UserError(f"{images} is not a directory of pictures.")
    faults: dict[str, str | None] = {}
    counts, dropped = Counter(), Counter()
    shown: list[dict] = []
    with ExitStack() as stack:
        parts = {
            name: stack.enter_context(ListWriter(stack.enter_context(writing(path))))
            for name, path in (("train", train), ("held_out", held_out))
        }
        for number, record in enumerate(progress(_first(read_records(instructions), max_samples))):
            check_record(record, number)
            counts["records"] += 1
            image = record.get("image")
            if not image:
                counts["text_only"] += 1
                parts["train"].add(to_mllm(record))
                continue
            if image not in faults:
                faults[image] = image_fault(images / image)
            if fault := faults[image]:
                dropped[fault] += 1
                if len(shown) < SHOWN:
                    shown.append({"record": number, "image": image, "reason": fault})
                continue
            part = "held_out" if is_held_out(image, held_out_fraction, split_seed) else "train"
            parts[part].add(to_mllm(record))
        used = [image for image, fault in faults.items() if fault is None]
        unseen = sum(is_held_out(image, held_out_fraction, split_seed) for image in used)
        summary = {
            "records": counts["records"],
            "kept": {name: writer.count for name, writer in parts.items()},
            "text_only": counts["text_only"],
            "images": {"train": len(used) - unseen, "held_out": unseen},
            "dropped": dict(sorted(dropped.items())),
            "first_dropped": shown,
        }
        _judge(summary, instructions, images, max_dropped_fraction, held_out_fraction)
    write_json(report, summary)
    return summary


def _first(records: Iterator[dict], limit: int | None) -> Iterator[dict]:
    for number, record in enumerate(records):
        if number == limit:
            return
        yield record


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
