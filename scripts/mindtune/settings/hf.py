"""Conditions across keys for the hf engine."""

from collections.abc import Iterator

from mindtune.settings.sections import Settings
from mindtune.settings.sections.hf import Hf
from mindtune.settings.sections.train import Train


def hf_problems(settings: Settings) -> Iterator[str]:
    """What can't work, a sentence for each."""
    context = settings.parallel.context_parallel_size
    if context > 1:
        yield (
            f"parallel.context_parallel_size is {context}, which the hf engine can't do; write 1."
        )
    device, kernels = settings.hf.device, settings.hf.kernels
    if kernels == "liger" and not device.startswith("cuda"):
        yield f"hf.kernels is liger, whose kernels run on CUDA, but hf.device is {device}; write torch."
    if settings.hf.optimizer == "adamw_8bit" and not device.startswith(("cpu", "cuda")):
        yield (
            f"hf.optimizer is adamw_8bit, which runs on cpu and cuda, but hf.device is {device}; write "
            "adamw."
        )
    if settings.hf.frozen_weights == "nf4":
        yield from _quantizing_problems(settings)
    yield from _device_problems(settings.train, settings.hf)


def _quantizing_problems(settings: Settings) -> Iterator[str]:
    """What can't work with weights in 4 bits."""
    machine = settings.hf
    if not settings.train.lora:
        yield (
            "hf.frozen_weights is nf4, but without train.lora nothing is frozen that it is for; write "
            "train.lora, or whole."
        )
    if machine.shard == "layers":
        yield (
            "hf.frozen_weights is nf4, which devices can't share (hf.shard); write none there, or whole."
        )
    if machine.device.partition(":")[0] not in ("cpu", "cuda", "xpu"):
        yield (
            "hf.frozen_weights is nf4, which bitsandbytes can't do on "
            f"{machine.device} (hf.device); write whole."
        )


def _device_problems(train: Train, machine: Hf) -> Iterator[str]:
    """What can't work with several devices."""
    devices, nodes = machine.devices, machine.nodes
    if devices * nodes == 1:
        if machine.shard != "none":
            yield "hf.shard is layers, but there is one device; raise hf.devices, or write none."
        return
    if machine.shard == "layers" and machine.optimizer == "adamw_8bit":
        yield "hf.optimizer is adamw_8bit, which can't share layers (hf.shard); write adamw, or none for hf.shard."
    step = train.micro_batch_size * devices * nodes
    whole = train.global_batch_size
    if whole % step:
        yield (
            f"train.global_batch_size is {whole}, no multiple of train.micro_batch_size "
            f"{train.micro_batch_size} x hf.devices {devices} x hf.nodes {nodes} = {step}; the nearest "
            f"that is: {max(1, round(whole / step)) * step}."
        )
    if ":" in machine.device:
        kind = machine.device.partition(":")[0]
        yield (
            f"hf.device is {machine.device}, one device, but hf.devices x hf.nodes are "
            f"{devices * nodes}; write {kind}."
        )
    if machine.device == "mps":
        yield (
            f"hf.device is mps, of which there is one, but hf.devices x hf.nodes are "
            f"{devices * nodes}; write 1."
        )
    hosts = machine.hosts
    if hosts and len(hosts) != nodes:
        yield (
            f"hf.hosts names {len(hosts)} hosts, but hf.nodes is {nodes}; they must be as many, or "
            "none in a job of Slurm's."
        )
    if len(set(hosts)) != len(hosts):
        yield "hf.hosts names a host twice; a node has one line."
