"""Answering from a Hugging Face model with vLLM, greedily: one load, chunk after chunk.

vLLM is given token ids and pictures as the `hf` engine has them: the text of our template by the model's
tokenizer, and each picture decoded and shrunk here. It puts as many picture tokens for a picture as its own
processor says, and these are compared with ours: first for a prompt of each kind, then for all.
"""

import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from mindtune.checkpoint.peft_adapter import is_adapter
from mindtune.checkpoint.tuned_model import has_processor
from mindtune.data.prompts import pictures_of, text_of
from mindtune.data.shrinking import read_shrunk
from mindtune.engines.chat import prompt_text, warn_of_other_template
from mindtune.engines.cutting import PictureTokens, tokens_of_all
from mindtune.engines.journal import Batch, Journal, in_order
from mindtune.engines.launching import OFFLINE, OURS, Launch, exported
from mindtune.engines.requests import AnswerJob, answered
from mindtune.engines.tokenizer import read_tokenizer, token_ids
from mindtune.engines.vllm.adapters import Beside, adapter_of, log_merge, merged_model
from mindtune.engines.vllm.faults import Faults, shortened
from mindtune.engines.vllm.python import PROGRAMS, Python, vllm_python
from mindtune.errors import UserError
from mindtune.files import read_json, read_json_lines, write_json
from mindtune.models.conversation import GROUNDING
from mindtune.models.template import template_of
from mindtune.process import ended
from mindtune.progress import Progress

if TYPE_CHECKING:
    from mindtune.settings.sections.vllm import Vllm

log = logging.getLogger(__name__)

CHUNK = 256  # prompts that are handed over, and kept, together
AHEAD = 2  # chunks whose pictures are ready
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
WEIGHTS = (".safetensors", ".bin")
SAID = re.compile(r"mindtune: (answered|done|loaded) (.+)$")
ENVIRONMENT = {
    **OFFLINE,
    "VLLM_NO_USAGE_STATS": "1",
    # In one process prompts are taken in their order, whatever the moment.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}


@dataclass(frozen=True)
class Asked:
    """A prompt as token ids.

    ids: with one token for each picture. expanded: with as many as each picture becomes.
    """

    ids: Sequence[int]
    expanded: Sequence[int]
    pictures: Sequence[str]


def answer(job: "AnswerJob[Vllm]") -> None:
    """Write an answer for each prompt, in the order of the prompts; what an interrupted answering
    has answered is not asked again."""
    python = vllm_python(job.operation)
    log.info("vLLM runs under Python %s with %s", python.version, dict(python.packages))
    warn_of_other_template(job.hf_dir)
    prompts = read_json_lines(job.prompts)
    journal = Journal.of(job, prompts, engine="vllm", versions=python.packages)
    batches = journal.missing(in_order(len(prompts), CHUNK))
    if batches:
        run = (job.answers.parent / "run" / job.answers.stem).resolve()
        if run.exists():
            shutil.rmtree(run)
        run.mkdir(parents=True)
        with Progress("answering", "prompts", len(prompts), done=len(journal.lines)) as shown:
            Answering(job, python, run, prompts, journal, shown).run_all(batches)
        shutil.rmtree(run)
    journal.finish(job.answers)


@dataclass
class Answering:
    """One start of vLLM. run: a directory of its own."""

    job: "AnswerJob[Vllm]"
    python: Python
    run: Path
    prompts: Sequence[dict]
    journal: Journal
    shown: Progress
    waiting: list[tuple[Batch, int | None]] = field(default_factory=list)
    given: dict[Path, tuple[Batch, int | None]] = field(default_factory=dict)
    feed: int = -1
    shown_early: int = 0

    def run_all(self, batches: Sequence[Batch]) -> None:
        """
        Raises
        ------
        UserError: vLLM can't answer, or makes other tokens of a prompt.
        """
        template = template_of(self.job.hf_dir)
        self.tokenizer = read_tokenizer(self.job.hf_dir)
        self.stops = token_ids(self.job.hf_dir, template.turn_end, template.text_end)
        self.asked = asked_of(self.job, self.prompts, self.tokenizer)
        left = [number for batch in batches for number in batch]
        self.waiting = [(first_of_each_kind(self.prompts, left), 1)]
        self.waiting += [(batch, None) for batch in batches]
        os.mkfifo(self.run / "feed")
        # Opened for both, it neither waits for vLLM nor fails when that is gone.
        self.feed = os.open(self.run / "feed", os.O_RDWR)
        try:
            for _ in range(AHEAD):
                self._hand_over()
            status = self._run_model()
        finally:
            os.close(self.feed)
            (self.run / "feed").unlink()
            for chunk in self.given:  # their pictures are large
                shutil.rmtree(chunk.parent)
            shutil.rmtree(self.run / "merged", ignore_errors=True)
        if self.waiting or self.given:
            raise UserError(self._failure(status))

    def _run_model(self) -> int:
        """Start vLLM with the model; with an adapter beside its base, or merged where vLLM won't have it so."""
        job = self.job
        if not is_adapter(job.model_dir):
            return self._run_launch(job)
        if beside := adapter_of(job):
            status = self._run_launch(replace(job, model_dir=job.hf_dir), beside)
            why = self._refused_adapter()
            if why is None:
                return status
            log_merge(why)
        merged = merged_model(job, self.run / "merged")
        return self._run_launch(replace(job, model_dir=merged))

    def _run_launch(self, job: "AnswerJob[Vllm]", beside: Beside | None = None) -> int:
        self.faults = Faults(job.operation)
        launch = self._launch(job, beside)
        log.info("the launch is %s", launch.directory / "launch.sh")
        return launch.run(self.hear)

    def _refused_adapter(self) -> str | None:
        """Why vLLM does not take the adapter; None where it did, or where the fault is another's."""
        refused = self.run / "error.json"
        if not refused.is_file():
            return None
        found = read_json(refused)
        if found["kind"] != "adapter" or self.faults.knows(found["text"]):
            return None
        refused.unlink()
        return shortened(found["text"])

    def hear(self, line: str) -> None:
        """
        Raises
        ------
        UserError: vLLM was asked something else than we meant.
        """
        self.faults.hear(line)
        match = SAID.search(line)
        if match and match[1] == "answered" and self._is_kept():
            self.shown_early += int(match[2])
            self.shown.advance(int(match[2]))
        elif match and match[1] == "done":
            self._take(Path(match[2]))
            self._hand_over()

    def _is_kept(self) -> bool:
        """Whether what is answered now is to be kept, and not the look at the tokens."""
        return next(iter(self.given.values()), (None, 1))[1] is None

    def _launch(self, job: "AnswerJob[Vllm]", beside: Beside | None) -> Launch:
        section = job.operation
        longest = max(
            len(one.expanded) for one in self.asked
        )  # of all, also where some are answered
        pictures = max(len(one.pictures) for one in self.asked)
        write_json(
            self.run / "job.json",
            {
                "model": str(linked_model(job, self.run / "model")),
                "adapter": beside.plain() if beside else None,
                "dtype": DTYPES[section.precision],
                "max_model_len": longest + self.job.answer.max_new_tokens,
                "pictures": pictures,
                "device": section.device,
                "arguments": list(section.arguments),
                "stops": self.stops,
                "max_new_tokens": self.job.answer.max_new_tokens,
                "feed": str(self.run / "feed"),
                "error": str(self.run / "error.json"),
            },
        )
        return Launch(
            self.run, self.python.path, [str(PROGRAMS / "answer.py")], [str(self.run / "job.json")],
            setup=[f"unset {' '.join(OURS)}", *exported(environment_of(section))],
        )  # fmt: skip

    def _hand_over(self) -> None:
        """Write the next chunk with its pictures, and say so; an empty line after the last."""
        if not self.waiting:
            if not self.given:
                os.write(self.feed, b"\n")
            return
        numbers, limit = self.waiting.pop(0)
        name = f"chunk_{len(self.journal.lines):06d}_{len(self.waiting):05d}"
        place = self.run / name
        place.mkdir()
        names = dict.fromkeys(name for number in numbers for name in self.asked[number].pictures)
        files = {}
        for count, name in enumerate(names):
            files[name] = str(place / f"{count}.ppm")
            picture = read_shrunk(self.job.images / name, self.job.processor.image_resolution)
            picture.save(files[name])
        chunk = place / "chunk.json"
        write_json(
            chunk,
            {
                "answers": str(place / "answers.json"),
                "limit": limit,
                "prompts": [
                    {
                        "ids": list(self.asked[number].ids),
                        "pictures": [files[name] for name in self.asked[number].pictures],
                    }
                    for number in numbers
                ],
            },
        )
        self.given[chunk] = numbers, limit
        os.write(self.feed, f"{chunk}\n".encode())

    def _take(self, chunk: Path) -> None:
        numbers, limit = self.given.pop(chunk)
        found = read_json(chunk.with_name("answers.json"))
        for number, one in zip(numbers, found["answers"], strict=True):
            self._check_tokens(number, one["asked"])
        shutil.rmtree(chunk.parent)
        if limit is not None:
            return
        seconds = found["seconds"] / len(numbers)
        lines = [
            self._line(number, one["said"], seconds)
            for number, one in zip(numbers, found["answers"], strict=True)
        ]
        self.journal.add(numbers, lines)
        self.shown.advance(len(numbers) - self.shown_early)
        self.shown_early = 0

    def _check_tokens(self, number: int, theirs: Sequence[int]) -> None:
        ours = list(self.asked[number].expanded)
        if theirs == ours:
            return
        pairs = enumerate(zip(ours, theirs, strict=False))
        shorter = min(len(ours), len(theirs))
        place = next((place for place, (own, other) in pairs if own != other), shorter)
        raise UserError(
            f"prompt {self.prompts[number]['id']} is {len(theirs)} tokens for vLLM and {len(ours)} for "
            f"us, and they differ from token {place} on: transformers "
            f"{self.python.packages.get('transformers', 'of vllm.python')} there prepares it in another "
            "way, and no answer would be to what was trained; install another version in vllm.python, "
            "or write `answer.engine: hf`."
        )

    def _line(self, number: int, said: Sequence[int], seconds: float) -> dict:
        end = next((place for place, token in enumerate(said) if token in self.stops), None)
        own = said if end is None else said[:end]
        return answered(
            self.prompts[number],
            answer=spoken(self.tokenizer, own),
            tokens=len(own),
            cut=end is None,
            seconds=seconds,
        )

    def _failure(self, status: int) -> str:
        refused = self.run / "error.json"
        if refused.is_file():
            found = read_json(refused)
            return self.faults.refused(found["kind"], found["text"])
        there = f"{len(self.journal.lines)} of {self.journal.count} prompts answered"
        return self.faults.sentence() or (
            f"vLLM {ended(status)} ({there}): {self.faults.last or 'it says nothing'}; its own words are "
            "at the end of the log."
        )


def environment_of(section: "Vllm") -> dict[str, str]:
    """The variables of a start: ours, and then the user's."""
    found = dict(ENVIRONMENT)
    if section.device == "cpu":
        found["OMP_NUM_THREADS"] = str(section.threads)
        found["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        found["VLLM_CPU_KVCACHE_SPACE"] = "1"  # GiB
    return found | dict(section.environment)


def linked_model(job: "AnswerJob[Vllm]", place: Path) -> Path:
    """A directory of links: the model's weights and config, and the tokenizer and processor that go with it.

    Without its generation_config.json, so that nothing but the greatest logit counts.
    """
    if place.exists():  # of a launch before
        shutil.rmtree(place)
    place.mkdir()
    own = job.model_dir if has_processor(job.model_dir) else job.hf_dir
    chosen = {
        path.name: path
        for path in sorted(own.iterdir())
        if path.suffix not in WEIGHTS and not path.name.endswith(".index.json") and path.is_file()
    }
    chosen |= {
        path.name: path
        for path in sorted(job.model_dir.iterdir())
        if path.suffix in WEIGHTS or path.name.endswith(".index.json") or path.name == "config.json"
    }
    for name, path in chosen.items():
        if name != "generation_config.json":
            (place / name).symlink_to(path.resolve())
    return place


def asked_of(job: "AnswerJob[Vllm]", prompts: Sequence[dict], tokenizer: Tokenizer) -> list[Asked]:
    """All prompts as token ids."""
    template = template_of(job.hf_dir)
    shown = [pictures_of(prompt) for prompt in prompts]
    names = list(dict.fromkeys(name for pictures in shown for name in pictures))
    measure = PictureTokens.of_model(job.hf_dir, job.processor.image_resolution)
    tokens = tokens_of_all(job.images, names, measure) if names else {}
    (picture,) = tokenizer.encode(template.picture, add_special_tokens=False).ids
    found = []
    for prompt, pictures in zip(prompts, shown, strict=True):
        text = prompt_text(template, text_of(prompt), prompt.get("system"))
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        sizes = iter([tokens[name] for name in pictures])
        expanded = [
            token for own in ids for token in ([own] * next(sizes) if own == picture else [own])
        ]
        found.append(Asked(ids, expanded, pictures))
    return found


def first_of_each_kind(prompts: Sequence[dict], numbers: Sequence[int]) -> list[int]:
    """The first prompt of each number of pictures, with and without a system text."""
    found: dict[tuple, int] = {}
    for number in numbers:
        prompt = prompts[number]
        found.setdefault((len(pictures_of(prompt)), "system" in prompt), number)
    return list(found.values())


def spoken(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of an answer: with marks of objects and boxes, without other special tokens."""
    unsaid = set(unsaid_tokens(tokenizer))
    return tokenizer.decode(
        [number for number in ids if number not in unsaid], skip_special_tokens=False
    ).strip()


def unsaid_tokens(tokenizer: Tokenizer) -> Iterator[int]:
    for number, token in tokenizer.get_added_tokens_decoder().items():
        if token.special and token.content not in GROUNDING:
            yield number
