"""How often verdicts and intervals are right, on answers of a finished run.

    python benchmarks/calibration.py results/compare.csv [--comparisons 1000] [--seed 1]

Comparisons are simulated from real answers: pictures are drawn with replacement, each with all its
questions and all models' answers to them.

Without any effect: the models exchange their names at random, picture by picture, so that before
and after come from the same place; judged as in a report, over all families, metrics and
experiments at once. A test at 5 % says "better" or "worse" in at most 64 of 1,000 comparisons, in
98 of 100 such benchmarks. "drifting" is a null without that symmetry: pictures are drawn with
probabilities under which one model is no better than the other on average.

With a known effect: two models as they are; the run's own difference is the truth. A 95 % interval
should cover it in 93 to 97 of 100 comparisons. No interval can do so where a few rare pictures
make all the difference, of which a comparison often sees none: "carried by" is by how many pictures
a comparison's variance is carried (their number by the kurtosis of their differences), and rows
with fewer than FEW are summed up apart. --rows shows all rows.
"""

import argparse
import time
from itertools import combinations
from pathlib import Path

import numpy as np
from mindtune.comparison.answers import together
from mindtune.comparison.contract import COMPARE, read_table
from mindtune.comparison.metrics import BY_NAME
from mindtune.comparison.statistics import (
    Clusters,
    exchange_tests,
    score_interval,
    share_interval,
)
from mindtune.comparison.verdicts import BETTER, WORSE, Rule

SIZES = (20, 60, 200, 400)
RULE = Rule(confidence=0.95, primary="chrf", margin=0.05)  # judges chrF, exact match and content
FEW = 8  # pictures
BASE, ALL = "before", "all"


class Answers:
    """Scores of all models: `lost` and `won` of each pair of them, by picture and family.

    Both are arrays (metrics, models, models, pictures, families); sizes: (pictures, families).
    The last family is all of them. Scores are between 0 and 1.
    """

    def __init__(self, path: Path) -> None:
        table = read_table(path, COMPARE)
        table = table[(table["split"] == "held_out") & table["reference"].notna()]
        experiments = list(dict.fromkeys(table["experiment"]))
        asked = table[table["experiment"] == experiments[0]].set_index("id")
        said = {BASE: asked["before"]} | {
            one: table[table["experiment"] == one].set_index("id")["after"].reindex(asked.index)
            for one in experiments
        }
        self.models = list(said)
        self.families = [*sorted(asked["family"].unique()), ALL]
        self.picture = np.unique(together(asked["image"]), return_inverse=True)[1]
        member = np.stack([asked["family"] == name for name in self.families[:-1]], 1)
        member = np.column_stack([member, np.ones(len(asked), bool)])
        self.sizes = self._by_picture(member)
        scores = [
            [self._scores(name, asked, texts) for texts in said.values()] for name in RULE.judged
        ]
        self.whole = np.array([[set(np.unique(of)) <= {0.0, 1.0} for of in row] for row in scores])
        gains = np.array([[[b - a for b in row] for a in row] for row in scores])
        self.lost, self.won = (
            np.apply_along_axis(
                lambda d, sign=sign: self._by_picture(np.maximum(sign * d, 0)[:, None] * member).ravel(),
                -1, gains,
            ).reshape(*gains.shape[:-1], *self.sizes.shape)
            for sign in (-1, 1)
        )  # fmt: skip

    def interval(self, metric: int, models: list[int]):
        """The interval that statistics.compare takes for a judged metric of some models."""
        return share_interval if self.whole[metric, models].all() else score_interval

    @staticmethod
    def _scores(name: str, asked, texts) -> np.ndarray:
        metric = BY_NAME[name]
        lines = zip(texts, asked["prompt"], asked["reference"], strict=True)
        found = [metric.of({"answer": text, "prompt": ask}, ref) for text, ask, ref in lines]
        return np.array(found, float) / metric.most

    def _by_picture(self, values: np.ndarray) -> np.ndarray:
        summed = np.zeros((self.picture.max() + 1, values.shape[1]))
        np.add.at(summed, self.picture, values)
        return summed


def shuffled(rng, answers: Answers, pool: list[int], size: int, count: int) -> list[np.ndarray]:
    """`count` comparisons without any effect: lost and won (count, size, metrics, models-1, families).

    Each picture's models stand in a random order: the first is before, the others are after.
    """
    pictures = rng.integers(0, len(answers.sizes), (count, size))
    order = np.array(pool)[rng.permuted(np.tile(np.arange(len(pool)), (count, size, 1)), axis=-1)]
    return [
        np.stack(
            [
                table[:, order[..., 0], order[..., role], pictures].transpose(1, 2, 0, 3)
                for role in range(1, len(pool))
            ],
            axis=3,
        )
        for table in (answers.lost, answers.won)
    ] + [answers.sizes[pictures]]


def false_verdicts(
    rng, answers: Answers, pool: list[int], size: int, count: int
) -> tuple[int, int]:
    """How many comparisons without effect have a verdict: in the headline, and anywhere."""
    headline = anywhere = 0
    names = RULE.judged
    for start in range(0, count, 50):
        lost, won, sizes = shuffled(rng, answers, pool, size, min(50, count - start))
        bounds = {}
        for m in range(len(names)):
            bounds[m] = _intervals(answers.interval(m, pool), lost[:, :, m], won[:, :, m], sizes)
        for one in range(len(lost)):
            sums = (won[one] - lost[one]).reshape(size, -1)
            p = exchange_tests(sums)[1].reshape(won.shape[2:])
            wrong = np.zeros(p.shape, bool)
            for m, name in enumerate(names):
                low, high = (edge[one] for edge in bounds[m])
                for e, f in np.argwhere(p[m] < 1 - RULE.confidence):
                    found = {
                        "low": low[e, f],
                        "high": high[e, f],
                        "difference": low[e, f] + high[e, f],
                    }
                    says = RULE.verdict(found, p[m, e, f], BY_NAME[name])
                    wrong[m, e, f] = says in (BETTER, WORSE)
            headline += wrong[0, 0, -1]
            anywhere += wrong.any()
    return headline, anywhere


def _intervals(interval, lost, won, sizes):
    """(count, pictures, experiments, families) and (count, pictures, families) to two edges."""
    sizes = np.broadcast_to(sizes[:, :, None], lost.shape)
    turned = [np.moveaxis(table, 1, -1) for table in (lost, won, sizes)]
    present = turned[2].sum(-1) > 0
    turned[2] = np.where(present[..., None], turned[2], 1)
    return interval(Clusters(*turned), RULE.confidence)


def drifting(rng, answers: Answers, one: int, other: int, size: int, count: int) -> int | None:
    """False verdicts on the primary metric where gains and losses are not symmetric but even out."""
    gains = (answers.won - answers.lost)[0, one, other, :, -1]
    weights = _even(gains)
    if weights is None:
        return None
    wrong = 0
    pictures = rng.choice(len(gains), (count, size), p=weights)
    lost, won = (table[0, one, other, :, -1][pictures] for table in (answers.lost, answers.won))
    low, high = score_interval(Clusters(lost, won, answers.sizes[:, -1][pictures]), RULE.confidence)
    for n in range(count):
        p = exchange_tests((won[n] - lost[n])[:, None])[1][0]
        found = {"low": low[n], "high": high[n], "difference": low[n] + high[n]}
        wrong += RULE.verdict(found, p, BY_NAME["chrf"]) in (BETTER, WORSE)
    return wrong


def _even(gains: np.ndarray) -> np.ndarray | None:
    """Probabilities of pictures, exponential in their gain, under which the mean gain is 0."""
    if gains.min() >= 0 or gains.max() <= 0:
        return None
    low, high = -1e3, 1e3
    for _ in range(200):
        tilt = (low + high) / 2
        weights = np.exp(tilt * gains - (tilt * gains).max())
        low, high = (tilt, high) if weights @ gains < 0 else (low, tilt)
    return weights / weights.sum()


def coverage(rng, answers, metric: int, one: int, other: int, family: int, size: int, count: int):
    """(truth, share of intervals that cover it, their mean width, pictures that carry it)."""
    asked = np.flatnonzero(answers.sizes[:, family])
    lost, won = (table[metric, one, other, asked, family] for table in (answers.lost, answers.won))
    sizes = answers.sizes[asked, family]
    truth = (won - lost).sum() / sizes.sum()
    drawn = rng.integers(0, len(asked), (count, size))
    found = Clusters(lost[drawn], won[drawn], sizes[drawn])
    low, high = answers.interval(metric, [one, other])(found, RULE.confidence)
    covered = (low - 1e-9 <= truth) & (truth <= high + 1e-9)
    residuals = (won - lost - truth * sizes) ** 2
    spread = (residuals**2).mean()
    carried = size * residuals.mean() ** 2 / spread if spread > 1e-20 else 0.0
    return truth, covered.mean(), (high - low).mean(), carried


def intervals(rng, answers: Answers, count: int, all_rows: bool) -> None:
    """Print the coverage of all families, and what that of single ones comes to."""
    print(
        "pictures  metric   models                 family      truth    covered  mean width  carried by"
    )
    singles = {}
    for size in SIZES:
        for one, other in combinations(range(len(answers.models)), 2):
            for metric, name in enumerate(RULE.judged):
                for family, label in enumerate(answers.families):
                    found = coverage(rng, answers, metric, one, other, family, size, count)
                    truth, covered, width, carried = found
                    names = f"{answers.models[one]} -> {answers.models[other]}"
                    if label == ALL or all_rows:
                        print(f"{size:8}  {name:7}  {names:21}  {label:9}  {100 * truth:+6.1f}  "
                              f"{100 * covered:6.1f} %  {100 * width:9.1f}  {carried:8.1f}"
                              f"{'  few' if carried < FEW else ''}", flush=True)  # fmt: skip
                    singles.setdefault((size, name, carried < FEW), []).append(covered)
    print(
        "\nthe same by families and all: rows, how many cover 93 to 97 %, least, median and greatest"
    )
    print("pictures  metric   carried by      rows  93 to 97 %  least  median  greatest")
    for (size, name, few), found in sorted(singles.items(), key=lambda item: (item[0][2], item[0])):
        shares = 100 * np.array(found)
        within = int(((shares >= 93) & (shares <= 97)).sum())
        print(f"{size:8}  {name:7}  {'fewer than' if few else 'at least':10} {FEW:2}  {len(found):4}  {within:10}  "
              f"{shares.min():5.1f}  {np.median(shares):6.1f}  {shares.max():8.1f}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "compare", type=Path, help="compare.csv of a run with two experiments or more"
    )
    parser.add_argument("--comparisons", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", action="store_true", help="show the intervals of all families")
    options = parser.parse_args()
    began, rng, count = time.monotonic(), np.random.default_rng(options.seed), options.comparisons
    answers = Answers(options.compare)
    tuned = list(range(1, len(answers.models)))
    print(f"models: {', '.join(answers.models)}; {int(answers.sizes[:, -1].sum())} questions about "
          f"{len(answers.sizes)} pictures, {len(answers.families) - 1} families; {count} comparisons each")  # fmt: skip
    print("\nwithout any effect: better or worse, in the headline and anywhere on the page")
    print("pictures  experiments  tests  headline  anywhere")
    pools = [tuned[-2:], [0, *tuned]] if len(tuned) > 1 else [[0, *tuned]]
    for size in SIZES:
        for pool in pools:
            tests = (len(pool) - 1) * len(answers.families) * len(RULE.judged)
            found = false_verdicts(rng, answers, pool, size, count)
            print(
                f"{size:8}  {len(pool) - 1:11}  {tests:5}  {found[0]:8}  {found[1]:8}", flush=True
            )
    print("\nwithout any effect, drifting: better or worse by chrF, one test")
    print("pictures  models                 found")
    for size in SIZES:
        for one, other in combinations(tuned, 2):
            found = drifting(rng, answers, one, other, size, count)
            if found is not None:
                names = f"{answers.models[one]} -> {answers.models[other]}"
                print(f"{size:8}  {names:21}  {found:5}", flush=True)
    print("\nwith a known effect: 95 % intervals")
    intervals(rng, answers, count, options.rows)
    print(f"\n{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
