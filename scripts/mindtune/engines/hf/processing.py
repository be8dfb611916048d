"""From conversations and pictures to what Qwen2-VL is fed, as MindSpeed-MM feeds it.

transformers' own Qwen2VLProcessor needs torchvision (for its video half), which
this project does without; the two halves it needs, tokenizer and image
processor, are used directly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from PIL import Image
from transformers import AutoTokenizer

from mindtune.data.llava import IMAGE_MARK
from mindtune.data.shrinking import read_shrunk
from mindtune.errors import UserError

IGNORE_INDEX = -100
SYSTEM_PROMPT = "You are a helpful assistant."


@dataclass(frozen=True)
class Picture:
    """A picture as the vision encoder takes it.

    pixel_values: float32 (patches, channels * temporal patch * patch * patch);
    grid_thw: int64 (1, 3), the patches in time, height and width.
    """

    pixel_values: torch.Tensor
    grid_thw: torch.Tensor


class Processor:
    """Tokenizer and image processor of a Qwen2-VL directory.

    Parameters
    ----------
    hf_dir: a directory in the layout of a Hugging Face download.
    image_resolution: pixels (width x height) above which a picture is first shrunk,
        MindSpeed-MM's `image_resolution`; the same in training and in answering.
    """

    def __init__(self, hf_dir: str | Path, image_resolution: int = 512 * 512) -> None:
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(hf_dir, local_files_only=True)
            self.image_processor = _image_processor_class().from_pretrained(
                hf_dir, local_files_only=True
            )
        except (OSError, ValueError) as error:
            raise UserError(
                f"{hf_dir} has no usable tokenizer or image processor ({_first_line(error)}); "
                "it must hold the files of a Qwen2-VL download (tokenizer.json, "
                "tokenizer_config.json, preprocessor_config.json)."
            ) from error
        self.image_resolution = image_resolution
        self.merge_length = self.image_processor.merge_size**2
        token_id = self.tokenizer.convert_tokens_to_ids
        self.image_token_id = token_id("<|image_pad|>")
        self.end_id = token_id("<|im_end|>")
        self.pad_id = token_id("<|endoftext|>")

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
            tokens = "<|image_pad|>" * (int(grid.prod()) // self.merge_length)
            text = text.replace(IMAGE_MARK, f"<|vision_start|>{tokens}<|vision_end|>", 1)
        return text

    def encode_conversation(
        self, messages: Sequence[dict], grids: Sequence[torch.Tensor], seq_length: int
    ) -> tuple[list[int], list[int]]:
        """Token ids and labels of a whole conversation, cut at `seq_length`.

        The `qwen2vl` template of MindSpeed-MM: each turn is tokenized by itself, the
        loss is on the answers (with `<|im_end|>` and the line end), everything else is
        -100. A conversation that is too long is cut turn by turn.
        """
        grids = list(grids)
        ids: list[int] = []
        labels: list[int] = []
        for turn in range(0, len(messages) - 1, 2):
            question, answer = messages[turn]["content"], messages[turn + 1]["content"]
            question, answer = self._take(question, grids), self._take(answer, grids)
            source = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
            if turn == 0:
                source = f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n{source}"
            source_ids = self._tokens(source)
            target_ids = self._tokens(f"{answer}<|im_end|>\n")
            room = seq_length - len(ids)
            if room <= 0:
                break
            keep_source, keep_target = _cut(len(source_ids), len(target_ids), room)
            source_ids, target_ids = source_ids[:keep_source], target_ids[:keep_target]
            ids += source_ids + target_ids
            labels += [IGNORE_INDEX] * len(source_ids) + target_ids
        return ids, labels

    def encode_prompt(self, prompt: str, grids: Sequence[torch.Tensor]) -> list[int]:
        """Token ids of one question, by the model's own chat template, ready to be answered."""
        text = self.tokenizer.apply_chat_template(
            [
                {"role": "system", "content": SYSTEM_PROMPT},
                {"role": "user", "content": self.expand(prompt, grids)},
            ],
            tokenize=False,
            add_generation_prompt=True,
        )
        return self._tokens(text)

    def _take(self, text: str, grids: list[torch.Tensor]) -> str:
        """Expand a turn's `<image>` marks, with the first of the `grids` left, which it removes."""
        marks = text.count(IMAGE_MARK)
        text = self.expand(text, grids[:marks])
        del grids[:marks]
        return text

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


def _image_processor_class():
    # Without torchvision, transformers 5 has a second class for PIL alone.
    name = "Qwen2VLImageProcessorPil"
    return getattr(transformers, name, None) or transformers.Qwen2VLImageProcessor


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _cut(source: int, target: int, room: int) -> tuple[int, int]:
    """How many tokens of a question and its answer to keep (MindSpeed-MM's `infer_seqlen`)."""
    if target * 2 < room:
        most = room
    elif source * 2 < room:
        most = room - source
    else:
        most = int(room * target / (source + target))
    target = min(most, target)
    return min(max(room - target, 0), source), target
