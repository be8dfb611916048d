"""From conversations and pictures to what a model is fed, as MindSpeed-MM feeds it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoTokenizer

from mindtune.data.conversation import IMAGE_MARK, system_and_turns
from mindtune.data.shrinking import read_shrunk
from mindtune.engines.cutting import kept_tokens
from mindtune.errors import UserError
from mindtune.models import NAMES, family
from mindtune.models.conversation import GROUNDING
from mindtune.models.hf import classes_of
from mindtune.models.shape import read_config
from mindtune.models.template import template_of

IGNORE_INDEX = -100


@dataclass(frozen=True)
class Picture:
    """A picture as the vision encoder takes it.

    pixel_values: float32 (patches, channels * temporal patch * patch * patch);
    grid_thw: int64 (1, 3), the patches in time, height and width.
    """

    pixel_values: torch.Tensor
    grid_thw: torch.Tensor


class Processor:
    """Tokenizer and image processor of a model's directory.

    Parameters
    ----------
    hf_dir: a directory in the layout of a Hugging Face download.
    image_resolution: pixels (width x height) above which a picture is first shrunk,
        MindSpeed-MM's `image_resolution`; the same in training and in answering.
    """

    def __init__(self, hf_dir: str | Path, image_resolution: int = 512 * 512) -> None:
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(hf_dir, local_files_only=True)
            model_type = family(read_config(hf_dir), str(Path(hf_dir) / "config.json"))
            self.image_processor = (
                classes_of(model_type)
                .image_processor()
                .from_pretrained(hf_dir, local_files_only=True)
            )
        except (OSError, ValueError) as error:
            raise UserError(
                f"{hf_dir} has no usable tokenizer or image processor ({_first_line(error)}); "
                f"it must hold the files of a {NAMES} download (tokenizer.json, "
                "tokenizer_config.json, preprocessor_config.json or processor_config.json)."
            ) from error
        self.template = template_of(hf_dir)
        self.image_resolution = image_resolution
        self.merge_length = self.image_processor.merge_size**2
        token_id = self.tokenizer.convert_tokens_to_ids
        self.image_token_id = token_id(self.template.picture)
        self.end_id = token_id(self.template.turn_end)
        self.pad_id = token_id(self.template.text_end)
        self.unsaid = {
            number
            for number, token in self.tokenizer.added_tokens_decoder.items()
            if token.special and token.content not in GROUNDING
        }

    def open_image(self, path: str | Path) -> Image.Image:
        """Read a picture as RGB, shrunk as MindSpeed-MM does (nearest neighbour).

        Raises
        ------
        UserError: it can't be used; the sentence has its name.
        """
        return read_shrunk(path, self.image_resolution)

    def picture(self, image: Image.Image) -> Picture:
        """The patches of an RGB picture."""
        features = self.image_processor(images=[image], return_tensors="pt")
        return Picture(features["pixel_values"].float(), features["image_grid_thw"])

    def expand(self, text: str, grids: Sequence[torch.Tensor]) -> str:
        """Put as many image tokens for each `<image>` as its picture has merged patches."""
        for grid in grids:
            picture = self.template.picture_text(int(grid.prod()) // self.merge_length)
            text = text.replace(IMAGE_MARK, picture, 1)
        return text

    def encode_conversation(
        self, messages: Sequence[dict], grids: Sequence[torch.Tensor], seq_length: int
    ) -> tuple[list[int], list[int]]:
        """Token ids and labels of a whole conversation, cut at `seq_length`.

        As with MindSpeed-MM's templates, each turn is tokenized by itself, the loss is on the
        answers (with the token that ends a turn and the line end), everything else is -100. A
        conversation that is too long is cut turn by turn.
        """
        system, messages = system_and_turns(messages)
        grids = list(grids)
        ids: list[int] = []
        labels: list[int] = []
        for turn in range(0, len(messages) - 1, 2):
            question, answer = messages[turn]["content"], messages[turn + 1]["content"]
            question, answer = self._take(question, grids), self._take(answer, grids)
            source_ids = self.encode(self.template.question_text(question, turn == 0, system))
            target_ids = self.encode(self.template.answer_text(answer))
            room = seq_length - len(ids)
            if room <= 0:
                break
            keep_source, keep_target = kept_tokens(len(source_ids), len(target_ids), room)
            source_ids, target_ids = source_ids[:keep_source], target_ids[:keep_target]
            ids += source_ids + target_ids
            labels += [IGNORE_INDEX] * len(source_ids) + target_ids
        return ids, labels

    def encode_prompt(
        self, question: str, grids: Sequence[torch.Tensor], system: str | None = None
    ) -> list[int]:
        """Token ids of one question, ready to be answered: as a conversation begins in training.

        question: with an `<image>` mark for each of the `grids`. system: None for the template's.
        """
        return self.encode(self.template.question_text(self.expand(question, grids), True, system))

    def decode_answer(self, ids: Sequence[int]) -> str:
        """The text of an answer: with marks of objects and boxes, without other special tokens."""
        said = [number for number in ids if number not in self.unsaid]
        return self.tokenizer.decode(said, clean_up_tokenization_spaces=False).strip()

    def _take(self, text: str, grids: list[torch.Tensor]) -> str:
        """Expand a turn's `<image>` marks, with the first of the `grids` left, which it removes."""
        marks = text.count(IMAGE_MARK)
        text = self.expand(text, grids[:marks])
        del grids[:marks]
        return text

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, special tokens in it included."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
