"""A file of the size and kinds of llava_instruct_150k.json, and pictures of one colour.

The published file is a mixture of three kinds of records: conversations of several short
turns, detailed descriptions and complex reasoning (one turn, a long answer). The lengths here are
tuned so that 157,712 records come to its 229 MB; the words mean nothing.
"""

import io
import json
import random
from pathlib import Path

from PIL import Image

WORDS = [
    "the",
    "a",
    "of",
    "in",
    "on",
    "with",
    "and",
    "is",
    "are",
    "to",
    "an",
    "image",
    "man",
    "woman",
    "bus",
    "street",
    "people",
    "table",
    "plate",
    "dog",
    "cat",
    "train",
    "holding",
    "standing",
    "sitting",
    "near",
    "several",
    "various",
    "large",
    "small",
    "red",
    "blue",
    "white",
    "green",
    "black",
    "scene",
    "background",
    "foreground",
    "person",
    "two",
    "three",
    "one",
    "it",
    "this",
    "there",
    "which",
    "appears",
    "suggests",
    "shows",
    "traffic",
    "light",
    "building",
    "tree",
    "sky",
    "water",
    "beach",
    "surfboard",
    "tennis",
    "kitchen",
    "room",
    "window",
    "food",
    "pizza",
]
IMAGES, MISSING = 118_287, 7


def _text(rng: random.Random, characters: int) -> str:
    words: list[str] = []
    while characters > 0:
        sentence = rng.choices(WORDS, k=rng.randint(7, 24))
        sentence[0], sentence[-1] = sentence[0].capitalize(), sentence[-1] + "."
        words += sentence
        characters -= sum(map(len, sentence)) + len(sentence)
    return " ".join(words)


def _record(rng: random.Random, image: str) -> dict:
    kind = rng.random()
    turns = rng.randint(2, 6) if kind < 0.37 else 1
    length = 110 if kind < 0.37 else 620 if kind < 0.52 else 1080
    values = []
    for turn in range(turns):
        question = _text(rng, 40)
        if turn == 0:
            question = f"<image>\n{question}" if rng.random() < 0.5 else f"{question}\n<image>"
        answer = _text(rng, round(length * rng.uniform(0.6, 1.4)))
        values += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": Path(image).stem, "image": image, "conversations": values}


def generate(place: Path, records: int, seed: int = 0) -> None:
    """Write llava_instruct_150k.json and COCO2017/train2017/ into `place`; a few pictures lack."""
    rng = random.Random(seed)
    names = [f"{number:012d}.jpg" for number in sorted(rng.sample(range(1, 581_930), IMAGES))]
    pictures = place / "COCO2017" / "train2017"
    pictures.mkdir(parents=True, exist_ok=True)
    picture = io.BytesIO()
    Image.new("RGB", (640, 480), (90, 120, 60)).save(picture, "JPEG")
    for name in names[MISSING:]:
        (pictures / name).write_bytes(picture.getvalue())
    with open(place / "llava_instruct_150k.json", "w", encoding="utf-8") as handle:
        for number in range(records):
            handle.write("[" if number == 0 else ", ")
            json.dump(_record(rng, rng.choice(names)), handle, ensure_ascii=False)
        handle.write("]")
