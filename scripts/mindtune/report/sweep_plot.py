"""A score against each number that a sweep varies, as SVG for a page's light and dark."""

import io
import statistics
from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import cycle

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from mindtune.comparison.metrics import Metric
from mindtune.report.curves import _STAND_INS, _VARIABLES, STYLE
from mindtune.report.sweep import Point, wants_logarithm
from mindtune.report.words import ENGLISH, Words

MOST = 6  # parameters that are drawn
LABELLED = 8  # values that have a mark of their own at the axis
LINES = 6  # combinations of the other settings that have a line of their own


def sweep_svg(
    points: Mapping[str, Sequence[Point]],
    metric: Metric,
    words: Words = ENGLISH,
    *,
    wide: bool = True,
) -> str:
    """A plot for each parameter (MOST of them): a dot for each training, and means."""
    shown = dict(list(points.items())[:MOST])
    palette = _STAND_INS
    colors = {
        "text.color": palette.ink, "axes.labelcolor": palette.muted,
        "axes.edgecolor": palette.grid, "xtick.color": palette.muted,
        "ytick.color": palette.muted, "grid.color": palette.grid,
    }  # fmt: skip
    columns = min(len(shown), 2) if wide else 1
    lines = -(-len(shown) // columns)
    with mpl.rc_context(STYLE | colors):
        figure = Figure(figsize=(10.4 if wide else 4.6, 3.6 * lines), layout="constrained")
        figure.patch.set_alpha(0)
        for number, (key, members) in enumerate(shown.items()):
            axes = figure.add_subplot(lines, columns, number + 1)
            axes.patch.set_alpha(0)
            _draw(axes, key, members, metric, words)
        text = io.StringIO()
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": "mindtune"})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    for stand_in, variable in _VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    return svg


def _draw(axes: Axes, key: str, points: Sequence[Point], metric: Metric, words: Words) -> None:
    scale = 100 if metric.in_percent else 1
    series: dict[tuple, list[Point]] = {}
    for point in points:
        series.setdefault(point.others, []).append(point)
    if len(series) > LINES:
        series = {(): list(points)}
    for color, (others, members) in zip(cycle(_STAND_INS.series), series.items(), strict=False):
        scored = [point for point in members if point.value is not None]
        axes.plot(
            [point.at for point in scored], [scale * point.value for point in scored],
            "o", color=color, markersize=5, alpha=0.6,
        )  # fmt: skip
        means = _means(scored)
        label = (
            ", ".join(f"{name} = {value}" for name, value in others) if len(series) > 1 else None
        )
        axes.plot(list(means), [scale * mean for mean in means.values()], color=color, label=label)
    lost = [point.at for point in points if point.value is None]
    if lost:
        axes.plot(
            lost, [0.03] * len(lost), "x", transform=axes.get_xaxis_transform(),
            color=_STAND_INS.ink, label=words("sweep.diverged_one"), linestyle="none",
        )  # fmt: skip
    places = sorted({point.at for point in points})
    if wants_logarithm(places):
        axes.set_xscale("log")
    if len(places) <= LABELLED:
        axes.set_xticks(places, [number_word(place) for place in places])
        axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.08)
    title = words(f"metric.{metric.name}")
    axes.set_title(f"{title}, %" if metric.in_percent else title)
    axes.set_xlabel(key)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=9)


def _means(points: Sequence[Point]) -> dict[float, float]:
    """Place -> the mean of the values there, in order."""
    at: dict[float, list[float]] = {}
    for point in sorted(points, key=lambda point: point.at):
        at.setdefault(point.at, []).append(point.value)
    return {place: statistics.fmean(values) for place, values in at.items()}


def number_word(value: float) -> str:
    """A number as the names of a grid's experiments have it: `1e-5` and not `1e-05`."""
    number = Decimal(repr(value)).normalize()
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{number:E}".lower().replace("+", "")
    return f"{number:f}"
