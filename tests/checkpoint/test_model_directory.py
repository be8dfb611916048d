"""What is said of a base model's directory before anything runs, one sentence for each mistake."""

import json
import os
from pathlib import Path

import pytest
from mindtune.checkpoint.layout import ParallelLayout
from mindtune.checkpoint.model_directory import model_problems
from mindtune.demo.base_model import write_base_model
from mindtune.models.shape import model_shape
from mindtune.settings.sections import Settings
from mindtune.settings.typed import made_of
from tiny_qwen25 import write_base as write_qwen25

ONE = {
    "tensor_model_parallel_size": 1, "context_parallel_size": 1,
    "llm_pp_layers": None, "vit_pp_layers": None,
}  # fmt: skip
STAGES = {"llm_pp_layers": [[1, 3]], "vit_pp_layers": [[4, 0]]}
INDEX = "model.safetensors.index.json"
PROCESSOR = "preprocessor_config.json"


def settings(engine="hf", converter="mindtune", **parallel):
    machine = {
        "stand_in": "tests/standin", "converter": converter, "inference": "pipeline",
        "extra_arguments": [],
    }  # fmt: skip
    train = {"freeze_vision_encoder": True, "freeze_vision_projector": True}
    return {
        "engine": engine,
        "mindspeed": machine,
        "parallel": ONE | parallel,
        "train": train,
    }


def problems(model, settings):
    return model_problems(model, made_of(Settings, settings))


@pytest.fixture
def model(tmp_path):
    write_base_model(tmp_path / "model")
    return tmp_path / "model"


def edit(path: Path, remove=(), **changes) -> None:
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: content[key] for key in content if key not in remove}))


def processor(**changes):
    return lambda model: edit(model / PROCESSOR, **changes)


def config(**changes):
    return lambda model: edit(model / "config.json", **changes)


def vision(**changes):
    def spoil(model):
        content = json.loads((model / "config.json").read_text())
        edit(model / "config.json", vision_config=content["vision_config"] | changes)

    return spoil


def mark(name):
    def spoil(model):
        (model / name).write_bytes(b"\xef\xbb\xbf" + (model / name).read_bytes())

    return spoil


def write(name, text):
    return lambda model: (model / name).write_text(text)


def fifo(name):
    def spoil(model):
        (model / name).unlink(missing_ok=True)
        os.mkfifo(model / name)

    return spoil


MISTAKES = {
    **{
        f"byte order mark in {name}": (mark(name), f"{name} begins with a byte order mark, which")
        for name in (
            "config.json", "tokenizer.json", "tokenizer_config.json", PROCESSOR,
            "generation_config.json", "chat_template.json", INDEX,
        )
    },
    "broken JSON": (write("config.json", "{"), "config.json is not JSON"),
    "a list": (write("config.json", "[]"), "config.json is not a JSON object"),
    "a broken generation config": (write("generation_config.json", "x"), "is not JSON"),
    "a pipe": (fifo("config.json"), "config.json is a named pipe, but must be a file."),
    "a pipe for a tokenizer": (fifo("tokenizer.json"), "tokenizer.json is a named pipe"),
    "no processor": (lambda model: (model / PROCESSOR).unlink(), f"{PROCESSOR} is missing"),
    "another model": (config(model_type="llava"), "it is a llava model, but must be a qwen2_vl or"),
    "AWQ": (
        config(quantization_config={"quant_method": "awq", "bits": 4}),
        "config.json has a quantization_config (awq), and quantized weights can't be trained; give",
    ),
    "a quantization of no name": (config(quantization_config={}), "(of an unnamed kind)"),
    "patch_size of pictures": (
        processor(patch_size=-1),
        f"patch_size in {PROCESSOR} is -1; a whole number above 0 is needed.",
    ),
    "patch_size of the model": (
        vision(patch_size=-1), "vision_config: patch_size is -1; a whole number above 0 is needed.",
    ),
    "another patch_size": (
        processor(patch_size=16),
        f"patch_size is 16 in {PROCESSOR}, but patch_size is 14 in vision_config",
    ),
    "another merge_size": (
        processor(merge_size=4),
        f"merge_size is 4 in {PROCESSOR}, but spatial_merge_size is 2 in vision_config",
    ),
    "text for a size": (processor(temporal_patch_size="2"), "temporal_patch_size in"),
    "more at least than at most": (
        processor(min_pixels=16385), "min_pixels 16385 and max_pixels 16384",
    ),
    "pixels below 0": (processor(max_pixels=-1), "min_pixels 3136 and max_pixels -1"),
    "the form of transformers 5, wrong": (
        processor(remove=("min_pixels", "max_pixels"), size={"shortest_edge": 9, "longest_edge": 0}),
        "min_pixels 9 and max_pixels 0",
    ),
    "two means": (processor(image_mean=[0.5, 0.5]), "image_mean in"),
    "a deviation of 0": (processor(image_std=[0.5, 0, 0.5]), "three numbers above 0 are needed."),
    "a billion layers": (
        config(num_hidden_layers=10**9),
        "num_hidden_layers is 1000000000; at most 1000 can be right.",
    ),
    "an index with a list": (write(INDEX, '{"weight_map": []}'), "its weight_map is a list, but"),
    "an index that is a list": (write(INDEX, "[]"), f"{INDEX} is not a JSON object"),
    "no weights": (
        lambda model: [path.unlink() for path in model.glob("*.safetensors")], "has no weights",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence(model, name):
    spoil, words = MISTAKES[name]
    spoil(model)
    found = list(problems(model, settings()))
    assert any(words in problem for problem in found), found
    assert all(
        problem.startswith(f"sources.model.path {model}") and "\n" not in problem
        for problem in found
    )
    assert len(found) == (2 if name == "an index that is a list" else 1), found


def test_the_demos_base_is_faultless(model):
    for engine in ("hf", "mindspeed"):
        assert list(problems(model, settings(engine))) == []


def newer(model):
    """The image processor where transformers 5 saves it."""
    content = json.loads((model / PROCESSOR).read_text())
    (model / PROCESSOR).unlink()
    (model / "processor_config.json").write_text(json.dumps({"image_processor": content}))


def test_an_image_processor_in_processor_config_counts(model):
    newer(model)
    assert list(problems(model, settings())) == []
    (found,) = problems(model, settings("mindspeed"))
    assert "but MindSpeed-MM reads preprocessor_config.json only; copy that file" in found
    edit(model / "processor_config.json", image_processor={"patch_size": 0})
    (found,) = problems(model, settings())
    assert "patch_size in processor_config.json is 0" in found
    edit(model / "processor_config.json", remove=("image_processor",))
    (found,) = problems(model, settings())
    assert "preprocessor_config.json is missing" in found


@pytest.mark.parametrize("engine", ["hf", "mindspeed"])
def test_two_image_processors_have_to_agree(model, engine):
    content = json.loads((model / PROCESSOR).read_text())
    newer = {key: value for key, value in content.items() if not key.endswith("_pixels")}
    size = {"shortest_edge": content["min_pixels"], "longest_edge": content["max_pixels"]}
    both = model / "processor_config.json"
    both.write_text(json.dumps({"image_processor": newer | {"size": size}}))
    assert list(problems(model, settings(engine))) == []
    both.write_text(json.dumps({"image_processor": content | {"max_pixels": 20000}}))
    (found,) = problems(model, settings(engine))
    assert "max_pixels is 16384 in preprocessor_config.json, but 20000 in processor_config" in found


def test_sizes_that_mindspeeds_transformers_does_not_read_are_said(model):
    """transformers 4.45 takes its own limits where there are no min_pixels and max_pixels."""
    size = {"shortest_edge": 3136, "longest_edge": 16384}
    edit(model / PROCESSOR, remove=("min_pixels", "max_pixels"), size=size)
    assert list(problems(model, settings())) == []
    (found,) = problems(model, settings("mindspeed"))
    assert "MindSpeed-MM would enlarge or shrink pictures in another way; write both keys" in found


def test_what_mm_convert_cannot_use_is_said(model):
    theirs = settings("mindspeed", "mm-convert")
    assert list(problems(model, theirs)) == []
    content = json.loads((model / INDEX).read_text())
    file = content["weight_map"]["model.embed_tokens.weight"]
    edit(model / INDEX, weight_map=content["weight_map"] | {"lm_head.weight": file})
    (found,) = problems(model, theirs)
    assert "stores lm_head.weight beside the embedding" in found
    assert found.endswith("set mindspeed.converter to mindtune.")
    assert list(problems(model, settings("mindspeed", "mm-convert", **STAGES))) == []
    assert list(problems(model, settings("mindspeed"))) == []
    (model / INDEX).unlink()
    (found,) = problems(model, theirs)
    assert f"has no {INDEX}, without which mm-convert can't convert back" in found
    edit(model / "config.json", text_config={"hidden_size": 128})
    write(INDEX, json.dumps(content))(model)
    (found,) = problems(model, theirs)
    assert "config.json of transformers 5" in found


@pytest.mark.parametrize(
    ("vision", "language", "encoder", "projector", "idle"),
    [
        ([[4, 0]], [[0, 4]], True, True, [0]),
        ([[4, 0]], [[0, 4]], True, False, []),
        ([[4, 0]], [[0, 4]], False, True, []),
        ([[2, 2, 0]], [[0, 0, 4]], True, False, [0]),
        ([[2, 2, 0]], [[0, 0, 4]], True, True, [0, 1]),
        ([[4, 0]], [[1, 3]], True, True, []),
        ([[4]], [[4]], True, True, []),
    ],
)
def test_stages_that_would_train_nothing(model, vision, language, encoder, projector, idle):
    layout = ParallelLayout.make(llm_pp_layers=language, vit_pp_layers=vision)
    assert layout.idle_stages(encoder, projector) == idle
    given = settings("mindspeed", llm_pp_layers=language, vit_pp_layers=vision)
    given["train"] = {"freeze_vision_encoder": encoder, "freeze_vision_projector": projector}
    found = list(problems(model, given))
    apart = [problem for problem in found if "all language layers are on the last stage" in problem]
    assert len(apart) == (len(language[0]) > 1 and not any(language[0][:-1]))  # it is tied
    found = [problem for problem in found if problem not in apart]
    assert len(found) == len(idle)
    for stage, problem in zip(idle, found, strict=True):
        assert f"stage {stage} has only frozen layers (train.freeze_vision_encoder" in problem


@pytest.mark.parametrize(
    ("sizes", "parallel", "context", "words"),
    [
        ({}, {}, 2, ""),
        ({}, {}, 4, ""),  # more than the key-value heads, which are then repeated
        ({}, {"tp_size": 2}, 2, ""),
        ({}, {"tp_size": 2}, 3, "has 2 attention heads, which can't be shared out to 3 ranks"),
        ({}, {}, 5, "has 4 attention heads, which can't be shared out to 5 ranks"),
        ({"num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 16}, {}, 3,
         "it doesn't divide the 4 key-value heads"),
        ({}, {"llm_pp_layers": [[0, 4]], "vit_pp_layers": [[4, 0]]}, 2, "is on 2 stages"),
        ({}, STAGES, 2, "the model is on 2 stages, and only one that has all of it can cut"),
        ({}, STAGES, 1, ""),
    ],
)  # fmt: skip
def test_where_sequences_can_be_cut(model, sizes, parallel, context, words):
    shape = model_shape(json.loads((model / "config.json").read_text()) | sizes)
    found = ParallelLayout.make(shape, **parallel).context_problems(shape, context)
    assert [words in problem for problem in found] == ([True] if words else [])


@pytest.mark.parametrize(
    ("section", "parallel", "words"),
    [
        ({}, {}, None),
        ({"converter": "mm-convert"}, {}, "mindspeed.converter is mm-convert, which in MindSpeed-MM "
         "2.0.0 doesn't work for Qwen2.5-VL; write mindtune."),
        ({"inference": "script"}, {}, "mindspeed.inference is script, which in MindSpeed-MM 2.0.0 "
         "doesn't work for Qwen2.5-VL; write pipeline."),
        ({"extra_arguments": ["--use-flash-attn"]}, {}, "mindspeed.extra_arguments has "
         "--use-flash-attn, with which MindSpeed-MM 2.0.0 trains Qwen2.5-VL without the windows of "
         "its vision encoder; remove it."),
        ({}, {"context_parallel_size": 2}, "parallel.context_parallel_size 2 can't be trained by "
         "MindSpeed-MM: without --use-flash-attn, which loses the windows of Qwen2.5-VL's vision "
         "encoder, it computes something else; write 1."),
    ],
    ids=["as it is", "mm-convert", "script", "flash attention", "context"],
)  # fmt: skip
def test_what_the_framework_can_not_do_with_qwen25(tmp_path, section, parallel, words):
    """Found by tests/conformance/test_parity_qwen25.py; Qwen2-VL may have each of them."""
    for write, found in (
        (write_qwen25, [words] if words else []), (write_base_model, []),
    ):  # fmt: skip
        base = tmp_path / write.__name__
        write(base)
        asked = settings("mindspeed", **parallel)
        asked["mindspeed"] |= section
        assert list(problems(base, asked)) == found
