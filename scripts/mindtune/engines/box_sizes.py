"""What the numbers of boxes in an answer are out of, for whoever compares and draws them.

It depends on the picture as the vision model gets it, which only who answers knows: the line of an answer with
boxes in JSON, or to a prompt whose reference has some, gets `boxes_out_of`, width and height
(`mindtune.models.boxes`).
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from mindtune.data.prompts import pictures_of
from mindtune.engines.cutting import PictureTokens, picture_size
from mindtune.engines.requests import AnswerJob
from mindtune.models.box_text import has_json_box
from mindtune.models.boxes import Boxes, boxes_of

KEY = "boxes_out_of"


class BoxSizes:
    """For the answers of a job."""

    def __init__(self, job: AnswerJob, prompts: Sequence[Mapping[str, Any]]) -> None:
        self.job, self.prompts = job, prompts

    def complete(self, number: int, line: dict) -> dict:
        """The line of a prompt's answer, with what its boxes are out of."""
        prompt = self.prompts[number]
        texts = (line["answer"], prompt.get("reference") or "")
        if not any(map(has_json_box, texts)):
            return line
        out_of = self._out_of(pictures_of(prompt))
        return line if out_of is None else line | {KEY: list(out_of)}

    def _out_of(self, pictures: Sequence[str]) -> tuple[int, int] | None:
        """None where there are pictures of different sizes: an answer doesn't say which is meant."""
        sizes = {self._boxes.out_of(self._sides(name)) for name in pictures}
        return sizes.pop() if len(sizes) == 1 else None

    def _sides(self, name: str) -> tuple[int, int]:
        return (
            self._measure.sides(picture_size(self.job.images, name))
            if self._boxes.pixels
            else (0, 0)
        )

    @cached_property
    def _boxes(self) -> Boxes:
        return boxes_of(self.job.hf_dir)

    @cached_property
    def _measure(self) -> PictureTokens:
        return PictureTokens.of_model(self.job.hf_dir, self.job.processor.image_resolution)
