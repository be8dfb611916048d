"""Mutated configurations: a sentence each, before anything runs. All in one process."""

import copy
import zipfile
from pathlib import Path

import pytest
import yaml
from mindtune.errors import UserError
from mindtune.glue.settings_reading import Sources, read_configuration
from mindtune.settings import ConfigError
from mindtune.settings.checks import DEMO_CONFIG

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"
DEMO = yaml.safe_load((CONFIG / "config.yaml").read_text(encoding="utf-8"))


def refused(change) -> list[str]:
    """The sentences for the demo's configuration with some dotted keys changed."""
    raw = copy.deepcopy(DEMO)
    for dotted, value in change.items():
        place = raw
        *parents, last = dotted.split(".")
        for key in parents:
            place = place.setdefault(key, {})
        place[last] = value
    with pytest.raises(ConfigError) as caught:
        configuration, _ = read_configuration(raw, files=["my.yaml"])
        Sources(configuration, CONFIG / "data_sources.yaml")
    return caught.value.problems


HUGE = "x" * 300
PATHS = {
    "sources.images": {"use": "path", "path": "nowhere"},
    "sources.instructions": {"use": "path", "path": "nowhere.json"},
}
FETCHED = {"sources.images": {"use": "official"}, "sources.instructions": {"use": "official"}}
MISTAKES = [
    # names
    ({"trian": {}}, "trian is not a key; did you mean `train`?"),
    ({"experiment": {}}, "experiment is not a key; did you mean `experiments`?"),
    ({"qqq": 1}, "qqq is not a key; the configuration knows engine, "),
    ({"train.learning_rate": 1}, "train.learning_rate is not a key; "),
    ({"train.LR": 1}, "train.LR is not a key; "),
    ({"train.train_iter": 1}, "did you mean `train_iters`?"),
    ({"train.save_intervall": 1}, "did you mean `save_interval`?"),
    ({"data.heldout_fraction": 0.1}, "did you mean `held_out_fraction`?"),
    ({"sources.image": {}}, "sources.image is not a key; did you mean `images`?"),
    ({"sources.images.uses": "demo"}, "sources.images.uses is not a key; did you mean `use`?"),
    ({"sources.demo.picture": 20}, "did you mean `pictures`?"),
    ({"hf.devicee": "cpu"}, "did you mean `device`?"),
    ({"answer.max_tokens": 5}, "did you mean `max_new_tokens`?"),
    ({"prompts.name": []}, "prompts.name is not a key; did you mean `named`?"),
    ({"compare.confidenc": 0.9}, "did you mean `confidence`?"),
    ({"1": 1}, "1 is not a key; "),
    ({"a[b": 1}, "a[b is not a key; "),
    ({"": 1}, '"" is not a key; '),
    # kinds
    ({"train": None}, "train is null, but must be a mapping of keys to values."),
    ({"train": [1]}, "train is [1], but must be a mapping"),
    ({"train": "lr"}, 'train is "lr", but must be a mapping'),
    ({"train.lr": None}, "train.lr is null, but must be a number."),
    ({"train.lr": "1e-3x"}, 'train.lr is "1e-3x", but must be a number.'),
    ({"train.lr": [1e-3]}, "train.lr is [0.001], but must be a number."),
    ({"train.lr": {"a": 1}}, "train.lr is a mapping, but must be a number."),
    ({"train.lr": True}, "train.lr is true, but must be a number."),
    ({"train.lr": float("nan")}, 'train.lr is "NaN", but must be a number.'),
    ({"train.lr": float("inf")}, 'train.lr is "Infinity", but must be a number.'),
    ({"train.train_iters": 2.5}, "train.train_iters is 2.5, but must be a whole number."),
    ({"train.train_iters": "many"}, "must be a whole number."),
    ({"train.seed": yaml.safe_load("2024-01-01")}, 'train.seed is "2024-01-01", but must be'),
    ({"train.freeze_vision_encoder": "y"}, "must be true or false."),
    ({"train.save_optim": 1}, "train.save_optim is 1, but must be true or false."),
    ({"data.max_samples": "all"}, "must be a whole number or null."),
    ({"sources.table": 5}, "sources.table is 5, but must be text or null."),
    ({"sources.images": "demo"}, 'sources.images is "demo", but must be a mapping'),
    ({"sources.mixture": {}}, "must be a list."),
    ({"prompts.named": "What?"}, 'prompts.named is "What?", but must be a list.'),
    ({"prompts.named": [{"image": 5, "prompt": "q"}]}, "prompts.named[0].image is 5, but must be text"),
    ({"prompts.families": {"kind": 5}}, "prompts.families.kind is 5, but must be text."),
    ({"experiments": ["a"]}, 'experiments is ["a"], but must be a mapping'),
    ({"experiments": {"a": 5}}, "experiments.a is 5, but must be a mapping of keys to values or null."),
    # choices, patterns and ranges
    ({"engine": "mindspore"}, "engine is \"mindspore\", but must be one of hf, mindspeed. Did you"),
    ({"engine": HUGE}, "but must be one of hf, mindspeed."),
    ({"sources.model.use": "hugging_face"}, "Did you mean huggingface?"),
    ({"hf.precision": "fp16"}, "must be one of fp32, bf16."),
    ({"hf.device": "gpu"}, "must be a torch device such as"),
    ({"hf.device": "cpu; rm -rf ~"}, "must be a torch device such as"),
    ({"hf.threads": 0}, "hf.threads is 0, but must be at least 1."),
    ({"hf.threads": -1}, "must be at least 1."),
    ({"train.lr": 0}, "train.lr is 0, but must be greater than 0."),
    ({"train.lr": 2}, "train.lr is 2, but must be at most 1."),
    ({"train.adam_beta1": 1}, "must be less than 1."),
    ({"train.seq_length": 63}, "must be at least 64."),
    ({"train.lr_warmup_fraction": -0.1}, "must be at least 0."),
    ({"compare.confidence": 0.5}, "must be greater than 0.5."),
    ({"compare.confidence": 95}, "compare.confidence is 95, but must be less than 1."),
    ({"sources.demo.pictures": 3}, "must be at least 20."),
    ({"sources.demo.pictures": 10**6}, "must be at most 200000."),
    ({"sources.mixture": [{"path": "a", "weight": 0}]}, "must be greater than 0."),
    ({"sources.mixture": [{"weight": 1}]}, "sources.mixture[0] lacks the key `path`."),
    ({"sources.mixture": [{"path": ""}]}, "sources.mixture[0].path is empty"),
    ({"sources.model": {"use": "url", "sha256": "abc"}}, "sources.model.sha256 is \"abc\", but must"),
    ({"experiments": {"../a": {}}}, 'the name "../a" in experiments may only have letters'),
    ({"experiments": {"-x": {}}}, 'the name "-x" in experiments'),
    ({"experiments": {"$(id)": {}}}, 'the name "$(id)" in experiments'),
    ({"experiments": {"实验": {}}}, 'the name "实验" in experiments'),
    ({"experiments": {"a\nb": {}}}, 'the name "a\\nb" in experiments'),
    # keys together
    ({"experiments": {"compare.csv": {}}}, "results/compare.csv is something else; take another"),
    ({"experiments": {"sources": {}}}, "results/sources is something else; take another name."),
    ({"experiments": {"a": {"compare": {}}}}, "experiments.a.compare can't differ between"),
    ({"train.global_batch_size": 17}, "no multiple of train.micro_batch_size 16; the nearest"),
    ({"parallel.tensor_model_parallel_size": 3}, "parallel does not fit the model in the demo: tp"),
    ({"parallel.context_parallel_size": 2}, "which the hf engine can't do; write 1."),
    ({"parallel.llm_pp_layers": [[1, 1], [1, 1]], "parallel.vit_pp_layers": [[4, 0], [0, 0]]},
     "nothing is trained here; write one row, and leave checkpoints of virtual stages to "
     "scripts/convert_checkpoint.py"),
    ({"engine": "mindspeed", "parallel.vit_pp_layers": [[4], [0]]},
     "parallel.vit_pp_layers has 2 rows, one for each virtual pipeline stage"),
    ({"sources.instructions": {"use": "demo", "unpack": True}}, "counts for sources.images only"),
    ({**FETCHED, "sources.model": {"use": "url", "url": "https://a/b"}}, "but a model has several"),
    ({**FETCHED, "sources.images": {"use": "url"}}, "sources.images.url is missing."),
    ({**FETCHED, "sources.images": {"use": "url", "url": "https://a/"}}, "ends in no file name."),
    ({**FETCHED, "sources.images": {"use": "url", "url": "ftp://a/b"}}, "must begin with http://"),
    ({**FETCHED, "sources.images": {"use": "official", "name": "coco"}}, "the table of sources lacks"),
    ({**FETCHED, "sources.images": {"use": "official", "name": "llava-instruct-150k"}},
     "which the table has under instructions."),
    ({**FETCHED, "sources.instructions": {"use": "huggingface", "sha256": "0" * 64}},
     "sha256 counts with `use: url` only"),
    ({**FETCHED, "sources.images": {"use": "modelscope", "url": "https://a/b"}},
     "write `use: url` for it to count."),
    # variables and places
    ({"sources.download.directory": "$MINDTUNE_UNSET/data"}, "variable MINDTUNE_UNSET is not set"),
    ({"sources.table": "${MINDTUNE_UNSET}"}, "variable MINDTUNE_UNSET is not set"),
    ({"sources.table": "two\nlines"}, "sources.table is 'two\\nlines', which has a line break"),
    ({"sources.table": "a {b}.yaml"}, "but braces in a path are wildcards to Snakemake"),
    ({**FETCHED, "sources.images": {"use": "url", "url": "https://a/%7Bb%7D.zip"}}, "has a brace"),
    ({**FETCHED, "sources.images": {"use": "url", "url": "https://me:secret@a/b.zip"}},
     "sources.images.url has a user's name or a password in it"),
    (PATHS, "sources.images.path is nowhere, which is not a directory"),
    ({"sources.mixture": [{"path": "nowhere.json"}]}, "but there is no such file."),
    ({"sources.model": {"use": "path", "path": "nowhere"}}, "sources.model.path is nowhere, which"),
    ({"prompts.named": [{"image": "1.jpg", "prompt": "q"}]}, "but the demo draws no such picture"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    MISTAKES,
    ids=[f"{n}-{'+'.join(c)}"[:60] for n, (c, _) in enumerate(MISTAKES)],
)
def test_a_mistake_is_one_sentence(change, words, monkeypatch):
    monkeypatch.delenv("MINDTUNE_UNSET", raising=False)
    found = [problem for problem in refused(change) if words in problem]
    assert len(found) == 1
    assert "\n" not in found[0] and len(found[0]) < 700
    assert "secret" not in found[0]


NPU = {"engine": "mindspeed", "parallel.llm_pp_layers": [[2, 2]],
       "parallel.vit_pp_layers": [[4, 0]], "mindspeed.npus_per_node": 2}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mindspeed.npus_per_node": 3}, "are 3 NPUs, no multiple of the 2 that one copy"),
        ({"mindspeed.npus_per_node": 6}, "x data parallel size 3; the nearest that is: 48."),
        ({"mindspeed.hosts": ["a"], "mindspeed.nodes": 2}, "names 1 hosts, but mindspeed.nodes is 2"),
        ({"mindspeed.hosts": ["a", "a"], "mindspeed.nodes": 2}, "names a host twice"),
        ({"mindspeed.hosts": ["-oProxyCommand=id"]}, "mindspeed.hosts[0] is"),
        ({"mindspeed.extra_arguments": ["--lr 1"]}, "--lr, which has a key of its own: write train.lr"),
        ({"mindspeed.stand_in": "nowhere"}, "which is no directory of stand-ins"),
        ({"mindspeed.home": "$MINDTUNE_UNSET"}, "variable MINDTUNE_UNSET is not set"),
        ({"mindspeed.environment": {"A B": "1"}}, 'the name "A B" in mindspeed.environment is not one'),
        ({"parallel.context_parallel_size": 2, "mindspeed.npus_per_node": 4},
         "the model is on 2 stages, and only one that has all of it can cut a sequence"),
        ({"parallel.vit_pp_layers": [[0, 4]]}, "parallel can't be trained by MindSpeed-MM: "),
    ],
    ids=str,
)  # fmt: skip
def test_a_mistake_about_npus_is_one_sentence(change, words):
    found = refused({**NPU, **change})
    assert [words in problem for problem in found].count(True) >= 1, found


@pytest.fixture
def pictures(tmp_path):
    """Pictures in a directory and in a zip, instructions, and a model, as a user has them."""
    (tmp_path / "train2017").mkdir()
    with zipfile.ZipFile(tmp_path / "train2017.zip", "w") as archive:
        archive.writestr("train2017/a.jpg", b"picture")
    (tmp_path / "torn.zip").write_bytes((tmp_path / "train2017.zip").read_bytes()[:50])
    (tmp_path / "instructions.json").write_text("[]")
    return tmp_path


def own(pictures, **images):
    return {
        "sources.images": {"use": "path", **images},
        "sources.instructions": {"use": "path", "path": str(pictures / "instructions.json")},
    }


def test_pictures_of_ones_own(pictures, monkeypatch):
    missing = "prompts.named[0].image is 000000033471.jpg, but there is no such file in"
    for name in ("train2017", "train2017.zip"):
        assert missing in refused(own(pictures, path=str(pictures / name)))[0]
    assert (
        "torn.zip is no whole zip file"
        in refused(own(pictures, path=str(pictures / "torn.zip")))[0]
    )
    for who in ({"engine": "mindspeed"}, {"answer.engine": "mindspeed"}):
        named = own(pictures, path=str(pictures / "train2017.zip")) | who
        assert any("write `unpack: true`" in problem for problem in refused(named))
        assert any(
            "sources.images.unpack is false, but the mindspeed engine" in problem
            for problem in refused(named | own(pictures, path=str(pictures), unpack=False))
        )
    # As root every directory can be read, so that the refusal is made.
    monkeypatch.setattr(Path, "iterdir", lambda self: (_ for _ in ()).throw(PermissionError()))
    found = refused(own(pictures, path=str(pictures / "train2017")))
    assert "which you may not read; fix its permissions." in found[0]


def test_a_model_of_ones_own(pictures):
    model = pictures / "model"
    model.mkdir()
    (model / "config.json").write_bytes(DEMO_CONFIG.read_bytes())
    found = refused({"sources.model": {"use": "path", "path": str(model)}})
    assert sum("is missing; download it again." in problem for problem in found) == 3
    assert any("has no weights" in problem for problem in found)


def test_a_table_of_sources_that_cannot_be_used(tmp_path):
    def told(text):
        table = tmp_path / "table.yaml"
        if text is not None:
            table.write_text(text)
        raw = copy.deepcopy(DEMO)
        raw["sources"]["table"] = str(table)
        with pytest.raises(UserError) as caught:
            configuration, _ = read_configuration(raw)
            Sources(configuration, table)
        return str(caught.value)

    assert "can't be read: No such file" in told(None)
    assert "is not YAML" in told("{")
    assert "can't be used:\n  - " in told("[]")


def test_a_source_that_is_not_to_be_had_from_there(tmp_path):
    table = yaml.safe_load((CONFIG / "data_sources.yaml").read_text(encoding="utf-8"))
    entry = table["coco-train2017"]
    entry["from"] = {"official": entry["from"]["official"]}
    path = tmp_path / "table.yaml"
    path.write_text(yaml.safe_dump(table), encoding="utf-8")
    raw = copy.deepcopy(DEMO)
    raw["sources"] |= {
        "images": {"use": "modelscope"}, "instructions": {"use": "official"}, "table": str(path),
    }  # fmt: skip
    configuration, _ = read_configuration(raw)
    with pytest.raises(ConfigError) as caught:
        Sources(configuration, path)
    assert caught.value.problems == [
        "sources.images.use is modelscope, but the table has coco-train2017 from official only."
    ]


def test_keys_that_are_twice_in_a_file(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text(
        "train: { lr: 0.1 }\nengine: hf\ntrain:\n  seed: 1\n  seed: 2\nx: [{ a: 1, a: 2 }]\n"
    )
    with pytest.raises(ConfigError) as caught:
        read_configuration({}, files=[file])
    assert [problem.split(" is twice in ")[0] for problem in caught.value.problems] == [
        "train", "train.seed", "x[0].a",
    ]  # fmt: skip
    assert "my.yaml, in line 1 and in line 3, of which only the second" in caught.value.problems[0]


def test_a_working_directory_with_a_line_break(tmp_path, monkeypatch):
    place = tmp_path / "two\nlines"
    place.mkdir()
    monkeypatch.chdir(place)
    with pytest.raises(UserError, match="has a line break or the like in its name; rename it"):
        read_configuration(DEMO)
