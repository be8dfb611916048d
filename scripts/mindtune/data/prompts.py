"""Which questions are asked before and after: those named by the user, and held-out ones."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mindtune.data.conversation import IMAGE_MARK, one_name, system_and_turns
from mindtune.data.pictures import has_picture
from mindtune.errors import UserError
from mindtune.models.conversation import SPECIAL_TOKEN

OTHER = "other"
FRONT = f"{IMAGE_MARK}\n"  # how a picture stands before a question that doesn't mark it


class Question(NamedTuple):
    """A question as it is asked by itself.

    turn: which of its conversation. images: the pictures that are asked about. text: the
    question with a mark for each of them. answer: the conversation's. system: the conversation's
    own system text; None for the template's.
    """

    turn: int
    images: Sequence[str]
    text: str
    answer: str
    system: str | None = None

    @property
    def words(self) -> str:
        """The question without its marks."""
        return self.text.replace(IMAGE_MARK, "").strip()


def family_of(question: str, families: Mapping[str, str]) -> str:
    """The first family whose pattern is found in the question."""
    for family, pattern in families.items():
        if re.search(pattern, question):
            return family
    return OTHER


def questions(record: Mapping, turns: str = "all") -> Iterator[Question]:
    """Yield the questions of an mllm-format record, each to be asked by itself.

    A turn that marks pictures is asked with just these, where it marks them. Any other is
    asked with all pictures that the conversation has shown before it, in front of the
    question; where there are none, it is not asked.
    """
    system, messages = system_and_turns(record["messages"])
    last = 2 if turns == "first" else len(messages)
    taken = 0
    for position in range(0, last, 2):
        content, answer = (message["content"] for message in messages[position : position + 2])
        marks = content.count(IMAGE_MARK)
        images = record["images"][taken : taken + marks]
        taken += marks
        if not marks:
            images = record["images"][:taken]
            content = FRONT * len(images) + content.strip()
        if images:
            yield Question(position // 2, images, content, answer, system)


def pictures_of(prompt: Mapping) -> list[str]:
    """The pictures of a line of prompts.jsonl, one for each mark of `text_of`."""
    return list(prompt["images"]) if "images" in prompt else [prompt["image"]]


def text_of(prompt: Mapping) -> str:
    """The question of a line of prompts.jsonl with all its `<image>` marks."""
    return prompt["prompt"] if "images" in prompt else FRONT + prompt["prompt"]


def named_problems(named: Iterable[Mapping]) -> Iterator[str]:
    """What is wrong with the prompts that a user named, a sentence for each."""
    for number, entry in enumerate(named):
        key, prompt = f"prompts.named[{number}].prompt", entry["prompt"]
        if token := SPECIAL_TOKEN.search(prompt):
            yield (
                f"{key} holds {token[0]}, which the model reads as the frame of a conversation or "
                "a picture; write it in another way."
            )
        if not prompt.strip():
            yield f"{key} is blank; write a question."
        if (reference := entry.get("reference")) is not None and not reference.strip():
            yield (
                f"prompts.named[{number}].reference is blank; write the right answer, or null to look "
                "the question up in the instructions."
            )
        if (marks := prompt.count(IMAGE_MARK)) > 1:
            yield (
                f"{key} has {marks} `{IMAGE_MARK}` marks, but a named prompt has one picture; "
                "write one mark, or none."
            )


def named_image(image: str, images: Path) -> str:
    """The one name of a picture that a prompt names: relative to `images` where it is in there."""
    if PurePosixPath(image).is_absolute():
        for place in (images.absolute(), images.resolve()):
            if Path(image).is_relative_to(place):
                return one_name(Path(image).relative_to(place).as_posix())
    return one_name(image)


def candidates(held_out: Iterable[Mapping], turns: str) -> list[tuple[int, Question]]:
    """(number of the record, question) for all that could be asked of held-out records."""
    return [
        (number, question)
        for number, record in enumerate(held_out)
        for question in questions(record, turns)
    ]


def shortfall(held_out: Sequence[Mapping], asked: int | None, turns: str) -> str | None:
    """What to say where more held-out questions are asked for than there are; None elsewhere."""
    there_are = len(candidates(held_out, turns))
    if asked is None or asked <= there_are:
        return None
    remedy = f"write {there_are} or null to ask just these, or raise data.held_out_fraction"
    if turns == "first" and (more := len(candidates(held_out, "all"))) > there_are:
        remedy += f", or write `prompts.turns: all`, with which there are {more}"
    return (
        f"prompts.held_out_questions is {asked}, but there are {there_are} held-out questions; "
        f"{remedy}"
    )


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
    Where the question is not about one picture that stands before it, it has, for image, the
    list images, and prompt holds the marks. With a system text of its own it has system. Of more held-out questions than wanted, those with
    the lowest hashes are taken.

    Raises
    ------
    UserError: a named prompt can't be asked, or there is nothing to ask.
    """
    train, held_out, named = list(train), list(held_out), list(named)
    for problem in named_problems(named):
        raise UserError(problem)
    seen = {image for record in train for image in record["images"]}
    known = [question for record in (*train, *held_out) for question in questions(record)]
    # A named prompt has no system text: the answers to questions that have none go before others.
    answers = {
        (tuple(question.images), question.words): question.answer
        for question in sorted(known, key=lambda question: question.system is None)
    }
    chosen = []
    for number, entry in enumerate(named):
        image, text = named_image(entry["image"], images), entry["prompt"].strip()
        if not has_picture(images / image):
            raise UserError(f"prompts.named[{number}].image: there is no {image} in {images}.")
        if IMAGE_MARK not in text:
            text = FRONT + text
        question = Question(0, [image], text, "")
        reference = entry.get("reference")
        if reference is None:
            reference = answers.get(((image,), question.words))
        chosen.append(_prompt(f"named.{number}", "named", question, reference, seen, families))
    asked = [
        _prompt(
            f"{PurePosixPath(question.images[0]).stem}.{number}.{question.turn}",
            "held_out", question, question.answer, seen, families,
        )
        for number, question in candidates(held_out, turns)
    ]  # fmt: skip
    if held_out_questions is not None and held_out_questions < len(asked):
        kept = set(sorted(map(_rank, asked))[:held_out_questions])
        asked = [prompt for prompt in asked if _rank(prompt) in kept]
    if not chosen and not asked:
        raise UserError(
            "there is nothing to ask: prompts.named is empty, and there are no held-out questions; "
            "name a prompt, or raise data.held_out_fraction."
        )
    return chosen + asked


def _prompt(name, split, question: Question, reference, seen, families) -> dict:
    alone = question.text.removeprefix(FRONT)
    if len(question.images) == 1 and alone == question.words != "":
        pictures, text = {"image": question.images[0]}, alone
    else:
        pictures, text = {"images": list(question.images)}, question.text
    return {
        "id": name,
        "split": split,
        "family": family_of(question.words, families),
        **pictures,
        "image_in_training": any(image in seen for image in question.images),
        "prompt": text,
        "reference": reference,
        **({} if question.system is None else {"system": question.system}),
    }


def _rank(prompt: Mapping) -> str:
    return hashlib.sha256(prompt["id"].encode()).hexdigest()
