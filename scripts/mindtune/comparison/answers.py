"""Reading prompts and answers, and seeing that they belong together."""

from collections.abc import Iterator
from pathlib import Path

from mindtune.errors import UserError
from mindtune.files import read_json_lines


def read_answers(
    experiment: str, prompts: Path, before: Path, after: Path
) -> Iterator[tuple[dict, dict, dict]]:
    """Yield (prompt, answer before, answer after), in the order of the prompts.

    Raises
    ------
    UserError: answers and prompts don't belong together.
    """
    asked, *answered = (read_json_lines(path) for path in (prompts, before, after))
    for stage, answers in zip(("before", "after"), answered, strict=True):
        if [answer["id"] for answer in answers] != [prompt["id"] for prompt in asked]:
            raise UserError(
                f"the answers {stage} of experiment {experiment} are of other prompts; delete them "
                "and run the same command again."
            )
    yield from zip(asked, *answered, strict=True)
