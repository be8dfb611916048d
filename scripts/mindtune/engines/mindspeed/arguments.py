"""Command-line arguments of pretrain_vlm.py and of answering, in Megatron's names.

They are those of the shipped finetune_*.sh and inference_*.sh, with the
configuration's values, and the options that a true resume needs.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mindtune.checkpoint.layout import ParallelLayout

if TYPE_CHECKING:
    from mindtune.settings.sections.mindspeed import Mindspeed
    from mindtune.settings.sections.parallel import Parallel
    from mindtune.settings.sections.train import Lora, Train

# The first NPU job of a node would take port 6000 from the second: it is chosen instead.
DISTRIBUTED_BACKEND = ("--distributed-backend", "nccl")


@dataclass(frozen=True)
class World:
    """How many processes run, and how they share the work.

    npus_per_node x nodes = tensor x pipeline x context x data parallel size.
    """

    npus_per_node: int
    nodes: int
    tensor: int
    pipeline: int
    context: int = 1

    @property
    def size(self) -> int:
        return self.npus_per_node * self.nodes

    @property
    def data(self) -> int:
        """The data parallel size; 0 when there are too few NPUs."""
        return self.size // (self.tensor * self.pipeline * self.context)

    @classmethod
    def of_training(
        cls, machine: "Mindspeed", parallel: "Parallel", layout: ParallelLayout
    ) -> "World":
        return cls(
            machine.npus_per_node,
            machine.nodes,
            layout.tp_size,
            layout.pp_size,
            parallel.context_parallel_size,
        )

    @classmethod
    def of_answering(cls, layout: ParallelLayout) -> "World":
        """One replica of the model, on one node."""
        return cls(layout.tp_size * layout.pp_size, 1, layout.tp_size, layout.pp_size)


def training_arguments(
    train: "Train",
    world: World,
    *,
    vocab: int,
    load: Path,
    base: Path,
    resume: bool,
    save: Path,
    data_file: Path,
    model_file: Path,
    tool_file: Path,
    num_workers: int,
    timeout_minutes: int,
    flash_attention: bool = True,
    extra: Iterable[str] = (),
) -> list[str]:
    """Arguments of a training.

    load: an mm checkpoint, or the save_dir to resume from when `resume`. base: the checkpoint that the
    training began with. A first start takes
    neither optimizer nor random states from a `release`; a resume takes both, or it would run
    with Adam's moments at zero and a second warm-up. Its schedule is the configuration's: Megatron
    would refuse another `train_iters` than the checkpoint's, also where all rates so far are the
    same (see `mindtune.engines.continuation`).
    """
    arguments = [
        *_structure(world, train.micro_batch_size, train.global_batch_size),
        *_sizes(vocab, train.seq_length, train.seed, flash_attention),
        *("--lr", repr(float(train.lr)), "--min-lr", repr(float(train.min_lr))),
        *("--lr-decay-style", train.lr_decay_style),
        *("--lr-warmup-fraction", repr(float(train.lr_warmup_fraction))),
        *("--train-iters", str(train.train_iters)),
        *("--weight-decay", repr(float(train.weight_decay))),
        *("--clip-grad", repr(float(train.clip_grad))),
        *("--adam-beta1", repr(float(train.adam_beta1))),
        *("--adam-beta2", repr(float(train.adam_beta2))),
        *("--adam-eps", repr(float(train.adam_eps))),
        "--no-gradient-accumulation-fusion",
        "--use-distributed-optimizer",
        *("--load", str(load), "--exit-on-missing-checkpoint"),
        *("--num-workers", str(num_workers)),
        *("--distributed-timeout-minutes", str(timeout_minutes)),
        *("--mm-data", str(data_file), "--mm-model", str(model_file), "--mm-tool", str(tool_file)),
        *("--log-interval", "1", "--save-interval", str(train.save_interval)),
        # pretrain_vlm.py has no validation data: these two only keep Megatron from complaining.
        *("--eval-interval", str(train.train_iters), "--eval-iters", "0"),
        *("--save", str(save)),
        *DISTRIBUTED_BACKEND,
    ]
    if resume and train.save_optim:
        arguments += ["--override-opt_param-scheduler"]
    else:
        arguments += ["--no-load-optim", "--no-load-rng"]
    if not train.save_optim:
        arguments += ["--no-save-optim", "--no-save-rng"]
    if train.lora:
        arguments += _lora(train.lora, base if resume else None)
    return [*arguments, *extra]


def _lora(lora: "Lora", base: Path | None) -> list[str]:
    """Arguments of LoRA. base: of a resume, whose checkpoint has adapters only.

    Without a base given beside, the framework takes what it finds in the checkpoint and says nothing of
    what is missing, adapters or not; so a first start needs a base that was found whole.
    """
    arguments = [
        *("--lora-r", str(lora.rank), "--lora-alpha", str(lora.alpha)),
        *("--lora-dropout", repr(float(lora.dropout))),
        *("--lora-target-modules", *lora.target_modules),
    ]
    return [*arguments, *(("--load-base-model", str(base)) if base else ())]


def answering_arguments(
    world: World, *, vocab: int, seed: int, load: Path, model_file: Path
) -> list[str]:
    """Arguments of inference_vlm.py, and of our own driver of the same pipeline."""
    return [
        *_structure(world, 1, 1),
        *_sizes(vocab, 1024, seed),
        *("--load", str(load), "--no-load-optim", "--no-load-rng"),
        "--exit-on-missing-checkpoint",
        *("--mm-model", str(model_file)),
        *("--log-interval", "1", "--save-interval", "10000"),
        *("--eval-interval", "10000", "--eval-iters", "0"),
        *DISTRIBUTED_BACKEND,
    ]


def _structure(world: World, micro_batch_size: int, global_batch_size: int) -> list[str]:
    arguments = [
        "--use-mcore-models",
        *("--tensor-model-parallel-size", str(world.tensor)),
        *("--pipeline-model-parallel-size", str(world.pipeline)),
        *("--micro-batch-size", str(micro_batch_size)),
        *("--global-batch-size", str(global_batch_size)),
    ]
    if world.context > 1:
        arguments += ["--context-parallel-size", str(world.context)]
    return arguments


def _sizes(vocab: int, seq_length: int, seed: int, flash_attention: bool = True) -> list[str]:
    return [
        *("--tokenizer-type", "NullTokenizer", "--vocab-size", str(vocab)),
        *("--make-vocab-size-divisible-by", "1"),
        *("--seq-length", str(seq_length), "--variable-seq-lengths"),
        *("--normalization", "RMSNorm", "--use-fused-rmsnorm"),
        *("--swiglu", "--use-fused-swiglu"),
        *(("--use-flash-attn",) if flash_attention else ()),
        *("--bf16", "--seed", str(seed)),
    ]
