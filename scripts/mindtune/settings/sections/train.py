"""The section `train`."""

from typing import Annotated, Literal

from mindtune.models.adapters import every_word
from mindtune.settings.kinds import MOST_SEED, Choice, Choices, Flag, Number, Whole
from mindtune.settings.section import Section, key
from mindtune.trackers import TRACKERS


class Lora(Section):
    """Low-rank adapters, under MindSpeed-MM's names without `lora_`."""

    rank: Annotated[int, Whole(1, 4096)] = key(
        8,
        "Rank of the adapters, MindSpeed-MM's lora_r.",
        "适配器的秩，即 MindSpeed-MM 的 lora_r。",
    )
    alpha: Annotated[int, Whole(1, 65_536)] = key(
        16,
        "What an adapter adds is multiplied by alpha / rank, which usually is 2.",
        "适配器的增量乘以 alpha / rank，通常取 2。",
    )
    dropout: Annotated[float, Number(at_least=0, below=1)] = key(
        0.0,
        "Share of an adapter's inputs that are dropped in training; drawn by train.seed.",
        "训练时随机丢弃的适配器输入比例；由 train.seed 决定。",
    )
    target_modules: Annotated[list[str], Choices(every_word())] = key(
        None,
        "Which modules get adapters. By MindSpeed-MM's names (`linear_qkv`, `linear_proj`, `linear_fc1`, "
        "`linear_fc2`) query, key and value share one matrix A, as do a gated layer's two inputs: both "
        "engines do the same. By transformers' names (such as `q_proj`, `up_proj`; engine hf only) each has its "
        "own. Parts of the model that are frozen get none.",
        "给哪些模块加适配器。用 MindSpeed-MM 的名称（`linear_qkv`、`linear_proj`、`linear_fc1`、`linear_fc2`）时，"
        "查询、键、值共用一个矩阵 A，门控层的两个输入也共用一个：两种引擎做法相同。用 transformers 的名称"
        "（如 `q_proj`、`up_proj`；仅限 hf 引擎）时各用各的。冻结的部分不加适配器。",
        made=lambda: ["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"],
    )


class Train(Section):
    """Fine-tuning, under Megatron's names."""

    train_iters: Annotated[int, Whole(1, 10_000_000)] = key(
        100,
        "Iterations; each sees one global batch.",
        "迭代次数；每次迭代处理一个全局批次。",
    )
    save_interval: Annotated[int, Whole(1, 10_000_000)] = key(
        50,
        "Iterations between checkpoints; the last iteration is always saved.",
        "每隔多少次迭代保存一次；最后一次必定保存。",
    )
    eval_interval: Annotated[int, Whole(1, 10_000_000)] = key(
        50,
        "Iterations between evaluations of the held-out loss.",
        "每隔多少次迭代在留出数据上计算一次损失。",
    )
    eval_iters: Annotated[int, Whole(0, 1_000_000)] = key(
        4,
        "Global batches of held-out data in each evaluation; 0 for none.",
        "每次评估用多少个全局批次的留出数据；0 表示不评估。",
    )
    micro_batch_size: Annotated[int, Whole(1, 65_536)] = key(
        1,
        "Samples of one forward pass on one device.",
        "一张卡一次前向处理的样本数。",
    )
    global_batch_size: Annotated[int, Whole(1, 1_000_000)] = key(
        24,
        (
            "Samples of one iteration; a multiple of micro_batch_size x data parallel size. "
            "The tutorial's gradient accumulation is global_batch_size / micro_batch_size."
        ),
        "一次迭代的样本数，须是 micro_batch_size × 数据并行数的整数倍。教程中的梯度累积步数即 global_batch_size / micro_batch_size。",
    )
    lr: Annotated[float, Number(above=0, at_most=1)] = key(
        1e-05,
        "Peak learning rate.",
        "学习率峰值。",
    )
    min_lr: Annotated[float, Number(at_least=0, at_most=1)] = key(
        0.0,
        "Learning rate at the end of the decay.",
        "衰减结束时的学习率。",
    )
    lr_decay_style: Annotated[Literal["cosine", "linear", "constant"], Choice()] = key(
        "cosine",
        "Shape of the decay after the warm-up.",
        "预热之后学习率的衰减方式。",
    )
    lr_warmup_fraction: Annotated[float, Number(at_least=0, below=1)] = key(
        0.1,
        "Share of the iterations in which the learning rate rises from 0.",
        "学习率从 0 升到峰值所占的迭代比例。",
    )
    weight_decay: Annotated[float, Number(at_least=0, at_most=100)] = key(
        0.0,
        "Decoupled weight decay of all weights but norms and biases.",
        "解耦的权重衰减，不作用于归一化层和偏置。",
    )
    clip_grad: Annotated[float, Number(at_least=0, at_most=1_000_000)] = key(
        0.0,
        "Largest norm of the gradient; 0 for no clipping.",
        "梯度范数上限；0 表示不裁剪。",
    )
    adam_beta1: Annotated[float, Number(at_least=0, below=1)] = key(
        0.9,
        "Adam's decay rate of the mean.",
        "Adam 一阶矩的衰减率。",
    )
    adam_beta2: Annotated[float, Number(at_least=0, below=1)] = key(
        0.999,
        "Adam's decay rate of the squares.",
        "Adam 二阶矩的衰减率。",
    )
    adam_eps: Annotated[float, Number(above=0, at_most=1)] = key(
        1e-08,
        "Added to Adam's denominator.",
        "加在 Adam 分母上的小量。",
    )
    seed: Annotated[int, Whole(0, MOST_SEED)] = key(
        42,
        "Seed of the trainer's random generators. A full fine-tuning draws nothing from them "
        "(there is no dropout), so another seed gives the same weights; see order_seed. LoRA's adapters "
        "begin with what is drawn.",
        "训练程序随机数发生器的种子。全参数微调没有 dropout，不从中取数，换种子权重不变；"
        "要换顺序请用 order_seed。LoRA 适配器的初值由它决定。",
    )
    order_seed: Annotated[int | None, Whole(0, MOST_SEED)] = key(
        None,
        "Seed of the order in which the trainer is given its samples, the same for both engines; "
        "null for the order of the data. Data, questions and answers before stay shared.",
        "训练程序拿到样本的先后顺序的种子，两种引擎相同；null 表示按数据本来的顺序。"
        "数据、问题和训练前的回答仍然共用。",
        later=True,
    )
    seq_length: Annotated[int, Whole(64, 1_048_576)] = key(
        1024,
        "Tokens after which a conversation is cut.",
        "对话超过这么多 token 即截断。",
    )
    freeze_vision_encoder: Annotated[bool, Flag()] = key(
        True,
        "Leave the vision encoder as it is.",
        "不训练视觉编码器。",
    )
    freeze_vision_projector: Annotated[bool, Flag()] = key(
        True,
        "Leave the projector (Qwen2-VL's patch merger) as it is.",
        "不训练投影层（Qwen2-VL 的 patch merger）。",
    )
    lora: Lora | None = key(
        None,
        "Train low-rank adapters and leave the model as it is, `{ rank: 16, alpha: 32 }`; null trains the "
        "model itself. The engine hf wants `pip install -r envs/lora.txt`.",
        "只训练低秩适配器，模型本身不变，例如 `{ rank: 16, alpha: 32 }`；null 表示训练模型本身。"
        "hf 引擎需要 `pip install -r envs/lora.txt`。",
        later=True,
    )
    save_optim: Annotated[bool, Flag()] = key(
        True,
        (
            "Save optimizer and random states beside each checkpoint, so that an interrupted "
            "training goes on exactly; some 12 bytes per trained parameter."
        ),
        "随权重一并保存优化器与随机数状态，中断后可精确续训；每个受训参数约占 12 字节。",
    )
    report_to: Annotated[list[str], Choices(TRACKERS)] = key(
        [],
        "Who shows the training while it runs, from the rows of loss.csv: any of `tensorboard`, `swanlab` "
        "and `wandb` (pip install -r envs/trackers.txt). An edit runs nothing again; it counts from the "
        "next training on.",
        "训练过程中用哪些工具实时查看 loss.csv 中的各行：`tensorboard`、`swanlab`、`wandb`，可多选"
        "（pip install -r envs/trackers.txt）。改动此项不会重跑任何东西，从下一次训练起生效。",
        without_effect=True,
    )
