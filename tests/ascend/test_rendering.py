"""Rendering, against the files of a real run (tests/ascend/recorded)."""

import json
from pathlib import Path

import pytest
from ascend.values import RECORDED, TRAIN, scrambled
from mindtune.checkpoint.layout import ParallelLayout
from mindtune.demo.base_model import write_base_model
from mindtune.engines.mindspeed import rendering
from mindtune.errors import UserError
from mindtune.models.shape import model_shape


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    place = tmp_path_factory.mktemp("base")
    write_base_model(place)
    return json.loads((place / "config.json").read_text())


def recorded(name):
    return json.loads((RECORDED / f"{name}.json").read_text())


def whole(config):
    return ParallelLayout.make(model_shape(config))


def test_the_model_file_is_that_of_the_real_run(config):
    made = rendering.model_file(scrambled(recorded("model")), config, whole(config), TRAIN)
    assert made == recorded("model")


def test_the_inference_file_is_that_of_the_real_run(config):
    wanted = recorded("inference")
    for part in wanted["image_encoder"].values():
        part["freeze"] = "scrambled"  # of no account: nothing is trained
    made = rendering.inference_file(
        scrambled(wanted), config, whole(config),
        hf_dir=Path(wanted["tokenizer"]["from_pretrained"]), end=529, text_end=527, max_new_tokens=24,
    )  # fmt: skip
    assert made == wanted


def test_the_data_file_is_that_of_the_real_run():
    wanted = recorded("data")
    wanted["dataset_param"]["attr"]["system_tag"] = "system"
    made = rendering.data_file(
        scrambled(wanted),
        hf_dir=Path("/place/results/sources/Qwen2-VL-demo"),
        images=Path("/place/results/sources/COCO2017/train2017"),
        train_data=Path("/place/results/shared/data/train.json"),
        cache=Path("/place/results/cache/node/c4827655ccf0c1c1"),
        image_resolution=262144,
        workers=2,
    )
    assert made == wanted


def test_pipeline_stages_and_what_is_frozen(config):
    layout = ParallelLayout.make(
        model_shape(config), llm_pp_layers=[[1, 3]], vit_pp_layers=[[4, 0]]
    )
    train = TRAIN | {"freeze_vision_encoder": False}
    made = rendering.model_file(recorded("model"), config, layout, train)
    encoder = made["image_encoder"]["vision_encoder"]
    assert made["text_decoder"]["pipeline_num_layers"] == [1, 3]
    assert encoder["pipeline_num_layers"] == [4, 0]
    assert (encoder["freeze"], made["image_encoder"]["vision_projector"]["freeze"]) == (False, True)


def test_both_parts_are_told_the_context_parallel_size(config):
    """The framework's docs/features/unaligned_ulysses_cp.md; the size itself is an argument."""
    made = rendering.model_file(recorded("model"), config, whole(config), TRAIN, context=2)
    wanted = recorded("model")
    wanted["image_encoder"]["vision_encoder"]["context_parallel_size"] = 2
    wanted["text_decoder"]["context_parallel_size"] = 2
    assert made == wanted


def in_the_form_of_transformers_5(config):
    """What transformers 5 saves of the demo's config.json."""
    of_text = {name for name in config if name in OF_TEXT}
    text = {name: config[name] for name in of_text - {"rope_theta", "rope_scaling"}}
    text["rope_parameters"] = {
        "mrope_section": config["rope_scaling"]["mrope_section"],
        "rope_theta": config["rope_theta"], "rope_type": "default", "type": "mrope",
    }  # fmt: skip
    rest = {name: value for name, value in config.items() if name not in of_text}
    return rest | {"text_config": text}


OF_TEXT = {
    "attention_dropout", "bos_token_id", "eos_token_id", "hidden_act", "hidden_size",
    "initializer_range", "intermediate_size", "max_position_embeddings", "max_window_layers",
    "num_attention_heads", "num_hidden_layers", "num_key_value_heads", "rms_norm_eps", "rope_theta",
    "sliding_window", "use_cache", "use_sliding_window", "rope_scaling", "vocab_size",
}  # fmt: skip


def test_a_config_of_transformers_5_gives_the_same_files(config):
    newer = in_the_form_of_transformers_5(config)
    assert "bos_token_id" not in newer
    wanted = recorded("model")
    made = rendering.model_file(scrambled(wanted), newer, whole(newer), TRAIN)
    assert made == wanted
    wanted = recorded("inference")
    one, other = (
        rendering.inference_file(
            scrambled(wanted), form, whole(form), hf_dir=Path("model"), end=529, text_end=527,
            max_new_tokens=24,
        )
        for form in (config, newer)
    )  # fmt: skip
    assert one == other


def test_a_layout_of_another_model_is_refused(config):
    layout = ParallelLayout.make(llm_pp_layers=[[28]], vit_pp_layers=[[32]])
    with pytest.raises(UserError, match="adds up to 28 layers; the model has 4"):
        rendering.model_file(recorded("model"), config, layout, TRAIN)


PUBLISHED = {
    "2b": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "7b": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
    },
    "72b": {
        "hidden_size": 8192,
        "intermediate_size": 29568,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
    },
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_the_nearest_shipped_file_is_taken(tmp_path, size):
    for name in PUBLISHED:
        path = tmp_path / f"examples/qwen2vl/model_{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"size": name}))
    shape = model_shape(
        {"model_type": "qwen2_vl", "vision_config": {"depth": 32}} | PUBLISHED[size]
    )
    assert rendering.shipped(tmp_path, "model", shape) == {"size": size}


def test_an_installation_that_is_not_whole_is_said(tmp_path):
    shape = model_shape(
        {"model_type": "qwen2_vl", "vision_config": {"depth": 32}} | PUBLISHED["2b"]
    )
    with pytest.raises(UserError, match="the installation of MindSpeed-MM is not whole"):
        rendering.shipped(tmp_path, "model", shape)
