"""The framework's own converter, mm-convert, by choice; its result is compared with its source.

Its exit status and its silence say nothing (reference: it drops rows without a word when the
tensor parallel size doesn't divide), so every element of what it wrote is read back.
"""

import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mindtune.checkpoint import verify
from mindtune.checkpoint.finite import check_finite
from mindtune.checkpoint.layout import ParallelLayout, layout_options
from mindtune.engines.mindspeed.checkpoints import open_to_owner
from mindtune.engines.mindspeed.faults import FaultWatch
from mindtune.engines.mindspeed.launching import environment_of, framework_launch
from mindtune.engines.mindspeed.machine import Machine
from mindtune.engines.requests import ExportJob, PrepareJob
from mindtune.errors import UserError
from mindtune.models import family
from mindtune.models.mindspeed import framework_of, tool_problems
from mindtune.models.shape import model_shape, read_config
from mindtune.process import ended

if TYPE_CHECKING:
    from mindtune.settings.sections.mindspeed import Mindspeed

log = logging.getLogger(__name__)

PROGRAM = ("-m", "checkpoint.convert_cli")


def prepare(job: "PrepareJob[Mindspeed]") -> None:
    """A Hugging Face model to a `release` checkpoint."""
    check_finite(job.hf_dir)
    layout = _layout(job)
    with _beside(job.mm_dir) as place:
        made = Path(place, "mm")
        _convert(
            job,
            Path(place),
            "hf_to_mm",
            {"mm_dir": made, "hf_config.hf_dir": job.hf_dir.resolve()}
            | _parallel(layout, flat=False),
        )
        _take(made, job.mm_dir, verified_against=job.hf_dir)


def export(job: "ExportJob[Mindspeed]") -> None:
    """The newest checkpoint of a save_dir to a Hugging Face model."""
    layout = _layout(job)
    with _beside(job.out_dir) as place:
        made = Path(place, "hf")
        _convert(
            job,
            Path(place),
            "mm_to_hf",
            {
                "save_hf_dir": made,
                "mm_dir": job.save_dir.resolve(),
                "hf_config.hf_dir": job.hf_dir.resolve(),
            }
            | _parallel(layout, flat=True),
        )
        _take(made, job.out_dir, verified_against=job.save_dir)


def _layout(job: "PrepareJob[Mindspeed] | ExportJob[Mindspeed]") -> ParallelLayout:
    """
    Raises
    ------
    UserError: mm-convert can't do it for this model, or it can't be cut so.
    """
    shape = model_shape(read_config(job.hf_dir))
    for problem in tool_problems(shape.model_type, converter="mm-convert"):
        raise UserError(problem)
    return ParallelLayout.make(shape, **layout_options(job.parallel))


def _parallel(layout: ParallelLayout, flat: bool) -> dict[str, object]:
    """Layer lists in the one of two forms that a command takes."""
    lists = {"llm_pp_layers": layout.llm_pp_layers, "vit_pp_layers": layout.vit_pp_layers}
    return {"parallel_config.tp_size": layout.tp_size} | {
        f"parallel_config.{name}": json.dumps(rows[0] if flat else rows)
        for name, rows in lists.items()
    }


def _beside(path: Path) -> tempfile.TemporaryDirectory:
    path.parent.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(dir=path.parent.resolve(), prefix=f".{path.name}.")


def _convert(
    job: "PrepareJob[Mindspeed] | ExportJob[Mindspeed]",
    directory: Path,
    command: str,
    options: Mapping[str, object],
) -> None:
    machine = Machine.read(job.framework, job.operation)
    arguments = [command, *(f"--cfg.{name}={value}" for name, value in options.items())]
    model_type = family(read_config(job.hf_dir), str(job.hf_dir / "config.json"))
    program = (*PROGRAM, framework_of(model_type).converter)
    launch = framework_launch(directory, program, arguments, machine, None, environment_of({}, {}))
    faults = FaultWatch()
    status = launch.run(faults.hear)
    if status:
        cause = faults.cause or "its own words are at the end of the log."
        raise UserError(f"mm-convert {command} {ended(status)}: {cause}")


def _take(made: Path, path: Path, verified_against: Path) -> None:
    """Give a result its name, once it is readable and equal to its source."""
    if not made.is_dir():
        raise UserError(f"mm-convert ended well, but wrote nothing to {path}.")
    open_to_owner(made)
    found = verify(verified_against, made)
    log.info("mm-convert's result holds what %s does: %s", verified_against, found)
    made.replace(path)
