"""The demo's base model, as a directory and as the processor of it."""

import pytest
from mindtune.demo.base_model import write_base_model
from mindtune.engines.hf.processing import Processor


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    directory = tmp_path_factory.mktemp("base") / "Qwen2-VL-demo"
    write_base_model(directory)
    return directory


@pytest.fixture(scope="module")
def processor(base):
    return Processor(base)
