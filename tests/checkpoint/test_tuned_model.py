"""A model that was trained elsewhere: what is wrong with it is said before the first job."""

import json

import pytest
from mindtune.checkpoint.tuned_model import has_processor, state_of, tuned_problems
from test_peft_adapter import write_adapter
from tiny_qwen2vl import Sizes, config_of, write_hf

SIZES = Sizes()
BASE = config_of(SIZES)


def problems(path, base=BASE):
    return list(tuned_problems(path, base, "the base", "hf"))


@pytest.mark.parametrize("nested", [False, True], ids=["config of 4", "config of 5"])
@pytest.mark.parametrize("files", [0, 3])
def test_a_whole_model_of_the_bases_size_passes(tmp_path, nested, files):
    write_hf(tmp_path / "tuned", SIZES, nested=nested, files=files)
    assert problems(tmp_path / "tuned") == []
    assert problems(tmp_path / "tuned", base=None) == []
    assert not has_processor(tmp_path / "tuned")


def test_an_output_of_its_own_is_no_other_size(tmp_path):
    write_hf(tmp_path / "tuned", SIZES.but(tied=False))
    assert problems(tmp_path / "tuned") == []


def test_an_adapter_of_this_base_passes(tmp_path):
    tensors = write_hf(tmp_path / "base", SIZES, nans=False)
    write_adapter(tmp_path / "lora", tensors, newer=True)
    assert problems(tmp_path / "lora") == []
    assert problems(tmp_path / "lora", base=None) == []


def test_an_adapter_of_another_base_is_told(tmp_path):
    other = SIZES.but(heads=6)
    write_adapter(tmp_path / "lora", write_hf(tmp_path / "other", other, nans=False))
    (said,) = problems(tmp_path / "lora")
    assert said == (
        f"tuned_model {tmp_path}/lora can't be used: {tmp_path}/lora/adapter_model.safetensors changes "
        "model.layers.0.self_attn.q_proj by a matrix of 48 x 48, but in the base it is 32 x 32; it is an "
        "adapter of another model: give its own base as sources.model."
    )


def change_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_models_of_another_family_or_size_are_told(tmp_path):
    write_hf(tmp_path / "size", SIZES.but(layers=3))
    assert problems(tmp_path / "size") == [
        f"tuned_model {tmp_path}/size has the llm_layers 3, and its base the base 2: they are models of "
        "different sizes; give the base from which it was trained as sources.model."
    ]
    write_hf(tmp_path / "family", SIZES.but(family="qwen2_5_vl"))
    assert problems(tmp_path / "family") == [
        f"tuned_model {tmp_path}/family has the model_type qwen2_5_vl, and its base the base qwen2_vl: "
        "they are models of different families; give the base from which it was trained as "
        "sources.model."
    ]
    change_config(tmp_path / "family", model_type="llama")
    (said,) = problems(tmp_path / "family")
    assert "it is a llama model, but must be a qwen2_vl or qwen2_5_vl or qwen3_vl one" in said
    write_hf(tmp_path / "quantized", SIZES)
    change_config(tmp_path / "quantized", quantization_config={"quant_method": "bitsandbytes"})
    (said,) = problems(tmp_path / "quantized")
    assert "quantized weights" in said and said.endswith("save the model in 16 or 32 bits.")


def test_what_is_no_model_is_told(tmp_path):
    (said,) = problems(tmp_path / "none")
    assert said.startswith(f"tuned_model is {tmp_path}/none, which is not a directory")
    (tmp_path / "run").mkdir()
    (said,) = problems(tmp_path / "run")
    assert "neither config.json nor adapter_config.json" in said
    (tmp_path / "run/latest_checkpointed_iteration.txt").write_text("100")
    (said,) = problems(tmp_path / "run")
    assert "Megatron checkpoint" in said and "convert_checkpoint.py mm-to-hf" in said


def test_weights_that_are_missing_are_told(tmp_path):
    write_hf(tmp_path / "tuned", SIZES)
    (tmp_path / "tuned/model-00002-of-00003.safetensors").unlink()
    (said,) = problems(tmp_path / "tuned")
    assert "lacks 1 of 3 weight files" in said
    tensors = write_hf(tmp_path / "less", SIZES, files=0)
    write_hf(tmp_path / "short", SIZES, files=0, tensors=dict(list(tensors.items())[1:]))
    (said,) = problems(tmp_path / "short")
    assert "lacks the tensor model.embed_tokens.weight" in said


def test_an_adapter_beside_a_whole_model_is_told(tmp_path):
    tensors = write_hf(tmp_path / "tuned", SIZES, nans=False)
    write_adapter(tmp_path / "lora", tensors)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "lora" / name).rename(tmp_path / "tuned" / name)
    (said,) = problems(tmp_path / "tuned")
    assert "adapter_config.json beside a whole model" in said


def test_a_model_that_was_trained_again_is_another(tmp_path):
    write_hf(tmp_path / "tuned", SIZES)
    before = state_of(tmp_path / "tuned")
    assert [path.rpartition("/")[2] for path in before] == [
        "config.json", "model.safetensors.index.json", "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors",
    ]  # fmt: skip
    weights = tmp_path / "tuned/model-00002-of-00003.safetensors"
    weights.write_bytes(weights.read_bytes())  # of the same size
    after = state_of(tmp_path / "tuned")
    assert {path for path in after if after[path] != before[path]} == {str(weights)}
