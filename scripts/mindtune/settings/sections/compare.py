"""The section `compare`."""

from typing import Annotated

from mindtune.settings.kinds import Number, Text
from mindtune.settings.section import Section, key


class Compare(Section):
    """From answers to tables."""

    confidence: Annotated[float, Number(above=0.5, below=1)] = key(
        0.95,
        "Confidence level of all intervals, in the tables and in the report.",
        "各表与报告中区间的置信水平。",
    )
    primary_metric: Annotated[str | None, Text(maximum=200)] = key(
        None,
        "The metric that decides, of those in metrics.csv; null for none.",
        "起决定作用的指标，取 metrics.csv 中的名称；null 表示不指定。",
    )
    equivalence_margin: Annotated[float, Number(at_least=0, at_most=1)] = key(
        0.05,
        "Difference of a metric up to which two experiments count as equally good.",
        "两个实验的指标相差不超过此值时视为同样好。",
    )
