"""The demo's data and base model for both sides, and the framework."""

import importlib.util
import os
import sys

import framework
import pytest
from place import Place


@pytest.fixture(scope="session")
def npu_on_cpu():
    """The stand-in's package, without its directory on the path: torch_npu would be found there."""
    where = framework.STANDIN / "npu_on_cpu"
    spec = importlib.util.spec_from_file_location(
        "npu_on_cpu", where / "__init__.py", submodule_search_locations=[str(where)]
    )
    module = sys.modules["npu_on_cpu"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def mindspeed(tmp_path_factory) -> framework.Framework:
    """The framework, in a copy."""
    if not framework.is_here():
        if os.environ.get("MINDSPEED_MM_REQUIRED") == "1":
            pytest.fail("MINDSPEED_MM_HOME is not set, but MINDSPEED_MM_REQUIRED is")
        pytest.skip("not compared with MindSpeed-MM: MINDSPEED_MM_HOME is not set")
    return framework.Framework.copied_to(tmp_path_factory.mktemp("framework") / "MindSpeed-MM")


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Place:
    return Place.made_in(tmp_path_factory.mktemp("parity"))
