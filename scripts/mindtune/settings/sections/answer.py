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
        "Questions answered at once.",
        "一次同时回答多少个问题。",
    )
    engine: Annotated[Literal[playing("answer")] | None, Choice()] = key(
        None,
        "Who answers, before and after: `hf`, or `mindspeed`; null for the engine that trains. `hf` answers from "
        "the base and from the exported model, whoever trained it, on the machine of the section `hf`.",
        "由谁回答（微调前后一致）：`hf` 或 `mindspeed`；null 表示由负责训练的引擎回答。无论由谁训练，`hf` 都从基座和导出的模型"
        "回答，运行在 `hf` 一节所描述的机器上。",
        later=True,
    )
