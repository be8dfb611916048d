"""Against the real thing: MindSpeed-MM's own mm-convert on the same inputs, both directions.

Set MINDSPEED_MM_HOME to a MindSpeed-MM tree (branch 2.0.0), and MINDSPEED_MM_PYTHON to an
interpreter that has its requirements for converting (Python 3.10 or later; torch 2.1.0,
transformers 4.45.0, numpy below 2, safetensors, pydantic, jsonargparse[all], tqdm). A table of
what was compared is printed at the end. The tree is only read.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mindtune.checkpoint import hf_to_mm, mm_to_hf, resplit
from tiny_qwen2vl import Sizes, rank_files, read_hf, same, tensors_of, write_hf

HOME = os.environ.get("MINDSPEED_MM_HOME")
pytestmark = [
    pytest.mark.mindspeed,
    pytest.mark.skipif(
        not HOME, reason="not compared with the real mm-convert: MINDSPEED_MM_HOME is not set"
    ),
]

# name: (tp_size, llm rows, vit rows); the last four-layer model needs layers=4
LAYOUTS = {
    "tp1": (1, [[4]], [[2]]),
    "tp2": (2, [[4]], [[2]]),
    "tp4": (4, [[4]], [[2]]),
    "pp llm [[1,3]] vit [[2,0]]": (1, [[1, 3]], [[2, 0]]),
    "pp llm [[2,2]] vit [[1,1]]": (1, [[2, 2]], [[1, 1]]),
    "pp llm [[0,4]] vit [[1,1]]": (1, [[0, 4]], [[1, 1]]),
    "pp llm [[0,4]] vit [[2,0]]": (1, [[0, 4]], [[2, 0]]),
    "pp llm [[0,4]] vit [[0,2]]": (1, [[0, 4]], [[0, 2]]),
    "pp llm [[2,2]] vit [[0,2]]": (1, [[2, 2]], [[0, 2]]),
    "tp2 pp llm [[1,3]] vit [[2,0]]": (2, [[1, 3]], [[2, 0]]),
    "tp2 pp4 llm [[1,1,1,1]] vit [[2,0,0,0]]": (2, [[1, 1, 1, 1]], [[2, 0, 0, 0]]),
    "vpp llm [[0,0],[2,2]] vit [[1,1],[0,0]]": (1, [[0, 0], [2, 2]], [[1, 1], [0, 0]]),
    "vpp llm [[0,1],[1,2]] vit [[1,1],[0,0]]": (1, [[0, 1], [1, 2]], [[1, 1], [0, 0]]),
    "tp2 vpp llm [[0,1],[1,2]] vit [[2,0],[0,0]]": (2, [[0, 1], [1, 2]], [[2, 0], [0, 0]]),
}
RESPLITS = {
    "tp1 pp1 -> pp2": ((1, [[4]], [[2]]), (1, [[1, 3]], [[2, 0]])),
    "tp2 pp2 -> tp1 pp1": ((2, [[1, 3]], [[2, 0]]), (1, [[4]], [[2]])),
    "tp1 pp2 -> pp4": ((1, [[1, 3]], [[2, 0]]), (1, [[1, 1, 1, 1]], [[2, 0, 0, 0]])),
}


# Of Qwen2.5-VL mm-convert reads config.json only, by a class that the pinned transformers lacks: its
# sizes are keys of the same names.
READS_QWEN25 = """
import sys, types
from transformers import AutoConfig, Qwen2VLConfig

class Qwen2_5_VLConfig(Qwen2VLConfig):
    model_type = "qwen2_5_vl"

try:
    import transformers.models.qwen2_5_vl
except ImportError:
    module = types.ModuleType("transformers.models.qwen2_5_vl")
    module.Qwen2_5_VLConfig = Qwen2_5_VLConfig
    sys.modules[module.__name__] = module
    AutoConfig.register("qwen2_5_vl", Qwen2_5_VLConfig)
"""


@pytest.fixture(scope="module")
def mm_convert(tmp_path_factory):
    """Runs mm-convert with --cfg options; the adaptor that needs an NPU is an empty module."""
    stub = tmp_path_factory.mktemp("stub")
    (stub / "sitecustomize.py").write_text(READS_QWEN25)
    (stub / "mindspeed").mkdir()
    (stub / "mindspeed/__init__.py").touch()
    (stub / "mindspeed/megatron_adaptor.py").touch()
    environment = {
        **os.environ,
        "PYTHONPATH": str(stub),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HF_HUB_OFFLINE": "1",
    }
    python = os.environ.get("MINDSPEED_MM_PYTHON", sys.executable)

    def run(command: str, converter: str = "Qwen2VLConverter", **options) -> None:
        arguments = [f"--cfg.{k.replace('__', '.')}={v}" for k, v in options.items()]
        call = [python, "-m", "checkpoint.convert_cli", converter, command, *arguments]
        done = subprocess.run(call, cwd=HOME, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]

    return run


def restore_mode(directory: Path) -> Path:
    """mm-convert takes the x bit from its output directory."""
    directory.chmod(0o755)
    return directory


def layout_options(prefix: str, layout: tuple, flat: bool) -> dict:
    tp_size, llm, vit = layout
    return {
        f"{prefix}__tp_size": tp_size,
        f"{prefix}__llm_pp_layers": llm[0] if flat else llm,
        f"{prefix}__vit_pp_layers": vit[0] if flat else vit,
    }


def ours(layout: tuple) -> dict:
    return dict(zip(("tp_size", "llm_pp_layers", "vit_pp_layers"), layout, strict=True))


def compare_ranks(one: dict, other: dict) -> tuple[int, int]:
    """(rank files, tensors) compared: directories, structure, names, dtypes, shapes, bits."""
    assert one.keys() == other.keys()
    tensors = 0
    for rank, content in one.items():
        assert content.keys() == other[rank].keys(), rank
        for key, value in content.items():
            if isinstance(value, dict):
                assert same(value, other[rank][key]), (rank, key)
                tensors += len(value)
            else:
                assert value == other[rank][key], (rank, key)
    return len(one), tensors


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_conversion_equals_mm_convert(tmp_path, mm_convert, table, name, tied):
    layout = LAYOUTS[name]
    original = write_hf(tmp_path / "hf", Sizes(layers=4, kv_heads=4, tied=tied), nans=False)
    mm_convert(
        "hf_to_mm",
        mm_dir=tmp_path / "theirs",
        hf_config__hf_dir=tmp_path / "hf",
        **layout_options("parallel_config", layout, flat=False),
    )
    restore_mode(tmp_path / "theirs")
    hf_to_mm(tmp_path / "hf", tmp_path / "ours", **ours(layout))
    files, tensors = compare_ranks(rank_files(tmp_path / "ours"), rank_files(tmp_path / "theirs"))
    tracker = "latest_checkpointed_iteration.txt"
    assert (tmp_path / "ours" / tracker).read_bytes() == (
        tmp_path / "theirs" / tracker
    ).read_bytes()

    mm_to_hf(tmp_path / "theirs", tmp_path / "hf", tmp_path / "hf_ours", **ours(layout))
    assert same(read_hf(tmp_path / "hf_ours"), original)
    back = "theirs cannot read VPP"
    if len(layout[1]) == 1:
        mm_convert(
            "mm_to_hf",
            save_hf_dir=tmp_path / "hf_theirs",
            mm_dir=tmp_path / "ours",
            hf_config__hf_dir=tmp_path / "hf",
            **layout_options("parallel_config", layout, flat=True),
        )
        restore_mode(tmp_path / "hf_theirs")
        assert same(read_hf(tmp_path / "hf_theirs"), read_hf(tmp_path / "hf_ours"))
        back = f"{len(original)} tensors equal"
    kind = "tied" if tied else "untied"
    table.append((name, kind, f"{files} rank file(s), {tensors} tensors equal", back))


QWEN25 = ("tp1", "tp4", "pp llm [[2,2]] vit [[1,1]]", "pp llm [[0,4]] vit [[0,2]]",
          "tp2 pp4 llm [[1,1,1,1]] vit [[2,0,0,0]]", "vpp llm [[0,1],[1,2]] vit [[1,1],[0,0]]",
          "tp2 vpp llm [[0,1],[1,2]] vit [[2,0],[0,0]]")  # fmt: skip


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("name", QWEN25)
def test_qwen25_equals_mm_convert(tmp_path, mm_convert, table, name, tied):
    """There; back it has no converter but ours, which finds the model that it was made of."""
    layout, sizes = LAYOUTS[name], Sizes(layers=4, kv_heads=4, tied=tied, family="qwen2_5_vl")
    original = write_hf(tmp_path / "hf", sizes, nans=False)
    mm_convert(
        "hf_to_mm", "Qwen2_5_VLConverter",
        mm_dir=tmp_path / "theirs", hf_config__hf_dir=tmp_path / "hf",
        **layout_options("parallel_config", layout, flat=False),
    )  # fmt: skip
    restore_mode(tmp_path / "theirs")
    hf_to_mm(tmp_path / "hf", tmp_path / "ours", **ours(layout))
    files, tensors = compare_ranks(rank_files(tmp_path / "ours"), rank_files(tmp_path / "theirs"))
    mm_to_hf(tmp_path / "theirs", tmp_path / "hf", tmp_path / "hf_ours", **ours(layout))
    assert same(read_hf(tmp_path / "hf_ours"), original)
    kind = "tied" if tied else "untied"
    said = f"{files} rank file(s), {tensors} tensors equal"
    table.append((f"Qwen2.5-VL {name}", kind, said, "theirs writes nothing"))


def test_mm_convert_takes_no_qwen25_back(tmp_path, mm_convert):
    """Why `converter: mm-convert` is refused for it: status 0, and nothing there."""
    write_hf(tmp_path / "hf", Sizes(layers=4, kv_heads=4, family="qwen2_5_vl"), nans=False)
    layout = LAYOUTS["tp1"]
    hf_to_mm(tmp_path / "hf", tmp_path / "mm", **ours(layout))
    mm_convert(
        "mm_to_hf", "Qwen2_5_VLConverter", save_hf_dir=tmp_path / "back", mm_dir=tmp_path / "mm",
        hf_config__hf_dir=tmp_path / "hf", **layout_options("parallel_config", layout, flat=True),
    )  # fmt: skip
    assert not (tmp_path / "back").exists()


def test_a_stored_output_layer_of_a_tied_model(tmp_path, mm_convert, table):
    """On one stage ours leaves it out, with which the framework would not start (test_standin_runs).

    The real mm_to_hf reads ours, and what training made of it, where the index doesn't ask for it.
    """
    sizes = Sizes(layers=4, kv_heads=4)
    tensors = tensors_of(sizes, nans=False)
    spare = {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
    write_hf(tmp_path / "hf", sizes, tensors=tensors | spare)
    for name, extra in (("tp1", 1), ("pp llm [[1,3]] vit [[2,0]]", 0)):
        layout, place = LAYOUTS[name], tmp_path / name[:2]
        mm_convert(
            "hf_to_mm", mm_dir=place / "theirs", hf_config__hf_dir=tmp_path / "hf",
            **layout_options("parallel_config", layout, flat=False),
        )  # fmt: skip
        restore_mode(place / "theirs")
        hf_to_mm(tmp_path / "hf", place / "ours", **ours(layout))
        theirs = rank_files(place / "theirs")
        kept = [
            rank["model"].pop("text_decoder.output_layer.weight")
            for rank in theirs.values()
            if extra
        ]
        assert len(kept) == extra
        files, count = compare_ranks(rank_files(place / "ours"), theirs)
        # Ours exported is a directory whose index has no lm_head.weight.
        mm_to_hf(place / "theirs", tmp_path / "hf", place / "exported")
        mm_convert(
            "mm_to_hf", save_hf_dir=place / "back", mm_dir=place / "ours",
            hf_config__hf_dir=place / "exported",
            **layout_options("parallel_config", layout, flat=True),
        )  # fmt: skip
        restore_mode(place / "back")
        assert same(read_hf(place / "back"), tensors)
        said = f"{files} rank file(s), {count} tensors equal, {extra} left out"
        table.append((f"{name}, lm_head stored", "tied", said, f"{len(tensors)} tensors equal"))


@pytest.mark.parametrize("name", RESPLITS)
def test_resplit_equals_theirs_where_theirs_is_right(tmp_path, mm_convert, table, name):
    source, target = RESPLITS[name]
    write_hf(tmp_path / "hf", Sizes(layers=4, kv_heads=4, tied=False))
    hf_to_mm(tmp_path / "hf", tmp_path / "source", **ours(source))
    mm_convert(
        "resplit",
        source_dir=tmp_path / "source",
        target_dir=tmp_path / "theirs",
        **layout_options("source_parallel_config", source, flat=True),
        **layout_options("target_parallel_config", target, flat=True),
    )
    restore_mode(tmp_path / "theirs")
    resplit(tmp_path / "source", tmp_path / "ours", **ours(target))
    files, tensors = compare_ranks(rank_files(tmp_path / "ours"), rank_files(tmp_path / "theirs"))
    table.append(
        (f"resplit {name}", "untied", f"{files} rank file(s), {tensors} tensors equal", "-")
    )
