"""Run by the framework's Python: what its preprocessing makes of records that are not in order.

    traps.py CASES ANSWERS [the arguments of pretrain_vlm.py]

CASES: a JSON file with mllm-format data files by name. ANSWERS: gets, by name, the number of samples
that are left, or the kind of error and its first words.
"""

import json
import sys
from pathlib import Path

from booting import booted  # patches Megatron, hence first
from mindspeed_mm.data import build_mm_dataset


def outcome(parameters, path: str):
    """Samples that are left of a file, or the error that ends the run."""
    parameters.basic_parameters.dataset = path
    parameters.basic_parameters.preprocessing_num_workers = None  # errors stay in this process
    try:
        return len(build_mm_dataset(parameters))
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200]


def main() -> None:
    cases, answers = json.loads(Path(sys.argv.pop(1)).read_text()), Path(sys.argv.pop(1))
    args = booted()
    found = {name: outcome(args.mm.data.dataset_param, path) for name, path in cases.items()}
    answers.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
