"""The order in which a trainer is given its samples.

Trainers draw each epoch's order from its number and the count of samples only (MindSpeed-MM's
sampler, and ours after it). Another order of what they are given is therefore the only way to
another order of training that both engines have.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path

from mindtune.data.mllm import ListWriter, read_mllm
from mindtune.files import writing


def in_order(records: Sequence[dict], order_seed: int | None) -> Sequence[dict]:
    """The records permuted by a seed, or as they are for None."""
    if order_seed is None:
        return records
    permuted = list(records)
    random.Random(f"order/{order_seed}").shuffle(permuted)
    return permuted


def write_in_order(train_data: Path, order_seed: int, path: Path) -> None:
    """Write an mllm-format file's records in the order of a seed, whole or not at all."""
    with writing(path, "wb") as handle, ListWriter(handle) as items:
        for record in in_order(read_mllm(train_data), order_seed):
            items.add(json.dumps(record, ensure_ascii=False).encode())
