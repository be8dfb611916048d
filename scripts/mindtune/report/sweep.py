"""Several trainings as a sweep: what they came to over seeds and parameters, and which went wrong.

Trainings that are alike in all settings but their seeds are repetitions of one another: their mean and
spread say how much another order of the samples changes.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

SEEDS = ("train.order_seed", "train.seed")
# Keys that came later than others' settings are absent there; they had these values.
LATER = {
    "train.order_seed": None,
    "train.lora": None,
    "answer.tokens_per_batch": None,
    "answer.engine": None,
}
DIVERGED, ROSE = "diverged", "rose"
LEAST = 5  # iterations at each end of a training, between which a rise can be told
ERRORS = 3  # standard errors by which the loss must have risen


@dataclass(frozen=True)
class Training:
    """An experiment's training.

    settings: dotted key -> value. value: the mean score of its answers, None without. weights: a
    checksum of what it became. course: see `course`.
    """

    name: str
    settings: Mapping[str, Any]
    value: float | None
    weights: str
    course: str


@dataclass(frozen=True)
class Group:
    """Trainings that are alike in all but their seeds.

    differing: what tells it from other groups. values: the score of each different model. rose,
    diverged: how many trainings; those that diverged have no model.
    """

    differing: Mapping[str, Any]
    values: Sequence[float]
    rose: int
    diverged: int

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """The standard deviation between trainings (of a sample), None for fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Point:
    """A training in the plot of a parameter.

    value: None where it diverged. others: the other settings that differ, but seeds.
    """

    at: float
    value: float | None
    others: tuple[tuple[str, Any], ...]


def course(rows: pd.DataFrame) -> str:
    """What went wrong with a training: its loss DIVERGED or ROSE; empty for nothing.

    rows: of loss.csv. The loss rose where its mean over the last tenth of the iterations is above
    that over the first tenth (LEAST iterations of each at least) by more than ERRORS standard errors of
    that difference. Shorter trainings are not judged.
    """
    losses = [float(loss) for loss in rows["loss"]]
    if not all(map(math.isfinite, losses)):
        return DIVERGED
    size = max(LEAST, len(losses) // 10)
    if len(losses) < 2 * size:
        return ""
    first, last = losses[:size], losses[-size:]
    error = math.sqrt((statistics.variance(first) + statistics.variance(last)) / size)
    rise = statistics.fmean(last) - statistics.fmean(first)
    return ROSE if rise > ERRORS * error else ""


def leaves(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings as dotted keys and their values."""
    found = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def varied(trainings: Sequence[Training]) -> list[str]:
    """The keys in which trainings differ, seeds among them, in the order of the settings."""
    keys = dict.fromkeys(key for one in trainings for key in one.settings)
    return [key for key in keys if len({repr(_value(one, key)) for one in trainings}) > 1]


def _value(training: Training, key: str) -> Any:
    return training.settings.get(key, LATER.get(key))


def groups(trainings: Sequence[Training]) -> list[Group]:
    """The trainings by what they have in common, in their order."""
    keys = [key for key in varied(trainings) if key not in SEEDS]
    members: dict[str, list[Training]] = {}
    for one in trainings:
        members.setdefault(repr([_value(one, key) for key in keys]), []).append(one)
    return [_group(found, keys) for found in members.values()]


def _group(members: Sequence[Training], keys: Sequence[str]) -> Group:
    # Trainings that became the same model are no repetitions: nothing varied.
    values = {one.weights: one.value for one in members if one.value is not None}
    return Group(
        {key: _value(members[0], key) for key in keys},
        list(values.values()),
        sum(one.course == ROSE for one in members),
        sum(one.course == DIVERGED for one in members),
    )


def parameters(trainings: Sequence[Training]) -> dict[str, list[Point]]:
    """For each number that was varied, but seeds, the trainings as points of a plot."""
    keys = [key for key in varied(trainings) if key not in SEEDS]
    found = {}
    for key in keys:
        points = list(_points(trainings, key, [other for other in keys if other != key]))
        if len({point.at for point in points}) > 1:
            found[key] = points
    return found


def _points(trainings: Sequence[Training], key: str, others: Sequence[str]) -> Iterator[Point]:
    for one in trainings:
        at = _value(one, key)
        shown = one.value is not None or one.course == DIVERGED
        if shown and isinstance(at, int | float) and not isinstance(at, bool):
            told = tuple((other, _plain(_value(one, other))) for other in others)
            yield Point(float(at), one.value, told)


def _plain(value: Any) -> Any:
    """A value by which points can be told apart: lists can't be keys."""
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else value


def wants_logarithm(numbers: Sequence[float]) -> bool:
    """Whether numbers span a decade or more."""
    return min(numbers) > 0 and max(numbers) >= 10 * min(numbers)
