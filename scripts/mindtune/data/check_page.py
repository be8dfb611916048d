"""The data report: one page with everything on it, that needs no other file and no network."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from PIL import Image, ImageOps

from mindtune.data.check import Seen
from mindtune.data.headers import ALTERED
from mindtune.data.opening import read_picture

TILE, COLUMNS, SHOWN, BARS = 112, 8, 32, 40
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; } td { padding: .15rem 1rem .15rem 0; vertical-align: top; }
td + td { font-variant-numeric: tabular-nums; } .bad { color: #b3261e; font-weight: 600; }
img { max-width: 100%; border-radius: 4px; } svg { width: 100%; height: auto; }
figure { margin: 0; display: inline-block; width: 49%; } figcaption { color: #555; }
@media (prefers-color-scheme: dark) { body { background: #16181c; color: #e6e6e6; }
  figcaption { color: #aaa; } .bad { color: #ff8a80; } svg text { fill: #aaa; } }
"""


def page(summary: Mapping, seen: Mapping[str, Seen], sheet: str) -> str:
    """The page as HTML. sheet: the contact sheet, as a data address."""
    sound = [picture for picture in seen.values() if picture.fault is None]
    tokens = [int(n) for n, count in summary["lengths"].items() for _ in range(count)]
    charts = [
        histogram([p.width for p in sound], "width in pixels"),
        histogram([p.height for p in sound], "height in pixels"),
        histogram(tokens, "tokens of a conversation", line=summary["seq_length"]),
        histogram([int(n) for n, c in summary["turns"].items() for _ in range(c)], "turns"),
    ]
    lists = [
        ("Pictures that can't be used", [f"{f['image']}: {f['why']}" for f in summary["first_faults"]]),
        ("The same picture in both parts", map(", ".join, summary["first_duplicates_across_parts"])),
        ("The same picture under several names", map(", ".join, summary["first_duplicates"])),
        *(
            (f"Pictures of which the model sees something else: {ALTERED[key]}", found["first"])
            for key, found in summary["altered"].items()
        ),
    ]  # fmt: skip
    return "\n".join(
        [
            "<!doctype html><html lang='en'><meta charset='utf-8'>",
            "<meta name='viewport' content='width=device-width'>",
            f"<title>Data report</title><style>{STYLE}</style><h1>Data report</h1>",
            f"<p>{escape(verdict(summary))}</p>",
            f"<table>{''.join(map(_row, facts(summary)))}</table>",
            f"<h2>A sample</h2><img alt='A sample of the pictures' src='{sheet}'>" if sheet else "",
            "<h2>Distributions</h2>",
            *charts,
            *(_list(title, list(items)) for title, items in lists),
            "</html>\n",
        ]
    )


def verdict(summary: Mapping) -> str:
    """The report in one sentence."""
    found = summary["problems"]
    return f"{'; '.join(found)}." if found else "Nothing is wrong with the data."


def facts(summary: Mapping) -> list[tuple[str, object, bool]]:
    """(what, how many, whether that is bad)."""
    sizes = [
        f"{kind} {span['smallest']} … {span['median']} … {span['largest']}"
        for kind, span in summary["sizes"].items()
        if span
    ]
    tokens = summary["tokens"]
    return [
        ("form of the instructions", ", ".join(summary["forms"]), False),
        *((f"records, {part}", count, not count) for part, count in summary["records"].items()),
        ("pictures", summary["pictures"], False),
        ("that can't be used", summary["faults"], bool(summary["faults"])),
        ("sizes (smallest … median … largest)", ", ".join(sizes), False),
        ("modes", ", ".join(f"{mode} {n}" for mode, n in summary["modes"].items()), False),
        *((f"of which {ALTERED[key]}", found["count"], True) for key, found in summary["altered"].items()),
        ("duplicates, by content", summary["duplicates"], False),
        ("of them in both parts", summary["duplicates_across_parts"],
         summary["duplicates_across_parts"]),
        ("tokens (smallest … median … largest)",
         f"{tokens['smallest']} … {tokens['median']} … {tokens['largest']}" if tokens else "", False),
        (f"conversations cut at {summary['seq_length']} tokens", summary["cut"], summary["cut"]),
    ]  # fmt: skip


def _row(fact: tuple[str, object, bool]) -> str:
    what, value, bad = fact
    return f"<tr><td>{escape(what)}<td{' class=bad' if bad else ''}>{escape(str(value))}"


def _list(title: str, items: Sequence[str]) -> str:
    if not items:
        return ""
    return f"<h2>{escape(title)}</h2><ul>{''.join(f'<li>{escape(item)}' for item in items)}</ul>"


def histogram(values: Sequence[int], title: str, line: int | None = None) -> str:
    """A histogram as SVG, with a line where a limit is."""
    if not values:
        return ""
    low, high = min(values), max(*values, line or 0)
    step = max(1, math.ceil((high - low + 1) / BARS))
    counts = [0] * (math.ceil((high - low + 1) / step))
    for value in values:
        counts[(value - low) // step] += 1
    tallest, width = max(counts), 400 / len(counts)
    bars = "".join(
        f"<rect x='{place * width:.1f}' y='{150 - 140 * count / tallest:.1f}' "
        f"width='{max(width - 1, 0.5):.1f}' height='{140 * count / tallest:.1f}' fill='#4f7cac'>"
        f"<title>{low + place * step}–{low + (place + 1) * step - 1}: {count}</title></rect>"
        for place, count in enumerate(counts)
        if count
    )
    if line is not None:
        at = (line - low) / step * width
        bars += f"<path d='M{at:.1f} 5V150' stroke='#b3261e' stroke-dasharray='4 3'/>"
    return (
        f"<figure><svg viewBox='0 0 400 170' role='img' aria-label='{escape(title)}'>{bars}"
        f"<text x='0' y='166' font-size='11'>{low}</text>"
        f"<text x='400' y='166' font-size='11' text-anchor='end'>{high}</text></svg>"
        f"<figcaption>{escape(title)}</figcaption></figure>"
    )


def contact_sheet(images: Path, seen: Mapping[str, Seen]) -> str:
    """A sample of the pictures, evenly taken, on one sheet; empty when there is none."""
    sound = sorted(name for name, picture in seen.items() if picture.fault is None)
    chosen = sound[:: max(1, len(sound) // SHOWN)][:SHOWN]
    if not chosen:
        return ""
    rows = math.ceil(len(chosen) / COLUMNS)
    sheet = Image.new("RGB", (min(COLUMNS, len(chosen)) * TILE, rows * TILE), "white")
    for place, name in enumerate(chosen):
        tile = ImageOps.fit(read_picture(images / name), (TILE - 4, TILE - 4))
        sheet.paste(tile, (place % COLUMNS * TILE + 2, place // COLUMNS * TILE + 2))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
