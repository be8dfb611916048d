"""Weights that are no numbers, and the demo's base model as files."""

import hashlib
import os
import stat
from pathlib import Path

import pytest
import torch
from mindtune.checkpoint.finite import check_finite
from mindtune.demo import base_model
from mindtune.engines.converting import CONVERTERS, converter
from mindtune.engines.requests import PrepareJob
from mindtune.errors import UserError
from tiny_qwen2vl import Sizes, tensors_of, write_hf

ONE = {"tensor_model_parallel_size": 1, "llm_pp_layers": None, "vit_pp_layers": None}
TYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
NAME = "model.layers.1.mlp.up_proj.weight"
# More than one chunk in a tensor of this size.
LARGE = Sizes(vocab=40_000)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_weight_that_is_no_number_is_named(tmp_path, dtype, value, workers):
    tensors = tensors_of(Sizes(), dtype, nans=False)
    tensors[NAME][2, 3] = value
    write_hf(tmp_path / "hf", Sizes(), tensors=tensors, dtype=dtype)
    with pytest.raises(UserError) as caught:
        check_finite(tmp_path / "hf", workers)
    element = 2 * tensors[NAME].shape[1] + 3
    assert f"element {element} of {NAME} is not a finite number" in str(caught.value)
    assert ".safetensors: " in str(caught.value)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_the_greatest_numbers_are_numbers(tmp_path, dtype):
    tensors = tensors_of(Sizes(), dtype, nans=False)
    tensors[NAME][0] = torch.finfo(dtype).max
    tensors[NAME][1] = torch.finfo(dtype).min
    tensors[NAME][2] = -torch.finfo(dtype).tiny
    write_hf(tmp_path / "hf", Sizes(), tensors=tensors, dtype=dtype)
    check_finite(tmp_path / "hf")


def test_the_element_is_right_in_any_chunk(tmp_path):
    tensors = tensors_of(LARGE, nans=False)
    tensors["model.embed_tokens.weight"][-1, -1] = float("nan")
    write_hf(tmp_path / "hf", LARGE, tensors=tensors)
    last = LARGE.vocab * LARGE.hidden - 1
    with pytest.raises(UserError, match=f"element {last} of model.embed_tokens.weight"):
        check_finite(tmp_path / "hf")


@pytest.mark.parametrize("name", CONVERTERS)
def test_no_training_begins_with_one(tmp_path, name):
    tensors = tensors_of(Sizes(), nans=False)
    tensors[NAME][0, 0] = float("nan")
    write_hf(tmp_path / "hf", Sizes(), tensors=tensors)
    with pytest.raises(UserError, match="not a finite number"):
        converter(name).prepare(PrepareJob.of("hf", tmp_path / "hf", tmp_path / "mm", parallel=ONE))
    assert not (tmp_path / "mm").exists()


# --- The demo's base ---------------------------------------------------------------------

# Of the shards that were written by safetensors' own `save_file`.
SHARDS = {
    "model-00001-of-00002.safetensors": "e82943e0f617187ea423c06a2362d5ecbfcab5bc0d1ff14ab88713beabb30e8a",
    "model-00002-of-00002.safetensors": "6a430cbdc7e6c20dee13097e58fb40962dc3460a9f1a95af33bbd7416a0c1cda",
}


def test_the_demos_base_is_readable_by_those_that_the_umask_lets(tmp_path):
    before = os.umask(0o022)
    try:
        base_model.write_base_model(tmp_path / "base")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "base").iterdir()}
    assert set(modes.values()) == {0o644}, modes
    for name, digest in SHARDS.items():
        assert hashlib.sha256((tmp_path / "base" / name).read_bytes()).hexdigest() == digest


def test_a_full_disk_is_an_error_of_the_machine(tmp_path, monkeypatch):
    """An OSError, which a job says in a sentence, and nothing half-written is left."""

    def full(fd):
        if "model-00002" in str(Path(f"/proc/self/fd/{fd}").readlink()):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        base_model.write_base_model(tmp_path / "base")
    assert list(Path(tmp_path).iterdir()) == []
