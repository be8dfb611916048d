"""Types and ranges of settings, values as they are written, and files read as data."""

import json
import os
import pickle
import resource
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from mindtune.engines import ENGINES, stage_sources
from mindtune.engines.converting import CONVERTERS, converter_sources
from mindtune.engines.hf.group import read_request, write_request
from mindtune.engines.requests import FinetuneJob
from mindtune.engines.training_directory import fingerprint, training_settings
from mindtune.errors import UserError
from mindtune.glue.settings_reading import check_files, guard_default, read_configuration
from mindtune.glue.sourcecode import closure
from mindtune.settings import ConfigError, Configuration, Settings, load
from mindtune.settings.reference import keys
from mindtune.settings.section import Section, item_model
from mindtune.settings.typed import made_of, typed
from mindtune.settings.yaml_files import LARGEST, read_written
from pydantic import ValidationError

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "config/data_sources.yaml"
# What version 0.1.0's reader made of the shipped configurations, and of one with odd spellings.
BEFORE = json.loads(Path(__file__).with_name("settings_before.json").read_text("utf-8"))
PLACES = {"SCOW_AI_MODEL_PATH": "/m", "SCOW_AI_DATASET_PATH": "/d", "WORK_DIR": "/w", "HOME": "/h"}


@pytest.mark.parametrize("name", BEFORE)
def test_params_and_fingerprints_have_the_values_that_they_had(name):
    """Snakemake compares params as text, so order and the kind of a number count too."""
    before = BEFORE[name]
    found = load(before["raw"], environment=PLACES)
    for scope, settings in [("shared", found.common), *found.experiments.items()]:
        settings = settings | {"compare": {"confidence": settings["compare"]["confidence"]}}
        wanted = before["common"] | (before["experiments"][scope] if scope != "shared" else {})
        assert {key: str(value) for key, value in settings.items()} == {
            key: str(value) for key, value in wanted.items()
        }


def test_a_key_that_came_later_is_in_the_params_only_where_it_says_something():
    assert "order_seed" not in load({}).common["train"]
    found = load({"train": {"order_seed": 7}}).common["train"]
    assert (
        found["order_seed"] == 7
        and list(found).index("order_seed") == list(found).index("seed") + 1
    )


def test_settings_are_there_as_attributes_and_do_not_change():
    raw = {"experiments": {"a": {"train": {"lr": "1e-3"}}}}
    found = load(raw)
    assert found.typed().train.lr == 1e-5 and found.typed("a").train.lr == 1e-3
    assert found.typed("a").sources.images.use == "demo"
    assert found.typed("a").model_dump(exclude={"experiments"}) == found.settings("a")
    with pytest.raises(ValidationError):
        found.typed().train.lr = 1


def shipped():
    """Each shipped configuration: its name, and all of its settings as plain containers."""
    for path in sorted((ROOT / "config").glob("*.yaml")):
        if path.name != "data_sources.yaml":
            found = load(read_written(path).value, environment=PLACES)
            yield from (
                (path.name, found.settings(scope)) for scope in ("shared", *found.experiments)
            )


def test_plain_settings_made_typed_and_plain_again_are_the_same():
    """As texts, in which Snakemake compares params: order and the kind of a number count too."""
    count = 0
    for name, settings in shipped():
        assert str(made_of(Settings, settings).model_dump()) == str(settings), name
        for section in [key for key, value in settings.items() if isinstance(value, dict)]:
            plain = settings[section]
            backwards = dict(reversed(plain.items()))
            for some in (plain, backwards, *({key: plain[key]} for key in plain)):
                assert str(typed(section, some).model_dump()) == str(some), (name, section)
                count += 1
    assert count > 500


def test_what_jobs_get_of_a_machine_is_the_same_again():
    for name, settings in shipped():
        for engine in ENGINES.values():
            section = settings.get(engine.machine, {})
            for wanted in engine.keys.values():
                plain = {key: section[key] for key in wanted if key in section}
                assert str(typed(engine.machine, plain).model_dump()) == str(plain), name


def sections(model=Settings, place=""):
    """All sections: dotted key -> model."""
    for name, field in model.model_fields.items():
        if found := item_model(field.annotation):
            yield f"{place}{name}", found
            yield from sections(found, f"{place}{name}.")


def later_keys(model):
    fields = model.model_fields.items()
    return {name for name, field in fields if field.json_schema_extra.get("later")}


@pytest.mark.parametrize(("place", "model"), list(sections()))
def test_a_key_that_was_not_passed_is_no_attribute(place, model):
    empty = typed(place, {})
    for name in model.model_fields.keys() - later_keys(model):
        with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
            getattr(empty, name)
    assert empty.model_dump() == {}
    with pytest.raises(TypeError, match="has no lrr"):
        typed(place, {"lrr": 1})


# What the absence of a key means in results that are there. A default that changes here would be a
# change of results that no params and no hash of code show: give the key another name then.
ABSENT = {
    "train": {"order_seed": None, "lora": None},
    "hf": {
        "tokens_per_pass": None, "kernels": "torch", "recompute": "none", "optimizer": "adamw",
        "feature_cache": "auto", "frozen_weights": "whole", "devices": 1, "nodes": 1, "shard": "none",
        "hosts": [], "master_port": None,
    },
    "vllm": {
        "python": None, "device": "cuda", "precision": "fp32", "threads": 1, "environment": {},
        "arguments": [],
    },
    "vllm.install": {"directory": "vllm", "python": None, "wheels": None, "package_index": None},
    "answer": {"tokens_per_batch": None, "engine": None},
    "compare": {"controls": []},
    "report": {"language": "en"},
}  # fmt: skip


def test_a_key_that_came_later_has_its_default_where_it_is_absent():
    found = {}
    for place, model in sections():
        empty = typed(place, {})
        values = {
            name: getattr(empty, name) for name in model.model_fields if name in later_keys(model)
        }
        if values:
            found[place] = {k: v for k, v in values.items() if not isinstance(v, Section)}
    assert found == ABSENT
    whole = made_of(Settings, {})
    assert (whole.keep_checkpoints, whole.export, whole.tuned_model) == ("all", "merged", None)
    assert whole.vllm == Settings().vllm and whole.report == Settings().report
    typed("hf", {}).hosts.append("changed")  # not the default itself
    assert typed("hf", {}).hosts == []


def test_a_job_is_read_by_attributes_and_is_plain_again(tmp_path):
    given = {
        "train_data": tmp_path, "held_out_data": tmp_path, "images": tmp_path, "hf_dir": tmp_path,
        "mm_dir": tmp_path, "save_dir": tmp_path, "train": {"lr": 1, "lora": {"rank": 2}},
        "processor": {"image_resolution": 784}, "parallel": {}, "machine": {"threads": 2},
    }  # fmt: skip
    job = FinetuneJob.of("hf", **given)
    assert (job.train.lr, job.train.lora.rank, job.machine.threads) == (1, 2, 2)
    assert (job.machine.devices, job.operation.hosts) == (1, [])
    assert job.plain().items() >= given.items() and job.plain()["operation"] == {}
    recorded = (training_settings("hf", "0123", sections, {}) for sections in (job.plain(), given))
    assert len({fingerprint(settings) for settings in recorded}) == 1
    assert pickle.loads(pickle.dumps(job)) == job  # noqa: S301 - for processes that load data
    write_request(job, 3, tmp_path / "job.json")
    again, begun = read_request(tmp_path / "job.json")
    assert begun == 3 and replace(again, followers=None) == job
    for missing in (lambda: job.train.seed, lambda: job.machine.device):
        with pytest.raises(AttributeError):
            missing()


def test_a_configuration_that_was_handed_over_is_the_same():
    found = load({"experiments": {"a": {"train": {"lr": 1e-3, "lora": {"rank": 4}}}, "b": {}}})
    again = Configuration.of_plain(*json.loads(json.dumps([found.common, found.experiments])))
    assert str(again.common) == str(found.common)
    assert str(again.experiments) == str(found.experiments)
    assert again.typed("a").train.lora.rank == 4 and again.typed().report.language == "en"
    assert again.scope("b", "before") == "shared"


def is_number(node):
    kinds = node.get("type", [])
    return bool({"integer", "number"} & {*([kinds] if isinstance(kinds, str) else kinds)})


NUMBERS = {key.name: key.schema for key in keys(Settings) if is_number(key.schema)}
ONE_BY_ONE = [name for name in NUMBERS if "[]" not in name]


def test_every_number_has_two_bounds():
    for name, node in NUMBERS.items():
        assert {"minimum", "exclusiveMinimum"} & {*node}, name
        assert {"maximum", "exclusiveMaximum"} & {*node}, name
    assert len(NUMBERS) > 40


def nested(dotted, value):
    for key in reversed(dotted.split(".")):
        value = {key: value}
    return value


def problem(raw, words):
    with pytest.raises(ConfigError) as caught:
        load(raw)
    found = [problem for problem in caught.value.problems if words in problem]
    assert len(found) == 1, caught.value.problems
    return found[0]


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_beyond_its_bounds_a_number_is_refused(name):
    node = NUMBERS[name]
    for value in (10**30, 1e300, "1e300", -(10**30)):
        assert " but must be " in problem(nested(name, value), f"{name} is ")
    if "maximum" in node:
        problem(nested(name, node["maximum"] + 1), f"but must be at most {node['maximum']}.")
    if "minimum" in node:
        problem(nested(name, node["minimum"] - 1), f"but must be at least {node['minimum']}.")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2.0", 2), ("2", 2), ("'2'", 2), ("'2.0'", 2), ("2e0", 2), ("1_0", 10), ("0x10", 16),
        ("2.5", None), ("'2.5'", None), ("true", None), ("'010'", None), ("'1_0'", None),
        ("'٣'", None), ("''", None), ("null", None), (".inf", None), ("'0x10'", None),
    ],
)  # fmt: skip
def test_whole_numbers_are_strict(written, read):
    raw = {"train": {"train_iters": yaml.safe_load(written), "save_interval": 1, "eval_iters": 0}}
    if read is None:
        assert "train.train_iters is " in problem(raw, "but must be a whole number.")
    else:
        found = load(raw).common["train"]["train_iters"]
        assert found == read and type(found) is int


def told(tmp_path, text, *words):
    """The sentences about a file, which have these words."""
    path = tmp_path / "my.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        check_files([path], TABLE)
    for word in words:
        assert word in str(caught.value)
    return str(caught.value)


def test_numbers_that_yaml_reads_otherwise_are_told(tmp_path):
    said = told(
        tmp_path, "train:\n  train_iters: 1:30\n  seed: 010\nprompts: { families: { a: 1:2:3.5 }}\n"
    )
    assert (
        "train.train_iters is 1:30 in " in said and "line 2, which YAML reads as 90; write" in said
    )
    assert "train.seed is 010 in " in said and "line 3, which YAML reads as 8" in said
    assert "prompts.families.a is 1:2:3.5" in said
    told(
        tmp_path, "prompts: { families: { a: 2024-01-01 10:00:00 }}", "a is 2024-01-01 10:00:00 in"
    )
    told(tmp_path, "hf:\n  threads: 08\n", 'line 2: hf.threads is "08", but must be a whole number')


def experiments(tmp_path, text):
    path = tmp_path / "my.yaml"
    path.write_text(f"experiments:\n{text}")
    # As Snakemake reads it.
    raw = yaml.load(path.read_text(), Loader=yaml.FullLoader)  # noqa: S506 - of our own text
    return read_configuration(raw, files=[path])[0].experiments


def test_names_are_as_they_are_written(tmp_path):
    found = experiments(
        tmp_path,
        "  1.0e-3: { train: { seed: 1 } }\n  0.001: { train: { seed: 2 } }\n"
        "  1e-3: { train: { seed: 3 } }\n  010: { train: { seed: 4 } }\n  yes:\n  12: {}\n",
    )
    assert {name: settings["train"]["seed"] for name, settings in found.items()} == {
        "1.0e-3": 1, "0.001": 2, "1e-3": 3, "010": 4, "yes": 42, "12": 42,
    }  # fmt: skip


def test_a_family_and_a_variable_are_named_as_written(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("prompts: { families: { 007: a, 1.50: b, no: c } }\n")
    raw = yaml.load(path.read_text(), Loader=yaml.FullLoader)  # noqa: S506 - of our own text
    found = read_configuration(raw, files=[path])[0].common["prompts"]["families"]
    assert list(found.items()) == [("007", "a"), ("1.50", "b"), ("no", "c")]


def test_a_date_for_a_name_is_a_sentence(tmp_path):
    text = "experiments:\n  2024-01-01: {}\n"
    said = told(tmp_path, text, 'is a date to YAML and no name; put it into quotes: "2024-01-01".')
    assert "experiments.2024-01-01 in " in said and "line 2" in said
    with pytest.raises(UserError, match="has the date 2024-01-01 for a name"):
        load(yaml.safe_load(text))
    assert list(experiments(tmp_path, '  "2024-01-01": {}\n')) == ["2024-01-01"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a\n"], 'the name "a\\n" in experiments may only have letters'),
        (["A", "a"], "experiments.a and experiments.A differ in capital letters only"),
        (["Shared"], "experiments.Shared: the name `Shared` is taken"),
        (["Compare.csv"], "results/Compare.csv is something else"),
        (["x" * 255], "has 255 characters, but may have at most 150"),
        (["a_" + "1234567" * 80], "has 562 characters, but may have at most 150"),
        (["x" * 20], "repeats `x` twenty times or more"),
        (["run-" + "ab." * 20 + "-end"], "repeats `ab.` twenty times or more"),
    ],
)
def test_names_that_can_not_be(names, words):
    problem({"experiments": dict.fromkeys(names)}, words)


def test_the_longest_name_and_one_that_repeats_little_are_taken():
    names = ["abcdefghij" * 15, "lr_1e-5.lr_1e-5.lr_1e-5", "x" * 19]
    assert list(load({"experiments": dict.fromkeys(names)}).experiments) == names


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("~nouser/x", "there is no user nouser with a home directory"),
        ("x/" * 1500, "has 3000 bytes, but may have at most 1024"),
        ("a/" + "b" * 300, "has a part of 300 bytes"),
        ("a\0b", "has a NUL character"),
        ("\ud800x", "half a character"),
        ("https://me:hidden@host/x.git", "a user's name or a password in it"),
    ],
)
def test_paths_that_can_not_be(place, words):
    for key in ("sources.table", "mindspeed.home", "sources.model.path"):
        assert "hidden" not in problem(nested(key, place), words)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://[::1/x", "is no address (Invalid IPv6 URL)"),
        ("http://host:99999/x", "is no address (Port out of range 0-65535)"),
        ("https://host/x?token=hidden", "has `token` behind its question mark"),
        ("https://host/x?a=1&X-Amz-Signature=hidden", "has `X-Amz-Signature` behind"),
        ("https://host/x?sv=1&sig=hidden", "has `sig` behind"),
        ("https://host/x?ACCESS_TOKEN=hidden", "has `ACCESS_TOKEN` behind"),
        ("https://host/x?private_token=hidden", "has `private_token` behind"),
        ("https://me@host/x", "has a user's name or a password"),
        ("https://host/a b", "which has a space; write %20"),
        (f"https://{'a' * 300}/x", "has the host"),
        ("https:///x", "is https:///x, which names no host; correct it."),
        ("ftp://host/x", "must begin with http"),
    ],
)
def test_addresses_that_can_not_be(address, words, tmp_path):
    raw = {
        "sources": {"images": {"use": "url", "url": address}, "instructions": {"use": "official"}}
    }
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump(raw | {"prompts": {"named": []}}))
    said = told(tmp_path, path.read_bytes(), words)
    assert "hidden" not in said and "sources.images.url" in said


def test_an_address_with_a_harmless_question_is_taken():
    address = "https://host/x.zip?download=true&version=token&key_count=3"
    raw = {
        "sources": {"images": {"use": "url", "url": [address]}, "instructions": {"use": "official"}}
    }
    assert load(raw).common["sources"]["images"]["url"] == [address]


def test_a_long_file_name_in_an_address_is_told(tmp_path):
    text = f"sources: {{ images: {{ use: url, url: 'https://a/{'x' * 300}.zip' }}, instructions: {{ use: official }} }}"
    told(tmp_path, f"{text}\nprompts: {{ named: [] }}\n", "ends in a file name of 304 bytes")


def test_capitals_in_a_checksum_are_the_same_checksum():
    source = {"use": "url", "url": "https://a/b.zip", "sha256": "AB" * 32}
    found = load({"sources": {"images": source, "instructions": {"use": "official"}}}).common
    assert found["sources"]["images"]["sha256"] == "ab" * 32


def test_a_blank_prompt_is_refused():
    raw = {"prompts": {"named": [{"image": "a.jpg", "prompt": " \n\t"}]}}
    problem(raw, "prompts.named[0].prompt is blank; write more than spaces.")


def test_more_samples_than_anybody_trains_on_are_refused():
    raw = {"train": {"train_iters": 10**7, "global_batch_size": 24 * 10**4}}
    problem(raw, "are 2400000000000 samples, more than 1000000000; write less of one.")


LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"train: { lr: \xe9 }\n", "is not UTF-8 text (byte 13)"),
        ("train: &t\n  lr: *t\n", "the mapping or list in line 1 holds itself by an alias"),
        ("a: " + "[" * 100_000, "is nested more than 50 levels deep in line 1"),
        ("a: " + "{a: " * 3000 + "1" + "}" * 3000, "is nested more than 50 levels deep"),
        (LAUGHS, "values with its aliases (*) written out"),
        ("x" * (LARGEST + 1), f"but may have at most {LARGEST}"),
        ("", "is empty; write at least `engine: hf`"),
        ("# nothing\n", "is empty; write"),
        ("- a\n", "is a list, but must be a mapping"),
        ("engine", "is text, but must be a mapping"),
        ("a: [1\nb: 2\n", "is not YAML: line 2: "),
        ("train:\n\tlr: 1\n", "is not YAML: line 2: "),
        (
            "a: !!python/object/apply:os.system [id]\n",
            "has the tag !!python/object/apply:os.system",
        ),
        ("a: !x 1\n", "has the tag !x in line 1"),
        ("__use_yte__: true\nengine: hf\n", "has `__use_yte__` in line 1: such templates run code"),
        ("? [a]\n: 1\n", "a list or a mapping stands for a key"),
        ("engine: hf\n---\nengine: hf\n", "is not YAML: line 2: "),
        ("a: 2024-13-45\n", "2024-13-45 in line 1"),
        ("train: {seed: " + "9" * 5000 + "}", "can't be read"),
    ],
    ids=range(19),
)
def test_a_file_that_can_not_be_read_is_one_sentence(tmp_path, text, words):
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    assert told(tmp_path, text, words).count("\n") <= 1
    assert time.monotonic() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


def test_a_mark_of_byte_order_does_no_harm(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + (ROOT / "config/config.yaml").read_bytes())
    assert list(check_files([path], TABLE).experiments) == ["baseline"]


def test_a_file_may_be_json(tmp_path):
    path = tmp_path / "my.json"
    prompt = {"image": "000000033471.jpg", "prompt": "\U0001f600\u2028?"}
    raw = {"train": {"lr": 2e-3}, "prompts": {"named": [prompt]}}
    path.write_text(
        json.dumps(raw, indent="\t")
    )  # with \\ud83d\\ude00, which YAML reads as two halves
    found = check_files([path], TABLE).common
    assert (
        found["train"]["lr"] == 2e-3
        and found["prompts"]["named"][0]["prompt"] == "\U0001f600\u2028?"
    )
    path.write_text(json.dumps({"train": {"lr": 7}}, indent="\t"))
    with pytest.raises(
        ConfigError, match=r"my\.json, line 3: train\.lr is 7, but must be at most 1\."
    ):
        check_files([path], TABLE)


def test_no_result_depends_on_how_a_key_is_described():
    """Settings reach jobs as params; the code that reads them is in no job's hash."""
    table = yaml.safe_load((ROOT / "tests/workflow/reexecution.yaml").read_text("utf-8"))["code"]
    scripts = [
        ROOT / "scripts" / name for name, runs in table.items() if runs and name.endswith(".py")
    ]
    engines = [
        path
        for name, engine in ENGINES.items()
        for role in engine.keys
        for path in stage_sources(name, role)
    ]
    engines += [path for name in CONVERTERS for path in converter_sources(name)]
    assert len(scripts) > 15 and len(engines) == 10 and all(path.is_file() for path in engines)
    settings = ROOT / "scripts/mindtune/settings"
    assert [path for path in closure([*scripts, *engines]) if path.is_relative_to(settings)] == []


def test_pipes_and_directories_are_no_configuration(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, words in (("pipe", "is a named pipe, but must be a file"), (".", "is a directory")):
        with pytest.raises(UserError, match=words):
            guard_default(tmp_path / name)
        with pytest.raises(UserError, match=words):
            check_files([tmp_path / name], TABLE)
    with pytest.raises(UserError, match="is not there; write it, or give another by --configfile"):
        guard_default(tmp_path / "none.yaml")


def test_all_mistakes_come_with_their_lines(tmp_path):
    said = told(
        tmp_path,
        "train:\n  lr: fast\n  lrr: 1\n\nexperiments:\n  a:\n    train:\n      seed: -1\n  b c:\n"
        "prompts:\n  named:\n    - image: x\n    - prompt: [q]\n",
    )
    lines = [line.split("my.yaml, ")[1] for line in said.splitlines()[1:]]
    assert [line.split(":")[0] for line in lines] == [
        "line 2", "line 3", "line 12", "line 13", "line 13", "line 9", "line 8",
    ]  # fmt: skip
    assert "line 8: experiments.a.train.seed is -1, but must be at least 0." in lines
    assert "line 12: prompts.named[0] lacks the key `prompt`." in lines


def test_of_several_files_the_last_one_is_named(tmp_path):
    (tmp_path / "one.yaml").write_text("train: { lr: 1e-3 }\nhf:\n  threads: 0\n")
    (tmp_path / "two.yaml").write_text("\n\nhf: { threads: -1 }\n")
    with pytest.raises(ConfigError) as caught:
        check_files([tmp_path / "one.yaml", tmp_path / "two.yaml"], TABLE)
    assert "two.yaml, line 3: hf.threads is -1" in str(caught.value)
    assert read_written(tmp_path / "one.yaml").lines["hf.threads"] == 3
    (tmp_path / "two.yaml").write_text("hf: { threads: 010 }\n")
    with pytest.raises(ConfigError) as caught:
        check_files([tmp_path / "none.yaml", tmp_path / "two.yaml", tmp_path], TABLE)
    assert len(caught.value.problems) == 3
