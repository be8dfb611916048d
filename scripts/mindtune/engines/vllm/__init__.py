"""Answering with vLLM, under a Python of its own.

DEFAULTS: what the keys of the section `vllm` are where they are not written, in which case they are not
among the settings of a job. INSTALL: the same for `vllm.install`.
"""

from collections.abc import Mapping
from typing import Any

DEFAULTS: Mapping[str, Any] = {
    "python": None,
    "device": "cuda",
    "precision": "fp32",
    "threads": 1,
    "environment": {},
    "arguments": [],
    "install": {},
}
INSTALL: Mapping[str, Any] = {
    "directory": "vllm",
    "python": None,
    "wheels": None,
    "package_index": None,
}


def of_section(section: Mapping[str, Any], name: str) -> Any:
    """A key of the section."""
    return section.get(name, DEFAULTS[name])


def of_install(section: Mapping[str, Any], name: str) -> Any:
    """A key of `vllm.install`."""
    return of_section(section, "install").get(name, INSTALL[name])
