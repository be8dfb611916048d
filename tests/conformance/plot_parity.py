"""Make docs/images/parity.svg, and print the figures of docs/parity.md.

    python tests/conformance/plot_parity.py docs/images/parity.svg [DIRECTORY]

Trains the demo's base model with the tutorial's settings, 100 iterations of 24 samples in bfloat16, at
two learning rates: by the real MindSpeed-MM on the CPU stand-in, by it once more with sums in another
order (two threads instead of one), and by our `hf` engine. About fifteen minutes on two cores.
DIRECTORY keeps what was made, and is used again.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(Path(__file__).parent)]

import framework  # noqa: E402
import matplotlib  # noqa: E402
from matplotlib import pyplot  # noqa: E402
from mindtune.files import writing  # noqa: E402
from place import TUTORIAL, Place  # noqa: E402

RATES = {"1e-5": 1e-5, "1e-3": 1e-3}
SIDES = ("MindSpeed-MM", "hf engine")
COLORS = ("#0072b2", "#d55e00")


def losses(place: Place, mindspeed: framework.Framework, rate: str) -> dict[str, list[float]]:
    """The loss of each iteration by each side, from files when they are there."""
    kept = place.directory / f"losses_{rate}.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    settings = TUTORIAL | {"lr": RATES[rate]}
    theirs = place.train_by_framework(mindspeed, place.directory / f"framework_{rate}", settings)
    ours = place.train_by_hf(place.directory / f"hf_{rate}", settings, "bf16")
    found = {
        "MindSpeed-MM": [line.loss for line in theirs],
        "hf engine": [float(row["loss"]) for row in ours],
    }
    kept.write_text(json.dumps(found))
    return found


def apart(one: Sequence[float], other: Sequence[float]) -> list[float]:
    """Relative differences in percent."""
    return [100 * abs(b / a - 1) for a, b in zip(one, other, strict=True)]


def describe(rate: str, found: dict[str, list[float]]) -> str:
    theirs = found["MindSpeed-MM"]
    differences = apart(theirs, found["hf engine"])
    worst = max(range(len(differences)), key=differences.__getitem__)
    return (
        f"lr {rate}: loss {theirs[0]:.4f} at iteration 1, {theirs[-1]:.4f} at {len(theirs)}; the hf "
        f"engine differs by {differences[worst]:.3f} % at most (iteration {worst + 1}), by "
        f"{sum(differences) / len(differences):.3f} % on average"
    )


def plot(everything: dict[str, dict[str, list[float]]], out: Path) -> None:
    """Curves above, their differences below; a column for each learning rate."""
    matplotlib.rcParams.update({"svg.hashsalt": "parity", "font.size": 9, "svg.fonttype": "none"})
    figure, axes = pyplot.subplots(
        2, len(everything), figsize=(8, 4.6), sharex=True, height_ratios=(3, 2), squeeze=False
    )
    for column, (rate, found) in enumerate(everything.items()):
        above, below = axes[:, column]
        iterations = range(1, len(found["hf engine"]) + 1)
        for name, color, style in zip(SIDES, COLORS, ("-", "--"), strict=True):
            above.plot(iterations, found[name], style, color=color, label=name)
        above.set(title=f"learning rate {rate}", ylim=(0, None))
        below.plot(iterations, apart(*(found[name] for name in SIDES)), color=COLORS[1])
        below.axhline(1, color="black", lw=0.5, ls=":")
        below.set(xlabel="iteration", ylim=(0, 1.3))
    axes[0, 0].set_ylabel("loss")
    axes[1, 0].set_ylabel("difference, %")
    axes[0, 0].legend(frameon=False)
    figure.tight_layout()
    with writing(out, "wb") as handle:
        figure.savefig(handle, format="svg", metadata={"Date": None, "Creator": None})


def main() -> None:
    out = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(sys.argv[2] if len(sys.argv) > 2 else temporary)
        directory.mkdir(exist_ok=True)
        place = (
            Place(directory) if (directory / "train.json").is_file() else Place.made_in(directory)
        )
        mindspeed = framework.Framework.copied_to(directory / "MindSpeed-MM")
        everything = {rate: losses(place, mindspeed, rate) for rate in RATES}
    plot(everything, out)
    print("\n".join(describe(rate, found) for rate, found in everything.items()))


if __name__ == "__main__":
    main()
