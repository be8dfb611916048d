"""How a family's models say where something is in a picture; `mindtune.models.box_text` reads it."""

from dataclasses import dataclass
from pathlib import Path

from mindtune.models import family, room
from mindtune.models.box_text import THOUSAND
from mindtune.models.shape import read_config


@dataclass(frozen=True)
class Boxes:
    """pixels: whether the numbers in JSON are pixels of the picture as the vision model gets it, and not thousandths
    of its sides."""

    pixels: bool

    def out_of(self, sides: tuple[int, int]) -> tuple[int, int]:
        """What the numbers in JSON are out of, across and down. sides: width and height of that picture."""
        return sides if self.pixels else (THOUSAND, THOUSAND)


def boxes_of(hf_dir: str | Path) -> Boxes:
    """How the model in a Hugging Face directory writes boxes.

    Raises
    ------
    UserError: its config.json is not there, or of no family here.
    """
    model_type = family(read_config(hf_dir), str(Path(hf_dir) / "config.json"))
    return room(model_type, "boxes").BOXES
