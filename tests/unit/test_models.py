"""One room per model family: what knows it, who asks it, and which results depend on it."""

import json
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "checkpoint"))  # for tiny_qwen2vl

from mindtune import models
from mindtune.checkpoint import hf_to_mm, mm_to_hf, resplit, verify
from mindtune.engines import stage_sources
from mindtune.engines.converting import converter_sources
from mindtune.errors import UserError
from mindtune.glue import sourcecode
from mindtune.glue.settings_reading import Sources
from mindtune.models.shape import model_shape
from mindtune.settings import load
from tiny_qwen2vl import Sizes, write_hf

ROOT = Path(__file__).parents[2]
ROOM = ROOT / "scripts/mindtune/models"
NAMED = re.compile(
    r"qwen-?[23]|1516\d\d|image_pad|vision_start|im_start|merger|patch_embed|[\"']visual\.", re.I
)
SHIPPED = r"config/[\w-]+\.yaml"  # the name of a configuration says nothing of what a family is
WHO_NAMES_IT = {
    "scripts/mindtune/models/__init__.py": "the registry",
    "scripts/mindtune/models/conversation.py": "tokens in a text, looked at before a model is known",
    "scripts/mindtune/demo": "the demo is a small Qwen2-VL",
    "scripts/build_base_model.py": "lays the demo's model out",
    "scripts/ask.py": "an example with the demo's model",
    "rules/sources.smk": "the directory of the demo's model",
    "scripts/mindtune/settings/sources.py": "the published model that is fetched by default",
    "scripts/mindtune/settings/sections/sources.py": "a description, for the reference page",
    "scripts/mindtune/settings/sections/train.py": "a description, for the reference page",
}


def test_who_names_the_family_outside_its_room():
    files = [*ROOT.glob("scripts/**/*.py"), *ROOT.glob("rules/*.smk")]
    families = {ROOM / name for name in models.FAMILIES}
    found = {
        path.relative_to(ROOT)
        for path in files
        if not families & {*path.parents}
        and NAMED.search(re.sub(SHIPPED, "", path.read_text(encoding="utf-8")))
    }
    for reason in WHO_NAMES_IT:
        named = {path for path in found if path.is_relative_to(reason)}
        assert named, f"{reason} names it no longer"
        found -= named
    assert found == set()


def test_a_room_knows_nothing_above_it():
    below = ("mindtune.models", "mindtune.formats", "mindtune.errors", "mindtune.files")
    files = [*ROOM.rglob("*.py")]
    ours = {
        (path, name)
        for path in files
        for name in sourcecode.imported_names(path)
        if name.startswith("mindtune")
    }
    assert len(files) > 10 and [one for one in ours if not one[1].startswith(below)] == []


def test_only_transformers_classes_import_it():
    heavy = {
        path.relative_to(ROOM).parts[-1]
        for path in ROOM.rglob("*.py")
        for name in sourcecode.imported_names(path)
        if name.split(".")[0] in ("torch", "transformers")
    }
    assert heavy == {"hf.py"}


@pytest.mark.parametrize("family", models.FAMILIES)
def test_a_family_has_every_module_that_is_asked(family):
    asked = {path.name for path in ROOM.glob("*.py") if "room(" in path.read_text("utf-8")}
    asked -= {"__init__.py"}
    assert len(asked) == 8 and asked == {
        path.name for path in (ROOM / family).glob("*.py") if path.name != "__init__.py"
    }


def test_a_model_of_no_family_is_refused_by_name():
    for kind in ("llama", None, ["qwen2_vl"]):
        with pytest.raises(UserError) as caught:
            model_shape({"model_type": kind}, "its config.json")
        assert str(caught.value) == (
            f"its config.json: model_type is {kind!r}; only 'qwen2_vl' or 'qwen2_5_vl' or "
            "'qwen3_vl' can be converted"
        )


# --- What depends on a room --------------------------------------------------------------

PREPARING = ["prepare_checkpoint.py", *converter_sources("mindtune")]
RULES = {  # sources of a rule -> the modules of a family on which its result depends
    "own converter": (PREPARING, {"shape", "tensors"}),
    "mm-convert": (
        ["prepare_checkpoint.py", *converter_sources("mm-convert")],
        {"shape", "tensors", "mindspeed"},
    ),
    "merge": (["merge_adapter.py"], {"shape", "tensors"}),
    "hf trains": (
        ["finetune_model.py", *stage_sources("hf", "finetune")],
        {"shape", "tensors", "template", "pictures", "hf"},
    ),
    "hf answers": (
        ["answer_prompts.py", *stage_sources("hf", "answer")],
        {"shape", "tensors", "template", "pictures", "hf", "boxes"},
    ),
    "mindspeed answers": (
        ["answer_prompts.py", *stage_sources("mindspeed", "answer")],
        {"shape", "tensors", "template", "mindspeed", "pictures", "boxes"},
    ),
    "comparison": (["compare_answers.py"], set()),
    "data": (["convert_data.py"], set()),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_result_depends_on_what_is_asked_of_the_family(rule, monkeypatch):
    sources, wanted = RULES[rule]
    sources = [ROOT / "scripts" / source for source in sources]
    before = sourcecode.hash_of(sourcecode.code_files(*sources))
    real = sourcecode.file_hash
    changes = set()
    for path in (ROOM / "qwen2_vl").glob("*.py"):
        monkeypatch.setattr(
            sourcecode, "file_hash", lambda one, path=path: "new" if one == path else real(one)
        )
        if sourcecode.hash_of(sourcecode.code_files(*sources)) != before:
            changes.add(path.stem)
    assert changes - {"__init__"} == wanted


def test_another_family_is_no_part_of_a_result():
    sources = [ROOT / "scripts" / source for source in PREPARING]
    inside = ROOM / "qwen2_vl/tensors.py"
    assert inside in sourcecode.closure(sources, ["qwen2_vl"])
    assert inside not in sourcecode.closure(sources, ["another"])


def test_the_families_of_a_configuration(tmp_path, monkeypatch):
    def families(source):
        chosen = load({"sources": {"model": source}}, environment={})
        return Sources(chosen, ROOT / "config/data_sources.yaml").families()

    monkeypatch.setitem(models.FAMILIES, "toy_vl", "Toy-VL")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "toy_vl"}))
    every = ["qwen2_5_vl", "qwen2_vl", "qwen3_vl", "toy_vl"]
    assert families({"use": "demo"}) == ["qwen2_vl"]
    assert families({"use": "path", "path": str(tmp_path)}) == ["toy_vl"]
    assert families({"use": "path", "path": str(tmp_path / "none")}) == every
    assert families({"use": "official"}) == ["qwen2_vl"]
    assert families({"use": "official", "name": "qwen2.5-vl-7b-instruct"}) == ["qwen2_5_vl"]


# --- A second family: a folder and a line ------------------------------------------------

SHAPE = """
from dataclasses import replace
from mindtune.models.qwen2_vl import shape as other

def shape(config, where):
    return replace(other.shape(config, where), model_type="toy_vl")
"""
TENSORS = """
from dataclasses import replace
from mindtune.models.qwen2_vl import tensors as other

RULES = tuple(replace(rule, mm=rule.mm.replace("input_layernorm", "norm")) for rule in other.RULES)
TENSORS = replace(other.TENSORS, name="Toy-VL", rules=RULES)
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    room = tmp_path / "rooms" / "toy_vl"
    room.mkdir(parents=True)
    for name, text in (("__init__", ""), ("shape", SHAPE), ("tensors", TENSORS)):
        (room / f"{name}.py").write_text(text)
    monkeypatch.setitem(models.FAMILIES, "toy_vl", "Toy-VL")
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(room.parent)])
    yield
    for name in [name for name in sys.modules if name.startswith("mindtune.models.toy_vl")]:
        del sys.modules[name]


def test_a_toy_family_is_converted_there_and_back(toy, tmp_path):
    hf = tmp_path / "hf"
    write_hf(hf, Sizes())
    config = json.loads((hf / "config.json").read_text())
    (hf / "config.json").write_text(json.dumps(config | {"model_type": "toy_vl"}))
    hf_to_mm(hf, tmp_path / "mm", tp_size=2)
    # Without a config.json the names tell the family.
    resplit(tmp_path / "mm", tmp_path / "one", tp_size=1)
    mm_to_hf(tmp_path / "one", hf, tmp_path / "again")
    assert verify(hf, tmp_path / "again").tensors > 20
    (hf / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="that is none of Qwen2-VL's"):
        mm_to_hf(tmp_path / "one", hf, tmp_path / "wrong")
