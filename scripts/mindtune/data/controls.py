"""The held-out questions with other pictures: how much of an answer is seen, and how much guessed.

`blind`: each picture is a grey one of the same size. `shuffled`: each is another picture of the
held-out questions, and never one that a question asks about itself.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from mindtune.data.opening import BadPicture, read_header, refused, source_of
from mindtune.data.prompts import pictures_of
from mindtune.data.split import components
from mindtune.errors import UserError
from mindtune.files import writing

GREY = (128, 128, 128)


def held_out(prompts: Sequence[Mapping]) -> list[Mapping]:
    """The prompts that controls ask again.

    Raises
    ------
    UserError: there are none.
    """
    found = [prompt for prompt in prompts if prompt["split"] == "held_out"]
    if not found:
        raise UserError(
            "compare.controls asks the held-out questions with other pictures, but there are none; "
            "raise data.held_out_fraction, or write [] for compare.controls."
        )
    return found


def blinded(prompts: Sequence[Mapping], images: Path, directory: Path) -> list[dict]:
    """The prompts with grey pictures, which are written to `directory`, one for each size.

    Raises
    ------
    UserError: a picture can't be used.
    """
    grey: dict[str, str] = {}
    for prompt in prompts:
        for name in pictures_of(prompt):
            if name not in grey:
                grey[name] = _write_grey(_size(images / name), directory)
    return [with_pictures(prompt, grey) for prompt in prompts]


def shuffled(prompts: Sequence[Mapping], images: Path) -> list[dict]:
    """The prompts with one another's pictures.

    Raises
    ------
    UserError: a picture can't be read, or they can't be exchanged.
    """
    groups = [pictures_of(prompt) for prompt in prompts]
    content = {name: _content(images / name) for group in groups for name in group}
    other = exchanged(prompts, content)
    return [with_pictures(prompt, other) for prompt in prompts]


def write_prompts(prompts: Sequence[Mapping], path: Path) -> None:
    """Write prompts as prompts.jsonl has them."""
    with writing(path) as handle:
        handle.writelines(json.dumps(prompt, ensure_ascii=False) + "\n" for prompt in prompts)


def with_pictures(prompt: Mapping, other: Mapping[str, str]) -> dict:
    """A prompt with another picture for each of its own."""
    if "images" in prompt:
        return {**prompt, "images": [other[name] for name in prompt["images"]]}
    return {**prompt, "image": other[prompt["image"]]}


def exchanged(prompts: Sequence[Mapping], content: Mapping[str, str]) -> dict[str, str]:
    """For each picture of the prompts another one, each of them used once.

    content: of each picture, equal where two names stand for one picture. The pictures are in the
    order of hashes of the prompts' ids, those that hang together (by a prompt about both, or by
    equal content) side by side, and each gets the one that is so many places further on that no
    prompt gets a picture of its own. The result depends on ids and names only.

    Raises
    ------
    UserError: there are too few pictures, or too many hang together.
    """
    groups = [pictures_of(prompt) for prompt in prompts]
    first: dict[str, str] = {}
    for prompt, group in zip(prompts, groups, strict=True):
        first |= {name: min(prompt["id"], first.get(name, prompt["id"])) for name in group}
    alike = defaultdict(list)
    for name in first:
        alike[content[name]].append(name)
    tied = components(group for group in (*groups, *alike.values()) if len(group) > 1)
    sizes = Counter(tied.get(name, name) for name in first)
    order = sorted(first, key=lambda name: (_rank(first[tied.get(name, name)]), first[name], name))
    largest, number = max(sizes.values()), len(order)
    # Further on than all that hang together, and not round to them again from the other side.
    steps = [largest] if 2 * largest <= number else range(1, number)
    for step in steps:
        found = {name: order[(place + step) % number] for place, name in enumerate(order)}
        if all(_apart(group, found, content) for group in groups):
            return found
    raise UserError(
        f"compare.controls has `shuffled`, but the held-out questions ask about {number} picture(s), "
        "which can't be exchanged so that no question gets a picture of its own; raise "
        "prompts.held_out_questions or data.held_out_fraction, or leave `shuffled` out."
    )


def _apart(group: Sequence[str], found: Mapping[str, str], content: Mapping[str, str]) -> bool:
    return {content[name] for name in group}.isdisjoint(content[found[name]] for name in group)


def _rank(name: str) -> str:
    return hashlib.sha256(f"shuffled/{name}".encode()).hexdigest()


def _size(path: Path) -> tuple[int, int]:
    """Width and height of a picture, as the model sees it."""
    try:
        header = read_header(source_of(path))
    except BadPicture as error:
        raise refused(path, error) from None
    return header.width, header.height


def _write_grey(size: tuple[int, int], directory: Path) -> str:
    """The name of the grey picture of a size, which says all that is in it."""
    path = directory / "{}x{}.png".format(*size)
    if not path.exists():
        Image.new("RGB", size, GREY).save(path, "PNG", optimize=True)
    return path.name


def _content(path: Path) -> str:
    """A hash of a picture's file."""
    try:
        source = source_of(path)
    except BadPicture as error:
        raise refused(path, error) from None
    data = source.read_bytes() if isinstance(source, Path) else source.read()
    return hashlib.sha256(data).hexdigest()
