"""Hugging Face model to mm checkpoint, by our own converter or by mm-convert."""

from mindtune.checkpoint import hf_to_mm
from mindtune.checkpoint.finite import check_finite
from mindtune.checkpoint.layout import layout_options
from mindtune.engines.mindspeed import mm_convert
from mindtune.engines.requests import PrepareJob


def prepare(job: PrepareJob) -> None:
    check_finite(job.hf_dir)
    if job.machine["converter"] == "mm-convert":
        mm_convert.hf_to_mm(job)
        return
    hf_to_mm(
        job.hf_dir,
        job.mm_dir,
        **layout_options(job.parallel),
    )
