"""LoRA by the hf engine: what is trained and saved, exact resumes, and both forms of export."""

import csv
import importlib.util
import json
import shutil

import pytest
import torch
from mindtune.checkpoint import mm_to_hf
from mindtune.checkpoint.adapters import export_adapter, load_adapters, targets
from mindtune.checkpoint.peft_adapter import merge_adapter
from mindtune.engines import training_check
from mindtune.engines.checks import checkpoint_bytes
from mindtune.engines.hf.adapters import Adapters
from mindtune.engines.hf.dataset import Collator, Conversations
from mindtune.engines.hf.model import load_model
from mindtune.engines.hf.packing import Packer, packed_loss
from mindtune.engines.hf.processing import Processor
from mindtune.engines.hf.segments import use_segments
from mindtune.errors import UserError
from mindtune.models.adapters import adapter_parameters
from mindtune.models.shape import model_shape, read_config
from mindtune.settings.typed import typed
from safetensors.torch import load_file, save_file
from test_finetune import TRAIN, job_of, rows, train
from test_finetune import place as place_of_finetune
from test_packing import GRADIENT, difference

place = place_of_finetune  # a fixture
FUSED = ["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"]
OWN = ["q_proj", "v_proj", "down_proj"]
LORA = {"rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": FUSED}
SECTION = typed("train", TRAIN | {"lora": LORA})
SEEING = {"freeze_vision_encoder": False, "freeze_vision_projector": False}
# fused modules; separate ones; all of the model with a dropout, in one of each precision.
WAYS = {
    "fused": ({}, {}, {}),
    "separate": ({"target_modules": OWN}, {}, {}),
    "vision and dropout": ({"dropout": 0.1}, SEEING, {}),
    "bf16, packed": ({"dropout": 0.1}, {}, {"precision": "bf16", "tokens_per_pass": 300}),
    "recomputed": ({"dropout": 0.1}, {}, {"recompute": "full"}),
}  # fmt: skip


def lora(**changes):
    return LORA | changes


def saved(save_dir, iteration=4):
    file = save_dir / f"iter_{iteration:07d}/mp_rank_00/model_optim_rng.pt"
    return torch.load(file, weights_only=True)


@pytest.fixture(scope="module")
def trained(place, tmp_path_factory):
    """A training in each way: name -> its save_dir and the bytes of its last checkpoint."""
    found = {}

    def of(name):
        if name not in found:
            adapters, changes, machine = WAYS[name]
            save_dir = tmp_path_factory.mktemp("lora") / "save_dir"
            whole = train(place, save_dir, machine=machine, lora=lora(**adapters), **changes)
            found[name] = save_dir, whole
        return found[name]

    return of


@pytest.mark.parametrize("name", WAYS)
def test_two_halves_are_one_whole(place, tmp_path, trained, name):
    adapters, changes, machine = WAYS[name]
    save_dir, whole = trained(name)
    shutil.copytree(save_dir, tmp_path / "a")
    shutil.rmtree(tmp_path / "a/iter_0000004")
    again = train(place, tmp_path / "a", machine=machine, lora=lora(**adapters), **changes)
    assert again == whole
    assert rows(tmp_path / "a") == rows(save_dir)


def test_only_adapters_are_trained_and_saved(place, trained):
    save_dir, whole = trained("fused")
    content = saved(save_dir)
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in content["model"]} == {*FUSED}
    assert len(content["model"]) == 2 * 4 * 4  # A and B of four modules of four layers
    assert all(name.startswith("text_decoder.") for name in content["model"])  # vision is frozen
    config = read_config(place / "base")
    size = adapter_parameters(model_shape(config), SECTION)
    assert sum(tensor.numel() for tensor in content["model"].values()) == size
    moments = content["hf_engine"]["optimizer"]["state"].values()
    assert sum(state["exp_avg"].numel() for state in moments) == size
    wanted = checkpoint_bytes(config, SECTION, "fp32")
    assert wanted == 12 * size < len(whole) < wanted + 80_000  # names and states of generators


def test_the_seed_decides_how_adapters_begin(place, tmp_path, trained):
    train(place, tmp_path / "b", lora=LORA, seed=43, train_iters=1, save_interval=1, eval_iters=0)
    other = saved(tmp_path / "b", 1)["model"]
    first = saved(trained("fused")[0], 2)["model"]
    assert other.keys() == first.keys()
    low = [name for name in first if ".lora_A." in name]
    assert all((first[name] - other[name]).abs().mean() > 0.01 for name in low)


@pytest.mark.parametrize(
    ("name", "count"), [("fused", 28), ("separate", 12), ("vision and dropout", 46)]
)
def test_merged_is_base_and_adapter_in_transformers_to_the_bit(
    place, tmp_path, trained, name, count
):
    """peft loads the adapter onto the base, and merges it: the same float32 bits as ours."""
    from peft import PeftModel

    save_dir, _ = trained(name)
    mm_to_hf(save_dir, place / "base", tmp_path / "merged")
    export_adapter(save_dir, place / "base", tmp_path / "adapter")
    base = load_model(place / "base", torch.float32)
    model = PeftModel.from_pretrained(base, tmp_path / "adapter")
    layers = [layer for layer in model.modules() if hasattr(layer, "lora_A")]
    assert len(layers) == count
    theirs = model.merge_and_unload().state_dict()
    ours = load_model(tmp_path / "merged", torch.float32).state_dict()
    plain = load_model(place / "base", torch.float32).state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())
    assert sum(not torch.equal(ours[key], tensor) for key, tensor in plain.items()) == count
    assert read_config(tmp_path / "merged")["torch_dtype"] == "float32"
    # And as a model of its own, by the tool for adapters from elsewhere.
    merge_adapter(tmp_path / "adapter", place / "base", tmp_path / "again", widen=True)
    for file in sorted((tmp_path / "merged").glob("*.safetensors")):
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_a_loaded_adapter_answers_as_the_merged_model(place, tmp_path, trained):
    from peft import PeftModel

    save_dir, _ = trained("separate")
    mm_to_hf(save_dir, place / "base", tmp_path / "merged")
    export_adapter(save_dir, place / "base", tmp_path / "adapter")
    beside = PeftModel.from_pretrained(
        load_model(place / "base", torch.float32), tmp_path / "adapter"
    )
    merged = load_model(tmp_path / "merged", torch.float32)
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        torch.testing.assert_close(beside(input_ids=tokens).logits, merged(input_ids=tokens).logits)


def test_names_of_modules_are_as_short_as_they_are_clear(place):
    shape = model_shape(read_config(place / "base"))
    every = {f"visual.blocks.{n}.attn.proj" for n in range(4)}
    assert targets(every, shape) == ["attn.proj"]  # and not that of the patches
    assert targets({"visual.merger.mlp.0"}, shape) == ["mlp.0"]
    assert targets({f"model.layers.{n}.mlp.up_proj" for n in range(4)}, shape) == ["up_proj"]
    one = targets({"model.layers.1.mlp.up_proj"}, shape)
    assert one == ["1.mlp.up_proj"]


def test_recomputing_gives_the_same_losses(place, tmp_path, trained):
    with open(trained("recomputed")[0] / "loss.csv", newline="") as handle:
        recomputed = [float(row["loss"]) for row in csv.DictReader(handle)]
    train(place, tmp_path / "a", lora=lora(dropout=0.1))
    assert [float(row["loss"]) for row in rows(tmp_path / "a")] == pytest.approx(
        recomputed, rel=1e-6
    )
    for machine in ({}, {"tokens_per_pass": 300}):
        kept, again = (tmp_path / f"{name} {len(machine)}" for name in ("kept", "again"))
        train(place, kept, machine=machine, **SEEING)
        train(place, again, machine=machine | {"recompute": "full"}, **SEEING)
        first, second = ([float(row["loss"]) for row in rows(one)] for one in (kept, again))
        assert second == pytest.approx(first, rel=1e-6)


def test_layers_are_computed_again(place, tmp_path, monkeypatch):
    """Twice as often forward as without; what a switch of transformers' that does nothing would not show."""
    from transformers.models.qwen2_vl import modeling_qwen2_vl

    calls = []
    inner = modeling_qwen2_vl.Qwen2VLAttention.forward

    def counted(self, *args, **kwargs):
        calls.append(torch.is_grad_enabled())
        return inner(self, *args, **kwargs)

    monkeypatch.setattr(modeling_qwen2_vl.Qwen2VLAttention, "forward", counted)
    counts = []
    for recompute in ("none", "full"):
        calls.clear()
        train(
            place, tmp_path / recompute, machine={"recompute": recompute, "tokens_per_pass": 4096},
            train_iters=1, save_interval=1, eval_iters=0,
        )  # fmt: skip
        counts.append(len(calls))
    assert counts == [4, 8]  # one pass through four layers


def test_packed_passes_give_the_same_loss_and_gradients(place):
    processor = Processor(place / "base")
    records = json.loads((place / "train.json").read_text())[:4]
    data = Conversations(records, place / "images", processor, 256)
    samples = [data[number] for number in range(4)]
    found = []
    for packed in (False, True):
        model = load_model(place / "base", torch.float32).train()
        adapters = Adapters(
            model, read_config(place / "base"), typed("train", TRAIN | SEEING | {"lora": LORA})
        )
        for _, *highs in adapters.tensors().values():  # zero at first, which would hide A
            generator = torch.Generator().manual_seed(1)
            for high in highs:
                high.normal_(0, 0.05, generator=generator)
        if packed:
            use_segments(model)
            packer = Packer(2, 300, processor.image_token_id, processor.image_processor.merge_size)
            losses = [packed_loss(model, part) for part in packer(samples)["passes"]]
        else:
            collate = Collator(processor)
            parts = [collate(samples[:2]), collate(samples[2:])]
            losses = [model(**part, use_cache=False).loss / 2 for part in parts]
        sum(losses).backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
        found.append((sum(losses).item(), gradients))
    (one, plain), (other, together) = found
    assert other == pytest.approx(one, rel=1e-6)
    assert plain.keys() == together.keys() and all(".lora_" in name for name in plain)
    assert difference(plain, together) < GRADIENT


def test_parts_of_a_fused_module_share_a(place):
    model = load_model(place / "base", torch.float32)
    Adapters(model, read_config(place / "base"), SECTION)
    layer = model.model.language_model.layers[0]
    first = layer.self_attn.q_proj.lora_A["default"].weight
    assert layer.self_attn.v_proj.lora_A["default"].weight is first
    assert (
        layer.mlp.up_proj.lora_A["default"].weight is layer.mlp.gate_proj.lora_A["default"].weight
    )
    assert layer.self_attn.o_proj.lora_A["default"].weight is not first
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == adapter_parameters(model_shape(read_config(place / "base")), SECTION)


@pytest.mark.parametrize(
    ("adapters", "words"),
    [
        ({"rank": 257}, r"train\.lora\.rank is 257, .* has more than 128 inputs .*; write at most 128"),
        ({"target_modules": ["qkv"]}, r"is qkv, but all of these are frozen"),
        ({"target_modules": ["linear_qkv", "up_proj9"]}, "has up_proj9, but Qwen2-VL has no such"),
    ],
)  # fmt: skip
def test_adapters_that_do_not_fit_are_refused(place, tmp_path, adapters, words):
    job = job_of(place, tmp_path / "a", lora=lora(**adapters))
    with pytest.raises(UserError, match=words):
        training_check("hf")(job, 0)


def test_without_peft_a_sentence_says_what_to_install(place, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "mindtune.engines.hf.adapters.find_spec",
        lambda name: None if name == "peft" else found(name),
    )
    with pytest.raises(UserError, match=r"pip install -r envs/lora\.txt"):
        training_check("hf")(job_of(place, tmp_path / "a", lora=LORA), 0)


def test_adapters_of_another_base_are_refused(place, tmp_path, trained):
    save_dir, _ = trained("fused")
    wide = tmp_path / "wide"
    shutil.copytree(place / "base", wide)
    config = read_config(wide) | {"intermediate_size": 512}
    (wide / "config.json").write_text(json.dumps(config))
    for path in wide.glob("*.safetensors"):
        tensors = load_file(path)
        for name, tensor in tensors.items():
            if name.endswith(("gate_proj.weight", "up_proj.weight")):
                tensors[name] = torch.zeros(512, 128, dtype=tensor.dtype)
            if name.endswith("down_proj.weight"):
                tensors[name] = torch.zeros(128, 512, dtype=tensor.dtype)
        save_file(tensors, path, metadata={"format": "pt"})
    for export in (mm_to_hf, export_adapter):
        with pytest.raises(UserError, match=r"do not fit .*linear_fc1.*trained on another model"):
            export(save_dir, wide, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_has_no_adapters_is_not_exported_as_one(place, tmp_path):
    for use in (export_adapter, lambda mm, hf, out: load_adapters(mm, read_config(hf))):
        with pytest.raises(UserError, match="holds a whole model, and no adapters"):
            use(place / "mm", place / "base", tmp_path / "out")


def test_other_adapters_are_not_taken_up(place, trained):
    save_dir, _ = trained("fused")
    pairs = load_adapters(save_dir, read_config(place / "base"))
    for changes, words in (
        ({"rank": 2}, "has the rank 4"),
        ({"target_modules": OWN}, "of other modules"),
    ):
        model = load_model(place / "base", torch.float32)
        adapters = Adapters(
            model, read_config(place / "base"), typed("train", TRAIN | {"lora": lora(**changes)})
        )
        with pytest.raises(UserError, match=words):
            adapters.load(pairs)
