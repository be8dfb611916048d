"""The converter on small models: what comes out, bit for bit, and how it is laid out."""

import json
import stat
import zipfile

import pytest
import torch
from mindtune.checkpoint import (
    ParallelLayout,
    hf_to_mm,
    load_hf_tensors,
    mm_to_hf,
    resplit,
    save_trained,
)
from mindtune.errors import UserError
from tiny_qwen2vl import (
    Sizes,
    config_of,
    equal,
    rank_files,
    read_hf,
    read_rank,
    same,
    tensors_of,
    write_hf,
)

LAYOUTS = {
    "tp1": {},
    "tp2": {"tp_size": 2},
    "pp": {"llm_pp_layers": [1, 1], "vit_pp_layers": [2, 0]},
    "pp with an empty stage": {"llm_pp_layers": [[0, 2]], "vit_pp_layers": [[1, 1]]},
    "tp2 pp2": {"tp_size": 2, "llm_pp_layers": [1, 1], "vit_pp_layers": [2, 0]},
    "vpp": {"llm_pp_layers": [[0, 0], [1, 1]], "vit_pp_layers": [[1, 1], [0, 0]]},
    "tp2 vpp": {"tp_size": 2, "llm_pp_layers": [[0, 1], [0, 1]], "vit_pp_layers": [[2, 0], [0, 0]]},
}


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def model(request, tmp_path):
    sizes = Sizes(tied=request.param)
    tensors = write_hf(tmp_path / "hf", sizes)
    return tmp_path, sizes, tensors


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_round_trip_is_bit_identical(model, layout):
    path, _, tensors = model
    hf_to_mm(path / "hf", path / "mm", workers=2, **layout)
    mm_to_hf(path / "mm", path / "hf", path / "back", workers=2)
    assert same(read_hf(path / "back"), tensors)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_load_hf_tensors_reads_every_layout(model, layout):
    path, sizes, tensors = model
    hf_to_mm(path / "hf", path / "mm", **layout)
    assert same(load_hf_tensors(path / "mm", config_of(sizes)), tensors)


def test_one_rank_is_what_the_framework_expects(model):
    path, sizes, tensors = model
    layout = hf_to_mm(path / "hf", path / "mm")
    assert layout == ParallelLayout(1, ((2,),), ((2,),))
    assert (path / "mm/latest_checkpointed_iteration.txt").read_text() == "release"
    files = rank_files(path / "mm")
    assert list(files) == ["mp_rank_00"]
    assert list(files["mp_rank_00"]) == ["model"]
    mm = files["mp_rank_00"]["model"]
    assert ("text_decoder.output_layer.weight" in mm) == (not sizes.tied)
    q, k, v = (tensors[f"model.layers.1.self_attn.{w}_proj.weight"] for w in "qkv")
    d, queries = sizes.head, sizes.heads // sizes.kv_heads * sizes.head
    expected = torch.cat(
        [
            part
            for g in range(sizes.kv_heads)
            for part in (
                q[g * queries : (g + 1) * queries],
                k[g * d : (g + 1) * d],
                v[g * d : (g + 1) * d],
            )
        ]
    )
    fused = mm["text_decoder.decoder.layers.1.self_attention.linear_qkv.weight"]
    assert equal(fused, expected)
    bias = tensors["visual.blocks.0.attn.qkv.bias"].view(3, sizes.vit_heads, sizes.vit_head)
    fused = mm["image_encoder.encoder.blocks.layers.0.self_attention.linear_qkv.bias"]
    assert equal(fused, bias.transpose(0, 1).reshape(-1))


def test_tied_embedding_is_copied_to_the_last_of_several_stages(tmp_path):
    tensors = write_hf(tmp_path / "hf", Sizes(tied=True))
    hf_to_mm(tmp_path / "hf", tmp_path / "mm", llm_pp_layers=[1, 1], vit_pp_layers=[2, 0])
    files = rank_files(tmp_path / "mm")
    name = "text_decoder.output_layer.weight"
    assert name not in files["mp_rank_00_000"]["model"]
    assert equal(files["mp_rank_00_001"]["model"][name], tensors["model.embed_tokens.weight"])


@pytest.mark.parametrize("tp_size", [1, 2, 4])
def test_files_hold_no_more_than_their_tensors(tmp_path, tp_size):
    write_hf(tmp_path / "hf", Sizes(kv_heads=4))
    hf_to_mm(tmp_path / "hf", tmp_path / "mm", tp_size=tp_size)
    for path in (tmp_path / "mm").glob("*/*/*.pt"):
        model = read_rank(path)["model"]
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None  # all checksums are right
            stored = sum(i.file_size for i in archive.infolist() if "/data/" in i.filename)
        assert stored == sum(t.nbytes for t in model.values())
        assert all(t.is_contiguous() for t in model.values())


def test_same_input_gives_same_bytes(tmp_path):
    write_hf(tmp_path / "hf", Sizes())
    for name, workers in (("a", 1), ("b", 3)):
        hf_to_mm(tmp_path / "hf", tmp_path / name, tp_size=2, workers=workers)
    files = [
        {p.relative_to(tmp_path / d): p.read_bytes() for p in (tmp_path / d).rglob("*.pt")}
        for d in "ab"
    ]
    assert files[0] == files[1]
    assert len(files[0]) == 2


@pytest.mark.parametrize("files", [0, 1, 3])
@pytest.mark.parametrize("nested", [False, True])
def test_any_form_of_hf_directory_is_read(tmp_path, files, nested):
    tensors = write_hf(tmp_path / "hf", Sizes(), files=files, nested=nested)
    hf_to_mm(tmp_path / "hf", tmp_path / "mm")
    mm_to_hf(tmp_path / "mm", tmp_path / "hf", tmp_path / "back")
    assert same(read_hf(tmp_path / "back"), tensors)
    assert (tmp_path / "back/README.md").read_text() == "a model"
    assert json.loads((tmp_path / "back/config.json").read_text()) == config_of(
        Sizes(), nested=nested
    )


def test_newer_names_are_read_and_published_ones_written(tmp_path):
    tensors = tensors_of(Sizes(tied=False))

    def newer(name: str) -> str:
        if name.startswith("visual."):
            return "model." + name
        return (
            name.replace("model.", "model.language_model.") if name.startswith("model.") else name
        )

    renamed = {newer(name): tensor for name, tensor in tensors.items()}
    write_hf(tmp_path / "hf", Sizes(tied=False), tensors=renamed)
    hf_to_mm(tmp_path / "hf", tmp_path / "mm")
    mm_to_hf(tmp_path / "mm", tmp_path / "hf", tmp_path / "back")
    assert same(read_hf(tmp_path / "back"), tensors)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_dtype_is_kept(tmp_path, dtype):
    tensors = write_hf(tmp_path / "hf", Sizes(), dtype=dtype)
    hf_to_mm(tmp_path / "hf", tmp_path / "mm", tp_size=2)
    for content in rank_files(tmp_path / "mm").values():
        assert {t.dtype for t in content["model"].values()} == {dtype}
    mm_to_hf(tmp_path / "mm", tmp_path / "hf", tmp_path / "back")
    assert same(read_hf(tmp_path / "back"), tensors)


def test_shards_keep_to_their_limit_and_the_index_is_right(tmp_path):
    tensors = write_hf(tmp_path / "hf", Sizes(), files=1)
    hf_to_mm(tmp_path / "hf", tmp_path / "mm")
    mm_to_hf(tmp_path / "mm", tmp_path / "hf", tmp_path / "back", max_shard_bytes=20_000)
    shards = sorted((tmp_path / "back").glob("*.safetensors"))
    assert len(shards) > 2
    assert all(path.stat().st_size <= 20_000 for path in shards)
    index = json.loads((tmp_path / "back/model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors.values())
    assert index["weight_map"].keys() == tensors.keys()
    for path in shards:
        assert {n for n, f in index["weight_map"].items() if f == path.name} == set(
            read_hf_file(path)
        )


def read_hf_file(path):
    from safetensors.torch import load_file

    return load_file(path)


def test_tensors_stay_in_the_shards_they_came_in(tmp_path):
    write_hf(tmp_path / "hf", Sizes(), files=3)
    hf_to_mm(tmp_path / "hf", tmp_path / "mm", tp_size=2)
    mm_to_hf(tmp_path / "mm", tmp_path / "hf", tmp_path / "back")
    maps = [
        json.loads((tmp_path / d / "model.safetensors.index.json").read_text())["weight_map"]
        for d in ("hf", "back")
    ]
    assert maps[0] == maps[1]


@pytest.mark.parametrize("tied", [True, False])
def test_save_trained_and_load(tmp_path, tied):
    sizes = Sizes(tied=tied)
    tensors = tensors_of(sizes)
    config = config_of(sizes)
    extra = {"note": [1, 2.5, None, True, ("x", 1 << 40)], "rng": torch.arange(4)}
    directory = save_trained(tmp_path / "s", 12, tensors, config, extra=extra)
    assert directory == tmp_path / "s/iter_0000012"
    assert (tmp_path / "s/latest_checkpointed_iteration.txt").read_text() == "12"
    content = read_rank(directory / "mp_rank_00/model_optim_rng.pt")
    assert {k: content[k] for k in ("checkpoint_version", "iteration", "note")} == {
        "checkpoint_version": 3.0,
        "iteration": 12,
        "note": extra["note"],
    }
    assert torch.equal(content["rng"], torch.arange(4))
    save_trained(tmp_path / "s", 13, tensors_of(sizes, seed=5).__getitem__, config)
    assert same(load_hf_tensors(tmp_path / "s", config, iteration=12), tensors)
    assert same(load_hf_tensors(tmp_path / "s", config), tensors_of(sizes, seed=5))
    write_hf(tmp_path / "hf", sizes)
    mm_to_hf(tmp_path / "s", tmp_path / "hf", tmp_path / "back", iteration=12)
    assert same(read_hf(tmp_path / "back"), tensors)


def test_loaded_tensors_can_be_written_to_without_touching_the_file(tmp_path):
    sizes = Sizes()
    directory = save_trained(tmp_path, 1, tensors_of(sizes), config_of(sizes))
    before = (directory / "mp_rank_00/model_optim_rng.pt").read_bytes()
    for tensor in load_hf_tensors(tmp_path, config_of(sizes)).values():
        tensor.zero_()
    assert (directory / "mp_rank_00/model_optim_rng.pt").read_bytes() == before


def test_resplit_between_layouts(model):
    path, sizes, tensors = model
    hf_to_mm(path / "hf", path / "a", **LAYOUTS["tp1"])
    for name, layout in LAYOUTS.items():
        hf_to_mm(path / "hf", path / "direct", **layout)
        resplit(path / "a", path / "b", hf_dir=path / "hf", verify=True, **layout)
        ours, wanted = rank_files(path / "b"), rank_files(path / "direct")
        assert ours.keys() == wanted.keys(), name
        for rank in ours:
            assert ours[rank].keys() == wanted[rank].keys()
            for key, value in ours[rank].items():
                assert (
                    value == wanted[rank][key]
                    if isinstance(value, float)
                    else same(value, wanted[rank][key])
                )
        resplit(path / "b", path / "a")  # back to one rank, without a config
        assert same(load_hf_tensors(path / "a", config_of(sizes)), tensors)


def test_directories_can_be_entered(tmp_path):
    write_hf(tmp_path / "hf", Sizes())
    import os

    old = os.umask(0o477)  # would take r and x from the owner
    try:
        hf_to_mm(tmp_path / "hf", tmp_path / "mm")
    finally:
        os.umask(old)
    for path in (tmp_path / "mm", *(tmp_path / "mm").rglob("*")):
        if path.is_dir():
            assert stat.S_IMODE(path.stat().st_mode) & 0o700 == 0o700


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
def test_the_names_of_a_checkpoint_tell_whose_it_is(tmp_path, family, tied):
    """Without a config.json: the families cut the vision model's MLP over tensor ranks in two ways."""
    tensors = write_hf(tmp_path / "hf", Sizes(family=family, tied=tied))
    hf_to_mm(
        tmp_path / "hf", tmp_path / "mm", tp_size=2, llm_pp_layers=[1, 1], vit_pp_layers=[1, 1]
    )
    resplit(tmp_path / "mm", tmp_path / "one", tp_size=1)
    mm_to_hf(tmp_path / "one", tmp_path / "hf", tmp_path / "back")
    assert same(read_hf(tmp_path / "back"), tensors)


def test_a_checkpoint_of_another_family_is_refused(tmp_path):
    sizes = Sizes()
    write_hf(tmp_path / "hf", sizes)
    write_hf(tmp_path / "other", sizes.but(family="qwen2_5_vl"))
    bias = "image_encoder.encoder.blocks.layers.0.input_layernorm.bias"
    for one, other, words in (
        ("hf", "other", f"has a tensor {bias} (and 4 more) that is none of Qwen2.5-VL's"),
        ("other", "hf", f"lacks the tensor {bias}"),
    ):
        hf_to_mm(tmp_path / one, tmp_path / f"{one}.mm")
        with pytest.raises(UserError) as caught:
            mm_to_hf(tmp_path / f"{one}.mm", tmp_path / other, tmp_path / "out")
        assert str(caught.value).endswith(words)
    assert not (tmp_path / "out").exists()
