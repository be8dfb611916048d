"""Fine-tuning with transformers' Trainer, in Megatron's terms and with Megatron's files."""

import logging
import tempfile
from typing import TYPE_CHECKING

import torch
from transformers import PrinterCallback, set_seed

from mindtune.checkpoint import load_hf_tensors
from mindtune.checkpoint.adapters import load_adapters
from mindtune.data.mllm import read_mllm
from mindtune.divergence import Diverged
from mindtune.engines.checks import check_room, check_seed
from mindtune.engines.cutting import check_whole_pictures
from mindtune.engines.feature_cache import is_kept, room
from mindtune.engines.hf.adapters import Adapters, check_lora
from mindtune.engines.hf.callbacks import IterationLog, TokenCount, Watch
from mindtune.engines.hf.checkpoints import Checkpoints
from mindtune.engines.hf.dataset import Conversations
from mindtune.engines.hf.device import DTYPES, open_device
from mindtune.engines.hf.features import Features, prepare, tower_of
from mindtune.engines.hf.group import train_together
from mindtune.engines.hf.kernels import check_kernels, use_kernels
from mindtune.engines.hf.loading import loader_processes, own_words
from mindtune.engines.hf.model import build_model
from mindtune.engines.hf.optimizer import check_optimizer, optimizer_of
from mindtune.engines.hf.processing import Processor
from mindtune.engines.hf.quantizing import FOUR_BITS, NF4, bitsandbytes_for, quantize_layers
from mindtune.engines.hf.replicas import Replicas, forget_launcher, replica_count
from mindtune.engines.hf.segments import use_segments
from mindtune.engines.hf.sharding import shard_layers
from mindtune.engines.hf.trainer import (
    MegatronOrderTrainer,
    PackedTrainer,
    collator,
    held_out_part,
    training_arguments,
)
from mindtune.engines.learning_rate import learning_rate
from mindtune.engines.ordering import in_order
from mindtune.engines.requests import FinetuneJob
from mindtune.errors import UserError
from mindtune.models.shape import read_config
from mindtune.models.tensors import tensors_of

if TYPE_CHECKING:
    from mindtune.settings.sections.hf import Hf
    from mindtune.settings.sections.train import Train

log = logging.getLogger(__name__)


def finetune(job: "FinetuneJob[Hf]") -> None:
    """Train until `train_iters`, from the newest whole checkpoint or else from the base."""
    wanted = job.train.train_iters
    checkpoints = checkpoints_of(job)
    begun = checkpoints.newest()
    if begun == wanted:
        log.info("iteration %d is there already: nothing to train", begun)
        return
    if replica_count(job.machine) > 1:
        train_together(job, begun)
    else:
        forget_launcher()
        train_here(job, begun, open_device(job.machine), Replicas())
    if checkpoints.newest() != wanted:
        raise UserError(
            f"training ended at iteration {checkpoints.newest()} of {wanted}; run the "
            "same command again to go on."
        )


def checkpoints_of(job: "FinetuneJob[Hf]", replicas: Replicas | None = None) -> Checkpoints:
    """Those in the save_dir of a job."""
    config, precision = read_config(job.hf_dir), job.machine.precision
    return Checkpoints(job.save_dir, config, precision, job.train, replicas or Replicas())


def train_here(
    job: "FinetuneJob[Hf]", begun: int, device: torch.device, replicas: Replicas
) -> None:
    """Train in this process, alone or as one of several; from iteration `begun`, 0 for the base."""
    train = job.train
    config = read_config(job.hf_dir)
    checkpoints = checkpoints_of(job, replicas)
    set_seed(train.seed)
    processor = Processor(job.hf_dir, job.processor.image_resolution)
    records = in_order(read_mllm(job.train_data), train.order_seed)
    held_out_records = read_mllm(job.held_out_data)
    own = begun and not train.lora  # adapters are beside the base, and not instead of it
    source, iteration = (job.save_dir, begun) if own else (job.mm_dir, None)
    tensors = load_hf_tensors(source, config, iteration=iteration)
    model = build_model(job.hf_dir, tensors, DTYPES[job.machine.precision])
    del tensors
    if job.machine.frozen_weights == NF4:
        quantize_layers(model)
    if train.lora:
        checkpoints.adapters = Adapters(model, config, train)
        if begun:
            checkpoints.adapters.load(load_adapters(job.save_dir, config, begun))
    trained = trained_in(model, train)
    if job.machine.recompute == "full":
        recompute(model)
    log.info(
        "%s parameters are trained, %s frozen; %d samples, %d held out; from %s",
        f"{sum(p.numel() for p in trained):,}",
        f"{sum(p.numel() for p in model.parameters() if not p.requires_grad):,}",
        len(records), len(held_out_records), f"iteration {begun}" if begun else "the base model",
    )  # fmt: skip
    shared = job.machine.shard == "layers"
    if shared:
        shard_layers(model, device, replicas.count)
    model.to(device)
    use_kernels(model, job.machine.kernels, job.machine.device)
    features = kept_features(job, model, processor)
    data, held_out = (
        Conversations(some, job.images, processor, train.seq_length, features)
        for some in (records, held_out_records)
    )
    optimizer = optimizer_of(model, train, job.machine.optimizer)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate(step + begun, train) / train.lr
    )
    if begun:
        checkpoints.restore(begun, optimizer)
    evaluated = held_out_part(held_out, train, replicas, shared)
    tokens = TokenCount()
    with tempfile.TemporaryDirectory() as unused:
        packed = job.machine.tokens_per_pass
        trainer = (PackedTrainer if packed else MegatronOrderTrainer)(
            model=model,
            args=training_arguments(job, unused, begun, replicas.count),
            data_collator=collator(processor, train.micro_batch_size, packed, replicas.count),
            train_dataset=data,
            eval_dataset=evaluated,
            optimizers=(optimizer, scheduler),
            callbacks=[
                IterationLog(
                    job.save_dir,
                    begun,
                    train,
                    checkpoints,
                    tokens,
                    evaluated is not None,
                    job.keep,
                    job.followers,
                ),
                *([Watch(begun, train)] if replicas.count == 1 else []),
            ],
            drawn=begun * train.global_batch_size // replicas.count,
            micro_batch_size=train.micro_batch_size,
            tokens=tokens,
            features=features,
            replicas=replicas,
            shared=shared,
        )
        trainer.remove_callback(PrinterCallback)
        try:
            with checkpoints.beside:
                trainer.train()
        except Diverged:
            raise
        except UserError as error:
            raise UserError(own_words(error)) from None


def check(job: "FinetuneJob[Hf]", begun: int) -> None:
    """Look at device, seed, model, data and disk, as far as that takes seconds only.

    begun: the iteration from which the training goes on; a finished one needs nothing.

    Raises
    ------
    UserError: the training could not begin.
    """
    if begun == job.train.train_iters:
        return
    open_device(job.machine)
    check_kernels(job.machine.kernels, job.machine.device)
    check_seed(job.train)
    processor = Processor(job.hf_dir, job.processor.image_resolution)
    records, held_out = read_mllm(job.train_data), read_mllm(job.held_out_data)
    check_amount(len(records), job.train, replica_count(job.machine))
    evaluated = held_out[: job.train.eval_iters * job.train.global_batch_size]
    check_whole_pictures(
        job, processor.encode, {job.train_data: records, job.held_out_data: evaluated}
    )
    config = read_config(job.hf_dir)
    check_optimizer(job.machine.optimizer)
    if job.machine.frozen_weights == NF4:
        bitsandbytes_for(FOUR_BITS)
    if job.train.lora:
        check_lora(config, job.train)
    machine = job.machine
    check_room(job.save_dir, config, job.train, machine.precision, machine.optimizer)


def check_amount(samples: int, train: "Train", replicas: int = 1) -> None:
    """
    Raises
    ------
    UserError: there is too little data for a single step.
    """
    if samples < train.micro_batch_size * replicas:
        together = f" x {replicas} devices" if replicas > 1 else ""
        raise UserError(
            f"there are {samples} samples to train on, fewer than train.micro_batch_size "
            f"{train.micro_batch_size}{together}; lower it, or give more data."
        )


def recompute(model: torch.nn.Module) -> None:
    """Keep of each layer what it is given, and compute the rest again for the gradients.

    What a dropout draws is the same then: torch keeps the state of its generator as well.
    """
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})


def trained_in(model: torch.nn.Module, train: "Train") -> list[torch.nn.Parameter]:
    """What is trained of a model: its adapters, or all that is not frozen."""
    if not train.lora:
        return freeze(model, train)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def freeze(model: torch.nn.Module, train: "Train") -> list[torch.nn.Parameter]:
    """Freeze vision encoder and projector as asked; returns what is trained."""
    family = tensors_of(model.config)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(family.is_trained(family.published_name(name), train))
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def kept_features(job: "FinetuneJob[Hf]", model, processor: Processor) -> Features | None:
    """What keeps the features of pictures; None where nothing is kept, or the tower is trained."""
    packed = bool(job.machine.tokens_per_pass)
    if packed:
        use_segments(model)
    tower = tower_of(model, packed)
    if tower is None or not is_kept(job.machine):
        return None
    if job.features is not None:
        prepare(job.features)
    loaders = loader_processes(job.machine.threads, job.machine.devices)
    own = room(job.operation) // replica_count(job.machine)
    return Features(tower, processor, job.features, own, loaders)
