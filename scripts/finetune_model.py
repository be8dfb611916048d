"""Fine-tune an mm checkpoint on mllm-format data.

    mm checkpoint, train.json, held_out.json -> save_dir/iter_0000050/…, loss.csv, finetune.json

save_dir is no output in Snakemake's eyes, which would delete it before each run and after each
failure; the output is finetune.json, which is written last and names the finished checkpoint.
"""

import csv
import logging
import shutil
from contextlib import closing
from functools import partial
from importlib import import_module
from pathlib import Path

from mindtune.divergence import KEY, Diverged
from mindtune.engines import stage, training_check
from mindtune.engines.feature_cache import place_of_features
from mindtune.engines.loss_table import LOSS
from mindtune.engines.pruning import LAST, keep_last
from mindtune.engines.requests import FinetuneJob
from mindtune.engines.training_directory import (
    adoptions,
    claimed,
    training_content,
    training_settings,
)
from mindtune.files import write_json, writing
from mindtune.glue.script_runner import optional_path, run

log = logging.getLogger("mindtune")


def finetune(
    job: FinetuneJob, engine: str, code: str, loss: Path, done: Path, alone: bool = True
) -> None:
    """Train, or go on training, in a save_dir that is ours; then write the two outputs.

    alone: whether there is no other experiment.
    """
    content = training_content(job.train_data, job.held_out_data, job.hf_dir, job.mm_dir)
    settings = training_settings(engine, code, job.plain(), content)
    check = partial(training_check(engine), job)
    with claimed(job.save_dir, settings, check) as fingerprint:
        diverged = trained(job, engine, alone)
        adopted = adoptions(job.save_dir)
        with open(job.save_dir / LOSS, "rb") as own, writing(loss, "wb") as handle:
            shutil.copyfileobj(own, handle)
        with open(loss, encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle))
        write_json(
            done,
            {
                "save_dir": str(job.save_dir),
                "iteration": int(rows[-1]["iteration"]),
                "fingerprint": fingerprint,
                "loss": rows[-1]["loss"],
                "held_out_loss": rows[-1]["held_out_loss"],
                **({KEY: diverged} if diverged else {}),
                **({"adopted": adopted} if adopted else {}),
            },
        )


def trained(job: FinetuneJob, engine: str, alone: bool) -> dict | None:
    """Train; where and how it diverged, None where it didn't.

    Raises
    ------
    Diverged: there is no other experiment, so there would be nothing to compare.
    """
    try:
        stage(engine, "finetune")(job)
        if job.keep == LAST:  # also those from before that was wanted
            keep_last(job.save_dir, job.train.train_iters)
    except Diverged as error:
        if alone:
            raise
        log.warning("%s There is no model of this experiment; the others are compared.", error)
        return error.record
    return None


def main(snakemake) -> None:
    # Imported so that its code is in no hash: no result depends on it.
    trackers = import_module("mindtune.trackers")
    save_dir = Path(snakemake.params.save_dir)
    followers = trackers.Followers(
        snakemake.config["operation"]["report_to"].get(snakemake.wildcards.experiment, []),
        save_dir / trackers.PLACE,
        snakemake.wildcards.experiment,
        {"engine": snakemake.params.engine, "train": dict(snakemake.params.train)},
    )
    job = FinetuneJob.of(
        snakemake.params.engine,
        train_data=Path(snakemake.input.train),
        held_out_data=Path(snakemake.input.held_out),
        images=Path(snakemake.input.images),
        hf_dir=Path(snakemake.input.hf),
        mm_dir=Path(snakemake.input.mm),
        save_dir=save_dir,
        train=snakemake.params.train,
        processor=snakemake.params.processor,
        parallel=snakemake.params.parallel,
        machine=snakemake.params.machine,
        framework=optional_path(snakemake.input.framework),
        operation=snakemake.config["operation"]["engine"],
        keep=snakemake.config["operation"]["keep_checkpoints"],
        followers=followers,
        features=place_of_features(save_dir) / snakemake.params.code,
    )
    with closing(followers):
        finetune(
            job,
            snakemake.params.engine,
            snakemake.params.code,
            Path(snakemake.output.loss),
            Path(snakemake.output.done),
            snakemake.config["operation"]["experiments"] == 1,
        )


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
