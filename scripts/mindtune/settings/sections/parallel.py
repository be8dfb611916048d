"""The section `parallel`."""

from typing import Annotated

from mindtune.settings.kinds import Layers, Whole
from mindtune.settings.section import Section, key


class Parallel(Section):
    """How the mm checkpoint is cut."""

    tensor_model_parallel_size: Annotated[int, Whole(1, 1024)] = key(
        1,
        "Tensor parallel size; must divide heads, KV heads, FFN and vocabulary.",
        "张量并行数；须能整除注意力头数、KV 头数、FFN 宽度和词表大小。",
    )
    context_parallel_size: Annotated[int, Whole(1, 1024)] = key(
        1,
        (
            "Context parallel size, over which a sequence is cut in training; checkpoints are "
            "the same whatever it is. Engine `mindspeed` only."
        ),
        "上下文并行数，训练时按它切分序列；检查点与它无关。仅用于引擎 `mindspeed`。",
    )
    llm_pp_layers: Annotated[list | None, Layers()] = key(
        None,
        "LLM layers per pipeline stage; null for one stage.",
        "各流水线阶段的语言模型层数；null 表示只有一个阶段。",
    )
    vit_pp_layers: Annotated[list | None, Layers()] = key(
        None,
        "Vision encoder layers per pipeline stage, of the same shape as llm_pp_layers.",
        "各流水线阶段的视觉编码器层数，形状须与 llm_pp_layers 相同。",
    )
