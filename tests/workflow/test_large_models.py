"""config/qwen2-vl-7b.yaml and -72b.yaml against models of the true shapes, whose weights have no content."""

import json
import math
import re

import pytest
import yaml
from estimate_scale import configuration_in, main
from mindtune.checkpoint.layout import ParallelLayout, layout_options
from mindtune.checkpoint.model_directory import training_problems
from mindtune.demo.base_model import write_base_model
from mindtune.engines.mindspeed.arguments import World, training_arguments
from mindtune.formats.safetensors_io import safetensors_header
from mindtune.formats.views import View
from mindtune.memory import step_of, training_memory
from mindtune.models.published import PUBLISHED
from mindtune.models.qwen2_vl.mindspeed import TOKENS
from mindtune.models.shape import model_shape
from mindtune.models.tensors import hf_shapes
from mindtune.scale import count_parameters
from mindtune.settings.typed import typed
from workflow.conftest import ROOT, Checkout

SIZES = ("7B", "72B")
CARD = 64e9


def file_of(size):
    return ROOT / f"config/qwen2-vl-{size.lower()}.yaml"


def write_model(directory, size):
    """A download of a published size: real headers of its weights, and holes in place of their bytes."""
    write_base_model(directory)
    for path in directory.glob("model*"):
        path.unlink()
    config = (
        json.loads((directory / "config.json").read_text()) | PUBLISHED[f"Qwen2-VL-{size}"] | TOKENS
    )
    (directory / "config.json").write_text(json.dumps(config))
    shapes = hf_shapes(model_shape(config))
    views = {name: View(shape, "bfloat16", ()) for name, shape in shapes.items()}
    header, _ = safetensors_header(views)
    with open(directory / "model.safetensors", "wb") as handle:
        handle.write(header)
        handle.truncate(len(header) + 2 * sum(map(math.prod, shapes.values())))


@pytest.mark.parametrize("size", SIZES)
def test_the_layout_is_one_that_the_framework_trains(size):
    settings = configuration_in(file_of(size)).typed()
    shape = model_shape(PUBLISHED[f"Qwen2-VL-{size}"])
    layout = ParallelLayout.make(shape, **layout_options(settings.parallel))
    assert list(training_problems(layout, shape, settings.parallel, settings.train)) == []
    world = World.of_training(settings.mindspeed, settings.parallel, layout)
    step = settings.train.micro_batch_size * world.data
    assert settings.train.global_batch_size == 96 * step  # the shipped scripts' accumulation
    assert world.size == layout.tp_size * layout.pp_size * world.data
    arguments = training_arguments(
        settings.train, world, vocab=shape.vocab, load=ROOT, base=ROOT, resume=False, save=ROOT,
        data_file=ROOT, model_file=ROOT, tool_file=ROOT, num_workers=8, timeout_minutes=10,
    )  # fmt: skip
    shipped = {"7B": ("1", "4"), "72B": ("2", "8")}[size]
    names = ("--tensor-model-parallel-size", "--pipeline-model-parallel-size")
    assert tuple(arguments[arguments.index(name) + 1] for name in names) == shipped


@pytest.mark.parametrize("size", SIZES)
def test_it_fits_on_its_cards(size, capsys):
    settings = configuration_in(file_of(size)).typed()
    shape = model_shape(PUBLISHED[f"Qwen2-VL-{size}"])
    need = training_memory(
        shape, count_parameters(shape).all, settings.train, "bf16", step_of(settings)
    )
    machine, parallel = settings.mindspeed, settings.parallel
    cut = parallel.tensor_model_parallel_size * len(parallel.llm_pp_layers[0])
    copies = machine.npus_per_node * machine.nodes // cut
    held = (need.weights + need.gradients + need.optimizer / copies) / cut
    assert held < 0.8 * CARD
    assert main(["--configfile", str(file_of(size)), "--model", f"Qwen2-VL-{size}"]) == 0
    assert "not measured on an NPU" in capsys.readouterr().out


def test_adapters_of_7b_fit_on_a_card_of_24_gb():
    """What its comments promise of `engine: hf`, with a tenth to spare."""
    settings = configuration_in(file_of("7B")).typed()
    train = typed("train", settings.train.model_dump() | {"lora": {"rank": 16, "alpha": 32, "target_modules": [
        "linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"]}})  # fmt: skip
    shape = model_shape(PUBLISHED["Qwen2-VL-7B"])
    step = step_of(settings.model_copy(update={"engine": "hf"}))
    assert step.recompute
    assert training_memory(shape, count_parameters(shape).all, train, "bf16", step).all < 0.9 * 24e9


@pytest.mark.parametrize("size", SIZES)
def test_a_dry_run_plans_all_of_it(tmp_path, size):
    write_model(tmp_path / "model", size)
    checkout = Checkout.make(tmp_path / "run")
    raw = yaml.safe_load(file_of(size).read_text(encoding="utf-8"))
    raw["sources"]["model"]["path"] = str(tmp_path / "model")
    (checkout.path / "config/large.yaml").write_text(yaml.safe_dump(raw))
    said = checkout.snakemake("-n", "results/compare.csv", "--configfile", "config/large.yaml")
    planned = dict(re.findall(r"^(\w+) +(\d+)$", said, re.MULTILINE))
    assert planned["finetune_model"] == "1" and planned["answer_prompts"] == "2"
    assert planned["prepare_checkpoint"] == "1" and "build_base_model" not in planned
