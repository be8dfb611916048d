"""The section `answer`."""

from typing import Annotated

from mindtune.settings.kinds import Whole
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
