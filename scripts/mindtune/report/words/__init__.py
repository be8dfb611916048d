"""All words of report.html, samples.png and loss.svg: a table for each language, with equal keys.

A text may name values in braces, as `str.format` fills them in. Keys that begin with `script.` are
those of the page's script, which fills in values itself; a text whose key ends with `_html` is
markup, into which values come escaped.
"""

from markupsafe import Markup

from mindtune.report.words.en import WORDS as EN
from mindtune.report.words.zh import WORDS as ZH

TABLES = {"en": EN, "zh": ZH}


class Words:
    """The words of one language: `words("count", n=3)`."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._texts = TABLES[language]

    def __call__(self, key: str, **values: object) -> str:
        text = self._texts[key]
        if key.endswith("_html"):
            return Markup(text).format(**values)  # noqa: S704
        return text.format(**values)

    def of(self, group: str, value: str) -> str:
        """The word for a value of a column, or the value itself where it is the user's own."""
        return self._texts.get(f"{group}.{value}", value)

    def group(self, name: str) -> dict[str, str]:
        """The texts whose keys begin with `name.`, by the rest of their keys."""
        start = f"{name}."
        return {
            key.removeprefix(start): text
            for key, text in self._texts.items()
            if key.startswith(start)
        }


ENGLISH = Words("en")
