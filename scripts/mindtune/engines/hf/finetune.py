"""Fine-tuning with transformers' Trainer, in Megatron's terms and with Megatron's files."""

import logging
import tempfile
from collections.abc import Iterator

import torch
from torch.utils.data import Sampler, Subset
from transformers import PrinterCallback, Trainer, TrainingArguments, set_seed
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mindtune.checkpoint import load_hf_tensors
from mindtune.data.mllm import read_mllm
from mindtune.divergence import Diverged
from mindtune.engines.checks import check_room, check_seed
from mindtune.engines.cutting import check_whole_pictures
from mindtune.engines.feature_cache import is_kept, room
from mindtune.engines.hf.callbacks import IterationLog, TokenCount, Watch
from mindtune.engines.hf.checkpoints import Checkpoints
from mindtune.engines.hf.dataset import Collator, Conversations
from mindtune.engines.hf.device import DTYPES, open_device
from mindtune.engines.hf.features import Features, Tower, prepare
from mindtune.engines.hf.kernels import check_kernels, use_kernels
from mindtune.engines.hf.loading import batches_ahead, loader_processes, own_words
from mindtune.engines.hf.model import build_model
from mindtune.engines.hf.optimizer import MainWeightsAdamW
from mindtune.engines.hf.packing import Packer, Pass, packed_loss
from mindtune.engines.hf.processing import Processor
from mindtune.engines.hf.schedule import sample_order
from mindtune.engines.hf.segments import use_segments
from mindtune.engines.learning_rate import learning_rate
from mindtune.engines.ordering import in_order
from mindtune.engines.requests import FinetuneJob
from mindtune.errors import UserError
from mindtune.models.shape import read_config
from mindtune.models.tensors import tensors_of

log = logging.getLogger(__name__)


def finetune(job: FinetuneJob) -> None:
    """Train until `train_iters`, from the newest whole checkpoint or else from the base."""
    train = job.train
    config = read_config(job.hf_dir)
    checkpoints = Checkpoints(job.save_dir, config, job.machine["precision"], train)
    begun = checkpoints.newest()
    if begun == train["train_iters"]:
        log.info("iteration %d is there already: nothing to train", begun)
        return
    device = open_device(job.machine)
    set_seed(train["seed"])
    processor = Processor(job.hf_dir, job.processor["image_resolution"])
    records = in_order(read_mllm(job.train_data), train.get("order_seed"))
    held_out_records = read_mllm(job.held_out_data)
    source, iteration = (job.save_dir, begun) if begun else (job.mm_dir, None)
    tensors = load_hf_tensors(source, config, iteration=iteration)
    model = build_model(job.hf_dir, tensors, DTYPES[job.machine["precision"]])
    del tensors
    trained = freeze(model, train)
    log.info(
        "%s parameters are trained, %s frozen; %d samples, %d held out; from %s",
        f"{sum(p.numel() for p in trained):,}",
        f"{sum(p.numel() for p in model.parameters() if not p.requires_grad):,}",
        len(records), len(held_out_records), f"iteration {begun}" if begun else "the base model",
    )  # fmt: skip
    model.to(device)
    use_kernels(model, job.machine.get("kernels"), job.machine["device"])
    features = kept_features(job, model, processor)
    data, held_out = (
        Conversations(some, job.images, processor, train["seq_length"], features)
        for some in (records, held_out_records)
    )
    optimizer = MainWeightsAdamW(model, train)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate(step + begun, train) / train["lr"]
    )
    if begun:
        checkpoints.restore(begun, optimizer)
    evaluated = held_out_part(held_out, train)
    tokens = TokenCount()
    with tempfile.TemporaryDirectory() as unused:
        packed = job.machine.get("tokens_per_pass")
        trainer = (PackedTrainer if packed else MegatronOrderTrainer)(
            model=model,
            args=training_arguments(job, unused, begun),
            data_collator=collator(processor, train["micro_batch_size"], packed),
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
                Watch(begun, train),
            ],
            consumed_samples=begun * train["global_batch_size"],
            micro_batch_size=train["micro_batch_size"],
            tokens=tokens,
            features=features,
        )
        trainer.remove_callback(PrinterCallback)
        try:
            with checkpoints.beside:
                trainer.train()
        except Diverged:
            raise
        except UserError as error:
            raise UserError(own_words(error)) from None
    if checkpoints.newest() != train["train_iters"]:
        raise UserError(
            f"training ended at iteration {checkpoints.newest()} of {train['train_iters']}; run the "
            "same command again to go on."
        )


def check(job: FinetuneJob, begun: int) -> None:
    """Look at device, seed, model, data and disk, as far as that takes seconds only.

    begun: the iteration from which the training goes on; a finished one needs nothing.

    Raises
    ------
    UserError: the training could not begin.
    """
    if begun == job.train["train_iters"]:
        return
    open_device(job.machine)
    check_kernels(job.machine.get("kernels"), job.machine["device"])
    check_seed(job.train)
    processor = Processor(job.hf_dir, job.processor["image_resolution"])
    records, held_out = read_mllm(job.train_data), read_mllm(job.held_out_data)
    check_amount(len(records), job.train)
    evaluated = held_out[: job.train["eval_iters"] * job.train["global_batch_size"]]
    check_whole_pictures(
        job, processor.encode, {job.train_data: records, job.held_out_data: evaluated}
    )
    check_room(job.save_dir, read_config(job.hf_dir), job.train, job.machine["precision"])


def check_amount(samples: int, train) -> None:
    """
    Raises
    ------
    UserError: there is too little data for a single step.
    """
    if samples < train["micro_batch_size"]:
        raise UserError(
            f"there are {samples} samples to train on, fewer than train.micro_batch_size "
            f"{train['micro_batch_size']}; lower it, or give more data."
        )


class SampleOrder(Sampler):
    """The samples of iterations still to come, in MindSpeed-MM's order."""

    def __init__(self, total: int, micro_batch_size: int, consumed: int, wanted: int) -> None:
        self.order = (total, micro_batch_size, consumed)
        self.wanted = wanted

    def __len__(self) -> int:
        return self.wanted

    def __iter__(self) -> Iterator[int]:
        for _, index in zip(range(self.wanted), sample_order(*self.order), strict=False):
            yield index


class MegatronOrderTrainer(Trainer):
    """transformers' Trainer with Megatron's sampler and Megatron's mean of a global batch."""

    def __init__(
        self,
        *args,
        consumed_samples: int,
        micro_batch_size: int,
        tokens: TokenCount,
        features: Features | None,
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.tokens = tokens
        self.features = features
        self.consumed_samples = consumed_samples
        self.micro_batch_size = micro_batch_size
        # Megatron averages the means of micro batches; transformers would weigh them by tokens.
        self.model_accepts_loss_kwargs = False

    def _get_train_sampler(self, train_dataset=None) -> Sampler:
        args = self.args
        step = args.per_device_train_batch_size * args.gradient_accumulation_steps
        return SampleOrder(
            len(self.train_dataset),
            self.micro_batch_size,
            self.consumed_samples,
            args.max_steps * step,
        )

    def _prepare_inputs(self, inputs: dict) -> dict:
        inputs = super()._prepare_inputs(inputs)
        found = inputs.pop("features", None)
        if shown := inputs.pop("pictures", None):
            found = torch.cat([self.features.of(picture) for picture in shown])
        if found is not None:
            kept = BaseModelOutputWithPooling(pooler_output=(found,))
            inputs["mm_encoder_outputs"] = {"image": kept}
        return inputs

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        self.tokens.add(inputs["attention_mask"].sum())
        return super().training_step(model, inputs, num_items_in_batch)


class PackedTrainer(MegatronOrderTrainer):
    """The same numbers from packed passes; see `mindtune.engines.hf.packing`."""

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        model.train()
        total = torch.zeros((), device=self.args.device)
        for part in inputs["passes"]:
            self.tokens.add(sum(part.lengths))
            loss = self.loss_of(model, part)
            self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def loss_of(self, model, part: Pass) -> torch.Tensor:
        features_of = self.features.of if self.features else None
        return packed_loss(model, part.to(self.args.device), features_of)

    @torch.no_grad()
    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        model.eval()
        losses = [self.loss_of(model, part) for part in inputs["passes"]]
        return torch.stack(losses).sum(), None, None


def collator(processor: Processor, micro_batch_size: int, tokens_per_pass: int | None):
    """What makes batches: of a micro batch, padded, or of a global batch, packed."""
    if tokens_per_pass is None:
        return Collator(processor)
    return Packer(
        micro_batch_size,
        tokens_per_pass,
        processor.image_token_id,
        processor.image_processor.merge_size,
    )


def freeze(model: torch.nn.Module, train) -> list[torch.nn.Parameter]:
    """Freeze vision encoder and projector as asked; returns what is trained."""
    family = tensors_of(model.config)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(family.is_trained(family.published_name(name), train))
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def kept_features(job: FinetuneJob, model, processor: Processor) -> Features | None:
    """What keeps the features of pictures; None where nothing is kept, or the tower is trained."""
    if job.machine.get("tokens_per_pass"):
        use_segments(model)
    trained = any(parameter.requires_grad for parameter in model.model.visual.parameters())
    if trained or not is_kept(job.machine):
        return None
    if job.features is not None:
        prepare(job.features)
    tower = Tower(model.model, packed=bool(job.machine.get("tokens_per_pass")))
    loaders = loader_processes(job.machine["threads"])
    return Features(tower, processor, job.features, room(job.operation), loaders)


def held_out_part(held_out: Conversations, train) -> Subset | None:
    """The first `eval_iters` global batches of held-out data, or None for no evaluation."""
    wanted = min(len(held_out), train["eval_iters"] * train["global_batch_size"])
    return Subset(held_out, range(wanted)) if wanted else None


def training_arguments(job: FinetuneJob, output_dir: str, begun: int) -> TrainingArguments:
    """Our settings in transformers' words; its own saving, logging and schedules are off."""
    train = job.train
    batch = train["micro_batch_size"]
    if job.machine.get("tokens_per_pass"):
        batch = train["global_batch_size"]  # which the collator packs
    loaders = loader_processes(job.machine["threads"])
    arguments = TrainingArguments(
        output_dir=output_dir,
        max_steps=train["train_iters"] - begun,
        per_device_train_batch_size=batch,
        per_device_eval_batch_size=train["micro_batch_size"],
        gradient_accumulation_steps=train["global_batch_size"] // batch,
        max_grad_norm=train["clip_grad"],
        use_cpu=job.machine["device"] == "cpu",
        seed=train["seed"],
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=loaders,
        dataloader_prefetch_factor=batches_ahead(loaders),
        dataloader_pin_memory=job.machine["device"] != "cpu",
    )
    if job.machine["device"] != "cpu":
        arguments._n_gpu = 1  # one device per process; other cards are somebody else's
    return arguments
