"""samples.png: some pictures with the answers before and after under them, to be seen at once."""

import logging
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pandas as pd
from matplotlib.font_manager import FontProperties, findfont
from PIL import Image, ImageDraw, ImageFont, ImageOps

from mindtune.comparison.answers import pictures_in, was_seen
from mindtune.comparison.text import HAN, boxes
from mindtune.data.opening import read_picture
from mindtune.models.box_text import corners
from mindtune.report.fonts import chinese_font
from mindtune.report.words import ENGLISH, Words

log = logging.getLogger(__name__)

COLUMNS, WIDTH, PICTURE, GAP, MARGIN = 3, 480, 363, 28, 40
PAPER, CARD, INK, MUTED, LINE = "#fbfaf7", "#ffffff", "#1d2430", "#566070", "#dcdfe4"
BEFORE, AFTER, FRAME = "#a8471a", "#1d5fa8", "#ff9d5c"
TITLE, QUESTION, SMALL = 30, 19, 17
MOST_LINES = 3
INDENT = 104  # of what stands beside a label
GUTTER = 6  # between several pictures of a card


def choose(compared: pd.DataFrame, count: int) -> pd.DataFrame:
    """The first prompt, and others at equal distances: nobody picked them."""
    if len(compared) <= count:
        return compared
    places = [0] + [1 + round(i * (len(compared) - 2) / (count - 2)) for i in range(count - 1)]
    return compared.iloc[places]


def draw_sheet(
    rows: pd.DataFrame, images: Path, experiment: str, others: int, words: Words = ENGLISH
) -> Image.Image:
    """A sheet of cards, three in a row. others: answers of the experiment beside the first.

    Its own words are English where no font that is installed has Chinese.
    """
    columns = ("prompt", "before", "after", "reference")
    texts = " ".join(text for column in columns for text in rows[column].dropna())
    chinese = bool(HAN.search(texts)) or words.language == "zh"
    if chinese and not chinese_font():
        log.warning(
            "no font that is installed has Chinese, which shows as boxes in samples.png; install "
            "one (such as fonts-noto-cjk), delete results/samples.png, and run again"
        )
        words = ENGLISH
    title = words("sheet.title")
    note = words("sheet.note", experiment=experiment, n=len(rows) - 1, others=others)
    cards = [_card(row, images, chinese, words) for row in rows.to_dict("records")]
    lines = [cards[start : start + COLUMNS] for start in range(0, len(cards), COLUMNS)]
    heights = [max(card.height for card in line) for line in lines]
    head = MARGIN + TITLE + 14 + SMALL + GAP
    size = (
        2 * MARGIN + COLUMNS * WIDTH + (COLUMNS - 1) * GAP,
        head + sum(heights) + GAP * (len(lines) - 1) + MARGIN,
    )
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN - 6), title, INK, font(TITLE, chinese, bold=True))
    pen.text((MARGIN, MARGIN + TITLE + 8), note, MUTED, font(SMALL, chinese))
    top = head
    for line, height in zip(lines, heights, strict=True):
        for number, card in enumerate(line):
            left = MARGIN + number * (WIDTH + GAP)
            edge = (left, top, left + WIDTH, top + height)
            pen.rounded_rectangle(edge, 12, CARD)
            sheet.paste(card, (left + 1, top + 1))
            pen.rounded_rectangle(edge, 12, outline=LINE)
        top += height + GAP
    return sheet


def _card(row: dict, images: Path, chinese: bool, words: Words) -> Image.Image:
    card = Image.new("RGB", (WIDTH - 2, 4 * PICTURE), CARD)
    pen = ImageDraw.Draw(card)
    names = pictures_in(row["image"])
    across = math.isqrt(len(names) - 1) + 1
    down = -(-len(names) // across)
    step = ((WIDTH - 26 + GUTTER) // across, (PICTURE + GUTTER) // down)
    space = (step[0] - GUTTER, step[1] - GUTTER)
    for place, name in enumerate(names):
        # An answer about several pictures doesn't say in which its boxes are.
        framed = _framed(images / name, row["before"] if len(names) == 1 else "")
        fitted = ImageOps.pad(framed, space, Image.Resampling.LANCZOS, color="#e9ebee")
        card.paste(fitted, (12 + place % across * step[0], 12 + place // across * step[1]))
    y = PICTURE + 24
    for label, text, color, size in _lines(row, words):
        indent = INDENT if label else 0
        pen.text((16, y), label, color, font(SMALL, chinese, bold=True))
        plain = font(size, chinese, bold=not label)
        for line in wrap(text, plain, WIDTH - 34 - indent):
            pen.text((16 + indent, y), line, INK, plain)
            y += round(size * 1.35)
        y += 8
    return card.crop((0, 0, card.width, y + 6))


def _lines(row: dict, words: Words) -> list[tuple[str, str, str, int]]:
    """What stands below a picture: label, text, the label's colour, and the text's size."""
    none, seen = words("script.no_answer"), words("sheet.seen")
    lines = [
        ("", row["prompt"] + (seen if was_seen(row["image_in_training"]) else ""), INK, QUESTION),
        (words("sheet.before"), row["before"] or none, BEFORE, SMALL),
        (words("sheet.after"), row["after"] or none, AFTER, SMALL),
    ]
    if not pd.isna(row["reference"]):
        lines.append((words("sheet.reference"), row["reference"], MUTED, SMALL))
    return lines


def _framed(path: Path, answer: str) -> Image.Image:
    """A picture with a frame around each box of an answer."""
    whole = read_picture(path)
    frames = ImageDraw.Draw(whole)
    for box in boxes(answer):
        frames.rectangle(corners(box, whole.size), outline=FRAME, width=whole.width // 130)
    return whole


def wrap(text: str, shape: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines not wider than `width`, at most MOST_LINES; words that are too long are cut."""
    lines, line = [], ""
    for part in _parts(" ".join(text.split())):
        if not line or shape.getlength((line + part).rstrip()) <= width:
            line += part
        else:
            lines.append(line.rstrip())
            line = part.lstrip()
        while shape.getlength(line.rstrip()) > width:
            fits = max(
                n for n in range(1, len(line)) if n == 1 or shape.getlength(line[:n]) <= width
            )
            lines.append(line[:fits])
            line = line[fits:]
    lines.append(line.rstrip())
    if len(lines) > MOST_LINES:
        last = lines[MOST_LINES - 1]
        while last and shape.getlength(last + " …") > width:
            last = last[:-1]
        lines = [*lines[: MOST_LINES - 1], last + " …"]
    return lines


def _parts(text: str) -> Sequence[str]:
    """Where a line may be broken: after spaces, and around Chinese characters."""
    parts, part = [], ""
    for sign in text:
        if HAN.match(sign):
            parts += [part, sign] if part else [sign]
            part = ""
        else:
            part += sign
            if sign == " ":
                parts.append(part)
                part = ""
    return [*parts, part] if part else parts


@cache
def font(size: int, chinese: bool = False, bold: bool = False) -> ImageFont.FreeTypeFont:
    """matplotlib's own DejaVu Sans; for Chinese a font that is installed, where there is one."""
    found = chinese_font(bold) if chinese else None
    if found:
        return ImageFont.truetype(found.path, size, found.index)
    weight = "bold" if bold else "normal"
    return ImageFont.truetype(findfont(FontProperties(family="DejaVu Sans", weight=weight)), size)
