"""The processor of the demo's base model."""

import pytest
from mindtune.engines.hf.processing import Processor


@pytest.fixture(scope="session")
def processor(base):
    return Processor(base)
