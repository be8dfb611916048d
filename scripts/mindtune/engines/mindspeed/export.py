"""Trained checkpoint to Hugging Face model, by our own converter or by mm-convert."""

from mindtune.checkpoint import mm_to_hf
from mindtune.engines.mindspeed import mm_convert
from mindtune.engines.requests import ExportJob


def export(job: ExportJob) -> None:
    if job.machine["converter"] == "mm-convert":
        mm_convert.mm_to_hf(job)
        return
    mm_to_hf(job.save_dir, job.hf_dir, job.out_dir)
