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

from mindtune.data.conversation import leads_out
from mindtune.data.formats import find_form, refuse_mixed
from mindtune.data.formats.form import Conversation, Form, Unfit
from mindtune.data.json_list import read_records
from mindtune.data.looking import Looking
from mindtune.data.mixture import Mixture
from mindtune.data.pictures import open_pictures
from mindtune.data.split import components, is_held_out, share_of
from mindtune.errors import UserError
from mindtune.files import write_json, writing

SHOWN = 10
PARTS = ("train", "held_out")
BUFFER = 1 << 20
SYSTEM, USER, ASSISTANT = (
    f'{{"role": "{role}", "content": %b}}'.encode() for role in ("system", "user", "assistant")
)


@lru_cache(maxsize=256)
def _template(turns: int, system: bool) -> bytes:
    messages = b", ".join((SYSTEM,) * system + (USER, ASSISTANT) * (turns // 2))
    return b'{"images": [%b], "messages": [' + messages + b"]}"


def encode(conversation: Conversation, prefix: str = "") -> bytes:
    """A conversation in mllm format, in the very bytes of `json.dumps(ensure_ascii=False)`.

    prefix: put before the pictures' names.

    Raises
    ------
    TypeError: half a surrogate pair is in it.
    """
    images, values, system = conversation
    paths = [posixpath.join(prefix, image) for image in images] if prefix else images
    texts = values if system is None else (system, *values)
    return _template(len(values), system is not None) % (
        b", ".join(map(orjson.dumps, paths)),
        *map(orjson.dumps, texts),
    )


def _encoded(form: Form, record: dict, number: int, conversation: Conversation, prefix: str):
    try:
        return encode(conversation, prefix)
    except TypeError:  # half a surrogate pair, which only a close look finds
        form.check(record, number)
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
        return next((part for part in parts if part not in PARTS), parts[0])

    def share(self, image: str) -> float:
        """Larger fractions than this hold the image out."""
        return share_of(self.tied.get(image, image) if self.tied else image, self.seed)


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
    is none, and those that can't be trained on as they were meant, are dropped and counted.

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
    forms = [find_form(path) for path, _ in files]
    roots = [str(images.absolute()), str(images.resolve())]
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
                    for name, path in zip(PARTS, outputs, strict=True)
                }
                summary, known = _write(
                    mixed, forms, roots, placement, parts, image_prefix, progress
                )
                if max_samples is not None and summary["records"] < max_samples:
                    summary["asked_samples"] = max_samples
                summary["altered"] = pictures.report()
                _judge(summary, instructions, images, max_dropped_fraction, placement, known)
            break
        except _Tied:
            tied = components(_groups(mixed, forms, roots))
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


def _groups(mixed: Mixture, forms: Sequence[Form], roots: Sequence[str]) -> Iterable[Sequence[str]]:
    """The pictures of each record that has several and is not left out for what it holds."""
    for form, (path, _) in zip(forms, mixed.files, strict=True):
        for number, record in enumerate(read_records(path)):
            if form.sound_values(record, form.images_of(record)) is None:
                try:
                    found = _read_closely(form, record, number, roots)
                except UserError as error:
                    raise UserError(f"{path}: {error}") from None
                except Unfit:
                    continue
                if len(found.images) > 1:
                    yield found.images


def _read_closely(form: Form, record: dict, number: int, roots: Sequence[str]) -> Conversation:
    """
    Raises
    ------
    UserError: the training framework would stop at the record, or it is of another form.
    Unfit: it can't be trained on as it was meant.
    """
    refuse_mixed(form, record, f"record {number}")
    return form.read(record, number, roots)


class _Tally:
    """What is counted while records are written."""

    def __init__(self, files: Sequence[tuple[Path, float]]) -> None:
        self.files = files
        self.records = self.text_only = 0
        self.dropped, self.unread, self.trained_on = Counter(), Counter(), Counter()
        self.first_dropped: list[dict] = []

    def drop(self, file: int, number: int, reason: str, image: str | None = None) -> None:
        self.dropped[reason] += 1
        if len(self.first_dropped) < SHOWN:
            where = {"file": str(self.files[file][0])} if len(self.files) > 1 else {}
            picture = {} if image is None else {"image": image}
            self.first_dropped.append({**where, "record": number, **picture, "reason": reason})


def _write(
    mixed: Mixture,
    forms: Sequence[Form],
    roots: Sequence[str],
    placement: Placement,
    parts,
    prefix: str,
    progress,
) -> tuple[dict, dict]:
    """Write all records to their parts; returns the summary, and the part of each picture."""
    known: dict[str, str] = {}
    tally = _Tally(mixed.files)
    for file, number, record, times in progress(mixed):
        tally.records += 1
        form = forms[file]
        images = form.images_of(record)
        try:
            values = form.sound_values(record, images)
            if values is None or (
                images and images[0] not in known and any(map(leads_out, images))
            ):
                images, values, system = _read_closely(form, record, number, roots)
                tally.unread.update(form.unread(record))
            else:
                system = None
            item = _encoded(form, record, number, Conversation(images, values, system), prefix)
        except Unfit as reason:
            tally.unread.update(form.unread(record))
            tally.drop(file, number, str(reason))
            continue
        except UserError as error:
            raise UserError(f"{mixed.files[file][0]}: {error}") from None
        if not images:
            part = "train"
            tally.text_only += 1
        elif len(images) > 1 and placement.tied is None:
            raise _Tied
        else:
            part = known.get(images[0]) if len(images) == 1 else None
            part = part or placement.of(images, known)
        if part == "train":
            for _ in range(times):
                parts["train"].add(item)
            tally.trained_on[file] += times
        elif part == "held_out":
            parts["held_out"].add(item)
        else:
            tally.drop(file, number, part, next(name for name in images if known[name] == part))
    return _summary(tally, parts, known, forms), known


def _summary(tally: _Tally, parts, known: Mapping[str, str], forms: Sequence[Form]) -> dict:
    used = Counter(known.values())
    summary = {
        "form": forms[0].name,
        "records": tally.records,
        "kept": {name: writer.count for name, writer in parts.items()},
        "text_only": tally.text_only,
        "images": {name: used[name] for name in parts},
        "dropped": dict(sorted(tally.dropped.items())),
        "first_dropped": tally.first_dropped,
        "unread_keys": dict(sorted(tally.unread.items())),
    }
    if len(tally.files) > 1:
        summary["mixture"] = [
            {
                "path": str(path),
                "form": forms[number].name,
                "weight": weight,
                "trained_on": tally.trained_on[number],
            }
            for number, (path, weight) in enumerate(tally.files)
        ]
    return summary


def forms_of(summary: Mapping) -> list[str]:
    """The forms of the instructions of a conversion's summary, each once."""
    parts = summary.get("mixture", [summary])
    return list(dict.fromkeys(part["form"] for part in parts))


def remarks(summary: Mapping) -> list[str]:
    """What a reader of the conversion's summary should know, in phrases without a full stop."""
    found = [
        f"{count} of {summary['records']} records are dropped: {reason}"
        for reason, count in summary["dropped"].items()
    ]
    if summary["first_dropped"]:
        found.append(f"the first dropped record is {_place(summary['first_dropped'][0])}")
    found += [
        f"the key `{key}` of {count} records is not read"
        for key, count in summary["unread_keys"].items()
    ]
    if "asked_samples" in summary:
        found.append(
            f"data.max_samples is {summary['asked_samples']}, but there are {summary['records']} "
            "records; all are taken"
        )
    return found


def _place(dropped: Mapping) -> str:
    """Where a dropped record is, as words."""
    words = f"record {dropped['record']}"
    if "file" in dropped:
        words += f" of {dropped['file']}"
    return f"{words}, with {dropped['image']}" if "image" in dropped else words


def _judge(summary, instructions, images, limit, placement: Placement, known) -> None:
    records, dropped = summary["records"], sum(summary["dropped"].values())
    if not records:
        raise UserError(f"{instructions} holds no records.")
    if dropped > limit * records:
        reasons = ", ".join(f"{reason}: {n}" for reason, n in summary["dropped"].items())
        raise UserError(
            f"{dropped} of {records} records of {instructions} can't be used with the pictures of "
            f"{images} ({reasons}; the first is {_place(summary['first_dropped'][0])}), more than "
            f"data.max_dropped_fraction {limit} allows; complete the pictures, correct the records, "
            "or raise it."
        )
    shares = sorted({placement.share(name) for name, part in known.items() if part in PARTS})
    asked = f"data.held_out_fraction {placement.fraction}"
    if not summary["kept"]["train"] and placement.fraction < 1:
        held_out = summary["kept"]["held_out"]
        if not held_out:
            raise UserError(f"no record of {instructions} is left to train on: all are dropped.")
        less = f"lower it to {shares[-1] * 0.99:.3g}" if len(shares) > 1 else "write 0"
        raise UserError(
            f"no record is left to train on: {held_out} are held out by {asked}; {less}."
        )
    if placement.fraction == 1 and not summary["kept"]["held_out"]:
        raise UserError(f"no record of {instructions} has a picture that could be asked about.")
    if placement.fraction and not summary["kept"]["held_out"]:
        more = f"raise it to {shares[0] * 1.01:.3g}, or write 0" if len(shares) > 1 else "write 0"
        raise UserError(f"{asked} holds out none of {summary['images']['train']} images; {more}.")


def read_mllm(path: Path) -> list[dict]:
    """The records of an mllm-format file."""
    return list(read_records(path))
