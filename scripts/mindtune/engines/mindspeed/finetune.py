"""Fine-tuning by the framework's own pretrain_vlm.py, watched line by line.

What counts as success is on the disk and in the log, since the framework ends with status 0 in
many ways: the tracker names the last iteration, every rank's files are whole, the
weights came from our checkpoint, and training said that it is done.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mindtune.checkpoint.layout import ParallelLayout, layout_options
from mindtune.checkpoint.megatron import track
from mindtune.checkpoint.model_directory import training_problems
from mindtune.data.mllm import read_mllm
from mindtune.divergence import Diverged
from mindtune.engines.checks import check_adapters, check_room, check_seed
from mindtune.engines.cutting import check_whole_pictures
from mindtune.engines.launching import Launch
from mindtune.engines.loss_table import LOSS, LossTable
from mindtune.engines.mindspeed import rendering
from mindtune.engines.mindspeed.arguments import World, training_arguments
from mindtune.engines.mindspeed.cache import cache_directory
from mindtune.engines.mindspeed.checkpoints import (
    missing_files,
    missing_weights,
    newest_whole,
    open_to_owner,
    remove_after,
    tracked,
)
from mindtune.engines.mindspeed.launching import TRAINING, environment_of, framework_launch
from mindtune.engines.mindspeed.machine import Machine
from mindtune.engines.mindspeed.training_log import (
    DONE,
    Iteration,
    parse_iteration,
    saved_iteration,
)
from mindtune.engines.mindspeed.watching import Watch
from mindtune.engines.ordering import write_in_order
from mindtune.engines.pruning import ALL, LAST, keep_last
from mindtune.engines.requests import FinetuneJob
from mindtune.engines.tokenizer import encoder
from mindtune.errors import UserError
from mindtune.files import write_json
from mindtune.models.mindspeed import framework_of
from mindtune.models.shape import model_shape, read_config
from mindtune.process import ended
from mindtune.progress import Progress

if TYPE_CHECKING:
    from mindtune.settings.sections.mindspeed import Mindspeed
    from mindtune.settings.sections.train import Train

log = logging.getLogger(__name__)

# In save_dir: what the run was started with, which goes aside with it.
RUN = "run"
# In RUN: the samples in the order of train.order_seed.
ORDERED = "train.json"
# What Megatron adds to the seed for each pipeline stage.
SEED_STEP = 100


def finetune(job: "FinetuneJob[Mindspeed]") -> None:
    """Train until `train_iters`, from the newest whole checkpoint or else from the base."""
    machine = Machine.read(job.framework, job.operation)
    config = read_config(job.hf_dir)
    layout = layout_of(job, config)
    world = World.of_training(job.machine, job.parallel, layout)
    train = job.train
    open_to_owner(job.save_dir)
    begun = newest_whole(job.save_dir, layout, train.save_optim, train.train_iters)
    if begun == train.train_iters:
        track(job.save_dir, begun)
        log.info("iteration %d is there already: nothing to train", begun)
        return
    check_base(job.mm_dir, layout)
    if begun:
        track(job.save_dir, begun)
        say_what_resumes(begun, train.save_optim)
    load = (job.save_dir if begun else job.mm_dir).resolve()
    launch = make_launch(job, machine, config, layout, world, load, resume=bool(begun))
    table = LossTable(job.save_dir / LOSS, job.followers)
    table.begin(begun)
    log.info("the launch is %s", launch.directory / "launch.sh")
    with Progress("training", "iterations", train.train_iters, begun) as shown:
        watch = TrainingWatch(
            load=load, table=table, train=train, shown=shown, last=begun, layout=layout,
            keep=job.keep,
        )  # fmt: skip
        try:
            status = launch.run(watch.hear)
        finally:
            open_to_owner(job.save_dir)
            if not watch.loaded:
                # Nobody may resume from what random weights became.
                remove_after(job.save_dir, begun)
    check_success(job, layout, watch, status)


def check(job: "FinetuneJob[Mindspeed]", begun: int) -> None:
    """Look at layout, seed, data, base and disk, as far as that takes seconds only.

    begun: the iteration from which the training goes on; a finished one needs nothing.

    Raises
    ------
    UserError: the training could not begin.
    """
    if begun == job.train.train_iters:
        return
    Machine.read(job.framework, job.operation)
    config = read_config(job.hf_dir)
    layout = layout_of(job, config)
    check_seed(job.train, SEED_STEP * (layout.pp_size - 1))
    records = read_mllm(job.train_data)  # held-out ones are not evaluated
    check_amount(len(records), job, World.of_training(job.machine, job.parallel, layout))
    check_base(job.mm_dir, layout)
    check_adapters(config, job.train)
    check_room(job.save_dir, config, job.train, "bf16")
    check_whole_pictures(job, encoder(job.hf_dir), {job.train_data: records})


def layout_of(job: "FinetuneJob[Mindspeed]", config: Mapping) -> ParallelLayout:
    """The layout that the `parallel` section asks for, checked against the model.

    Raises
    ------
    UserError: the framework can't train it.
    """
    shape = model_shape(config)
    layout = ParallelLayout.make(shape, **layout_options(job.parallel))
    for problem in training_problems(layout, shape, job.parallel, job.train):
        raise UserError(problem)
    return layout


def check_amount(samples: int, job: "FinetuneJob[Mindspeed]", world: World) -> None:
    """
    Raises
    ------
    UserError: there is too little data for one step of all ranks.
    """
    needed = job.train.micro_batch_size * world.data
    if samples < needed:
        raise UserError(
            f"there are {samples} samples to train on, fewer than one step takes "
            f"(train.micro_batch_size {job.train.micro_batch_size} x data parallel size "
            f"{world.data}); lower it, or give more data."
        )


def check_base(mm_dir: Path, layout: ParallelLayout) -> None:
    """
    Raises
    ------
    UserError: the base checkpoint is not whole, or cut in another way than training wants it.
    """
    open_to_owner(mm_dir)
    missing = missing_weights(mm_dir, layout)
    if missing:
        raise UserError(
            f"the base checkpoint {mm_dir} is not one of {layout.describe()}: {missing[0].name} of "
            f"{missing[0].parent.name} is missing or not whole; remove it and run the same command "
            "again to recreate it."
        )
    found = len(list((mm_dir / str(tracked(mm_dir))).glob("mp_rank_*")))
    wanted = layout.tp_size * layout.pp_size
    if found != wanted:
        raise UserError(
            f"the base checkpoint {mm_dir} has {found} ranks, but parallel asks for {wanted} "
            f"({layout.describe()}); remove it and run the same command again to recreate it."
        )


def say_what_resumes(begun: int, save_optim: bool) -> None:
    log.info("resuming from iteration %d", begun)
    if not save_optim:
        log.warning(
            "without train.save_optim nothing but the weights is left of iteration %d: Adam's "
            "moments begin at zero and the learning rate with a new warm-up, so the result is not "
            "that of an undisturbed training; set train.save_optim to true for one",
            begun,
        )


def make_launch(
    job: "FinetuneJob[Mindspeed]",
    machine: Machine,
    config: dict,
    layout: ParallelLayout,
    world: World,
    load: Path,
    resume: bool,
) -> Launch:
    """Write the JSON files of a run, and say how it is started."""
    shape = model_shape(config)
    run = (job.save_dir / RUN).resolve()
    run.mkdir(exist_ok=True)
    train_data = ordered(job.train_data, job.train, run)
    cache = cache_directory(
        machine.cache,
        train_data=train_data,
        images=job.images,
        hf_dir=job.hf_dir,
        image_resolution=job.processor.image_resolution,
        seq_length=job.train.seq_length,
        versions={**machine.versions, **machine.commits},
    )
    write_json(
        run / "data.json",
        rendering.data_file(
            rendering.shipped(machine.home, "data", shape),
            hf_dir=rendering.readable(job.hf_dir, shape, run / "processor"),
            images=job.images,
            train_data=train_data,
            cache=cache,
            image_resolution=job.processor.image_resolution,
            workers=machine.preprocessing_num_workers,
        ),
    )
    template = rendering.shipped(machine.home, "model", shape)
    model = rendering.model_file(template, config, layout, job.train, world.context)
    write_json(run / "model.json", model)
    arguments = training_arguments(
        job.train,
        world,
        vocab=shape.vocab,
        load=load,
        base=job.mm_dir.resolve(),
        resume=resume,
        save=job.save_dir.resolve(),
        data_file=run / "data.json",
        model_file=run / "model.json",
        tool_file=machine.home / "mindspeed_mm" / "tools" / "tools.json",
        num_workers=machine.num_workers,
        timeout_minutes=machine.distributed_timeout_minutes,
        flash_attention=framework_of(shape.model_type).flash_attention,
        extra=job.machine.extra_arguments,
    )
    return framework_launch(
        run,
        [str(machine.home / "pretrain_vlm.py")],
        arguments,
        machine,
        world,
        environment_of(TRAINING, job.machine.environment),
    )


def ordered(train_data: Path, train: "Train", run: Path) -> Path:
    """The file that the framework is given: the data's own, or a permuted copy of it in `run`."""
    order_seed = train.order_seed
    if order_seed is None:
        return train_data
    write_in_order(train_data, order_seed, run / ORDERED)
    return run / ORDERED


@dataclass(kw_only=True)
class TrainingWatch(Watch):
    """Listens to a training: keeps `loss.csv`, shows progress, and stops what has gone wrong.

    last: the iteration that was heard last.
    """

    table: LossTable
    train: "Train"
    shown: Progress
    last: int
    layout: ParallelLayout
    keep: str = ALL
    done: bool = False

    def hear(self, line: str) -> None:
        iteration = parse_iteration(line)
        if iteration:
            self.note(iteration)
            return
        super().hear(line)
        self.done |= DONE in line
        saved = saved_iteration(line)
        if saved:
            log.info("saved checkpoint at iteration %d to %s", saved, self.table.path.parent)
            self.prune(saved)

    def prune(self, saved: int) -> None:
        """Remove what is older than a checkpoint, where that is wanted and all of its files are there."""
        save_dir = self.table.path.parent
        if self.keep == LAST and self.loaded:
            with_optimizer = self.train.save_optim
            if not missing_files(save_dir, saved, self.layout, with_optimizer):
                keep_last(save_dir, saved)

    def note(self, iteration: Iteration) -> None:
        """
        Raises
        ------
        UserError: training began without our weights, or the loss is no longer a number.
        """
        if iteration.iteration != self.last + 1:
            log.warning("the log has no line of iteration %d", self.last + 1)
        self.last = iteration.iteration
        if not self.loaded:
            raise UserError(
                f"training began, but nothing said that {self.load} was loaded: it would be one "
                "of random weights. See the log."
            )
        speed = iteration.samples_per_second
        lost = iteration.loss is None or iteration.nan_iterations or iteration.skipped_iterations
        self.table.append(
            {
                "iteration": iteration.iteration,
                "consumed_samples": iteration.consumed_samples,
                "lr": repr(iteration.lr),
                "loss": "nan" if lost else repr(iteration.loss),
                "grad_norm": "" if iteration.grad_norm is None else repr(iteration.grad_norm),
                "ms_per_iteration": iteration.milliseconds,
                "samples_per_second": "" if speed is None else f"{speed:.2f}",
                "held_out_loss": "",
                "tokens_per_second": "",
            }
        )
        if lost:
            raise Diverged(iteration.iteration, "nan", self.train)
        self.shown.advance(note=f"loss {iteration.loss:.4f}")


def check_success(
    job: "FinetuneJob[Mindspeed]", layout: ParallelLayout, watch: TrainingWatch, status: int
) -> None:
    """
    Raises
    ------
    UserError: what a finished training leaves is not there.
    """
    wanted = job.train.train_iters
    missing = missing_files(job.save_dir, wanted, layout, job.train.save_optim)
    if watch.done and watch.loaded and tracked(job.save_dir) == str(wanted) and not missing:
        if status:
            log.warning("the framework %s, after all was written", ended(status))
        return
    if watch.faults.cause:
        raise UserError(f"training failed: {watch.faults.cause}")
    reached = newest_whole(job.save_dir, layout, job.train.save_optim, wanted)
    if status == 0 and missing and watch.done:
        raise UserError(
            f"training said that it is done, but {missing[0]} is missing or not whole; run the same "
            "command again to resume from the last whole checkpoint."
        )
    raise UserError(
        f"training {ended(status)} before iteration {wanted} was saved (whole checkpoint: "
        f"{reached or 'none'}); the framework's own words are at the end of the log."
    )
