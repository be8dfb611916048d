"""Rendering, against the files of a real run (tests/ascend/recorded)."""

import json
import os
from pathlib import Path

import pytest
from ascend.values import RECORDED, TRAIN, scrambled
from mindtune.checkpoint.layout import ParallelLayout
from mindtune.demo.base_model import write_base_model
from mindtune.engines.mindspeed import rendering
from mindtune.errors import UserError
from mindtune.models import published
from mindtune.models.shape import model_shape
from mindtune.settings.typed import typed
from tiny_qwen25 import write_base as write_qwen25


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
    made = rendering.model_file(
        scrambled(recorded("model")), config, whole(config), typed("train", TRAIN)
    )
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
    made = rendering.model_file(recorded("model"), config, layout, typed("train", train))
    encoder = made["image_encoder"]["vision_encoder"]
    assert made["text_decoder"]["pipeline_num_layers"] == [1, 3]
    assert encoder["pipeline_num_layers"] == [4, 0]
    assert (encoder["freeze"], made["image_encoder"]["vision_projector"]["freeze"]) == (False, True)


def test_both_parts_are_told_the_context_parallel_size(config):
    """The framework's docs/features/unaligned_ulysses_cp.md; the size itself is an argument."""
    made = rendering.model_file(
        recorded("model"), config, whole(config), typed("train", TRAIN), context=2
    )
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
    made = rendering.model_file(scrambled(wanted), newer, whole(newer), typed("train", TRAIN))
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
        rendering.model_file(recorded("model"), config, layout, typed("train", TRAIN))


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


# --- Qwen2.5-VL, for which the framework ships a 7B to train, and nothing to answer -----------


@pytest.fixture(scope="module")
def qwen25(tmp_path_factory):
    return write_qwen25(tmp_path_factory.mktemp("qwen25") / "base")


def test_all_in_which_qwen25_differs_follows_from_its_config(qwen25):
    """Whatever the shipped file says of it, Qwen2-VL's for answering too."""
    config = json.loads((qwen25 / "config.json").read_text())
    template = scrambled(recorded("model"))
    made = rendering.model_file(template, config, whole(config), typed("train", TRAIN))
    encoder = made["image_encoder"]["vision_encoder"]
    assert encoder.items() >= {
        "num_layers": 4, "hidden_size": 128, "ffn_hidden_size": 344, "intermediate_size": 344,
        "gated_linear_unit": True, "activation_func": "silu", "normalization": "RMSNorm",
        "window_attn_size": 56, "fullatt_block_indexes": [1, 3], "tokens_per_second": 2,
    }.items()  # fmt: skip
    projector = made["image_encoder"]["vision_projector"]
    assert (projector["normalization"], projector["ffn_hidden_size"]) == ("RMSNorm", 512)
    assert made["text_decoder"]["model_id"] == "qwen2_5_lm"
    asked = rendering.inference_file(
        scrambled(recorded("inference")), config, whole(config),
        hf_dir=qwen25, end=529, text_end=527, max_new_tokens=24,
    )  # fmt: skip
    for part in ("vision_encoder", "vision_projector"):
        ours, theirs = (one["image_encoder"][part] for one in (asked, made))
        assert ours | {"freeze": None} == theirs | {"freeze": None}


def test_the_framework_reads_qwen25s_processor_as_qwen2_vls(qwen25, config, tmp_path):
    shape = model_shape(json.loads((qwen25 / "config.json").read_text()))
    place = rendering.readable(qwen25, shape, tmp_path / "processor")
    assert place == tmp_path / "processor"
    changed = {"config.json", "preprocessor_config.json"}
    for path in place.iterdir():
        same = path.read_bytes() == (qwen25 / path.name).read_bytes()
        assert same == (path.name not in changed), path
    assert {path.name for path in place.iterdir()} >= {*changed, "tokenizer.json", "merges.txt"}
    assert json.loads((place / "config.json").read_text())["model_type"] == "qwen2_vl"
    processor = json.loads((place / "preprocessor_config.json").read_text())
    assert processor["processor_class"] == "Qwen2VLProcessor" and processor["patch_size"] == 14
    # What the framework can read itself stays where it is.
    assert rendering.readable(qwen25, model_shape(config), tmp_path / "none") == qwen25
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("size", ["3B", "7B", "32B", "72B"])
def test_qwen25_of_every_size_is_filled_into_the_7b(tmp_path, size):
    (tmp_path / "examples/qwen2.5vl").mkdir(parents=True)
    (tmp_path / "examples/qwen2vl").mkdir()
    (tmp_path / "examples/qwen2.5vl/model_7b.json").write_text('{"of": "training"}')
    (tmp_path / "examples/qwen2vl/inference_qwen2vl_7b.json").write_text('{"of": "answering"}')
    shape = model_shape(published.PUBLISHED[f"Qwen2.5-VL-{size}"])
    assert rendering.shipped(tmp_path, "model", shape) == {"of": "training"}
    assert rendering.shipped(tmp_path, "inference", shape) == {"of": "answering"}


@pytest.mark.mindspeed
@pytest.mark.skipif("MINDSPEED_MM_HOME" not in os.environ, reason="MINDSPEED_MM_HOME is not set")
def test_the_published_7b_is_rendered_as_it_is_shipped():
    """The framework's own model_7b.json comes out, but for the head size that it computes itself."""
    config = published.PUBLISHED["Qwen2.5-VL-7B"] | {
        "max_position_embeddings": 128000, "rope_scaling": {"mrope_section": [16, 24, 24]},
    }  # fmt: skip
    home = Path(os.environ["MINDSPEED_MM_HOME"])
    shape = model_shape(config)
    layout = ParallelLayout.make(
        shape, llm_pp_layers=[[1, 10, 10, 7]], vit_pp_layers=[[32, 0, 0, 0]]
    )
    shipped = rendering.shipped(home, "model", shape)
    made = rendering.model_file(shipped, config, layout, typed("train", TRAIN))
    assert made["text_decoder"].pop("kv_channels") == 128
    assert made == shipped
