"""Checkpoints as training leaves them: foreign objects, shared storages, LoRA adapters."""

import argparse
import enum
import json
import sys
import types

import pytest
import torch
from mindtune.checkpoint import (
    hf_to_mm,
    inspect,
    load_hf_tensors,
    mm_to_hf,
    resplit,
    save_trained,
    verify,
)
from mindtune.errors import UserError
from tiny_qwen2vl import Sizes, config_of, equal, read_hf, read_rank, same, tensors_of, write_hf

SIZES = Sizes(kv_heads=4)


def retrain(mm_dir, change, iteration=50):
    """Turn a release into an iter_*, each rank's content passed through `change(content, rank)`."""
    release, trained = mm_dir / "release", mm_dir / f"iter_{iteration:07d}"
    release.rename(trained)
    for path in sorted(trained.glob("*/model_optim_rng.pt")):
        content = read_rank(path)
        content.update(iteration=iteration, checkpoint_version=3.0)
        torch.save(change(content, path.parent.name) or content, path)
    (mm_dir / "latest_checkpointed_iteration.txt").write_text(str(iteration))


def megatron_objects() -> dict:
    """What a trained file holds beside the model, of classes that exist while saving only."""
    module = types.ModuleType("megatron_stand_in")
    kind = enum.Enum("AttnBackend", {"flash": 1, "auto": 2}, module="megatron_stand_in")
    other = type("Config", (), {"__module__": "megatron_stand_in"})
    module.AttnBackend, module.Config = kind, other
    sys.modules["megatron_stand_in"] = module
    config = other()
    config.nested = {"x": kind.auto}
    return {
        "args": argparse.Namespace(lr=1e-5, backend=kind.flash, config=config, lora_alpha=16),
        "num_floating_point_operations_so_far": 10**18,
        "opt_param_scheduler": {"num_steps": 50},
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(7)}}, "groups": [config]},
        "rng_state": [
            {"np_rng_state": __import__("numpy").random.get_state(), "t": torch.arange(3)}
        ],
    }


@pytest.fixture
def unloaded():
    """After the files are written the classes are gone, as on a machine without Megatron."""
    yield lambda: sys.modules.pop("megatron_stand_in", None)
    sys.modules.pop("megatron_stand_in", None)


@pytest.mark.parametrize(
    "layout",
    [{}, {"tp_size": 2, "llm_pp_layers": [1, 1], "vit_pp_layers": [2, 0]}],
    ids=["one rank", "tp2 pp2"],
)
def test_trained_file_with_foreign_objects(tmp_path, unloaded, layout):
    tensors = write_hf(tmp_path / "hf", SIZES)
    hf_to_mm(tmp_path / "hf", tmp_path / "mm", **layout)

    def change(content, rank):
        content.update(megatron_objects())
        content["model"]["text_decoder.output_layer._extra_state"] = None
        content["model"]["image_encoder.x._extra_state"] = torch.zeros(3)

    retrain(tmp_path / "mm", change)
    unloaded()
    with pytest.raises(Exception, match=r"megatron_stand_in|Weights only"):
        torch.load(
            next((tmp_path / "mm").rglob("*.pt")), weights_only=False
        )  # torch itself cannot read it here
    mm_to_hf(tmp_path / "mm", tmp_path / "hf", tmp_path / "back", verify=True)
    assert same(read_hf(tmp_path / "back"), tensors)
    text = str(inspect(tmp_path / "mm"))
    assert "iteration 50" in text
    assert "argparse.Namespace, not loaded" in text
    resplit(tmp_path / "mm", tmp_path / "again", hf_dir=tmp_path / "hf", verify=True)
    assert same(load_hf_tensors(tmp_path / "again", config_of(SIZES)), tensors)


def test_parameters_in_one_shared_buffer(tmp_path):
    """The distributed optimizer makes parameters views of one buffer; torch saves it whole."""
    tensors = write_hf(tmp_path / "hf", SIZES)
    hf_to_mm(tmp_path / "hf", tmp_path / "mm")

    def change(content, rank):
        model = content["model"]
        buffer = torch.zeros(sum(t.numel() + 64 for t in model.values()), dtype=torch.bfloat16)
        start = 7
        for name, tensor in model.items():
            view = buffer[start : start + tensor.numel()].view(tensor.shape)
            view.copy_(tensor)
            model[name] = torch.nn.Parameter(view) if "norm" in name else view
            start += tensor.numel() + 5

    retrain(tmp_path / "mm", change)
    mm_to_hf(tmp_path / "mm", tmp_path / "hf", tmp_path / "back")
    assert same(read_hf(tmp_path / "back"), tensors)
    file = tmp_path / "mm/iter_0000050/mp_rank_00/model_optim_rng.pt"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1  # deep inside the one record
    file.write_bytes(data)
    with pytest.raises(UserError, match="checksum"):
        mm_to_hf(tmp_path / "mm", tmp_path / "hf", tmp_path / "worse")


def test_columns_saved_as_views_of_the_whole(tmp_path):
    """mm-convert saves a tp rank's columns as a view, with the storage of the whole tensor."""
    tensors = write_hf(tmp_path / "hf", SIZES)
    hf_to_mm(tmp_path / "hf", tmp_path / "mm", tp_size=2)

    def change(content, rank):
        for name, tensor in content["model"].items():
            if tensor.ndim == 2 and "linear_proj" in name:
                wide = torch.zeros(tensor.shape[0], 3 * tensor.shape[1], dtype=tensor.dtype)
                view = wide[:, tensor.shape[1] : 2 * tensor.shape[1]]
                view.copy_(tensor)
                content["model"][name] = view

    retrain(tmp_path / "mm", change)
    mm_to_hf(tmp_path / "mm", tmp_path / "hf", tmp_path / "back", verify=True)
    assert same(read_hf(tmp_path / "back"), tensors)


def test_tied_copy_that_drifted_is_refused(tmp_path):
    write_hf(tmp_path / "hf", SIZES)
    hf_to_mm(tmp_path / "hf", tmp_path / "mm", llm_pp_layers=[1, 1], vit_pp_layers=[2, 0])

    def change(content, rank):
        output = content["model"].get("text_decoder.output_layer.weight")
        if output is not None:
            output[3, 4] = 5

    retrain(tmp_path / "mm", change)
    with pytest.raises(UserError, match="tie_word_embeddings"):
        mm_to_hf(tmp_path / "mm", tmp_path / "hf", tmp_path / "back")


def test_replicated_tensors_that_differ_are_warned_about(tmp_path, caplog):
    tensors = write_hf(tmp_path / "hf", SIZES)
    hf_to_mm(tmp_path / "hf", tmp_path / "mm", tp_size=2)

    def change(content, rank):
        if rank == "mp_rank_01":
            content["model"]["text_decoder.decoder.final_layernorm.weight"][0] = 9

    retrain(tmp_path / "mm", change)
    mm_to_hf(tmp_path / "mm", tmp_path / "hf", tmp_path / "back")
    assert "1 tensor(s) that all ranks should hold alike differ" in caplog.text
    assert same(read_hf(tmp_path / "back"), tensors)


def test_another_iteration_can_be_asked_for(tmp_path):
    config = config_of(SIZES)
    write_hf(tmp_path / "hf", SIZES)
    for n in (1, 2):
        save_trained(tmp_path / "mm", n, tensors_of(SIZES, seed=n), config)
    mm_to_hf(tmp_path / "mm", tmp_path / "hf", tmp_path / "one", iteration="1")
    mm_to_hf(tmp_path / "mm", tmp_path / "hf", tmp_path / "two")
    assert same(read_hf(tmp_path / "one"), tensors_of(SIZES, seed=1))
    assert same(read_hf(tmp_path / "two"), tensors_of(SIZES, seed=2))
    verify(tmp_path / "mm", tmp_path / "one", source_iteration=1)
    with pytest.raises(UserError, match=r"model\.embed_tokens\.weight differs at element 0"):
        verify(tmp_path / "one", tmp_path / "mm")
    with pytest.raises(UserError, match="iter_0000003 does not exist"):
        mm_to_hf(tmp_path / "mm", tmp_path / "hf", tmp_path / "three", iteration=3)


# --- LoRA ----------------------------------------------------------------------------------

MODULES = (
    "self_attention.linear_qkv",
    "self_attention.linear_proj",
    "mlp.linear_fc1",
    "mlp.linear_fc2",
)


def adapters_of(whole: dict, rank: int) -> dict:
    """Adapters for every LLM linear of a whole Megatron model, drawn at random."""
    generator = torch.Generator().manual_seed(3)
    result = {}
    for name, weight in whole.items():
        module = name.removesuffix(".weight")
        if (
            name.startswith("text_decoder.")
            and name.endswith(".weight")
            and module.endswith(MODULES)
        ):
            rows, columns = weight.shape
            for which, shape in (("A", (rank, columns)), ("B", (rows, rank))):
                value = torch.empty(shape).uniform_(-0.3, 0.3, generator=generator)
                result[f"{module}.lora_{which}.default.weight"] = value.to(weight.dtype)
    return result


def cut(name: str, adapter: torch.Tensor, tp: int, rank: int) -> torch.Tensor:
    """A tensor rank's piece of an adapter, as peft's parallel linear layers hold it."""
    by_columns = "linear_proj" in name or "linear_fc2" in name
    if "lora_A" in name:
        return adapter.chunk(tp, dim=1)[rank].contiguous() if by_columns else adapter
    if by_columns:
        return adapter
    if "linear_fc1" in name:
        return torch.cat([half.chunk(tp)[rank] for half in adapter.chunk(2)])
    return adapter.chunk(tp)[rank].contiguous()


@pytest.mark.parametrize("base", ["hf", "mm"])
@pytest.mark.parametrize("tp", [1, 2])
@pytest.mark.parametrize("alpha", [None, 4.0])
def test_lora_adapters_are_merged(tmp_path, base, tp, alpha):
    rank = 2
    tensors = write_hf(tmp_path / "hf", SIZES, nans=False)
    hf_to_mm(tmp_path / "hf", tmp_path / "base")
    whole = read_rank(tmp_path / "base/release/mp_rank_00/model_optim_rng.pt")["model"]
    adapters = adapters_of(whole, rank)
    assert len(adapters) == 2 * 4 * SIZES.layers
    hf_to_mm(tmp_path / "hf", tmp_path / "lora", tp_size=tp)

    def change(content, place):
        t = int(place[-2:])
        content["model"] = {n: cut(n, a, tp, t) for n, a in adapters.items()}
        content["args"] = argparse.Namespace(lora_alpha=16, lora_r=rank)

    retrain(tmp_path / "lora", change)
    base_dir = tmp_path / "base" if base == "mm" else None
    mm_to_hf(
        tmp_path / "lora", tmp_path / "hf", tmp_path / "out", lora_alpha=alpha,
        lora_base_dir=base_dir, verify=True,
    )  # fmt: skip
    scale = (16 if alpha is None else alpha) / rank
    for name in whole:
        a, b = (adapters.get(f"{name[:-7]}.lora_{w}.default.weight") for w in "AB")
        if a is not None:
            whole[name] = (whole[name].float() + scale * (b.float() @ a.float())).bfloat16()
    torch.save({"model": whole}, tmp_path / "base/release/mp_rank_00/model_optim_rng.pt")
    expected = load_hf_tensors(tmp_path / "base", config_of(SIZES))
    found = read_hf(tmp_path / "out")
    changed = 0
    for name, tensor in expected.items():
        changed += not equal(found[name], tensors[name])
        torch.testing.assert_close(found[name], tensor, rtol=2**-7, atol=1e-6)
    assert changed == 7 * SIZES.layers  # q k v o gate up down weights, biases untouched


def test_lora_mistakes_are_told(tmp_path):
    write_hf(tmp_path / "hf", SIZES, nans=False)
    hf_to_mm(tmp_path / "hf", tmp_path / "lora")
    whole = read_rank(tmp_path / "lora/release/mp_rank_00/model_optim_rng.pt")["model"]
    adapters = adapters_of(whole, 2)
    retrain(tmp_path / "lora", lambda content, _: {"model": adapters})
    with pytest.raises(UserError, match="does not say its lora_alpha"):
        mm_to_hf(tmp_path / "lora", tmp_path / "hf", tmp_path / "out")
    with pytest.raises(UserError, match="LoRA adapters only"):
        resplit(tmp_path / "lora", tmp_path / "out")
    with pytest.raises(UserError, match="LoRA adapters only"):
        load_hf_tensors(tmp_path / "lora", config_of(SIZES))
    assert "LoRA adapters only" in str(inspect(tmp_path / "lora"))
    one_stage = {n: a for n, a in adapters.items() if "layers.0." in n}
    torch.save({"model": one_stage}, tmp_path / "lora/iter_0000050/mp_rank_00/model_optim_rng.pt")
    with pytest.raises(UserError, match="adapters for 1 language and 0 vision layers"):
        mm_to_hf(tmp_path / "lora", tmp_path / "hf", tmp_path / "out", lora_alpha=1)
    half = dict(list(adapters.items())[1:])
    file = tmp_path / "lora/iter_0000050/mp_rank_00/model_optim_rng.pt"
    torch.save({"model": half}, file)
    with pytest.raises(UserError, match="half an adapter"):
        mm_to_hf(tmp_path / "lora", tmp_path / "hf", tmp_path / "out", lora_alpha=1)
    strange = {n.replace("fc1", "fc9"): a for n, a in adapters.items()}
    torch.save({"model": strange}, file)
    with pytest.raises(UserError, match="no such module"):
        mm_to_hf(tmp_path / "lora", tmp_path / "hf", tmp_path / "out", lora_alpha=1)
    assert not (tmp_path / "out").exists()


# --- transformers --------------------------------------------------------------------------


def test_transformers_loads_the_result(tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = Sizes(tied=False)
    write_hf(tmp_path / "hf", sizes, nans=False)
    hf_to_mm(tmp_path / "hf", tmp_path / "mm", tp_size=2)
    mm_to_hf(tmp_path / "mm", tmp_path / "hf", tmp_path / "back", max_shard_bytes=40_000)
    models = [
        transformers.Qwen2VLForConditionalGeneration.from_pretrained(tmp_path / d)
        for d in ("hf", "back")
    ]
    states = [model.state_dict() for model in models]
    assert same(*states)
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        logits = [model(input_ids=tokens).logits for model in models]
    assert equal(*logits)
    # What this version of transformers saves (nested config, perhaps other names) is read too.
    models[0].save_pretrained(tmp_path / "saved")
    assert "text_config" in json.loads((tmp_path / "saved/config.json").read_text())
    hf_to_mm(tmp_path / "saved", tmp_path / "again", tp_size=2)
    for rank in (tmp_path / "mm").rglob("*.pt"):
        other = tmp_path / "again" / rank.relative_to(tmp_path / "mm")
        assert rank.read_bytes() == other.read_bytes()
