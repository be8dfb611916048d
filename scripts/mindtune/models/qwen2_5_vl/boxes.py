"""Qwen2.5-VL writes boxes as JSON, in pixels of the picture after its image processor (its model card: "absolute
coordinates")."""

from mindtune.models.boxes import Boxes

BOXES = Boxes(pixels=True)
