"""Curves of a training, as SVG: for a file of their own, or for a page's light and dark."""

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, product

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from mindtune.report.words import ENGLISH, Words

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mindtune",
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}
SMOOTHED_OVER = 15
DASHES = ("-", "--", ":", "-.")  # for more experiments than there are colours
LINE = 0.24  # inches that a line of the legend takes
LONGEST_NAME = 28  # characters of a name in the legend


@dataclass(frozen=True)
class Palette:
    ink: str
    muted: str
    grid: str
    series: tuple[str, ...]


PAPER = Palette(
    "#1d2430", "#5a6472", "#dfe3e8",
    ("#1d5fa8", "#a8471a", "#0b6e4f", "#7a3e9d", "#8a6a00", "#a3265a"),
)  # fmt: skip
# Colours that stand for a page's own: matplotlib wants numbers, a page has variables.
_STAND_INS = Palette(
    "#010203", "#010204", "#010205", tuple(f"#01021{number}" for number in range(6))
)
_VARIABLES = {
    _STAND_INS.ink: "var(--ink)",
    _STAND_INS.muted: "var(--muted)",
    _STAND_INS.grid: "var(--line)",
    **{color: f"var(--series-{n + 1})" for n, color in enumerate(_STAND_INS.series)},
}


def training_svg(
    losses: Mapping[str, pd.DataFrame],
    words: Words = ENGLISH,
    *,
    wide: bool = True,
    for_page: bool = False,
) -> str:
    """Loss (with the held-out loss), learning rate and time per step of some experiments."""
    palette = _STAND_INS if for_page else PAPER
    colors = {
        "text.color": palette.ink, "axes.labelcolor": palette.muted,
        "axes.edgecolor": palette.grid, "xtick.color": palette.muted,
        "ytick.color": palette.muted, "grid.color": palette.grid,
    }  # fmt: skip
    with mpl.rc_context(STYLE | colors):
        figure = Figure(figsize=_size(len(losses), wide), layout="constrained")
        figure.patch.set_alpha(0)
        if wide:
            grid = figure.add_gridspec(2, 2, width_ratios=(3, 2))
            places = [grid[:, 0], grid[0, 1], grid[1, 1]]
        else:
            grid = figure.add_gridspec(3, 1, height_ratios=(2, 1, 1))
            places = [grid[0], grid[1], grid[2]]
        axes = [figure.add_subplot(place) for place in places]
        for axis in axes:
            axis.patch.set_alpha(0)
        with warnings.catch_warnings():
            # A viewer draws the text; matplotlib's own fonts, without Chinese, only measure it.
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            _draw(axes, losses, palette, words)
            _legend(axes[0], wide)
            text = io.StringIO()
            FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": "mindtune"})
    svg = text.getvalue()
    if for_page:
        svg = svg[svg.index("<svg") :]
        for stand_in, variable in _VARIABLES.items():
            svg = svg.replace(stand_in, variable)
    return svg


def _size(experiments: int, wide: bool) -> tuple[float, float]:
    """In inches, with space for the legend's lines."""
    lines = 2 if experiments == 1 else experiments
    return (10.4, max(4.6, LINE * lines + 0.6)) if wide else (4.6, 9.0 + LINE * lines)


def _legend(loss: Axes, wide: bool) -> None:
    """Beside the curves, or below them where they are as wide as the page; never on them."""
    where = {"loc": "upper left", "bbox_to_anchor": (1, 1)}
    if not wide:
        where = {"loc": "upper left", "bbox_to_anchor": (0, -0.15)}
    loss.legend(**where, borderaxespad=0)


def _draw(
    axes: Sequence[Axes], losses: Mapping[str, pd.DataFrame], palette: Palette, words: Words
) -> None:
    loss, rate, time = axes
    alone = len(losses) == 1
    styles = cycle(product(DASHES, palette.series))
    for (dash, color), (name, rows) in zip(styles, losses.items(), strict=False):
        steps = rows["iteration"]
        loss.plot(steps, rows["loss"], color=color, alpha=0.25, linewidth=1)
        window = max(1, len(rows) // SMOOTHED_OVER)
        smooth = rows["loss"].rolling(window, center=True, min_periods=1).mean()
        loss.plot(
            steps,
            smooth,
            color=color,
            linestyle=dash,
            label=words("curves.training") if alone else _short(name),
        )
        seen = rows[rows["held_out_loss"].notna()]
        if len(seen):
            loss.plot(
                seen["iteration"], seen["held_out_loss"], "o", markersize=5,
                color=palette.series[1] if alone else color,
                label=words("curves.held_out") if alone else None,
            )  # fmt: skip
        rate.plot(steps, rows["lr"], color=color, linestyle=dash)
        time.plot(steps, rows["ms_per_iteration"] / 1000, color=color, linewidth=1)
    low = min(rows["loss"].min() for rows in losses.values())
    high = max(rows["loss"].max() for rows in losses.values())
    if low > 0 and high / low > 20:
        loss.set_yscale("log")
        loss.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        loss.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        loss.yaxis.set_minor_formatter(NullFormatter())
    loss.set_title(words("curves.loss" if alone else "curves.loss_dots"))
    loss.set_xlabel(words("curves.iteration"))
    rate.set_title(words("curves.rate"))
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    time.set_title(words("curves.seconds"))
    time.set_ylim(bottom=0)
    time.set_xlabel(words("curves.iteration"))


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
