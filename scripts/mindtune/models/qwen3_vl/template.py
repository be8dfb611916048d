"""Qwen3-VL's own template: turns and pictures are Qwen2-VL's, and no system text stands for itself."""

from dataclasses import replace

from mindtune.models.qwen2_vl.template import TEMPLATE as QWEN2_VL

TEMPLATE = replace(QWEN2_VL, system="")
