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
SIDES = ("MindSpeed-MM", "MindSpeed-MM, two threads", "hf engine")
COLORS = ("#0072b2", "#999999", "#d55e00")


def losses(place: Place, mindspeed: framework.Framework, rate: str) -> dict[str, list[float]]:
    """The loss of each iteration by each side, from files when they are there."""
    kept = place.directory / f"losses_{rate}.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    settings = TUTORIAL | {"lr": RATES[rate]}
    found = {}
    for side, threads in zip(SIDES, (1, 2), strict=False):
        out = place.directory / f"framework_{rate}_{threads}"
        lines = place.train_by_framework(mindspeed, out, settings, threads=threads)
        found[side] = [line.loss for line in lines]
    rows = place.train_by_hf(place.directory / f"hf_{rate}", settings, "bf16")
    found[SIDES[2]] = [float(row["loss"]) for row in rows]
    kept.write_text(json.dumps(found))
    return found


def apart(one: Sequence[float], other: Sequence[float]) -> list[float]:
    """Relative differences in percent."""
    return [100 * abs(b / a - 1) for a, b in zip(one, other, strict=True)]


def describe(rate: str, found: dict[str, list[float]]) -> str:
    reference = found[SIDES[0]]
    lines = [f"lr {rate}: loss {reference[0]:.4f} at iteration 1, {reference[-1]:.4f} at 100"]
    for side in SIDES[1:]:
        differences = apart(reference, found[side])
        worst = max(range(len(differences)), key=differences.__getitem__)
        mean = sum(differences) / len(differences)
        lines.append(
            f"  {side}: at most {differences[worst]:.3f} % from MindSpeed-MM (iteration "
            f"{worst + 1}), {mean:.3f} % on average"
        )
    return "\n".join(lines)


def plot(everything: dict[str, dict[str, list[float]]], out: Path) -> None:
    """Curves above, their differences below; a column for each learning rate."""
    matplotlib.rcParams.update({"svg.hashsalt": "parity", "font.size": 9, "svg.fonttype": "none"})
    figure, axes = pyplot.subplots(
        2, len(everything), figsize=(8, 4.6), sharex=True, height_ratios=(3, 2), squeeze=False
    )
    for column, (rate, found) in enumerate(everything.items()):
        above, below = axes[:, column]
        iterations = range(1, len(found[SIDES[0]]) + 1)
        above.plot(iterations, found[SIDES[0]], color=COLORS[0], lw=2.5, label=SIDES[0])
        above.plot(iterations, found[SIDES[2]], color=COLORS[2], lw=1, ls="--", label=SIDES[2])
        above.set(title=f"learning rate {rate}", ylim=(0, None))
        for side, color in zip(SIDES[1:], COLORS[1:], strict=True):
            below.plot(
                iterations, apart(found[SIDES[0]], found[side]), color=color, lw=1, label=side
            )
        below.axhline(1, color="black", lw=0.5, ls=":")
        below.set(xlabel="iteration", ylim=(0, 1.3))
    axes[0, 0].set_ylabel("loss")
    axes[1, 0].set_ylabel("% from MindSpeed-MM")
    axes[0, 0].legend(frameon=False)
    axes[1, 0].legend(frameon=False, fontsize=7)
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
