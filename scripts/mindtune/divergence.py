"""A training whose loss is no longer a number, and what it leaves instead of a model.

One such training among several must not keep the others from being compared. It ends as a job that is
done: `finetune.json` says so under `diverged`, the directory of its model has nothing but
`diverged.json`, its answers after are one line that says so, and tables leave it out.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindtune.errors import UserError
from mindtune.files import read_json_lines, write_json, writing, writing_directory

if TYPE_CHECKING:
    from mindtune.settings.sections.train import Train

KEY = "diverged"
RECORD = "diverged.json"


class Diverged(UserError):
    """iteration: of which the loss is no number. loss: in words, `nan`, `inf` or `-inf`."""

    def __init__(self, iteration: int, loss: str, train: "Train") -> None:
        self.iteration, self.loss = iteration, loss
        said = "not a number" if loss == "nan" else loss
        super().__init__(
            f"the loss of iteration {iteration} is {said}; lower train.lr (now {train.lr}), or set "
            f"train.clip_grad (now {train.clip_grad}) to 1.0."
        )

    @property
    def record(self) -> dict[str, Any]:
        return {"iteration": self.iteration, "loss": self.loss}


def divergence_of(done: Path) -> dict[str, Any] | None:
    """What finetune.json says of where its training diverged; None for one that did not."""
    return json.loads(done.read_text(encoding="utf-8")).get(KEY)


def write_no_model(directory: Path, record: Mapping[str, Any]) -> None:
    """The directory of a model that there is not."""
    with writing_directory(directory) as made:
        write_json(made / RECORD, record)


def model_divergence(directory: Path) -> dict[str, Any] | None:
    """What `write_no_model` left in the directory of a model; None for a model."""
    path = directory / RECORD
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def write_no_answers(answers: Path, record: Mapping[str, Any]) -> None:
    """The answers of a model that there is not."""
    with writing(answers) as handle:
        handle.write(json.dumps({KEY: dict(record)}) + "\n")


def answers_divergence(answers: Path) -> dict[str, Any] | None:
    """What `write_no_answers` left; None for answers."""
    return divergence_in(read_json_lines(answers))


def divergence_in(lines: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The same, of the lines of a file of answers."""
    first = next(iter(lines), {})
    return first.get(KEY)
