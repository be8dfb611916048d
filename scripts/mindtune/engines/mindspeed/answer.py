"""Answering from checkpoints, by the framework's own pipeline under its own Python."""

import json
import logging
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mindtune.checkpoint.layout import ParallelLayout, layout_options
from mindtune.data.prompts import pictures_of, text_of
from mindtune.engines import chat
from mindtune.engines.chat import warn_of_other_template
from mindtune.engines.journal import Journal, in_order
from mindtune.engines.launching import Launch
from mindtune.engines.mindspeed import rendering
from mindtune.engines.mindspeed.arguments import World, answering_arguments
from mindtune.engines.mindspeed.checkpoints import missing_weights, open_to_owner, tracked
from mindtune.engines.mindspeed.launching import ANSWERING, environment_of, framework_launch
from mindtune.engines.mindspeed.machine import Machine
from mindtune.engines.mindspeed.tutorial_script import answer_by_script, check_script_can_ask
from mindtune.engines.mindspeed.watching import Watch
from mindtune.engines.requests import AnswerJob, answered
from mindtune.engines.tokenizer import token_ids
from mindtune.errors import UserError
from mindtune.files import read_json_lines, write_json, writing
from mindtune.models.conversation import GROUNDING
from mindtune.models.mindspeed import framework_of, tool_problems
from mindtune.models.shape import ModelShape, model_shape, read_config
from mindtune.models.template import template_of
from mindtune.process import ended
from mindtune.progress import Progress

if TYPE_CHECKING:
    from mindtune.settings.sections.mindspeed import Mindspeed

log = logging.getLogger(__name__)

PROGRAM = Path(__file__).parent / "programs" / "answer.py"
ANSWERED = re.compile(r"mindtune: answered (\d+)/(\d+)$")
SEED = 42  # decoding is greedy: nothing is drawn


@dataclass(frozen=True)
class Asking:
    """All that one launch of answering needs, made from a job.

    run: a directory of its own, for the files of the launch.
    """

    job: "AnswerJob[Mindspeed]"
    machine: Machine
    config: dict
    shape: ModelShape
    layout: ParallelLayout
    checkpoint: Path
    run: Path

    def model_file(self, **values) -> dict:
        """`--mm-model` of answering."""
        template = template_of(self.job.hf_dir)
        end, text_end = token_ids(self.job.hf_dir, template.turn_end, template.text_end)
        return (
            rendering.inference_file(
                rendering.shipped(self.machine.home, "inference", self.shape),
                self.config,
                self.layout,
                hf_dir=rendering.readable(self.job.hf_dir, self.shape, self.run / "processor"),
                end=end,
                text_end=text_end,
                max_new_tokens=self.job.answer.max_new_tokens,
            )
            | values
        )

    def launch(self, program: Path, name: str, extra: tuple[str, ...] = (), **values) -> Launch:
        """Write the model file of a launch, and say how it is started."""
        directory = self.run / name if name else self.run
        directory.mkdir(parents=True, exist_ok=True)
        model_file = directory / "inference.json"
        write_json(model_file, self.model_file(**values))
        world = World.of_answering(self.layout)
        arguments = answering_arguments(
            world,
            vocab=self.shape.vocab,
            seed=SEED,
            load=self.checkpoint,
            model_file=model_file,
        )
        given = self.job.machine.environment
        return framework_launch(
            directory,
            [str(program)],
            [*arguments, *extra],
            self.machine,
            world,
            environment_of(ANSWERING, given),
        )


def answer(job: "AnswerJob[Mindspeed]") -> None:
    """Write an answer for each prompt, in the order of the prompts; what an interrupted answering
    has answered is not asked again."""
    prompts = read_json_lines(job.prompts)
    warn_of_other_template(job.hf_dir)
    if job.machine.inference == "script":
        check_script_can_ask(prompts, template_of(job.hf_dir).system)
    asking = prepare_asking(job)
    journal = Journal.of(
        job, prompts, engine="mindspeed",
        versions=asking.machine.versions, commits=asking.machine.commits,
    )  # fmt: skip
    left = [number for (number,) in journal.missing(in_order(len(prompts), 1))]
    numbers = iter(left)

    def keep(line: dict) -> None:
        """Answers come in the order in which they are asked for."""
        number = next(numbers)
        said = {name: line[name] for name in ("answer", "tokens", "cut", "seconds")}
        journal.add([number], [answered(prompts[number], **said)])

    if left:
        how = answer_by_script if job.machine.inference == "script" else answer_by_pipeline
        with Progress("answering", "prompts", len(prompts), done=len(journal.lines)) as shown:
            how(asking, [prompts[number] for number in left], keep, shown)
    journal.finish(job.answers)


def prepare_asking(job: "AnswerJob[Mindspeed]") -> Asking:
    """
    Raises
    ------
    UserError: the checkpoint is not whole, or can't be answered from.
    """
    config = read_config(job.hf_dir)
    shape = model_shape(config)
    for problem in tool_problems(shape.model_type, inference=job.machine.inference):
        raise UserError(problem)
    layout = ParallelLayout.make(
        shape,
        **layout_options(job.parallel),
    )
    checkpoint = job.model_dir.resolve()
    open_to_owner(checkpoint)
    missing = missing_weights(checkpoint, layout)
    if missing:
        raise UserError(
            f"the checkpoint {job.model_dir} ({tracked(checkpoint) or 'no tracker'}) is not whole: "
            f"{missing[0]} is missing; remove it and run the same command again to recreate it."
        )
    run = (job.answers.parent / "run" / job.answers.stem).resolve()
    if run.exists():
        shutil.rmtree(run)
    run.mkdir(parents=True)
    return Asking(
        job, Machine.read(job.framework, job.operation), config, shape, layout, checkpoint, run
    )


def answer_by_pipeline(
    asking: Asking, prompts: list[dict], keep: Callable[[dict], None], shown: Progress
) -> None:
    """All prompts with one load of the model. keep: gets the line of each, as it is answered."""
    answers = asking.run / "answers.jsonl"
    asked = asking.run / "prompts.jsonl"
    template = template_of(asking.job.hf_dir)
    with writing(asked) as handle:
        for prompt in prompts:
            text = chat.prompt_text(template, text_of(prompt), prompt.get("system"))
            line = {"id": prompt["id"], "images": pictures_of(prompt), "text": text}
            handle.write(json.dumps(line, ensure_ascii=False) + "\n")
    write_json(
        asking.run / "job.json",
        {
            "prompts": str(asked),
            "images": str(asking.job.images.resolve()),
            "answers": str(answers),
            "image_resolution": asking.job.processor.image_resolution,
            "kept_tokens": GROUNDING,
            "picture_plugin": framework_of(asking.shape.model_type).picture_plugin,
        },
    )
    launch = asking.launch(PROGRAM, "", ("--mindtune-job", str(asking.run / "job.json")))
    log.info("the launch is %s", launch.directory / "launch.sh")
    ids = [prompt["id"] for prompt in prompts]
    watch = AnsweringWatch(load=asking.checkpoint, answers=answers, ids=ids, keep=keep, shown=shown)
    status = launch.run(watch.hear)
    watch.check_loaded(status)
    watch.take()
    if watch.taken != len(prompts):
        raise UserError(watch.failure(status, f"{watch.taken} of {len(prompts)} prompts answered"))


@dataclass(kw_only=True)
class AnsweringWatch(Watch):
    """Listens to an answering, takes its answers from their file as they come, and shows how far it is.

    ids: of the prompts, in their order. keep: gets the line of each.
    """

    answers: Path
    ids: Sequence[str]
    keep: Callable[[dict], None]
    shown: Progress
    taken: int = 0
    read: int = 0  # bytes of the file

    def hear(self, line: str) -> None:
        super().hear(line)
        if ANSWERED.match(line) and self.loaded:  # answers of random weights are none
            self.take()

    def take(self) -> None:
        """Keep the answers that have come, as far as they are those to the prompts in order."""
        if not self.answers.exists():
            return
        with open(self.answers, "rb") as handle:
            handle.seek(self.read)
            content = handle.read()
        for text in content.split(b"\n")[:-1]:
            line = json.loads(text)
            if self.taken == len(self.ids) or line["id"] != self.ids[self.taken]:
                return
            self.read += len(text) + 1
            self.keep(line)
            self.taken += 1
            self.shown.advance()

    def check_loaded(self, status: int) -> None:
        """
        Raises
        ------
        UserError: nothing said that the weights came from our checkpoint.
        """
        if not self.loaded:
            raise UserError(self.failure(status, f"{self.load} was not loaded"))

    def failure(self, status: int, what: str) -> str:
        if self.faults.cause:
            return f"answering failed ({what}): {self.faults.cause}"
        return (
            f"answering {ended(status)}: {what}; the framework's own words are at the "
            "end of the log."
        )
