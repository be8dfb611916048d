"""Hugging Face model to mm checkpoint, by our own converter."""

from mindtune.checkpoint import hf_to_mm
from mindtune.checkpoint.finite import check_finite
from mindtune.checkpoint.layout import layout_options
from mindtune.engines.requests import PrepareJob


def prepare(job: PrepareJob) -> None:
    check_finite(job.hf_dir)
    hf_to_mm(
        job.hf_dir,
        job.mm_dir,
        **layout_options(job.parallel),
    )
