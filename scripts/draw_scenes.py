"""Draw the demo's pictures in COCO's form, and write what LLaVA-Instruct would say of them.

(seed) -> COCO2017/train2017/000000033471.jpg …, llava_instruct_150k.json
"""

import json
import random
from collections.abc import Iterable
from pathlib import Path

from mindtune.demo.drawing import draw_scene
from mindtune.demo.scenes import (
    TEXT_ONLY,
    TUTORIAL_FAMILIES,
    TUTORIAL_IMAGE_ID,
    Scene,
    conversation,
    question_and_answer,
    scenes,
)
from mindtune.files import writing, writing_directory
from mindtune.glue.script_runner import run
from mindtune.progress import progress

JPEG_QUALITY = 90


def llava_record(name: str, image: str | None, turns: Iterable[tuple[str, str]]) -> dict:
    """A record of LLaVA-Instruct from questions and answers; `<image>` opens the first question."""
    values = []
    for number, (question, answer) in enumerate(turns):
        mark = "<image>\n" if image and number == 0 else ""
        values += [{"from": "human", "value": mark + question}, {"from": "gpt", "value": answer}]
    return {"id": name, **({"image": image} if image else {}), "conversations": values}


def turns_about(image_id: int, scene: Scene, rng: random.Random) -> list[tuple[str, str]]:
    """What is asked about a picture; the tutorial's picture has the tutorial's question first."""
    if image_id == TUTORIAL_IMAGE_ID:
        return [question_and_answer(scene, family) for family in TUTORIAL_FAMILIES]
    return conversation(scene, rng)


def draw(images: Path, instructions: Path, *, pictures: int, text_only: int, seed: int) -> None:
    """Draw `pictures` scenes into `images` and write a record of each, and some without."""
    records = []
    with writing_directory(images) as directory:
        for image_id, scene in progress(
            scenes(pictures, seed, with_tutorial=True), "drawing", "pictures", pictures
        ):
            rng = random.Random(f"drawing/{seed}/{image_id}")
            name = f"{image_id:012d}"
            picture, _, _ = draw_scene(scene, rng)
            picture.save(directory / f"{name}.jpg", quality=JPEG_QUALITY)
            records.append(llava_record(name, f"{name}.jpg", turns_about(image_id, scene, rng)))
    rng = random.Random(f"text/{seed}")
    for number in range(text_only):
        place = rng.randrange(len(records) + 1)
        turns = [rng.choice(TEXT_ONLY)]
        records.insert(place, llava_record(f"text_only_{number:05d}", None, turns))
    with writing(instructions) as handle:
        json.dump(records, handle, ensure_ascii=False)


def main(snakemake) -> None:
    images, instructions = map(Path, snakemake.output)
    draw(images, instructions, **snakemake.params.demo)


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
