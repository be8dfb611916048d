"""Which iterations of a training would have been the same under other settings.

A training that is given more iterations resumes from its checkpoints where that is exact: where
every iteration so far would have had the same learning rate and the same held-out evaluations
(an evaluation draws a random number, which later checkpoints carry). The rule is about Megatron's
schedule and cadence, so it holds for all engines.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from mindtune.engines.learning_rate import learning_rate

if TYPE_CHECKING:
    from mindtune.settings.sections.train import Train

Settings = Mapping[str, Any]

# Keys of `train` whose effect on an iteration can be told, and those that have none.
SCHEDULE = ("train_iters", "lr", "min_lr", "lr_decay_style", "lr_warmup_fraction")
EVALUATION = ("train_iters", "eval_interval", "eval_iters")
WITHOUT_EFFECT = ("save_interval",)
FREE_OF_LENGTH = (
    "; with train.lr_decay_style: constant and train.lr_warmup_fraction: 0 a training can be given "
    "more iterations"
)
_SHOWN_VALUES = 40


@dataclass(frozen=True)
class Continuation:
    """What old settings and new ones have in common.

    iteration: the last one that is the same under both; 0 when training starts over. changed: the
    settings that differ, in words. reason: what keeps the rest from being the same, a clause;
    empty when nothing does.
    """

    iteration: int
    changed: str
    reason: str


def continuation(old: Settings, new: Settings) -> Continuation:
    """Compare the settings of a save_dir with those of a training that wants to use it.

    Both are what `savedir.claimed` takes; `train` has the keys of that section.
    """
    different = list(differences(old, new))
    changed = ", ".join(text for _, text in different)
    judged = {f"train.{key}" for key in (*SCHEDULE, *EVALUATION, *WITHOUT_EFFECT)}
    others = [key for key, _ in different if key not in judged]
    if others or not different:
        return Continuation(
            0, changed, f"with another {others[0]} nothing is the same" if others else ""
        )
    train = new["train"]
    if not judged_keys(old):
        return Continuation(0, changed, "the record of their settings is not whole")
    if not train["save_optim"]:
        return Continuation(0, changed, "they were saved without train.save_optim")
    last = min(old["train"]["train_iters"], train["train_iters"])
    for iteration in range(1, last + 1):
        reason = _difference_at(iteration, old["train"], train)
        if reason:
            return Continuation(iteration - 1, changed, reason)
    return Continuation(last, changed, "")


def judged_keys(settings: Settings) -> bool:
    """Whether settings have all that a comparison of iterations needs."""
    return isinstance(settings.get("train"), Mapping) and {*SCHEDULE, *EVALUATION} <= {
        *settings["train"]
    }


def _difference_at(iteration: int, old: Settings, new: Settings) -> str:
    before, now = (learning_rate(iteration - 1, _typed(train)) for train in (old, new))
    if before != now:
        return (
            f"iteration {iteration} would have had a learning rate of {now:.6g} and not {before:.6g}"
            + (FREE_OF_LENGTH if old["train_iters"] != new["train_iters"] else "")
        )
    counts = [train["eval_iters"] * _evaluates(iteration, train) for train in (old, new)]
    if counts[0] != counts[1]:
        return f"held-out data would have been looked at otherwise at iteration {iteration}"
    return ""


def _typed(train: Settings) -> "Train":
    """A record of `train`, which may be of an earlier version, as attributes."""
    return cast("Train", SimpleNamespace(**train))


def _evaluates(iteration: int, train: Settings) -> bool:
    return iteration % train["eval_interval"] == 0 or iteration == train["train_iters"]


def differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, the key with both values in words) of each setting that differs."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted({*old, *new}):
            yield from differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
    elif old != new:
        values = f"{old} -> {new}"
        yield key, f"{key} {values}" if len(values) <= _SHOWN_VALUES else key
