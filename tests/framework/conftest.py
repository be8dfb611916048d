import sys
from pathlib import Path

import pytest
from mindtune.engines.mindspeed.framework.installing import Plan
from tiny_framework import Origins, make_origins


@pytest.fixture(scope="session")
def origins(tmp_path_factory) -> Origins:
    return make_origins(tmp_path_factory.mktemp("origins") / "o")


@pytest.fixture
def plan(origins, tmp_path):
    """A plan of installing the tiny framework with a stand-in, with fields to change."""

    def make(**changes) -> Plan:
        fields = {
            "directory": tmp_path / "framework",
            "python": Path(sys.executable),
            "pins": origins.pins,
            "sources": origins.sources,
            "stand_in": tmp_path,
            "wheels": origins.wheels,
        }
        return Plan(**(fields | changes))

    return make
