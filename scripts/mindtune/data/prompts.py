"""Which questions are asked before and after: those named by the user, and held-out ones."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from mindtune.data.llava import IMAGE_MARK
from mindtune.data.pictures import has_picture
from mindtune.errors import UserError

OTHER = "other"


def family_of(question: str, families: Mapping[str, str]) -> str:
    """The first family whose pattern is found in the question."""
    for family, pattern in families.items():
        if re.search(pattern, question):
            return family
    return OTHER


def questions(record: Mapping, turns: str = "all") -> Iterator[tuple[int, str, str]]:
    """Yield (turn, question, answer) of a record, without `<image>` marks."""
    messages = record["messages"]
    last = 2 if turns == "first" else len(messages)
    for position in range(0, last, 2):
        question = messages[position]["content"].replace(IMAGE_MARK, "").strip()
        yield position // 2, question, messages[position + 1]["content"]


def select(
    train: Iterable[Mapping],
    held_out: Iterable[Mapping],
    images: Path,
    *,
    named: Iterable[Mapping],
    held_out_questions: int | None,
    turns: str,
    families: Mapping[str, str],
) -> list[dict]:
    """All prompts, the named ones first, then held-out ones in the order of the data.

    A prompt has: id, split (`named` or `held_out`), family, image (relative to the directory
    of pictures), image_in_training, prompt, reference (None when nobody knows the answer).
    Of more held-out questions than wanted, those with the lowest hashes are taken.
    """
    train, held_out = list(train), list(held_out)
    seen = {image for record in train for image in record["images"]}
    answers = {
        (image, question): answer
        for record in (*train, *held_out)
        for image in record["images"][:1]
        for _, question, answer in questions(record)
    }
    chosen = []
    for number, entry in enumerate(named):
        image, question = entry["image"], entry["prompt"].strip()
        if not has_picture(images / image):
            raise UserError(f"prompts.named[{number}].image: there is no {image} in {images}.")
        reference = entry.get("reference")
        if reference is None:
            reference = answers.get((image, question))
        chosen.append(
            _prompt(f"named.{number}", "named", image, question, reference, seen, families)
        )
    candidates = [
        _prompt(
            f"{PurePosixPath(image).stem}.{number}.{turn}",
            "held_out", image, question, answer, seen, families,
        )
        for number, record in enumerate(held_out)
        for image in record["images"][:1]
        for turn, question, answer in questions(record, turns)
    ]  # fmt: skip
    if held_out_questions is not None and held_out_questions < len(candidates):
        kept = set(sorted(map(_rank, candidates))[:held_out_questions])
        candidates = [prompt for prompt in candidates if _rank(prompt) in kept]
    return chosen + candidates


def pictures_of(prompt: Mapping) -> list[str]:
    """The pictures that a prompt is about, in the order of its marks."""
    return [prompt["image"]] if "image" in prompt else list(prompt["images"])


def text_of(prompt: Mapping) -> str:
    """What a prompt asks, with an `<image>` mark where each of its pictures stands."""
    return f"{IMAGE_MARK}\n{prompt['prompt']}" if "image" in prompt else prompt["prompt"]


def _prompt(name, split, image, question, reference, seen, families) -> dict:
    return {
        "id": name,
        "split": split,
        "family": family_of(question, families),
        "image": image,
        "image_in_training": image in seen,
        "prompt": question,
        "reference": reference,
    }


def _rank(prompt: Mapping) -> str:
    return hashlib.sha256(prompt["id"].encode()).hexdigest()
