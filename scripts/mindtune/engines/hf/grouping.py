"""Which prompts are answered together: those of like length, and those about the same pictures."""

from collections.abc import Sequence


def groups(
    lengths: Sequence[int], shown: Sequence[tuple[str, ...]], most_tokens: int, most_prompts: int
) -> list[list[int]]:
    """Numbers of prompts, by group; the longest come first.

    Prompts about the same pictures follow one another, and stand where the longest of them does. It
    depends on the arguments alone.

    Parameters
    ----------
    lengths: tokens of each prompt. shown: the pictures of each. most_tokens: of a group, padding
    counted: prompts times tokens of the longest; a prompt that is longer goes alone. most_prompts: of
    a group.
    """
    longest: dict[tuple[str, ...], int] = {}
    for length, pictures in zip(lengths, shown, strict=True):
        if pictures:
            longest[pictures] = max(length, longest.get(pictures, 0))

    def rank(number: int) -> tuple:
        pictures, length = shown[number], lengths[number]
        return -longest.get(pictures, length), pictures, -length, number

    found: list[list[int]] = []
    width = 0
    for number in sorted(range(len(lengths)), key=rank):
        wider = max(width, lengths[number])
        if found and len(found[-1]) < most_prompts and wider * (len(found[-1]) + 1) <= most_tokens:
            found[-1].append(number)
            width = wider
        else:
            found.append([number])
            width = lengths[number]
    return found
