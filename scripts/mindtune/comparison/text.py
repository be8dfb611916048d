"""What can be seen in an answer by itself: words, boxes, repetitions, in English and Chinese."""

import re
import unicodedata
from collections.abc import Sequence

HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]")
_CJK_SPACE = re.compile(rf"(?<={HAN.pattern})\s+(?={HAN.pattern})")
_END_MARKS = " .!?…。！？"
# (139,42),(703,771): what models say of where something is, its special tokens left out.
BOX = re.compile(r"\(\s*\d{1,4}\s*,\s*\d{1,4}\s*\)\s*,\s*\(\s*\d{1,4}\s*,\s*\d{1,4}\s*\)")
_LETTER = rf"(?:(?!{HAN.pattern})[^\W_])"
_TOKEN = re.compile(rf"{HAN.pattern}|{_LETTER}+(?:['’-]{_LETTER}+)*")
LONGEST_REPEATED, TIMES_REPEATED = 4, 3


def tidy(text: str) -> str:
    """Unicode composed, white space folded, ends stripped."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def normalize(text: str) -> str:
    """What exact match compares.

    Beside `tidy`: full-width forms as their plain ones, no case, no space between Chinese
    characters, no full stop or question mark at the end.
    """
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return _CJK_SPACE.sub("", folded).rstrip(_END_MARKS)


def exact(answer: str, reference: str | None) -> bool | None:
    """Whether an answer is the reference, None when there is no reference."""
    return None if reference is None else normalize(answer) == normalize(reference)


def language(*texts: str | None) -> str:
    """`zh` when any of the texts has a Chinese character, else `en`."""
    return "zh" if any(text and HAN.search(text) for text in texts) else "en"


def words(text: str) -> list[str]:
    """Words in lower case; every Chinese character is one."""
    return _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())


def folded(text: str) -> str:
    """Full-width forms as their plain ones, no case."""
    return unicodedata.normalize("NFKC", text).casefold()


def has_box(text: str) -> bool:
    """Whether there is a box such as `(139,42),(703,771)`."""
    return BOX.search(unicodedata.normalize("NFKC", text)) is not None


def boxes(text: str) -> list[tuple[int, int, int, int]]:
    """(left, top, right, bottom) of each box in a text that lies within the picture.

    In thousandths of width and height, as models write them.
    """
    found = []
    for match in BOX.finditer(unicodedata.normalize("NFKC", text)):
        x0, y0, x1, y1 = map(int, re.findall(r"\d+", match.group()))
        if x0 < x1 <= 1000 and y0 < y1 <= 1000:
            found.append((x0, y0, x1, y1))
    return found


def is_repetitive(text: str) -> bool:
    """Whether some words come three times or more in a row: `a bus a bus a bus`."""
    found: Sequence[str] = words(text)
    for size in range(1, LONGEST_REPEATED + 1):
        run = 0
        for position in range(size, len(found)):
            run = run + 1 if found[position] == found[position - size] else 0
            if run >= size * (TIMES_REPEATED - 1):
                return True
    return False
