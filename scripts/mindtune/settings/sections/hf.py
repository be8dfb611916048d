"""The section `hf`."""

from typing import Annotated, Literal

from annotated_types import Len

from mindtune.engines.feature_cache import AUTO, OFF, SIZE
from mindtune.settings.kinds import Choice, Text, Whole
from mindtune.settings.section import Section, key
from mindtune.settings.sections.mindspeed import HOST

DEVICE = Text(
    pattern="(cpu|cuda|npu|xpu|mps)(:[0-9]{1,3})?",
    form="a torch device such as `cpu`, `cuda`, `cuda:1` or `npu`",
)

CACHE = Text(pattern=f"{AUTO}|{OFF}|{SIZE}", form="`auto`, `off` or a size such as `50 GB`")


class Hf(Section):
    """The machine, for the `hf` engine."""

    device: Annotated[str, DEVICE] = key(
        "cpu",
        "A torch device such as `cpu`, `cuda`, `cuda:1` or `npu`.",
        "torch 设备，例如 `cpu`、`cuda`、`cuda:1` 或 `npu`。",
    )
    precision: Annotated[Literal["fp32", "bf16"], Choice()] = key(
        "fp32",
        (
            "`fp32`, or `bf16`: weights and products in bfloat16, with the optimizer's own "
            "copy of the trained weights in fp32."
        ),
        "`fp32`；或 `bf16`：权重与乘法用 bfloat16，优化器另存一份 fp32 权重。",
    )
    threads: Annotated[int, Whole(1, 1024)] = key(
        1,
        (
            "CPU threads of one training or answering. Sums are taken in another order with "
            "another number of threads, so this is a key and not the machine's affair: equal "
            "settings give equal bytes, whatever `--cores` says. More than one wants as many "
            "cores to itself: waiting threads spin, and beside another busy process "
            "everything becomes many times slower."
        ),
        "一次训练或回答使用的 CPU 线程数。线程数不同，求和次序就不同，因此它是配置项，而不由机器决定：设置相同，结果逐字节相同，与 `--cores` 无关。大于 1 时，请保证有同样多的空闲核：等待中的线程会空转，一旦与别的繁忙进程争用，一切都会慢上许多倍。",
    )
    tokens_per_pass: Annotated[int | None, Whole(1, 1_048_576)] = key(
        None,
        "How many tokens go through the model together in training: the samples of a global batch are "
        "packed without padding into rows of at most so many, with the loss and the gradients of "
        "micro batches one after another, but for last digits. null for one micro batch after another.",
        "训练时一次送入模型的 token 数上限：一个全局批次的样本不加填充地拼成若干行，每行不超过此数；"
        "损失与梯度和逐个微批次相同，只差末几位数字。null 表示逐个微批次计算。",
        later=True,
    )
    kernels: Annotated[Literal["torch", "liger"], Choice()] = key(
        "torch",
        "What training computes the language model's norms and activations with: `torch`, as transformers "
        "does, or `liger`, the fused kernels of liger-kernel (CUDA; envs/kernels.txt), with other last "
        "digits.",
        "训练时语言模型的归一化与激活用什么计算：`torch` 即 transformers 自己的实现；`liger` 为 liger-kernel "
        "的融合算子（CUDA；envs/kernels.txt），末几位数字不同。",
        later=True,
    )
    recompute: Annotated[Literal["none", "full"], Choice()] = key(
        "none",
        "`full` keeps of each layer only what it was given, and computes the rest once more for the "
        "gradients: less memory, about a third more time, the same losses. `none` keeps all.",
        "`full` 每层只保留输入，求梯度时再算一遍：省显存，约多花三分之一的时间，损失不变；`none` 全部保留。",
        later=True,
    )
    optimizer: Annotated[Literal["adamw", "adamw_8bit"], Choice()] = key(
        "adamw",
        "`adamw` keeps its two moments in fp32, as Megatron does; `adamw_8bit` in 8 bits, by bitsandbytes "
        "(CPU and CUDA; envs/optimizers.txt): 6 bytes less for each trained parameter, and other losses.",
        "`adamw` 以 fp32 保存两个动量，与 Megatron 相同；`adamw_8bit` 由 bitsandbytes 以 8 比特保存"
        "（CPU 与 CUDA；envs/optimizers.txt）：每个受训参数省 6 字节，损失会有所不同。",
        later=True,
    )
    feature_cache: Annotated[str, CACHE] = key(
        "auto",
        "Whether training keeps what a frozen vision tower makes of a picture, in memory and in "
        "results/shared/features, for later epochs and other experiments: `off`, a size such as `50 GB` "
        "that the directory may take, or `auto`, which is 10 GB on a CPU and `off` elsewhere. Each "
        "picture then goes through the tower alone, on a CPU to the same bytes at the demo's size; on "
        "other devices last digits may differ. Without effect where the tower is trained.",
        "训练时是否保留冻结的视觉编码器对图片的输出（在内存和 results/shared/features 中），供之后的轮次"
        "和其他实验使用：`off` 不保留；`50 GB` 这样的大小是该目录的上限；`auto` 在 CPU 上为 10 GB，在其他"
        "设备上为 `off`。保留时每张图片单独经过视觉编码器：在 CPU 上、演示模型的规模下结果逐字节相同，"
        "在其他设备上末几位数字可能不同。视觉编码器参与训练时不起作用。",
        later=True,
    )
    frozen_weights: Annotated[Literal["whole", "nf4"], Choice()] = key(
        "whole",
        "`nf4`: with `train.lora`, the frozen weights of the language model's layers in 4 bits (QLoRA, by "
        "bitsandbytes; envs/optimizers.txt), about a quarter of what they take in bf16. Adapters learn beside the "
        "rounded weights, and are merged into the whole ones. `whole`: as the model has them.",
        "`nf4`：配合 `train.lora`，语言模型各层的冻结权重以 4 位存放（QLoRA，由 bitsandbytes 提供；envs/optimizers.txt），"
        "约为 bf16 的四分之一。适配器在舍入后的权重旁学习，导出时并入完整的权重。`whole`：按模型原样。",
        later=True,
    )
    devices: Annotated[int, Whole(1, 1024)] = key(
        1,
        "Devices of one node that train together, a process and a copy of the model for each: they share "
        "every global batch, and rank r draws the samples that MindSpeed-MM's rank r draws. On a CPU, "
        "processes of `threads` each. Another number takes other samples together in a micro batch.",
        "每个节点上共同训练的设备数，每个设备一个进程、一份模型：它们分担每个全局批次，第 r 个进程取的样本与 "
        "MindSpeed-MM 第 r 个进程相同。在 CPU 上则是同样多的进程，各用 `threads` 个线程。数目不同，同一微批次中的样本也不同。",
        later=True,
    )
    nodes: Annotated[int, Whole(1, 10_000)] = key(
        1,
        "Nodes of one training; more than one need Slurm, `hosts`, or `MASTER_ADDR` (docs/clusters.md).",
        "一次训练使用的节点数；多于一个时需要 Slurm、`hosts` 或 `MASTER_ADDR`（docs/clusters.md）。",
        later=True,
    )
    shard: Annotated[Literal["none", "layers"], Choice()] = key(
        "none",
        "`layers`: the devices share the layers of the language model, so that each keeps a part of their "
        "weights (in fp32), gradients and moments: for models that do not fit on one. It costs sending each "
        "layer around twice in a pass. `none`: each device has all.",
        "`layers`：各设备分担语言模型的各层，每个设备只保存其权重（fp32）、梯度和优化器状态的一部分，用于单个设备放不下的模型；"
        "代价是每次前向、反向都要把各层传送一遍。`none`：每个设备都有全部。",
        later=True,
    )
    hosts: Annotated[list[Annotated[str, HOST]], Len(0, 10_000)] = key(
        None,
        "Outside Slurm, the nodes of a training by name, the first being the one where they meet; they are "
        "reached by ssh and see the same files.",
        "不用 Slurm 时训练所用节点的名字，各进程在第一个节点会合；通过 ssh 访问，且看到相同的文件。",
        made=list,
        later=True,
    )
    master_port: Annotated[int | None, Whole(1024, 65_535)] = key(
        None,
        "Port at which the processes of a training meet; null takes a free one, and 6000 on several nodes.",
        "一次训练的各进程会合的端口；null 表示取一个空闲端口，多节点时为 6000。",
        later=True,
    )
