"""A font with Chinese for samples.png, and what is drawn where there is none."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from mindtune.report import fonts, sheet
from mindtune.report.words import Words
from PIL import Image

SCRIPTS = Path(__file__).parents[2] / "scripts"


def make_font(path, family="Some Font", signs=fonts.SAMPLE):
    """A font in which each of these characters is a box of its own size."""
    names = [".notdef", *(f"sign{number}" for number in range(len(signs)))]
    glyphs = {}
    for number, name in enumerate(names):
        pen = TTGlyphPen(None)
        size = 200 + 90 * number
        pen.moveTo((0, 0))
        for corner in ((size, 0), (size, size), (0, size)):
            pen.lineTo(corner)
        pen.closePath()
        glyphs[name] = pen.glyph()
    font = FontBuilder(1000)
    font.setupGlyphOrder(names)
    font.setupCharacterMap({ord(sign): name for sign, name in zip(signs, names[1:], strict=True)})
    font.setupGlyf(glyphs)
    font.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    font.setupHorizontalHeader(ascent=900, descent=-100)
    font.setupNameTable({"familyName": family, "styleName": "Regular"})
    font.setupOS2(sTypoAscender=900)
    font.setupPost()
    path.parent.mkdir(parents=True, exist_ok=True)
    font.save(path)
    return str(path)


@pytest.fixture
def installed(monkeypatch):
    """Only these fonts are installed."""

    def set_to(*paths):
        monkeypatch.setattr(fonts, "findSystemFonts", lambda: list(paths))
        fonts.chinese_font.cache_clear()
        sheet.font.cache_clear()

    yield set_to
    fonts.chinese_font.cache_clear()
    sheet.font.cache_clear()


def test_known_fonts_come_first_and_any_that_draws_chinese_counts(installed, tmp_path):
    latin = make_font(tmp_path / "a.ttf", "Latin", "abcd")
    some = make_font(tmp_path / "b.ttf", "Some Font")
    known = make_font(tmp_path / "c.ttf", "SimHei")
    broken = tmp_path / "d.ttf"
    broken.write_bytes(b"no font")
    installed(latin, str(broken))
    assert fonts.chinese_font() is None
    installed(latin, some)
    assert fonts.chinese_font().family == fonts.chinese_font(bold=True).family == "Some Font"
    installed(latin, some, known)
    assert fonts.chinese_font().family == "SimHei"


def test_a_font_that_was_installed_after_matplotlibs_list_was_cached_is_found(tmp_path):
    homes = {"XDG_DATA_HOME": str(tmp_path / "data"), "MPLCONFIGDIR": str(tmp_path / "mpl")}
    code = (
        "import matplotlib.font_manager\n"
        "from mindtune.report.fonts import installed\n"
        "print([font.family for font in installed() if font.family == 'Newly Installed'])"
    )

    def run():
        result = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True,
            env=os.environ | homes | {"PYTHONPATH": str(SCRIPTS)},
        )  # fmt: skip
        return result.stdout.strip()

    assert run() == "[]" and list((tmp_path / "mpl").glob("fontlist*"))
    make_font(tmp_path / "data/fonts/new.ttf", "Newly Installed")
    assert run() == "['Newly Installed']"


def rows(prompt, reference):
    return pd.DataFrame(
        [{
            "image": "a.png", "image_in_training": False, "prompt": prompt, "reference": reference,
            "before": "before", "after": "after",
        }]
    )  # fmt: skip


def test_where_no_font_has_chinese_the_log_says_so_and_the_sheets_words_are_english(
    installed, tmp_path, caplog
):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    installed()
    english = sheet.draw_sheet(rows("What?", "This."), tmp_path, "baseline", 1)
    assert caplog.text == ""
    chinese = sheet.draw_sheet(rows("What?", "This."), tmp_path, "baseline", 1, Words("zh"))
    assert "no font that is installed has Chinese" in caplog.text
    assert english.tobytes() == chinese.tobytes()
    caplog.clear()
    sheet.draw_sheet(rows("What?", "红色"), tmp_path, "baseline", 1)
    assert "no font that is installed has Chinese" in caplog.text
    caplog.clear()
    installed(make_font(tmp_path / "b.ttf"))
    drawn = sheet.draw_sheet(rows("What?", "This."), tmp_path, "baseline", 1, Words("zh"))
    assert caplog.text == "" and drawn.tobytes() != english.tobytes()


def test_the_reference_stands_on_the_sheet_where_there_is_one(tmp_path):
    with_one = rows("What?", "This.").to_dict("records")[0]
    lines = sheet._lines(with_one, Words("zh"))
    assert [line[:2] for line in lines] == [
        ("", "What?"), ("微调前", "before"), ("微调后", "after"), ("参考", "This."),
    ]  # fmt: skip
    without = with_one | {"reference": float("nan"), "before": ""}
    assert [line[:2] for line in sheet._lines(without, Words("en"))] == [
        ("", "What?"), ("before", "(no answer)"), ("after", "after"),
    ]  # fmt: skip
