"""Run by the framework's Python: what its data loader yields, as files that numpy reads.

dump_batches.py OUT COUNT [the arguments of pretrain_vlm.py]: writes OUT/00000.npz and so on.
"""

import sys
from pathlib import Path

import mindspeed.megatron_adaptor  # noqa: F401 - patches Megatron, hence first
import numpy
from megatron.core import mpu
from megatron.training import get_args
from megatron.training.initialize import initialize_megatron
from mindspeed_mm.arguments import extra_args_provider_decorator
from mindspeed_mm.configs.config import merge_mm_args, mm_extra_args_provider
from mindspeed_mm.data import build_mm_dataloader, build_mm_dataset
from mindspeed_mm.data.data_utils.utils import build_iterations


def batches():
    """The training batches, as pretrain_vlm.py's provider makes them."""
    initialize_megatron(
        extra_args_provider=extra_args_provider_decorator(mm_extra_args_provider),
        args_defaults={"dataloader_type": "external"},
    )
    args = get_args()
    merge_mm_args(args)
    data = args.mm.data
    loader = build_mm_dataloader(
        build_mm_dataset(data.dataset_param),
        data.dataloader_param,
        process_group=mpu.get_data_parallel_group(),
        dataset_param=data.dataset_param,
        consumed_samples=0,
    )
    return build_iterations(loader)[0]


def main() -> None:
    out, count = Path(sys.argv.pop(1)), int(sys.argv.pop(1))
    out.mkdir(parents=True)
    for number, batch in zip(range(count), batches()):  # noqa: B905 - the batches are endless
        numpy.savez(out / f"{number:05d}.npz", **{key: t.numpy() for key, t in batch.items()})


if __name__ == "__main__":
    main()
