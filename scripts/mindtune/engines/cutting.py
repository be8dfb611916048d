"""Whether a conversation keeps all of its pictures when training cuts it at `train.seq_length`.

Both engines cut turn by turn, as MindSpeed-MM's template does. Where the cut falls within a picture,
the model gets more patches than tokens, and training would stop in mid-course. So all records are
looked at before: most by upper bounds, which cost nothing (there are at most as many tokens as bytes),
those left over by the size of their pictures, then by tokenizing their questions, the rest in full.
"""

import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import IO, NamedTuple

from mindtune.data.archive import open_archive
from mindtune.data.conversation import IMAGE_MARK, system_and_turns
from mindtune.data.opening import BadPicture, read_header, refused, source_of
from mindtune.data.shrinking import LONGEST, SMALLEST, shrunk_size
from mindtune.engines.requests import FinetuneJob
from mindtune.errors import UserError
from mindtune.files import read_json
from mindtune.models import NAMES, family
from mindtune.models.pictures import pictures_of
from mindtune.models.shape import read_config
from mindtune.models.template import Template, template_of
from mindtune.progress import progress

Encode = Callable[[str], Sequence[int]]
HEADER = 1 << 16  # bytes of a zip's member that tell the size of nearly every picture


def kept_tokens(source: int, target: int, room: int) -> tuple[int, int]:
    """How many tokens of a question and its answer to keep (MindSpeed-MM's `infer_seqlen`)."""
    if target * 2 < room:
        most = room
    elif source * 2 < room:
        most = room - source
    else:
        most = int(room * target / (source + target))
    target = min(most, target)
    return min(max(room - target, 0), source), target


class Turn(NamedTuple):
    """Tokens of a question and its answer, and of each up to the end of its last picture."""

    source: int
    target: int
    source_end: int
    target_end: int

    @property
    def pictured(self) -> bool:
        return bool(self.source_end or self.target_end)


def keeps_pictures(turns: Iterable[Turn], seq_length: int) -> bool:
    """Whether the cut leaves all pictures whole."""
    used = 0
    for turn in turns:
        if used >= seq_length:  # this turn and all that follow are left out
            if turn.pictured:
                return False
            continue
        source, target = kept_tokens(turn.source, turn.target, seq_length - used)
        if source < turn.source_end or target < turn.target_end:
            return False
        used += source + target
    return True


def surely_keeps_pictures(turns: Iterable[Turn], seq_length: int) -> bool:
    """The same for upper bounds: true only when it holds for all numbers up to them."""
    room = seq_length
    for source, target, source_end, target_end in turns:
        if (source_end or target_end) and source + target > room:
            short_answer, short_question = 2 * target < room, 2 * source < room
            if target_end and not short_answer:
                return False
            if source_end and not (short_question or (short_answer and 2 * source_end <= room)):
                return False
        room -= source + target
    return True


@dataclass(frozen=True)
class PictureTokens:
    """How many tokens a picture becomes.

    image_resolution: pixels above which it is first shrunk. least, most: pixels that the image
    processor keeps to. unit: pixels along a side of what becomes a token.
    """

    image_resolution: int
    least: int
    most: int
    unit: int

    @classmethod
    def of_model(cls, hf_dir: Path, image_resolution: int) -> "PictureTokens":
        """By preprocessor_config.json, or processor_config.json, which transformers 5 saves.

        Raises
        ------
        UserError: there is neither, or it can't be read.
        """
        settings = _image_settings(hf_dir)
        usual = pictures_of(family(read_config(hf_dir), str(hf_dir / "config.json")))
        size = settings.get("size") or {}
        least = settings.get("min_pixels") or size.get("shortest_edge") or usual.least
        most = settings.get("max_pixels") or size.get("longest_edge") or usual.most
        unit = settings.get("patch_size", usual.patch_size)
        unit *= settings.get("merge_size", usual.merge_size)
        return cls(image_resolution, least, most, unit)

    def of(self, size: tuple[int, int]) -> int:
        """By width and height.

        Raises
        ------
        BadPicture: it can't be shrunk.
        """
        return math.prod(self.sides(size)) // self.unit**2

    def sides(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height of what the vision model gets, by those of the picture: transformers' `smart_resize`,
        after the shrinking.

        Raises
        ------
        BadPicture: it can't be shrunk.
        """
        sides, unit = shrunk_size(size, self.image_resolution), self.unit
        made = [round(side / unit) * unit for side in sides]
        if math.prod(made) > self.most:
            scale = math.sqrt(math.prod(sides) / self.most)
            made = [max(unit, math.floor(side / scale / unit) * unit) for side in sides]
        elif math.prod(made) < self.least:
            scale = math.sqrt(self.least / math.prod(sides))
            made = [math.ceil(side * scale / unit) * unit for side in sides]
        width, height = made
        return width, height

    @cached_property
    def bound(self) -> int:
        """The most that a picture of any size can become."""
        area, unit = max(self.image_resolution, SMALLEST**2 * LONGEST), self.unit
        # Rounding favours long, narrow ones: those that are just high enough for so many rows.
        rows = range(1, math.ceil(math.sqrt(area) / unit) + 2)
        sides = ((row, max(SMALLEST, (row - 0.5) * unit)) for row in rows)
        rounded = max(row * math.floor(area / height / unit + 0.5) for row, height in sides)
        around = math.sqrt(LONGEST) + 1 / math.sqrt(LONGEST)  # both sides, of an area of 1
        enlarged = (self.least + unit * around * math.sqrt(self.least)) / unit**2 + 1
        if rounded * unit**2 > self.most:
            rounded = max(self.most / unit**2, math.sqrt(LONGEST * self.most) / unit)
        return math.ceil(max(rounded, enlarged))


def _image_settings(hf_dir: Path) -> Mapping:
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (hf_dir / name).is_file():
            found = read_json(hf_dir / name)
            if name.startswith("processor"):
                found = found.get("image_processor") if isinstance(found, dict) else None
            if not isinstance(found, dict):
                raise UserError(f"{hf_dir / name} holds no settings of an image processor.")
            return found
    raise UserError(
        f"{hf_dir} has neither preprocessor_config.json nor processor_config.json; it must hold the "
        f"files of a {NAMES} download."
    )


class Lengths:
    """Tokens of conversations, as bounds or exactly. encode: the model's tokenizer."""

    def __init__(self, encode: Encode, pictures: PictureTokens, template: Template) -> None:
        self.encode = encode
        self.pictures = pictures
        self.template = template
        (self.pad,) = encode(template.picture)
        self.around_first = len(encode(template.question_text("", first=True)))
        self.around_later = len(encode(template.question_text("", first=False)))
        self.around_answer = len(encode(template.answer_text("")))

    def bounds(
        self, messages: Sequence[Mapping], tokens: Sequence[int], tokenize: bool = False
    ) -> list[Turn]:
        """Upper bounds, up to the last turn with a picture.

        tokens: of each picture. tokenize: count the questions' tokens; they are short.
        """
        system, messages = system_and_turns(messages)
        left = iter(tokens)
        turns, last = [], 0
        for place in range(0, len(messages) - 1, 2):
            question = messages[place]["content"]
            if tokenize:
                source, source_end = self._question(question, not place, left, system)
            else:
                around = self.around_later if place else self._around_first(system)
                source, source_end = _bound(question, around, left)
            target, target_end = _bound(messages[place + 1]["content"], self.around_answer, left)
            turns.append(Turn(source, target, source_end, target_end))
            if source_end or target_end:
                last = len(turns)
        return turns[:last]

    def exact(self, messages: Sequence[Mapping], tokens: Sequence[int]) -> list[Turn]:
        system, messages = system_and_turns(messages)
        left = iter(tokens)
        turns = []
        for place in range(0, len(messages) - 1, 2):
            source = self._question(messages[place]["content"], not place, left, system)
            answer = messages[place + 1]["content"].replace(
                IMAGE_MARK, self.template.picture_text()
            )
            target = self._counted(self.template.answer_text(answer), left)
            turns.append(Turn(source[0], target[0], source[1], target[1]))
        return turns

    def _around_first(self, system: str | None) -> int:
        """Tokens around a first question, the system text among them."""
        if system is None:
            return self.around_first
        return len(self.encode(self.template.question_text("", True, system)))

    def _question(self, question: str, first: bool, left, system: str | None) -> tuple[int, int]:
        question = question.replace(IMAGE_MARK, self.template.picture_text())
        return self._counted(self.template.question_text(question, first, system), left)

    def _counted(self, text: str, left) -> tuple[int, int]:
        """Tokens of a text with one for each picture, and of its part to the last one's end."""
        count = end = 0
        for token in self.encode(text):
            count += next(left) if token == self.pad else 1
            if token == self.pad:
                end = count
        return count, end


def _bound(text: str, around: int, left) -> tuple[int, int]:
    marks = text.count(IMAGE_MARK)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)  # as the tokenizer does
    length = len(text) if text.isascii() else len(text.encode())
    count = around + 1 + length - marks * len(IMAGE_MARK)
    if not marks:
        return count, 0
    shown = sum(next(left) + 2 for _ in range(marks))
    after = (
        len(text) - text.rindex(IMAGE_MARK) - len(IMAGE_MARK)
    )  # characters, at least a byte each
    return count + shown, count + shown - after


def check_whole_pictures(
    job: FinetuneJob, encode: Encode, parts: Mapping[Path, Sequence[Mapping]]
) -> None:
    """
    Parameters
    ----------
    encode: the model's tokenizer. parts: mllm-format records, by the file that they are from.

    Raises
    ------
    UserError: `train.seq_length` would cut a sample within a picture.
    """
    pictures = PictureTokens.of_model(job.hf_dir, job.processor.image_resolution)
    lengths = Lengths(encode, pictures, template_of(job.hf_dir))
    for file, records in parts.items():
        check_pictures_kept(records, file, job.images, lengths, job.train.seq_length)


def check_pictures_kept(
    records: Sequence[Mapping],
    source: Path,
    images: Path,
    lengths: Lengths,
    seq_length: int,
) -> None:
    """
    Parameters
    ----------
    records: mllm-format records. source: the file that they are from. images: the directory (or
    zip file) of their pictures.

    Raises
    ------
    UserError: the cut falls within a picture of one of them.
    """
    bound = lengths.pictures.bound
    unsure = [
        number
        for number, record in enumerate(records)
        if record["images"]
        and not _is_sure(record, [bound] * len(record["images"]), lengths, seq_length)
    ]
    names = list(dict.fromkeys(name for number in unsure for name in records[number]["images"]))
    tokens = tokens_of_all(images, names, lengths.pictures) if names else {}
    cut = [
        (number, turns)
        for number in unsure
        if (turns := _cut(records[number], tokens, lengths, seq_length))
    ]
    if not cut:
        return
    number, turns = cut[0]
    shown = ", ".join(records[number]["images"])
    needed = max(sum(turn.source + turn.target for turn in found) for _, found in cut)
    raise UserError(
        f"record {number} of {source} (counted from 0; of {shown}) has "
        f"{sum(turn.source + turn.target for turn in turns)} tokens, and train.seq_length "
        f"{seq_length} would cut it within its pictures, as it would {len(cut)} of {len(records)} "
        f"records; set train.seq_length to {needed} or more, lower processor.image_resolution, or "
        "leave such records out."
    )


def _is_sure(
    record, tokens: Sequence[int], lengths: Lengths, seq_length: int, tokenize: bool = False
) -> bool:
    turns = lengths.bounds(record["messages"], tokens, tokenize)
    return surely_keeps_pictures(turns, seq_length)


def _cut(record, tokens, lengths: Lengths, seq_length: int) -> list[Turn] | None:
    """The turns of a record whose pictures would be cut."""
    shown = [tokens[name] for name in record["images"]]
    for tokenize in (False, True):
        if _is_sure(record, shown, lengths, seq_length, tokenize):
            return None
    turns = lengths.exact(record["messages"], shown)
    return None if keeps_pictures(turns, seq_length) else turns


def tokens_of_all(images: Path, names: Sequence[str], pictures: PictureTokens) -> dict[str, int]:
    """Tokens of each picture, by its header."""
    by_size: dict[tuple[int, int], int] = {}
    found = {}
    for name in progress(names, "measuring", "pictures", len(names)):
        size = picture_size(images, name)
        if size not in by_size:
            try:
                by_size[size] = pictures.of(size)
            except BadPicture as error:
                raise refused(images / name, error) from None
        found[name] = by_size[size]
    return found


def picture_size(images: Path, name: str) -> tuple[int, int]:
    """Width and height of a picture, by its header.

    Raises
    ------
    UserError: it is gone, or can't be used.
    """
    try:
        if images.is_file() and name in open_archive(images).members:
            try:
                return _size(BytesIO(open_archive(images).head(name, HEADER)))
            except BadPicture:
                pass  # a longer header than most
        return _size(source_of(images / name))
    except BadPicture as error:
        raise refused(images / name, error) from None


def _size(source: Path | IO[bytes]) -> tuple[int, int]:
    header = read_header(source)
    return header.width, header.height
