"""Trained checkpoint to Hugging Face model, by our own converter."""

from mindtune.checkpoint import mm_to_hf
from mindtune.engines.requests import ExportJob


def export(job: ExportJob) -> None:
    mm_to_hf(job.save_dir, job.hf_dir, job.out_dir)
