"""Qwen3-VL writes boxes as JSON, in thousandths."""

from mindtune.models.boxes import Boxes

BOXES = Boxes(pixels=False)
