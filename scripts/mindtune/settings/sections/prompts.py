"""The section `prompts`."""

from typing import Annotated, Literal

from annotated_types import Len

from mindtune.settings.kinds import Choice, Name, Text, Whole
from mindtune.settings.section import Section, key


class Named(Section):
    """The user's own question."""

    image: Annotated[str, Text(maximum=1000, not_blank=True)] = key(
        ...,
        "A file name within sources.images, or a path.",
        "sources.images 中的文件名，或一个路径。",
    )
    prompt: Annotated[str, Text(not_blank=True)] = key(
        ...,
        "The question; an `<image>` mark in it is the picture's place, which is else in front.",
        "问题正文；其中的 `<image>` 标记表示图片的位置，不写则图片在最前面。",
    )
    reference: Annotated[str | None, Text(minimum=0)] = key(
        None,
        "The right answer; null to look the question up in the instructions.",
        "参考答案；null 表示到指令数据中查找。",
    )


FAMILY = Name(r"(?s:.*\S.*)", "is blank; write a word for the family.", 200)


def _the_tutorials() -> list[Named]:
    return [
        Named(image="000000033471.jpg", prompt="What feature can be seen on the back of the bus?")
    ]


class Prompts(Section):
    """What is asked."""

    named: Annotated[list[Named], Len(0, 100_000)] = key(
        None,
        "Questions of your own, asked first; the tutorial's is the default.",
        "自己指定的问题，排在最前；默认是教程里的那一个。",
        made=_the_tutorials,
    )
    held_out_questions: Annotated[int | None, Whole(0, 10_000_000)] = key(
        480,
        "How many questions about held-out images to ask; null for all.",
        "就留出图片提多少个问题；null 表示全部。",
    )
    turns: Annotated[Literal["first", "all"], Choice()] = key(
        "first",
        (
            "Ask `first` turns only, or `all` turns, each by itself (only where later "
            "questions do not depend on earlier answers)."
        ),
        "`first` 只问每段对话的第一轮；`all` 每轮都单独问（仅当后面的问题不依赖前面的回答时适用）。",
    )
    families: Annotated[
        dict[Annotated[str, FAMILY], Annotated[str, Text(maximum=1000)]], Len(0, 1000)
    ] = key(
        None,
        (
            "Families of questions for the summary, a regular expression each; the first that "
            "is found in the question names its family, and the rest are `other`."
        ),
        "汇总时的问题类别，各用一个正则表达式；问题归入第一个匹配的类别，其余归入 `other`。",
        made=dict,
    )
