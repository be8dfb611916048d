"""Answer all prompts with one load of a model, before or after fine-tuning.

model, prompts.jsonl -> answers_before.jsonl or answers_after.jsonl
"""

import json
import logging
from pathlib import Path

from mindtune.checkpoint.finite import check_finite
from mindtune.divergence import model_divergence, write_no_answers
from mindtune.engines import stage
from mindtune.engines.requests import AnswerJob
from mindtune.glue.script_runner import optional_path, run

log = logging.getLogger("mindtune")

UNANSWERABLE = "no answer of it means anything; save the model again, or leave it out"


def model_directory(model: Path) -> Path:
    """The model: a directory, or what a finished training left, as its finetune.json says."""
    if model.suffix != ".json":
        return model
    return Path(json.loads(model.read_text(encoding="utf-8"))["save_dir"])


def main(snakemake) -> None:
    model, hf = Path(snakemake.input.model), Path(snakemake.input.hf)
    if diverged := model_divergence(hf) or model_divergence(model):
        log.warning("the training diverged at iteration %d: no answers", diverged["iteration"])
        write_no_answers(Path(snakemake.output.answers), diverged)
        return
    operation = snakemake.config["operation"]
    job = AnswerJob.of(
        snakemake.params.engine,
        prompts=Path(snakemake.input.prompts),
        images=Path(snakemake.input.images),
        model_dir=model_directory(model),
        hf_dir=hf,
        answers=Path(snakemake.output.answers),
        answer=snakemake.params.answer,
        processor=snakemake.params.processor,
        parallel=snakemake.params.parallel,
        machine=snakemake.params.machine,
        framework=optional_path(snakemake.input.framework),
        operation=operation["answerer"],
        code=snakemake.params.code,
    )
    # Whoever converts a model looks at its weights; these were not converted.
    if snakemake.params.tuned_model is not None or not operation["trains"]:
        check_finite(job.model_dir, so=UNANSWERABLE)
    stage(snakemake.params.engine, "answer")(job)


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
