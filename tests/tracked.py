"""What TensorBoard's own reader finds of a training, and what its loss.csv has."""

import csv

import pytest
from mindtune.engines.loss_table import COLUMNS
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def shown(save_dir):
    """What TensorBoard's own reader makes of it: column -> iteration -> value."""
    found = EventAccumulator(str(save_dir / "trackers" / "tensorboard"), {"tensors": 0})
    found.Reload()
    return {
        name: {event.step: float(event.tensor_proto.float_val[0]) for event in found.Tensors(name)}
        for name in found.Tags()["tensors"]
    }


def in_table(save_dir):
    with open(save_dir / "loss.csv", encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    columns = [name for name in COLUMNS if name != "iteration"]
    found = {
        name: {int(row["iteration"]): float(row[name]) for row in rows if row[name]}
        for name in columns
    }
    return {name: values for name, values in found.items() if values}


def same(first, second):
    """Equal but for single precision, in which TensorBoard keeps numbers."""
    return first.keys() == second.keys() and all(
        first[name] == pytest.approx(second[name], rel=1e-6, nan_ok=True) for name in first
    )
