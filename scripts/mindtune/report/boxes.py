"""Boxes in answers, as Qwen2-VL writes them: in thousandths of width and height."""

import re
import unicodedata

from mindtune.comparison.text import BOX


def boxes(text: str) -> list[tuple[int, int, int, int]]:
    """(left, top, right, bottom) of each box in a text that lies within the picture."""
    found = []
    for match in BOX.finditer(unicodedata.normalize("NFKC", text)):
        x0, y0, x1, y1 = map(int, re.findall(r"\d+", match.group()))
        if x0 < x1 <= 1000 and y0 < y1 <= 1000:
            found.append((x0, y0, x1, y1))
    return found
