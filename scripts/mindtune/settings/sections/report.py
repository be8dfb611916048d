"""The section `report`."""

from typing import Annotated, Literal

from mindtune.settings.kinds import Choice
from mindtune.settings.section import Section, key


class Report(Section):
    """What only the words of a report depend on, and no number in it."""

    language: Annotated[Literal["en", "zh"], Choice()] = key(
        "en",
        "The language of report.html, samples.png and loss.svg: `en`, English, or `zh`, Chinese. The "
        "tables (csv) stay English.",
        "report.html、samples.png 和 loss.svg 所用的语言：`en` 为英文，`zh` 为中文。csv 表格仍为英文。",
        later=True,
    )
