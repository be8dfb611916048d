"""Reading prompts and answers, and checking that they belong together."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mindtune.data.prompts import pictures_of
from mindtune.data.split import components
from mindtune.divergence import divergence_in
from mindtune.errors import UserError
from mindtune.files import read_json_lines
from mindtune.models.box_text import in_thousandths
from mindtune.models.conversation import without_marks

OUT_OF = "boxes_out_of"  # of a line, see mindtune.engines.box_sizes


def read_answers(
    experiment: str, prompts: Path, before: Path, after: Path
) -> Iterator[tuple[dict, dict, dict]]:
    """Yield (prompt, answer before, answer after), in the order of the prompts.

    A prompt's `image` is its cell in tables. References and answers are without the marks of objects
    and boxes, and boxes in JSON are text in thousandths: a model that was trained on such marks writes them,
    the base may not, and tables compare what is said.

    There are none where the training diverged.

    Raises
    ------
    UserError: answers and prompts don't belong together.
    """
    asked, *answered = (read_json_lines(path) for path in (prompts, before, after))
    if divergence_in(answered[1]):
        return
    for stage, answers in zip(("before", "after"), answered, strict=True):
        if [answer["id"] for answer in answers] != [prompt["id"] for prompt in asked]:
            raise UserError(
                f"the answers {stage} of experiment {experiment} are of other prompts; delete them "
                "and run the same command again."
            )
    for prompt, *answers in zip(asked, *answered, strict=True):
        reference = prompt["reference"]
        out_of = known_out_of(answers)
        shown = {
            "image": picture_cell(pictures_of(prompt)),
            "reference": None if reference is None else plain(reference, out_of),
        }
        first, second = ({**one, "answer": said(one, out_of)} for one in answers)
        yield {**prompt, **shown}, first, second


def known_out_of(lines: Iterable[Mapping[str, Any]]) -> Sequence[int] | None:
    """What boxes in JSON are out of in answers to one prompt, by the first that says it: one that was given by
    earlier code and adopted doesn't."""
    return next((line[OUT_OF] for line in lines if OUT_OF in line), None)


def said(line: Mapping[str, Any], out_of: Sequence[int] | None = None) -> str:
    """The answer of a line, as tables have it. out_of: of its boxes, where the line doesn't say it."""
    return plain(line["answer"], line.get(OUT_OF, out_of)).strip()


def plain(text: str, out_of: Sequence[int] | None) -> str:
    """A text without marks, its boxes in thousandths. out_of: what those in JSON are out of."""
    return in_thousandths(without_marks(text), out_of)


def picture_cell(names: Sequence[str]) -> str:
    """The pictures of a prompt in a table's cell: the name of one, or a JSON list of several."""
    if len(names) == 1 and pictures_in(names[0]) == [names[0]]:
        return names[0]
    return json.dumps(list(names), ensure_ascii=False)


def together(cells: Iterable[str]) -> list[str]:
    """For each cell of pictures a name, the same for all that hang together.

    Two prompts hang together when they have a picture in common, or each has one in common with
    a third: what they show is then no independent evidence.
    """
    names = [pictures_in(cell) for cell in cells]
    tied = components(group for group in names if len(group) > 1)
    return [tied.get(group[0], group[0]) for group in names]


def count_pictures(cells: Iterable[str]) -> int:
    """How many different pictures there are in cells."""
    return len({name for cell in cells for name in pictures_in(cell)})


def pictures_in(cell: str) -> list[str]:
    """The pictures in a table's cell: what `picture_cell` was given."""
    if cell.startswith("["):
        try:
            names = json.loads(cell)
        except (ValueError, RecursionError):
            return [cell]
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return names
    return [cell]


def was_seen(flag: bool | None) -> bool:
    """Whether a picture is known to be one that training saw; flag: a cell of `image_in_training`."""
    return flag is not None and flag is not pd.NA and bool(flag)
