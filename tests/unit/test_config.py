"""The configuration: the shipped ones pass, and each mistake gets its sentence."""

import copy
from pathlib import Path

import pytest
import yaml
from mindtune.glue.settings_reading import read_configuration
from mindtune.settings import ConfigError, load, source_problems
from mindtune.settings.checks import DEMO_CONFIG

ROOT = Path(__file__).parents[2]
DEMO = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
TUTORIAL = yaml.safe_load((ROOT / "config" / "qwen2-vl-2b.yaml").read_text(encoding="utf-8"))


def changed(dotted, value, raw=DEMO):
    raw = copy.deepcopy(raw)
    place = raw
    *parents, last = dotted.split(".")
    for key in parents:
        place = place.setdefault(key, {})
    place[last] = value
    return raw


def problems(raw):
    with pytest.raises(ConfigError) as caught:
        load(raw, ["config.yaml"])
    return caught.value.problems


@pytest.mark.parametrize("raw", [DEMO, TUTORIAL], ids=["demo", "tutorial"])
def test_the_shipped_configurations_pass(raw):
    assert list(load(raw).experiments) == ["baseline"]


def test_the_shipped_comparison_names_two_models_and_trains_none():
    raw = yaml.safe_load((ROOT / "config" / "compare-only.yaml").read_text(encoding="utf-8"))
    found = load(raw)
    assert [settings["tuned_model"] for settings in found.experiments.values()] == [
        "/models/llama-factory/merged", "/models/ms-swift/checkpoint-300",
    ]  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        read_configuration(raw)
    assert (
        "experiments.factory: tuned_model is /models/llama-factory/merged, which is not a directory; "
        "give that of a Hugging Face model or of a peft adapter." in caught.value.problems
    )


def test_a_model_trained_elsewhere_is_no_setting_of_other_experiments():
    raw = changed("experiments", {"baseline": {}, "mine": {"tuned_model": "/m"}})
    found = load(raw)
    assert found.experiments["mine"]["tuned_model"] == "/m"
    assert "tuned_model" not in found.experiments["baseline"] and "tuned_model" not in found.common
    assert problems(raw | {"engine": "mindspeed"}) == [
        "experiments.mine: tuned_model is given, but mindspeed doesn't answer from a Hugging Face model; "
        "write `answer.engine: hf` (with hf.device: npu on Ascend), or vllm."
    ]
    assert load(raw | {"engine": "mindspeed", "answer": {"engine": "hf"}})


def test_the_defaults_are_the_tutorials():
    defaults = load({}).common["train"]
    tutorial = load(TUTORIAL).common["train"]
    assert defaults == tutorial
    assert (tutorial["train_iters"], tutorial["lr"], tutorial["global_batch_size"]) == (
        100,
        1e-5,
        24,
    )


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("train.train_iter", 5, "train.train_iter is not a key; did you mean `train_iters`?"),
        ("trian", {}, "trian is not a key; did you mean `train`?"),
        ("train.lr", "fast", 'train.lr is "fast", but must be a number.'),
        ("train.lr", 0, "train.lr is 0, but must be greater than 0."),
        ("train.train_iters", 0, "train.train_iters is 0, but must be at least 1."),
        ("train.train_iters", 1.5, "train.train_iters is 1.5, but must be a whole number."),
        ("train.adam_beta2", 1.0, "train.adam_beta2 is 1.0, but must be less than 1."),
        ("train.lr_decay_style", "cosin", 'train.lr_decay_style is "cosin", but must be one of '
         "cosine, linear, constant. Did you mean cosine?"),
        ("train.freeze_vision_encoder", "maybe",
         'train.freeze_vision_encoder is "maybe", but must be true or false.'),
        ("engine", "hff", 'engine is "hff", but must be one of hf, mindspeed. Did you mean hf?'),
        ("hf.device", "gpu", 'hf.device is "gpu", but must be a torch device such as `cpu`, `cuda`, '
         "`cuda:1` or `npu`."),
        ("hf.kernels", "liger", "hf.kernels is liger, whose kernels run on CUDA, but hf.device is cpu; write torch."),
        ("hf.kernels", "fused", 'hf.kernels is "fused", but must be one of torch, liger.'),
        ("data.held_out_fraction", 2, "data.held_out_fraction is 2, but must be at most 1."),
        ("data.held_out_fraction", 1, "experiments.baseline: data.held_out_fraction is 1, which leaves "
         "nothing to train on; write less, or a tuned_model for a model that was trained elsewhere."),
        ("tuned_model", "/m", "tuned_model is given for all experiments, but counts within one only; write "
         "experiments.NAME.tuned_model."),
        ("experiments.mine", {"tuned_model": "/m", "train": {"lr": 1e-5}}, "experiments.mine.train is given, "
         "but its tuned_model was trained elsewhere, so nothing is trained here; remove one of them."),
        ("experiments.mine", {"tuned_model": {"use": "path", "path": "/m"}},
         "experiments.mine.tuned_model is a mapping, but must be text or null."),
        ("experiments.mine", {"tuned": "/m"}, "experiments.mine.tuned can't differ between experiments; did "
         "you mean `tuned_model`?"),
        ("prompts.named", [{"image": "a.jpg"}], "prompts.named[0] lacks the key `prompt`."),
        ("prompts.named", [{"image": "", "prompt": "q"}],
         "prompts.named[0].image is empty; write at least 1 character."),
        ("prompts.families", {"kind": "["}, "prompts.families.kind is no regular expression: '[' "
         "(unterminated character set at position 0)."),
        ("experiments", {}, "experiments is empty; write at least 1 entry."),
        ("experiments", {"a b": {}}, 'the name "a b" in experiments may only have letters, digits, '
         "`_`, `-` and `.`, and must begin with a letter or digit: results are written under it."),
        ("experiments", {"hot": {"train": {"lr": -1}}},
         "experiments.hot.train.lr is -1, but must be greater than 0."),
        ("experiments", {"hot": {"trian": {}}},
         "experiments.hot.trian can't differ between experiments; did you mean `train`?"),
        ("experiments", {"hot": {"engine": "hf"}}, "experiments.hot.engine can't differ between "
         "experiments; it may have data, processor, parallel, train, answer, sources.model, tuned_model."),
        ("experiments", {"hot": {"sources": {"images": {"use": "demo"}}}},
         "experiments.hot.sources.images can't differ between experiments; only sources.model can."),
        ("experiments", {"shared": {}},
         "experiments.shared: the name `shared` is taken by what experiments share."),
        ("train.global_batch_size", 24, "train.global_batch_size is 24, which is no multiple of "
         "train.micro_batch_size 16; the nearest that is: 32."),
        ("train.save_interval", 201, "train.save_interval is 201, more than train.train_iters 200: "
         "no checkpoint would be saved on the way; write at most 200."),
        ("train.eval_interval", 201, "train.eval_interval is 201, more than train.train_iters 200: "
         "nothing would be evaluated; write at most 200, or 0 for train.eval_iters."),
        ("train.min_lr", 0.5, "train.min_lr is 0.5, more than train.lr 0.001."),
        ("data.held_out_fraction", 0, "train.eval_iters wants held-out data, but "
         "data.held_out_fraction is 0; set train.eval_iters to 0, or hold some images out."),
        ("parallel.llm_pp_layers", [[4]], "parallel.llm_pp_layers and parallel.vit_pp_layers go "
         "together: give both or neither."),
        ("parallel", {"llm_pp_layers": [[2, 2]], "vit_pp_layers": [[4]]},
         "parallel.llm_pp_layers [[2, 2]] and parallel.vit_pp_layers [[4]] must have the same "
         "shape: one number per pipeline stage."),
        ("sources.images", {"use": "path"},
         "sources.images.use is `path`, but sources.images.path is missing."),
        ("sources.images", {"use": "demo", "path": "x"}, "sources.images.path is given, but "
         "sources.images.use is `demo`; write `use: path` for the path to count."),
        ("sources.images", {"use": "path", "path": "x"}, "sources.images and sources.instructions "
         "belong together: take both from the demo or both from a path."),
        ("prompts", {"named": [], "held_out_questions": 0},
         "prompts.named is empty and prompts.held_out_questions is 0: nothing would be asked."),
    ],
)  # fmt: skip
def test_a_mistake_gets_its_sentence(key, value, sentence):
    assert sentence in problems(changed(key, value))


def test_all_mistakes_are_told_at_once():
    raw = changed("train.lr", "fast", changed("engine", "x", changed("hf.device", "gpu")))
    assert len(problems(raw)) == 3


def test_a_broken_condition_of_an_experiment_names_it():
    raw = changed("experiments", {"a": {}, "b": {"train": {"micro_batch_size": 3}}})
    assert problems(raw) == [
        "experiments.b: train.global_batch_size is 16, which is no multiple of "
        "train.micro_batch_size 3; the nearest that is: 15."
    ]


def test_text_that_is_a_number_counts_as_one():
    common = load(changed("train.lr", "1e-3")).common
    assert common["train"]["lr"] == 1e-3
    raw = changed(
        "experiments", {"a": {"train": {"train_iters": "400", "freeze_vision_encoder": "false"}}}
    )
    train = load(raw).experiments["a"]["train"]
    assert train["train_iters"] == 400 and train["freeze_vision_encoder"] is False


def test_a_number_must_be_finite():
    for value in (".nan", ".inf", "nan", "1e999"):
        raw = changed("train.lr", yaml.safe_load(value))
        assert ["must be a number" in problem for problem in problems(raw)] == [True]


PLACE = {"SCOW_AI_MODEL_PATH": "/models/a b", "EMPTY": "", "HOME": "/home/me", "HOST": "hub"}


def placed(dotted, value):
    raw = changed(dotted, value, changed("sources.instructions", {"use": "demo"}))
    return load(raw, environment=PLACE).common["sources"]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("$SCOW_AI_MODEL_PATH", "/models/a b"),
        ("${SCOW_AI_MODEL_PATH}/x", "/models/a b/x"),
        ("pre$$HOME", "pre$HOME"),
        ("a$(date)$1", "a$(date)$1"),
        ("data/~", "data/~"),
    ],
)
def test_a_path_may_name_variables(written, read):
    assert placed("sources.model", {"use": "path", "path": written})["model"]["path"] == read
    assert placed("sources.download.directory", written)["download"]["directory"] == read


def test_a_path_may_begin_at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert placed("sources.table", "~/table.yaml")["table"] == "/home/me/table.yaml"
    assert placed("sources.table", "~")["table"] == "/home/me"


def test_addresses_may_name_variables_and_are_checked_after():
    chosen = {"use": "modelscope", "endpoint": "https://$HOST"}
    assert placed("sources.model", chosen)["model"]["endpoint"] == "https://hub"
    chosen = {"use": "url", "url": ["https://$HOST/~", "https://${HOST}/b"]}
    assert placed("sources.model", chosen)["model"]["url"] == ["https://hub/~", "https://hub/b"]
    with pytest.raises(ConfigError, match=r"sources\.model\.endpoint is"):
        placed("sources.model", {"use": "modelscope", "endpoint": "$HOST"})


def test_a_variable_that_is_not_set_is_told_with_its_key():
    raw = changed("sources.model", {"use": "path", "path": "$NOWHERE/model"})
    raw["experiments"] = {"b": {"sources": {"model": {"use": "path", "path": "${EMPTY}"}}}}
    raw["sources"]["mixture"] = [{"path": "$MIX"}]
    with pytest.raises(ConfigError) as caught:
        load(raw, environment=PLACE)
    end = "is not set; set it, or write the place itself."
    assert caught.value.problems == [
        f"sources.model.path is $NOWHERE/model, but the environment variable NOWHERE {end}",
        f"sources.mixture[0].path is $MIX, but the environment variable MIX {end}",
        f"experiments.b.sources.model.path is ${{EMPTY}}, but the environment variable EMPTY {end}",
    ]


def test_questions_are_taken_as_they_are():
    asked = [{"image": "$HOME.jpg", "prompt": "~ $HOME ${HOME} $$ $(id)"}]
    named = load(changed("prompts.named", asked), environment=PLACE).common["prompts"]
    assert named["named"] == [{**asked[0], "reference": None}]


def test_the_variables_of_the_tutorials_example_are_paths():
    text = (ROOT / "config/qwen2-vl-2b.yaml").read_text(encoding="utf-8")
    lines = [
        line.replace("# ", "", 1) for line in text.splitlines() if "  # " in line and "$" in line
    ]
    assert len(lines) == 3
    sources = yaml.safe_load("\n".join(lines))
    environment = {"SCOW_AI_MODEL_PATH": "/m", "SCOW_AI_DATASET_PATH": "/d", "WORK_DIR": "/w"}
    found = load(changed("sources", {**TUTORIAL["sources"], **sources}), (), environment)
    assert found.common["sources"]["model"]["path"] == "/m"
    assert found.common["sources"]["images"]["path"] == "/d/COCO2017/train2017"
    assert found.common["sources"]["download"]["directory"] == "/w/data"


def test_experiments_share_what_they_do_not_change():
    raw = changed(
        "experiments",
        {"a": {}, "b": {"train": {"lr": 0.1}}, "c": {"data": {"split_seed": 5}},
         "d": {"data": {"split_seed": 5}}, "e": {"answer": {"max_new_tokens": 9}}},
    )  # fmt: skip
    configuration = load(raw)
    scopes = {
        stage: [configuration.scope(name, stage) for name in "abcde"]
        for stage in ("data", "mm", "prompts", "before")
    }
    assert scopes == {
        "data": ["shared", "shared", "c", "c", "shared"],
        "mm": ["shared"] * 5,
        "prompts": ["shared", "shared", "c", "c", "shared"],
        "before": ["shared", "shared", "c", "c", "e"],
    }


def test_files_that_are_not_there_are_told_before_anything_runs(tmp_path):
    raw = changed("sources.images", {"use": "path", "path": "data/COCO2017/train2017"}, TUTORIAL)
    raw = changed(
        "sources.instructions", {"use": "path", "path": "data/llava_instruct_150k.json"}, raw
    )
    raw = changed(
        "sources.model", {"use": "path", "path": "ckpt/hf_path/Qwen2-VL-2B-Instruct"}, raw
    )
    found = list(source_problems(load(raw).typed()))
    assert [problem.split(",")[0] for problem in found] == [
        "sources.images.path is data/COCO2017/train2017",
        "sources.instructions.path is data/llava_instruct_150k.json",
        "sources.model.path is ckpt/hf_path/Qwen2-VL-2B-Instruct",
    ]


def with_model(tmp_path, **parallel):
    raw = changed("sources.model", {"use": "path", "path": str(tmp_path)})
    return list(source_problems(load(changed("parallel", parallel, raw)).typed()))


def test_a_model_directory_is_looked_through(tmp_path):
    names = ["config.json is missing", "tokenizer.json is missing", "tokenizer_config.json is missing",
             "preprocessor_config.json is missing", "has no weights"]  # fmt: skip
    found = with_model(tmp_path)
    assert len(found) == 5 and all(name in text for name, text in zip(names, found, strict=True))
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"x")
    (tmp_path / "config.json").write_bytes(DEMO_CONFIG.read_bytes())
    assert with_model(tmp_path) == []
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    )
    assert "lacks 1 of 2 weight files, the first being model-00002" in with_model(tmp_path)[0]
    (tmp_path / "model.safetensors.index.json").unlink()
    found = with_model(tmp_path, llm_pp_layers=[[2, 3]], vit_pp_layers=[[4, 0]])
    assert found == [
        f"parallel does not fit the model in {tmp_path}/config.json: llm_pp_layers [[2, 3]] adds up "
        "to 5 layers; the model has 4."
    ]
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    said = "is a llama model, but must be a qwen2_vl or qwen2_5_vl or qwen3_vl one"
    assert said in with_model(tmp_path)[0]


def test_the_demos_named_pictures_are_checked_too():
    raw = changed("prompts.named", [{"image": "000000000000.jpg", "prompt": "q"}])
    found = list(source_problems(load(raw).typed()))
    assert (
        "prompts.named[0].image is 000000000000.jpg, but the demo draws no such picture" in found[0]
    )


@pytest.mark.parametrize(
    ("parallel", "words"),
    [
        (
            {"tensor_model_parallel_size": 3},
            "tp_size 3 does not divide the model's 2 key-value heads",
        ),
        (
            {"llm_pp_layers": [[2, 3]], "vit_pp_layers": [[4, 0]]},
            "llm_pp_layers [[2, 3]] adds up to 5 layers; the model has 4",
        ),
    ],
)
def test_a_layout_that_does_not_fit_the_demo_is_said_before_anything_runs(parallel, words):
    found = list(source_problems(load(changed("parallel", parallel)).typed()))
    assert len(found) == 1 and words in found[0]


@pytest.mark.parametrize(
    ("change", "machine", "sentence"),
    [
        ({"parallel": {"tensor_model_parallel_size": 2}}, {"npus_per_node": 3},
         "are 3 NPUs, no multiple of the 2 that one copy of the model takes"),
        ({"train": {"global_batch_size": 12}}, {"npus_per_node": 8},
         r"no multiple of train.micro_batch_size 1 x data parallel size 8; the nearest that is: 16"),
        ({}, {"nodes": 2, "hosts": ["a"]}, "names 1 hosts, but mindspeed.nodes is 2"),
        ({}, {"nodes": 2, "hosts": ["a", "a"]}, "names a host twice"),
        ({}, {"extra_arguments": ["--lr 3"]}, "which has a key of its own: write train.lr"),
        ({}, {"stand_in": "nowhere"}, "no directory of stand-ins"),
    ],
)  # fmt: skip
def test_what_mindspeed_cannot_do_is_said(change, machine, sentence):
    raw = {"engine": "mindspeed", "mindspeed": machine, **change}
    with pytest.raises(ConfigError, match=sentence):
        load(raw)


def test_context_parallel_is_not_for_the_hf_engine():
    with pytest.raises(ConfigError, match="which the hf engine can't do"):
        load({"parallel": {"context_parallel_size": 2}})


def test_a_model_with_other_tokens_is_refused_on_an_npu():
    with pytest.raises(ConfigError, match="has 539 for its image_token_id"):
        read_configuration({"engine": "mindspeed"})


def test_stages_that_mindspeed_cannot_train_are_said():
    raw = {
        "engine": "mindspeed",
        "mindspeed": {"npus_per_node": 2, "stand_in": str(ROOT / "tests/standin")},
        "parallel": {"llm_pp_layers": [[2, 2]], "vit_pp_layers": [[2, 2]]},
    }  # fmt: skip
    with pytest.raises(
        ConfigError, match="can't be trained by MindSpeed-MM: language layers start"
    ):
        read_configuration(raw)
