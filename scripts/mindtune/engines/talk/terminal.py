"""A talk on a terminal: question after question about one picture."""

import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

from mindtune.engines.talk.asking import Said, Speaker
from mindtune.errors import UserError

PROMPT = "> "
GAP = "  "
NARROW = 60  # columns of a terminal, below which answers are one below the other
INTERRUPTED = 130


def talk(
    speakers: Sequence[Speaker],
    picture: Path,
    question: str | None,
    max_new_tokens: int,
    show: Callable[[str], None] = print,
) -> int:
    """Ask the question, where there is one, and then what is typed, to the end of the input.

    Returns the exit status: 0, or 130 after Ctrl-C; 1 where a question of the command line can't be asked.
    """
    typed = sys.stdin.isatty()
    try:
        if question is not None:
            try:
                _ask(speakers, picture, question, max_new_tokens, show)
            except UserError as error:
                print(error, file=sys.stderr)
                return 1
        if typed:
            show("Ask about the picture; an empty line or Ctrl-D ends.")
        while (question := _read(typed)) is not None:
            try:
                _ask(speakers, picture, question, max_new_tokens, show)
            except UserError as error:
                print(error, file=sys.stderr)
    except KeyboardInterrupt:
        show("")
        return INTERRUPTED
    return 0


def _read(typed: bool) -> str | None:
    """The next question; None when there is no more."""
    try:
        question = input(PROMPT if typed else "").strip()
    except EOFError:
        if typed:
            print()
        return None
    except UnicodeDecodeError:
        raise UserError("what is typed is not UTF-8 text; write it in that encoding.") from None
    if question or typed:
        return question or None
    return _read(typed)  # a blank line of a file


def _ask(
    speakers: Sequence[Speaker],
    picture: Path,
    question: str,
    max_new_tokens: int,
    show: Callable[[str], None],
) -> None:
    answers = [speaker.answer(picture, question, max_new_tokens) for speaker in speakers]
    width = shutil.get_terminal_size().columns
    show(table([speaker.name for speaker in speakers], answers, width))


def table(names: Sequence[str], answers: Sequence[Said], width: int) -> str:
    """The answers: one alone as it is, two beside each other where there is room. width: columns."""
    if len(answers) == 1:
        return f"{answers[0].text}\n({answers[0].note()})"
    texts = [
        [name, *answer.text.split("\n"), f"({answer.note()})"]
        for name, answer in zip(names, answers, strict=True)
    ]
    if width < NARROW:
        return "\n".join(line for text in texts for line in text)
    column = (width - len(GAP)) // 2
    left, right = ([part for line in text for part in wrapped(line, column)] for text in texts)
    rows = max(len(left), len(right))
    left, right = (side + [""] * (rows - len(side)) for side in (left, right))
    return "\n".join(
        (one + " " * (column - columns(one)) + GAP + other).rstrip()
        for one, other in zip(left, right, strict=True)
    )


def columns(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return sum(
        0 if unicodedata.combining(one) else 1 + (unicodedata.east_asian_width(one) in "WF")
        for one in text
    )


def wrapped(text: str, width: int) -> list[str]:
    """A line in pieces of at most so many columns: at spaces, or, as in Chinese, between characters."""
    if columns(text) == len(text):
        return textwrap.wrap(text, width, break_on_hyphens=False) or [""]
    lines = [""]
    for one in text:
        if columns(lines[-1] + one) > width:
            lines.append("")
        lines[-1] += one
    return lines
