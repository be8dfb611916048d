"""Qwen2-VL writes boxes as text, in thousandths."""

from mindtune.models.boxes import Boxes

BOXES = Boxes(pixels=False)
