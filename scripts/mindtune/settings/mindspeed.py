"""Conditions across keys that hold for `engine: mindspeed` alone."""

from collections.abc import Iterator
from pathlib import Path

from mindtune.settings.sections import Settings
from mindtune.settings.sections.mindspeed import Mindspeed
from mindtune.settings.sections.parallel import Parallel

# Arguments of pretrain_vlm.py that other keys give, and the key to write instead.
GIVEN = {
    "--tensor-model-parallel-size": "parallel.tensor_model_parallel_size",
    "--pipeline-model-parallel-size": "parallel.llm_pp_layers",
    "--virtual-pipeline-model-parallel-size": "parallel.llm_pp_layers, without virtual stages",
    "--context-parallel-size": "parallel.context_parallel_size",
    "--micro-batch-size": "train.micro_batch_size",
    "--global-batch-size": "train.global_batch_size",
    "--train-iters": "train.train_iters",
    "--save-interval": "train.save_interval",
    "--lr": "train.lr",
    "--min-lr": "train.min_lr",
    "--lr-decay-style": "train.lr_decay_style",
    "--lr-warmup-fraction": "train.lr_warmup_fraction",
    "--weight-decay": "train.weight_decay",
    "--clip-grad": "train.clip_grad",
    "--adam-beta1": "train.adam_beta1",
    "--adam-beta2": "train.adam_beta2",
    "--adam-eps": "train.adam_eps",
    "--seed": "train.seed",
    "--seq-length": "train.seq_length",
    "--no-save-optim": "train.save_optim",
    "--no-load-optim": "train.save_optim",
    "--no-save-rng": "train.save_optim",
    "--no-load-rng": "train.save_optim",
    "--lora-r": "train.lora.rank",
    "--lora-alpha": "train.lora.alpha",
    "--lora-dropout": "train.lora.dropout",
    "--lora-target-modules": "train.lora.target_modules",
    "--load-base-model": "sources.model",
    "--num-workers": "mindspeed.num_workers",
    "--distributed-timeout-minutes": "mindspeed.distributed_timeout_minutes",
    "--mm-data": "sources and data",
    "--mm-model": "sources.model and parallel",
    "--load": "sources.model",
    "--save": "an experiment's name",
    "--vocab-size": "sources.model",
}


def mindspeed_problems(settings: Settings) -> Iterator[str]:
    """What can't work with MindSpeed-MM, a sentence for each."""
    machine = settings.mindspeed
    yield from _world_problems(settings)
    yield from _host_problems(machine)
    for argument in machine.extra_arguments:
        name = argument.split("=")[0].split()[0] if argument.strip() else argument
        if name in GIVEN:
            yield (
                f"mindspeed.extra_arguments has {name}, which has a key of its own: write "
                f"{GIVEN[name]}."
            )
    if machine.stand_in and not (Path(machine.stand_in) / "sitecustomize.py").is_file():
        yield (
            f"mindspeed.stand_in is {machine.stand_in}, which is no directory of stand-ins (it has "
            "no sitecustomize.py); write tests/standin, or null on an NPU."
        )


def pipeline_stages(parallel: Parallel) -> int:
    """Pipeline parallel size, as the layer lists say."""
    rows = parallel.llm_pp_layers
    if not rows:
        return 1
    return len(rows[0]) if isinstance(rows[0], list) else len(rows)


def _world_problems(settings: Settings) -> Iterator[str]:
    parallel, machine, train = settings.parallel, settings.mindspeed, settings.train
    size = machine.nodes * machine.npus_per_node
    tensor, context = parallel.tensor_model_parallel_size, parallel.context_parallel_size
    stages = pipeline_stages(parallel)
    replica = tensor * stages * context
    factors = f"tensor {tensor} x pipeline {stages} x context parallel size {context}"
    if size % replica:
        yield (
            f"mindspeed.nodes {machine.nodes} x mindspeed.npus_per_node "
            f"{machine.npus_per_node} are {size} NPUs, no multiple of the {replica} that one copy "
            f"of the model takes ({factors}); set npus_per_node to a multiple, or cut the model less."
        )
        return
    step = train.micro_batch_size * (size // replica)
    whole = train.global_batch_size
    if whole % step:
        yield (
            f"train.global_batch_size is {whole}, no multiple of train.micro_batch_size "
            f"{train.micro_batch_size} x data parallel size {size // replica}; the nearest that "
            f"is: {max(1, round(whole / step)) * step}."
        )


def _host_problems(machine: Mindspeed) -> Iterator[str]:
    hosts, nodes = machine.hosts, machine.nodes
    if hosts and len(hosts) != nodes:
        yield (
            f"mindspeed.hosts names {len(hosts)} hosts, but mindspeed.nodes is {nodes}; they must be "
            "as many."
        )
    if len(set(hosts)) != len(hosts):
        yield "mindspeed.hosts names a host twice; a node has one line."
