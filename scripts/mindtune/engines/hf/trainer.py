"""transformers' Trainer, in Megatron's order of samples and with Megatron's mean of a global batch."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch.utils.data import Sampler, Subset
from transformers import Trainer, TrainingArguments

from mindtune.engines.hf.callbacks import TokenCount
from mindtune.engines.hf.dataset import Collator, Conversations
from mindtune.engines.hf.features import Features
from mindtune.engines.hf.levels import as_output
from mindtune.engines.hf.loading import batches_ahead, loader_processes
from mindtune.engines.hf.packing import Packer, Pass, packed_loss
from mindtune.engines.hf.processing import Processor
from mindtune.engines.hf.replicas import Replicas
from mindtune.engines.hf.schedule import sample_order
from mindtune.engines.requests import FinetuneJob

if TYPE_CHECKING:
    from mindtune.settings.sections.hf import Hf
    from mindtune.settings.sections.train import Train


class SampleOrder(Sampler):
    """The samples of iterations still to come, in MindSpeed-MM's order: those of one replica.

    order: the arguments of `sample_order`. wanted: how many.
    """

    def __init__(self, order: tuple[int, ...], wanted: int) -> None:
        self.order = order
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
        drawn: int,
        micro_batch_size: int,
        tokens: TokenCount,
        features: Features | None,
        replicas: Replicas,
        shared: bool,
        **kwargs,
    ) -> None:
        """drawn: the samples that this replica has had before. shared: whether devices share layers."""
        super().__init__(*args, **kwargs)
        self.tokens = tokens
        self.features = features
        self.drawn = drawn
        self.micro_batch_size = micro_batch_size
        self.replicas = replicas
        self.shared = shared
        # Megatron averages the means of micro batches; transformers would weigh them by tokens.
        self.model_accepts_loss_kwargs = False

    def _get_train_sampler(self, train_dataset=None) -> Sampler:
        args = self.args
        step = args.per_device_train_batch_size * args.gradient_accumulation_steps
        order = (len(self.train_dataset), self.micro_batch_size, self.drawn)
        return SampleOrder((*order, self.replicas.rank, self.replicas.count), args.max_steps * step)

    def _prepare_inputs(self, inputs: dict) -> dict:
        inputs = super()._prepare_inputs(inputs)
        found = inputs.pop("features", None)
        if shown := inputs.pop("pictures", None):
            found = torch.cat([self.features.of(picture) for picture in shown])
        if found is not None:
            found = self.features.merged(found)
            inputs["mm_encoder_outputs"] = {"image": as_output(self.model, [found])}
        return inputs

    def compute_loss(self, model, inputs, *args, **kwargs):
        """In training each replica's loss is its part of all replicas' mean."""
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        alone = self.replicas.count == 1 or not model.training
        return loss if alone else loss / self.replicas.count

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        tokens = inputs["attention_mask"].sum()
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:
            self.replicas.sum_gradients(model.parameters())
        return self.counted(loss, tokens)

    def counted(self, loss: torch.Tensor, tokens: torch.Tensor | int) -> torch.Tensor:
        """The loss of all replicas, each of which has its part of it; their tokens are counted."""
        if self.replicas.count > 1:
            loss, tokens = self.replicas.sum(torch.stack([loss, loss.new_tensor(float(tokens))]))
        self.tokens.add(tokens)
        return loss

    def evaluation_loop(self, dataloader, *args, **kwargs):
        output = super().evaluation_loop(dataloader, *args, **kwargs)
        samples = output.num_samples if dataloader.dataset.counts else 0
        parts = self.replicas.gathered((output.metrics["eval_loss"], samples))
        if len(parts) > 1:
            total = sum(count for _, count in parts)
            output.metrics["eval_loss"] = (
                sum(loss * count for loss, count in parts if count) / total
            )
        return output


class PackedTrainer(MegatronOrderTrainer):
    """The same numbers from packed passes; see `mindtune.engines.hf.packing`."""

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        model.train()
        total = torch.zeros((), device=self.args.device)
        own = inputs["passes"]
        # Layers that devices share want all of them as often: some have a pass more, to no effect.
        more = self.replicas.most(len(own)) - len(own) if self.shared else 0
        for number, part in enumerate([*own, *own[:1] * more]):
            loss = self.loss_of(model, part) * (number < len(own))
            self.accelerator.backward(loss)
            total += loss.detach()
        self.replicas.sum_gradients(model.parameters())
        return self.counted(total, sum(sum(part.lengths) for part in inputs["passes"]))

    def loss_of(self, model, part: Pass) -> torch.Tensor:
        return packed_loss(model, part.to(self.args.device), self.features)

    @torch.no_grad()
    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        model.eval()
        losses = [self.loss_of(model, part) for part in inputs["passes"]]
        # Each replica has micro batches of its own, whose means are weighed by `evaluation_loop`.
        return torch.stack(losses).sum() * self.replicas.count, None, None


def collator(
    processor: Processor, micro_batch_size: int, tokens_per_pass: int | None, replicas: int
):
    """What makes batches: of a micro batch, padded, or of a replica's part of a global batch, packed."""
    if tokens_per_pass is None:
        return Collator(processor)
    return Packer(
        micro_batch_size,
        tokens_per_pass,
        processor.image_token_id,
        processor.image_processor.merge_size,
        replicas,
    )


class OwnPart(Subset):
    """Some of a data set; counts: whether they count, or are there because none would be too few."""

    def __init__(self, dataset: Conversations, indices: Sequence[int], counts: bool) -> None:
        super().__init__(dataset, indices)
        self.counts = counts


def held_out_part(
    held_out: Conversations, train: "Train", replicas: Replicas, shared: bool = False
) -> Subset | None:
    """This replica's micro batches of the first `eval_iters` global batches of held-out data.

    None for no evaluation. Where there are too few, a replica has the first one, to no effect. Where
    devices share layers each has all of them.
    """
    wanted = min(len(held_out), train.eval_iters * train.global_batch_size)
    if not wanted:
        return None
    if shared:
        return OwnPart(held_out, range(wanted), counts=replicas.is_first)
    size = train.micro_batch_size
    own = [n for n in range(wanted) if n // size % replicas.count == replicas.rank]
    return OwnPart(held_out, own or range(min(size, wanted)), counts=bool(own))


def training_arguments(
    job: "FinetuneJob[Hf]", output_dir: str, begun: int, replicas: int
) -> TrainingArguments:
    """Our settings in transformers' words; its own saving, logging and schedules are off."""
    train = job.train
    batch = train.micro_batch_size
    if job.machine.tokens_per_pass:
        batch = train.global_batch_size // replicas  # which the collator packs
    loaders = loader_processes(job.machine.threads, job.machine.devices)
    arguments = TrainingArguments(
        output_dir=output_dir,
        max_steps=train.train_iters - begun,
        per_device_train_batch_size=batch,
        per_device_eval_batch_size=train.micro_batch_size,
        gradient_accumulation_steps=train.global_batch_size // replicas // batch,
        max_grad_norm=train.clip_grad,
        use_cpu=job.machine.device == "cpu",
        seed=train.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=loaders,
        dataloader_prefetch_factor=batches_ahead(loaders),
        dataloader_pin_memory=job.machine.device != "cpu",
    )
    if job.machine.device != "cpu":
        arguments._n_gpu = 1  # one device per process; other cards are somebody else's
    return arguments
