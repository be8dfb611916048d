"""What happens beside the Trainer's loop: the log of iterations, checkpoints, progress."""

import logging
import math
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from mindtune.divergence import Diverged
from mindtune.engines.hf.checkpoints import Checkpoints
from mindtune.engines.learning_rate import learning_rate
from mindtune.engines.loss_table import LOSS, LossTable
from mindtune.engines.pruning import ALL, LAST, keep_last
from mindtune.progress import Progress

if TYPE_CHECKING:
    from mindtune.settings.sections.train import Train

log = logging.getLogger(__name__)


class TokenCount:
    """Counts the tokens, text's and pictures', that go through the model in training; padding is none."""

    def __init__(self) -> None:
        self.total: Any = 0

    def add(self, tokens: Any) -> None:
        """tokens: a number, or a tensor with one, which is not waited for."""
        self.total = self.total + tokens

    def take(self) -> int:
        """The tokens since this was last called."""
        total, self.total = int(self.total), 0
        return total


class IterationLog(TrainerCallback):
    """Writes `loss.csv`, a line per iteration, and saves the checkpoints that are due.

    Iterations are counted from the very beginning, whatever the Trainer counts since this
    process began: lines of iterations that will run again are removed first.
    """

    def __init__(
        self,
        save_dir: Path,
        begun: int,
        train: "Train",
        checkpoints: Checkpoints,
        tokens: TokenCount,
        evaluated: bool,
        keep: str = ALL,
        followers: Any = None,
    ) -> None:
        self.table = LossTable(save_dir / LOSS, followers)
        self.begun = begun
        self.train = train
        self.checkpoints = checkpoints
        self.writes = checkpoints.replicas.is_first
        self.tokens = tokens
        self.evaluated = evaluated
        self.keep = keep
        self.row: dict[str, float | int | str] = {}
        self.started = 0.0
        self.prepared = False

    def append(self) -> None:
        if self.writes:
            self.table.append(self.row)

    def iteration(self, state) -> int:
        return self.begun + state.global_step

    def due(self, iteration: int, interval: int) -> bool:
        return iteration % interval == 0 or iteration == self.train.train_iters

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        if self.writes:
            self.table.begin(self.begun)
        self.started = time.perf_counter()

    def on_step_begin(self, args, state, control, *, model, **kwargs) -> None:
        self.checkpoints.restore_random(model.device)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if self.evaluated and self.due(self.iteration(state), self.train.eval_interval):
            control.should_evaluate = True

    def on_log(self, args, state, control, logs, **kwargs) -> None:
        if "loss" not in logs:
            return
        iteration, loss = self.iteration(state), logs["loss"]
        seconds = time.perf_counter() - self.started
        self.row = {
            "iteration": iteration,
            "consumed_samples": iteration * self.train.global_batch_size,
            "lr": repr(learning_rate(iteration, self.train)),
            "loss": repr(loss),
            "grad_norm": repr(logs["grad_norm"]) if "grad_norm" in logs else "",
            "ms_per_iteration": f"{seconds * 1000:.1f}",
            "samples_per_second": f"{self.train.global_batch_size / seconds:.2f}",
            "held_out_loss": "",
            "tokens_per_second": f"{self.tokens.take() / seconds:.1f}",
        }
        if not math.isfinite(loss):
            self.append()
            raise Diverged(iteration, str(loss), self.train)
        if not control.should_evaluate:
            self.finish(iteration, **kwargs)

    def on_evaluate(self, args, state, control, metrics, **kwargs) -> None:
        self.row["held_out_loss"] = repr(metrics["eval_loss"])
        log.info("iteration %d: held-out loss %.4f", self.row["iteration"], metrics["eval_loss"])
        self.finish(self.iteration(state), **kwargs)

    def finish(self, iteration: int, *, model, optimizer, **kwargs) -> None:
        """Write the iteration's line, and save a checkpoint when one is due."""
        self.append()
        self.checkpoints.beside.look()
        if self.due(iteration, self.train.save_interval):
            if self.writes:
                self.table.sync()
            self.checkpoints.save(iteration, model, optimizer, partial(self.saved, iteration))
        elif not self.prepared:
            self.checkpoints.prepare(model, optimizer)
        self.prepared = True
        self.started = time.perf_counter()

    def saved(self, iteration: int) -> None:
        """A checkpoint is whole; this may be called in another thread."""
        log.info("saved checkpoint at iteration %d to %s", iteration, self.checkpoints.save_dir)
        if self.keep == LAST:
            keep_last(self.checkpoints.save_dir, iteration)


class Watch(TrainerCallback):
    """Shows how far the training is."""

    def __init__(self, begun: int, train: "Train") -> None:
        self.shown = Progress("training", "iterations", train.train_iters, begun)

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self.shown.__enter__()

    def on_log(self, args, state, control, logs, **kwargs) -> None:
        if "loss" in logs:
            self.shown.advance(note=f"loss {logs['loss']:.4f}")

    def on_train_end(self, args, state, control, **kwargs) -> None:
        self.shown.__exit__(None, None, None)
