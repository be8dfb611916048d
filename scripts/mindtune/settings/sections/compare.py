"""The section `compare`."""

from typing import Annotated, Literal

from mindtune.settings.kinds import Choice, Choices, Number
from mindtune.settings.section import Section, key


class Compare(Section):
    """From answers to tables."""

    confidence: Annotated[float, Number(above=0.5, below=1)] = key(
        0.95,
        "Confidence level of all intervals, in the tables and in the report.",
        "各表与报告中区间的置信水平。",
    )
    primary_metric: Annotated[
        Literal["exact", "content", "chrf", "bleu", "rouge_l"] | None, Choice()
    ] = key(
        None,
        "The metric on which headline, ranking and verdicts rest; null for exact match where "
        "the references are short (12 words or fewer, by median) and for chrF otherwise.",
        "标题、排名和结论所依据的指标；null 表示参考答案较短（词数中位数不超过 12）时用 exact，否则用 chrf。",
    )
    equivalence_margin: Annotated[float, Number(above=0, below=1)] = key(
        0.05,
        'How large a difference counts as none, as a share: 0.05 is five points of a hundred. "As '
        'good" is said where the whole interval lies within it.',
        "多大的差别算作没有差别，按比例计：0.05 即一百分里的五分。整个区间都在其内才说 “as good”。",
    )
    controls: Annotated[list[str], Choices(("blind", "shuffled"))] = key(
        [],
        "Ask the held-out questions again, before and after, to tell what the model sees from what it "
        "guesses: `blind` with a grey picture of the same size, `shuffled` with another picture of the "
        "set. Each takes as long as the held-out questions do, for the base and each experiment.",
        "把留出问题在训练前后各再问一遍，以区分哪些是看图得出的、哪些是猜的：`blind` 换成同样大小的灰色图片，"
        "`shuffled` 换成这组问题里的另一张图片。每一项的耗时与留出问题本身相同，基座和每个实验各一次。",
        later=True,
    )
