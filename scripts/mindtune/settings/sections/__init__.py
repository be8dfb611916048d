"""All settings: one model for each section, a module each."""

from typing import Annotated, Any, Literal

from annotated_types import Len

from mindtune.engines import playing
from mindtune.settings.kinds import Choice, Name, Place
from mindtune.settings.section import Section, key, section
from mindtune.settings.sections.answer import Answer
from mindtune.settings.sections.compare import Compare
from mindtune.settings.sections.data import Data
from mindtune.settings.sections.hf import Hf
from mindtune.settings.sections.mindspeed import Mindspeed
from mindtune.settings.sections.parallel import Parallel
from mindtune.settings.sections.processor import Processor
from mindtune.settings.sections.prompts import Prompts
from mindtune.settings.sections.report import Report
from mindtune.settings.sections.sources import Sources
from mindtune.settings.sections.train import Train
from mindtune.settings.sections.vllm import Vllm

EXPERIMENT = Name(
    "[A-Za-z0-9][A-Za-z0-9_.-]*",
    "may only have letters, digits, `_`, `-` and `.`, and must begin with a letter or digit: results "
    "are written under it.",
    150,
)


class Settings(Section):
    """A whole configuration."""

    engine: Annotated[Literal[playing("finetune")], Choice()] = key(
        "hf",
        "What trains and answers. `hf`: transformers and torch, on a CPU or any torch device. "
        "`mindspeed`: MindSpeed-MM on Ascend NPUs.",
        "训练与回答所用的引擎。`hf`：transformers + torch，可在 CPU 或任意 torch 设备上运行；`mindspeed`：昇腾 NPU 上的 MindSpeed-MM。",
    )
    sources: Sources = section(
        Sources,
        "Where pictures, instructions and the base model come from.",
        "图片、指令数据和基座模型从哪里来。",
    )
    data: Data = section(
        Data,
        "From instructions to MindSpeed-MM's mllm format, with a held-out part.",
        "把指令数据转成 MindSpeed-MM 的 mllm 格式，并留出一部分不参与训练。",
    )
    processor: Processor = section(
        Processor,
        "How a picture becomes tokens, the same in training and in answering.",
        "图片如何变成 token，训练与回答保持一致。",
    )
    parallel: Parallel = section(
        Parallel,
        "The layout of the mm checkpoint.",
        "mm 权重的切分方式。",
    )
    train: Train = section(
        Train,
        "Fine-tuning, under Megatron's names; the defaults are the tutorial's values.",
        "微调参数，沿用 Megatron 的名称；默认值即教程的取值。",
    )
    keep_checkpoints: Annotated[Literal["all", "last"], Choice()] = key(
        "all",
        "Which checkpoints a training keeps: `all`, or the `last` whole one, before which the others are "
        "removed as soon as it is written. With `last` a change of settings resumes from the last one or "
        "from the base. An edit runs nothing again.",
        "训练保留哪些检查点：`all` 全部保留；`last` 只留最新的完整检查点，写完后立即删除更早的。用 `last` 时，改动设置后只能从最新的检查点"
        "或基座继续。改动此项不会重跑任何东西。",
        later=True,
    )
    export: Annotated[Literal["merged", "adapter"], Choice()] = key(
        "merged",
        "What results/NAME/hf is after a training with train.lora: the `merged` model, or the `adapter` "
        "alone, as peft loads it; answers then come from results/NAME/merged, or by vLLM from the adapter itself.",
        "用 train.lora 训练之后 results/NAME/hf 里放什么：`merged` 为合并后的模型；`adapter` 只放 peft 可加载的适配器，"
        "此时回答用 results/NAME/merged 中的模型，由 vLLM 回答时则直接用适配器。",
        later=True,
    )
    hf: Hf = section(
        Hf,
        "The machine, as the `hf` engine uses it.",
        "`hf` 引擎使用的机器。",
    )
    mindspeed: Mindspeed = section(
        Mindspeed,
        "The machine and the framework, as the `mindspeed` engine uses them.",
        "`mindspeed` 引擎所用的机器和框架。",
    )
    vllm: Vllm = section(
        Vllm,
        "The machine and vLLM, as the `vllm` engine uses them.",
        "`vllm` 引擎所用的机器和 vLLM。",
        later=True,
    )
    answer: Answer = section(
        Answer,
        "How the model answers; always greedy.",
        "模型如何回答；一律贪心解码。",
    )
    prompts: Prompts = section(
        Prompts,
        "What is asked before and after.",
        "微调前后分别提哪些问题。",
    )
    compare: Compare = section(
        Compare,
        "How answers are compared.",
        "如何比较回答。",
    )
    report: Report = section(
        Report,
        "The page, and what else shows results.",
        "展示结果的页面与图。",
        later=True,
    )
    experiments: Annotated[
        dict[Annotated[str, EXPERIMENT], dict[str, Any] | None], Len(1, 10_000)
    ] = key(
        None,
        "Named runs. Each is a small overlay of the sections data, processor, parallel, train and "
        "answer, and of sources.model; what does not differ is computed once and shared.",
        "具名的实验，各是对 data、processor、parallel、train、answer 以及 sources.model 的少量改动；没有改动的部分只算一次，各实验共用。",
        made=lambda: {"baseline": {}},
    )
    grid: dict[str, Annotated[list[Any], Len(1, 1000)]] = key(
        None,
        "Sweeps: lists of values by dotted key, `train.lr: [1e-5, 3e-5]`. Every combination becomes an "
        "experiment, with a name such as `lr-1e-5_order_seed-1`, beside those in `experiments`; where "
        "`experiments` isn't given, there are no others.",
        "参数扫描：按点分键写出各取值，例如 `train.lr: [1e-5, 3e-5]`。每种组合成为一个实验，名字形如 `lr-1e-5_order_seed-1`，"
        "与 `experiments` 中的实验并列；没有写 `experiments` 时就只有这些实验。",
        later=True,
        made=dict,
    )
    tuned_model: Annotated[str | None, Place("path")] = key(
        None,
        "Within an experiment only: a model that was trained elsewhere, which is compared with "
        "sources.model instead of training one. A directory with a Hugging Face model, or with a "
        "peft adapter of LoRA (adapter_config.json, adapter_model.safetensors).",
        "只能写在某个实验中：一个在别处训练好的模型，不再训练，直接与 sources.model 比较。目录中可以是 Hugging Face "
        "格式的模型，也可以是 peft 的 LoRA 适配器（adapter_config.json、adapter_model.safetensors）。",
        later=True,
        in_experiments=True,
    )
