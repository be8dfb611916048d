"""Imports go down only; the order is that of docs/contributing.md."""

import re
from pathlib import Path

import mindtune
import pytest
from mindtune.glue.sourcecode import imports

PACKAGE = Path(mindtune.__file__).parent
PAGE = PACKAGE.parents[1] / "docs/contributing.md"


def layers():
    text = PAGE.read_text(encoding="utf-8").partition("from top to bottom:")[2]
    return re.findall(r"`(\w+)`", text.partition("last the modules")[0])


def room(path):
    within = path.relative_to(PACKAGE).parts
    return within[0] if len(within) > 1 else None


def test_the_page_names_every_room_that_others_import():
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(layers()) == rooms - {"demo", "download", "trackers"}


@pytest.mark.parametrize("upper", layers())
def test_imports_go_down_only(upper):
    above = {"glue", *layers()[: layers().index(upper)]} - {upper}
    files = [path for path in PACKAGE.rglob("*.py") if room(path) == upper]
    assert files
    for path in files:
        back = [str(found) for found in imports(path) if room(found) in above]
        assert not back, f"{path} imports {back}"
