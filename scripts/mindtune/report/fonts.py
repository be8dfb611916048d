"""A font with Chinese, among those that are installed now.

matplotlib's own list of fonts lies in a cache that it never renews, so that a font which was
installed after it isn't in it; here the fonts' directories are read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from matplotlib.font_manager import findSystemFonts
from PIL import ImageFont

# Those whose characters have the shapes of the mainland first; any other counts too, after them.
KNOWN = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN",
    "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Microsoft YaHei", "SimHei", "PingFang SC",
    "Heiti SC", "Noto Sans CJK JP", "Droid Sans Fallback",
)  # fmt: skip
MOST_FACES = 64  # of a file
SAMPLE = "微调前后"  # a font that lacks them draws one and the same box for each


@dataclass(frozen=True)
class Font:
    """A font within a file of fonts."""

    path: str
    index: int
    family: str
    style: str


@cache
def chinese_font(bold: bool = False) -> Font | None:
    """The first of KNOWN that is installed, or else any that draws Chinese; None for none."""
    fonts = installed()
    by_family = {font.family: font for font in reversed(fonts)}
    known = next((by_family[name] for name in KNOWN if name in by_family), None)
    found = known or next(filter(draws_chinese, fonts), None)
    if found is None:
        return None
    family = [font for font in fonts if font.family == found.family]
    wanted = "Bold" if bold else "Regular"
    return next((font for font in family if font.style == wanted), found)


def installed() -> list[Font]:
    """All fonts in the directories of fonts, by the names of their files."""
    return [font for path in sorted(findSystemFonts()) for font in _fonts_in(path)]


def _fonts_in(path: str) -> Iterator[Font]:
    for index in range(MOST_FACES):
        try:
            family, style = ImageFont.truetype(path, 20, index).getname()
        except OSError:  # no font, or no more of them
            return
        yield Font(path, index, family or "", style or "")


def draws_chinese(font: Font) -> bool:
    try:
        shape = ImageFont.truetype(font.path, 20, font.index)
        return len({bytes(shape.getmask(sign)) for sign in SAMPLE}) == len(SAMPLE)
    except OSError:  # such as a font of bitmaps of one size
        return False
