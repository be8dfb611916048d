"""The section `answer`."""

from typing import Annotated, Literal

from mindtune.engines import playing
from mindtune.settings.kinds import Choice, Whole
from mindtune.settings.section import Section, key


class Answer(Section):
    """How the model answers."""

    max_new_tokens: Annotated[int, Whole(1, 131_072)] = key(
        256,
        "Tokens after which an answer is cut.",
        "回答超过这么多 token 即截断。",
    )
    batch_size: Annotated[int, Whole(1, 65_536)] = key(
        1,
        "Questions answered at once, at most (`hf`).",
        "一次同时回答的问题数上限（`hf`）。",
    )
    tokens_per_batch: Annotated[int | None, Whole(1, 16_777_216)] = key(
        None,
        "Tokens of the questions answered at once, at most, with padding (`hf`): those of like length and "
        "about the same pictures are answered together, whatever their order, and each picture goes through the "
        "vision tower once. Equal but for last digits, which can change a close answer. null for "
        "`answer.batch_size` questions at once, as they come.",
        "一次同时回答的问题的 token 总数上限，填充也计入（`hf`）：长度相近、图片相同的问题放在一起回答，与先后次序无关，"
        "每张图片只通过视觉塔一次。结果只差末几位数字，极少数难分高下的回答可能因此不同。null 表示按先后次序，"
        "每次回答 `answer.batch_size` 个。",
        later=True,
    )
    engine: Annotated[Literal[playing("answer")] | None, Choice()] = key(
        None,
        "Who answers, before and after: `hf`, `vllm` or `mindspeed`; null for the engine that trains. `hf` and "
        "`vllm` answer from the base and from the exported model, whoever trained it, on the machine of the section "
        "of that name.",
        "由谁回答（微调前后一致）：`hf`、`vllm` 或 `mindspeed`；null 表示由负责训练的引擎回答。无论由谁训练，`hf` 和 `vllm` 都从"
        "基座和导出的模型回答，运行在同名一节所描述的机器上。",
        later=True,
    )
