"""The published models' sizes at the layouts their examples use: planned, without any bytes."""

import math

import pytest
from mindtune.checkpoint.layout import ParallelLayout
from mindtune.checkpoint.reading import mm_views
from mindtune.checkpoint.writing import rank_trees
from mindtune.errors import UserError
from mindtune.formats.torch_zip import Archive
from mindtune.formats.views import View
from mindtune.models.qwen2_vl.tensors import TENSORS
from mindtune.models.shape import model_shape
from mindtune.models.tensors import hf_shapes

SIZES = {  # hidden, ffn, layers, heads, kv heads, vocabulary, tied
    "2b": (1536, 8960, 28, 12, 2, 151936, True),
    "7b": (3584, 18944, 28, 28, 4, 152064, False),
    "72b": (8192, 29568, 80, 64, 8, 152064, False),
}
VPP_LLM = [[0, 0, 0, 1], [4, 4, 4, 4], [4, 3, 2, 2]]
VPP_VIT = [[10, 10, 10, 2], [0, 0, 0, 0], [0, 0, 0, 0]]
PP8_LLM = [5, 11, 11, 11, 11, 11, 11, 9]


def config_of(name: str) -> dict:
    hidden, ffn, layers, heads, kv_heads, vocab, tied = SIZES[name]
    return {
        "model_type": "qwen2_vl",
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
        "vision_config": {
            "depth": 32,
            "embed_dim": 1280,
            "hidden_size": hidden,
            "in_chans": 3,
            "mlp_ratio": 4,
            "num_heads": 16,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
    }


def views_of(name: str) -> dict[str, View]:
    shapes = hf_shapes(model_shape(config_of(name)))
    return {tensor: View(shape, "bfloat16", ()) for tensor, shape in shapes.items()}


def test_2b_has_the_published_tensors():
    views = views_of("2b")
    assert len(views) == 729
    assert sum(view.nbytes for view in views.values()) == 4_417_971_200


@pytest.mark.parametrize(
    ("name", "tp", "llm", "vit", "files"),
    [
        ("2b", 1, None, None, 1),
        ("2b", 2, None, None, 2),
        ("7b", 1, [1, 10, 10, 7], [32, 0, 0, 0], 4),
        ("7b", 4, VPP_LLM, VPP_VIT, 16),
        ("72b", 2, PP8_LLM, [32, *[0] * 7], 16),
        ("72b", 8, None, None, 8),
    ],
)
def test_layouts_of_the_examples(name, tp, llm, vit, files):
    shape = model_shape(config_of(name))
    layout = ParallelLayout.make(shape, tp_size=tp, llm_pp_layers=llm, vit_pp_layers=vit)
    assert layout.training_problems() == []
    views = views_of(name)
    trees = dict(
        rank_trees(
            layout, TENSORS, tied=shape.tied, whole=lambda entry: mm_views(views, shape, entry)
        )
    )
    assert len(trees) == files
    held = 0
    for tree in trees.values():
        tensors = [
            view for model in tree.values() if isinstance(model, dict) for view in model.values()
        ]
        held += (size := sum(view.nbytes for view in tensors))
        assert size < Archive(tree).size < size + 400 * len(tensors) + 1000
    replicated = [
        view
        for rank, tree in trees.items()
        if not rank.startswith("mp_rank_00")
        for model in tree.values()
        if isinstance(model, dict)
        for tensor, view in model.items()
        if "norm" in tensor or "patch_embed" in tensor or tensor.endswith(("proj.bias", "fc2.bias"))
    ]
    assert held - sum(view.nbytes for view in replicated) == sum(v.nbytes for v in views.values())


def test_a_large_file_has_a_zip64_directory():
    views = views_of("7b")
    archive = Archive({"model": views})
    size = sum(view.nbytes for view in views.values())
    assert archive.size > size > 1 << 32
    assert b"PK\x06\x06" in archive._directory()


@pytest.mark.parametrize(("name", "tp"), [("2b", 4), ("7b", 8), ("7b", 3), ("72b", 16)])
def test_tensor_sizes_that_do_not_divide_the_heads(name, tp):
    shape = model_shape(config_of(name))
    with pytest.raises(UserError, match=f"tp_size {tp} does not divide the model's"):
        ParallelLayout.make(shape, tp_size=tp)
    assert math.gcd(tp, shape.kv_heads) != tp
