"""The answers that an interrupted answering has given already, so that the next one gives the rest.

    results/baseline/answers_after.jsonl                              the answers, when all are there
    results/baseline/.answers_after.jsonl.0123456789abcdef.journal    those so far, batch by batch

Snakemake deletes the outputs of a job that failed, and so the journal is beside them, under a name of
its own. The name has a hash of all that an answer depends on: the model's files, the prompts and their
pictures, the settings, the code, and the libraries' versions. A journal of something else is left as it
is, until its settings come back or scripts/clean.py removes it.

A batch is written when it is answered, whole or not at all, and is the unit of what is asked again: its
prompts are padded and multiplied together, so that another cut could change an answer. The last line of a
killed process may be torn, and is dropped.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mindtune.checkpoint.content import content_of_checkpoint
from mindtune.checkpoint.megatron import TRACKER, iteration_directory
from mindtune.data.archive import open_archive
from mindtune.data.prompts import pictures_of
from mindtune.engines.box_sizes import BoxSizes
from mindtune.engines.requests import AnswerJob
from mindtune.files import regular, sha256_file, sync_directory, writing

log = logging.getLogger(__name__)

NAME = re.compile(r"\.(?P<answers>.+)\.(?P<key>[0-9a-f]{16})\.journal")
# The files of a Hugging Face model on which an answer may depend.
KINDS = (".safetensors", ".bin", ".json", ".jinja", ".txt", ".model")
READERS = 4

Batch = Sequence[int]  # numbers of prompts that are answered together


def versions(*packages: str) -> dict[str, str]:
    """The versions of some packages; of one that isn't there, an empty text."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    return found


def key_of(job: AnswerJob, prompts: Sequence[Mapping], facts: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits for all that the answers of a job depend on.

    facts: what else they depend on, of the engine's: its name, and versions.

    Raises
    ------
    UserError: a file of the model is not there.
    """
    content = {
        "model": _content(job.model_dir),
        "hf": _content(job.hf_dir),
        "prompts": sha256_file(job.prompts),
        "pictures": _pictures(job.images, prompts),
    }
    plain = job.plain()
    settings = {
        name: plain[name] for name in ("answer", "processor", "parallel", "machine", "code")
    }
    text = json.dumps([content, settings, facts], sort_keys=True, default=dict)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _content(model: Path) -> Any:
    """The content of a model's directory: of a Hugging Face one, or of a checkpoint."""
    files = sorted(path for path in model.iterdir() if path.suffix in KINDS and path.is_file())
    with ThreadPoolExecutor(READERS) as pool:
        found = dict(zip([path.name for path in files], pool.map(_hash, files), strict=True))
    if (model / TRACKER).is_file():
        found["checkpoint"] = content_of_checkpoint(iteration_directory(model))
    return found


def _hash(path: Path) -> str:
    return sha256_file(regular(path))


def _pictures(images: Path, prompts: Sequence[Mapping]) -> Any:
    """The content of all pictures that are shown; of a zip file, by its table of contents.

    One that is not there has none: whoever opens it says so.
    """
    names = sorted({name for prompt in prompts for name in pictures_of(prompt)})
    if images.is_file():
        members = open_archive(images).members
        return [list(members[name]) if name in members else name for name in names]
    with ThreadPoolExecutor(READERS) as pool:
        return list(zip(names, pool.map(lambda name: _picture(images / name), names), strict=True))


def _picture(path: Path) -> str | None:
    return sha256_file(path) if path.is_file() else None


def in_order(count: int, size: int) -> list[Batch]:
    """Batches of `size` prompts as they come, the last one of what is left."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


@dataclass
class Journal:
    """Answers that are there, and those that are added.

    path: of the file. count: prompts of the job. lines: number of a prompt -> its line of the answers.
    complete: what is added to a line as it is written among the answers.
    """

    path: Path
    count: int
    lines: dict[int, dict] = field(default_factory=dict)
    begun: bool = False
    complete: Callable[[int, dict], dict] = lambda _, line: line

    @classmethod
    def of(cls, job: AnswerJob, prompts: Sequence[Mapping], **facts: Any) -> "Journal":
        """The journal of a job, with what an interrupted one has left.

        Raises
        ------
        UserError: what the job reads is not there.
        """
        key = key_of(job, prompts, facts)
        path = job.answers.with_name(f".{job.answers.name}.{key}.journal")
        journal = cls(path, len(prompts), complete=BoxSizes(job, prompts).complete)
        journal._take_up()
        if journal.lines:
            log.info(
                "%d of %d answers are there already; the others follow",
                len(journal.lines), journal.count,
            )  # fmt: skip
        return journal

    @property
    def is_whole(self) -> bool:
        return len(self.lines) == self.count

    def missing(self, batches: Sequence[Batch]) -> list[Batch]:
        """The batches of a job that are not answered yet, in their order."""
        return [batch for batch in batches if any(number not in self.lines for number in batch)]

    def add(self, numbers: Batch, lines: Sequence[dict]) -> None:
        """Keep the answers of a batch; they are on the disk when this returns."""
        found = dict(zip(numbers, lines, strict=True))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8", newline="\n") as handle:
            if not self.begun:
                handle.write(json.dumps({"prompts": self.count}) + "\n")
            handle.write(json.dumps(list(found.items()), ensure_ascii=False) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        if not self.begun:
            sync_directory(self.path.parent)
        self.begun = True
        self.lines |= found

    def finish(self, answers: Path) -> None:
        """Write the answers of all prompts in their order, and remove the journal."""
        with writing(answers) as handle:
            for number in range(self.count):
                line = self.complete(number, self.lines[number])
                handle.write(json.dumps(line, ensure_ascii=False) + "\n")
        self.path.unlink(missing_ok=True)

    def _take_up(self) -> None:
        """Read what is there, and cut off what a killed process left torn."""
        if not self.path.exists():
            return
        count, batches, length = parsed(regular(self.path).read_bytes())
        if count != self.count:
            self.path.unlink()
            return
        os.truncate(self.path, length)
        self.lines, self.begun = {n: line for batch in batches for n, line in batch}, True


def parsed(content: bytes) -> tuple[int | None, list[list], int]:
    """How many prompts a journal is about, its whole batches, and how many bytes these are.

    The first is None for one that has not begun, or for something else.
    """
    count, batches, length = None, [], 0
    for text in content.split(b"\n")[:-1]:
        try:
            value = json.loads(text)
            if count is None:
                count = int(value["prompts"])
            elif not isinstance(value, list):
                break
            else:
                batches.append([(int(number), dict(line)) for number, line in value])
        except (ValueError, TypeError, KeyError):
            break
        length += len(text) + 1
    return count, batches, length
