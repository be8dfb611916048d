"""Our own converter, see `mindtune.checkpoint`."""

from mindtune.checkpoint import hf_to_mm, mm_to_hf
from mindtune.checkpoint.adapters import export_adapter
from mindtune.checkpoint.finite import check_finite
from mindtune.checkpoint.layout import layout_options
from mindtune.engines.requests import ExportJob, PrepareJob


def prepare(job: PrepareJob) -> None:
    check_finite(job.hf_dir)
    hf_to_mm(job.hf_dir, job.mm_dir, **layout_options(job.parallel))


def export(job: ExportJob) -> None:
    if job.adapter:
        export_adapter(job.save_dir, job.hf_dir, job.out_dir)
    else:
        mm_to_hf(job.save_dir, job.hf_dir, job.out_dir)
