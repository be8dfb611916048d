#!/usr/bin/env python3
"""Say what a configuration will take: disk, memory, jobs, and NPU hours.

    python scripts/estimate_scale.py --configfile config/qwen2-vl-2b.yaml \\
        --loss-csv results/baseline/loss.csv

Nothing is run or written. Hours are given when a loss.csv of a training that ran tells the time of
an iteration, or --ms-per-iteration does. docs/scaling.md explains the numbers.
"""

import argparse
import csv
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from mindtune.errors import UserError
from mindtune.models import NAMES
from mindtune.models.published import PUBLISHED, published_in, published_names
from mindtune.models.shape import ModelShape, model_shape
from mindtune.scale import Need, count_parameters, estimate, in_units
from mindtune.settings import ConfigError, Configuration, load
from mindtune.settings.sources import KINDS
from mindtune.settings.yaml_files import read_written

ROOT = Path(__file__).resolve().parents[1]


def configuration_in(path: Path) -> Configuration:
    """A checked configuration file; the files that it names need not be there."""
    written = read_written(path, "--configfile")
    if written.problems:
        raise ConfigError(written.problems, [str(path)])
    return load(written.value, [str(path)], written=[written])


def model_of(configuration: Configuration) -> str:
    """The model that a configuration names: a directory, or a published one."""
    source = configuration.typed().sources.model
    if source.use == "demo":
        return str(ROOT / "scripts/mindtune/demo/base")
    if source.use == "path":
        return source.path
    name = source.name or KINDS["model"]
    return published_in(name) or name


def shape_of(model: str) -> ModelShape:
    """The shape of a published model, by its name or size, or of the model in a directory."""
    found = published_names(model)
    if len(found) > 1:
        raise UserError(f"--model {model} can be {' or '.join(found)}; write which of them.")
    if found:
        return model_shape(PUBLISHED[found[0]])
    path = Path(model) / "config.json"
    try:
        return model_shape(json.loads(path.read_text(encoding="utf-8")), str(path))
    except OSError as error:
        sizes = ", ".join(PUBLISHED)
        raise UserError(
            f"--model is {model}, but {path} can't be read; write {sizes}, or the directory of a "
            f"{NAMES} in Hugging Face's layout."
        ) from error
    except ValueError as error:
        raise UserError(f"--model: {path} is not JSON: {error}.") from error


def median_time(path: Path) -> float:
    """Milliseconds per iteration in a loss.csv; the median, as the first ones are slower."""
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            times = [float(row["ms_per_iteration"]) for row in csv.DictReader(lines)]
        return statistics.median(times)
    except OSError as error:
        raise UserError(f"--loss-csv {path} can't be read: {error.strerror}.") from error
    except (KeyError, ValueError) as error:
        raise UserError(
            f"--loss-csv {path} has no usable column ms_per_iteration; give the loss.csv of a "
            "training, results/<experiment>/loss.csv."
        ) from error


def memory_lines(need: Need, engine: str) -> Iterator[tuple[str, str]]:
    """What the training that takes the most has on its devices, part by part."""
    memory = need.memory
    of = "a device" if engine == "hf" else "one copy"  # which may be cut over several NPUs
    yield f"memory of {of}", f"{in_units(memory.all)}, at most at a time"
    yield "  weights", in_units(memory.weights)
    yield "  gradients", in_units(memory.gradients)
    yield "  optimizer", in_units(memory.optimizer)
    unmeasured = ", by MindSpeed-MM's operators; not measured on an NPU" if engine != "hf" else ""
    yield "  activations", f"{in_units(memory.activations)}{unmeasured}"
    yield "  logits", in_units(memory.logits)


def sentences(need: Need, engine: str) -> str:
    hours = "not known: give --loss-csv or --ms-per-iteration"
    if need.device_hours is not None:
        hours = f"{need.device_hours:.3g}, for the iterations alone"
    return "\n".join(
        f"{name:<22} {value}"
        for name, value in (
            ("experiments", need.experiments),
            ("jobs of a cluster", need.jobs),
            ("trained parameters", f"{need.trained:,}"),
            ("model", f"{in_units(need.model)}"),
            ("checkpoint", f"{in_units(need.checkpoint)}, {need.checkpoints} of them"),
            ("disk, at the end", f"{in_units(need.disk)}"),
            *memory_lines(need, engine),
            ("hours of devices", hours),
        )
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--configfile", type=Path, default=ROOT / "config/config.yaml", metavar="FILE")
    add("--model", help=f"{', '.join(PUBLISHED)}, or a directory; default: the configuration's")
    time = parser.add_mutually_exclusive_group()
    time.add_argument("--loss-csv", type=Path, metavar="FILE", help="of a training that ran")
    time.add_argument("--ms-per-iteration", type=float, metavar="MS")
    given = parser.parse_args(arguments)
    try:
        configuration = configuration_in(given.configfile)
        time_each = median_time(given.loss_csv) if given.loss_csv else given.ms_per_iteration
        parameters = count_parameters(shape_of(given.model or model_of(configuration)))
        need = estimate(configuration, parameters, time_each)
        print(sentences(need, configuration.typed().engine))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
