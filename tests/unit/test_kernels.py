"""Fused kernels: which modules get them, and what is said where they can't be had.

liger's kernels run on a GPU only; here functions that compute the same stand for them.
"""

import sys
from types import ModuleType

import pytest
import torch
from mindtune.engines.hf.kernels import check_kernels, use_kernels
from mindtune.engines.hf.model import load_model
from mindtune.errors import UserError


@pytest.fixture
def liger(monkeypatch):
    """A package with liger-kernel's names; yields the modules that were given kernels."""
    given = []

    class LigerSwiGLUMLP:
        def forward(self, x):
            return self.down_proj(torch.nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))

    def norm(module, offset=0.0, eps=1e-6, casting_mode="llama", in_place=True, row_mode=None):
        assert eps == module.variance_epsilon
        given.append(module)

    def swiglu(module, fused):
        module.forward = fused.forward.__get__(module)
        given.append(module)

    names = {
        "liger_kernel": {}, "liger_kernel.transformers": {},
        "liger_kernel.transformers.monkey_patch":
            {"_patch_rms_norm_module": norm, "_patch_swiglu_module": swiglu},
        "liger_kernel.transformers.swiglu": {"LigerSwiGLUMLP": LigerSwiGLUMLP},
    }  # fmt: skip
    for name, content in names.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return given


def test_every_norm_and_activation_of_the_language_model_gets_a_kernel(base, liger):
    model = load_model(base, torch.float32)
    ids = torch.arange(6)[None]
    before = model(input_ids=ids).logits
    use_kernels(model, "liger", "cuda:0")
    kinds = [type(module).__name__ for module in liger]
    layers = len(model.model.language_model.layers)
    assert sorted(kinds) == ["Qwen2MLP"] * layers + ["Qwen2VLRMSNorm"] * (2 * layers + 1)
    assert torch.allclose(model(input_ids=ids).logits, before, atol=1e-5)


def test_without_being_wanted_nothing_is_replaced(base, liger):
    model = load_model(base, torch.float32)
    for kernels in (None, "torch"):
        check_kernels(kernels, "cpu")
        use_kernels(model, kernels, "cpu")
    assert not liger


def test_kernels_that_cannot_be_had_are_refused_with_what_to_write(monkeypatch):
    with pytest.raises(UserError, match=r"run on CUDA, but hf\.device is npu; write torch"):
        check_kernels("liger", "npu")
    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    with pytest.raises(UserError, match=r"liger-kernel can't be imported .*envs/kernels\.txt"):
        check_kernels("liger", "cuda")
