"""Users' mistakes and interrupted runs: one sentence, nothing written, nothing left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mindtune.checkpoint import (
    ParallelLayout,
    hf_to_mm,
    inspect,
    load_hf_tensors,
    mm_to_hf,
    resplit,
    save_trained,
    verify,
)
from mindtune.checkpoint.layout import parse_layers
from mindtune.errors import UserError
from tiny_qwen2vl import Sizes, config_of, read_hf, same, tensors_of, write_hf

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/convert_checkpoint.py"
TRACKER = "latest_checkpointed_iteration.txt"
ODD = Sizes(layers=3, heads=12, kv_heads=4, head=4, ffn=36, vocab=50)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model in both forms; not to be changed."""
    path = tmp_path_factory.mktemp("made")
    write_hf(path / "hf", ODD)
    hf_to_mm(path / "hf", path / "mm", tp_size=2, llm_pp_layers=[1, 2], vit_pp_layers=[2, 0])
    return path


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"llm_pp_layers": [2, 2]}, "llm_pp_layers [[2, 2]] adds up to 4 layers; the model has 3"),
        ({"vit_pp_layers": [[1]]}, "vit_pp_layers [[1]] adds up to 1 layers; the model has 2"),
        (
            {"llm_pp_layers": [1, 2], "vit_pp_layers": [2]},
            "llm_pp_layers has 1 chunk(s) of 2 stage(s), vit_pp_layers 1 of 1",
        ),
        (
            {"llm_pp_layers": [[1, 1], [1, 0]], "vit_pp_layers": [2, 0]},
            "llm_pp_layers has 2 chunk(s) of 2 stage(s), vit_pp_layers 1 of 2",
        ),
        ({"llm_pp_layers": [[1], [1, 1]]}, "its rows have [1, 2] stages, not equally many"),
        ({"llm_pp_layers": []}, "llm_pp_layers is []; a list of layer counts"),
        ({"llm_pp_layers": [3, -1, 1]}, "llm_pp_layers is [3, -1, 1]; a list of layer counts"),
        ({"llm_pp_layers": [True, 2]}, "llm_pp_layers is [True, 2]; a list of layer counts"),
        ({"llm_pp_layers": "[[1, 2"}, "llm_pp_layers is '[[1, 2'; a list like [[14, 14]]"),
        ({"llm_pp_layers": "3"}, "llm_pp_layers is '3'; a list of layer counts"),
        ({"tp_size": 3}, "tp_size 3 does not divide the model's 4 key-value heads"),
        ({"tp_size": 8}, "tp_size 8 does not divide the model's 4 key-value heads"),
        ({"tp_size": 4}, "tp_size 4 does not divide the model's 50 vocabulary entries"),
        ({"tp_size": 0}, "tp_size is 0; a whole number from 1"),
        ({"tp_size": "2"}, "tp_size is '2'; a whole number from 1"),
    ],
)
def test_layouts_that_do_not_fit(made, tmp_path, layout, message):
    with pytest.raises(UserError) as caught:
        hf_to_mm(made / "hf", tmp_path / "mm", **layout)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"kv_heads": 2}, "2 key-value heads"),
        ({"ffn": 34, "kv_heads": 4, "heads": 4}, "34 rows of the feed-forward layer"),
        ({"vit_heads": 2, "kv_heads": 4}, "2 vision attention heads"),
    ],
)
def test_every_size_is_checked_for_tp(tmp_path, change, what):
    write_hf(tmp_path / "hf", Sizes(heads=4, vocab=64).but(**change))
    with pytest.raises(UserError, match=f"tp_size 4 does not divide the model's {what}"):
        hf_to_mm(tmp_path / "hf", tmp_path / "mm", tp_size=4)


def test_both_bracket_depths_and_texts_mean_the_same():
    assert parse_layers([28], "x") == parse_layers([[28]], "x") == parse_layers("[[28]]", "x")
    assert parse_layers((1, 2), "x") == parse_layers("[1,2]", "x") == ((1, 2),)


def test_layouts_the_framework_cannot_train_are_named():
    def problems(llm, vit):
        layout = ParallelLayout.make(llm_pp_layers=llm, vit_pp_layers=vit)
        return " ".join(layout.training_problems())

    assert problems([1, 10, 10, 7], [32, 0, 0, 0]) == ""
    assert problems([[0, 0, 0, 1], [4, 4, 4, 4]], [[10, 10, 10, 2], [0, 0, 0, 0]]) == ""
    assert "before the vision layers are complete" in problems([1, 10, 10, 7], [30, 2, 0, 0])
    assert "first stage has no vision layers" in problems([0, 0, 2], [0, 2, 0])
    assert "last stage has no language layers" in problems([1, 0], [2, 0])


def hf_copy(made, tmp_path) -> Path:
    shutil.copytree(made / "hf", tmp_path / "hf")
    return tmp_path / "hf"


def edit_json(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def drop_shard(hf: Path) -> None:
    next(hf.glob("model-00002*")).unlink()


def drop_tensor(hf: Path) -> None:
    tensors = read_hf(hf)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    shutil.rmtree(hf)
    write_hf(hf, ODD, tensors=tensors)


def add_tensor(hf: Path) -> None:
    tensors = {**read_hf(hf), "model.layers.3.mlp.up_proj.weight": torch.zeros(2)}
    shutil.rmtree(hf)
    write_hf(hf, ODD, tensors=tensors)


def untie_quietly(hf: Path) -> None:
    tensors = read_hf(hf)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1
    shutil.rmtree(hf)
    write_hf(hf, ODD, tensors=tensors, nans=False)


HF_MISTAKES = {
    "no such directory": (shutil.rmtree, "is not a directory"),
    "no config": (lambda hf: (hf / "config.json").unlink(), "config.json does not exist"),
    "broken config": (lambda hf: (hf / "config.json").write_text("{"), "config.json is not JSON"),
    "another model": (
        lambda hf: edit_json(hf / "config.json", model_type="llama"),
        "model_type is 'llama'",
    ),
    "another size": (
        lambda hf: edit_json(hf / "config.json", intermediate_size=40),
        "has the shape [36, 48], config.json implies [40, 48]",
    ),
    "more layers": (
        lambda hf: edit_json(hf / "config.json", num_hidden_layers=4),
        "lacks the tensor model.layers.3.",
    ),
    "fewer layers": (
        lambda hf: edit_json(hf / "config.json", num_hidden_layers=2),
        "that a Qwen2-VL model of the size in config.json does not have",
    ),
    "no heads": (
        lambda hf: edit_json(hf / "config.json", num_attention_heads=0),
        "num_attention_heads is 0",
    ),
    "missing shard": (drop_shard, "model-00002-of-00003.safetensors is missing"),
    "missing tensor": (drop_tensor, "lacks the tensor model.layers.1.mlp.up_proj.weight"),
    "strange tensor": (add_tensor, "has a tensor model.layers.3.mlp.up_proj.weight"),
    "lm_head that is not tied": (untie_quietly, "set tie_word_embeddings to false"),
    "broken index": (
        lambda hf: (hf / "model.safetensors.index.json").write_text("[]"),
        "index.json: its weight_map is missing, but must be an object",
    ),
    "index with a list": (
        lambda hf: edit_json(hf / "model.safetensors.index.json", weight_map=["x"]),
        "index.json: its weight_map is a list, but must be an object that names the file of each",
    ),
    "index with a number": (
        lambda hf: edit_json(hf / "model.safetensors.index.json", weight_map={"x": 1}),
        "its weight_map has 1 for x, but has to name files of the same directory",
    ),
    "empty index": (
        lambda hf: edit_json(hf / "model.safetensors.index.json", weight_map={}),
        "its weight_map is empty",
    ),
    "a billion layers": (
        lambda hf: edit_json(hf / "config.json", num_hidden_layers=10**9),
        "num_hidden_layers is 1000000000; at most 1000 can be right",
    ),
    "a billion tokens": (
        lambda hf: edit_json(hf / "config.json", vocab_size=10**9),
        "vocab_size is 1000000000; at most 10000000 can be right",
    ),
    "index out of the directory": (
        lambda hf: edit_json(hf / "model.safetensors.index.json", weight_map={"x": "../y"}),
        "has to name files of the same directory",
    ),
}


@pytest.mark.parametrize("name", HF_MISTAKES)
def test_mistakes_in_a_hugging_face_directory(made, tmp_path, name):
    spoil, message = HF_MISTAKES[name]
    hf = hf_copy(made, tmp_path)
    spoil(hf)
    with pytest.raises(UserError) as caught:
        hf_to_mm(hf, tmp_path / "mm")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) in ([], ["hf"])


def rename_rank(mm: Path) -> None:
    (mm / "release/mp_rank_01_001").rename(mm / "release/mp_rank_01")


MM_MISTAKES = {
    "no tracker": (lambda mm: (mm / TRACKER).unlink(), f"{TRACKER} does not exist"),
    "tracker to nowhere": (
        lambda mm: (mm / TRACKER).write_text("50"),
        "iter_0000050 does not exist",
    ),
    "tracker with rubbish": (lambda mm: (mm / TRACKER).write_text("5o"), "says '5o'"),
    "missing rank": (
        lambda mm: shutil.rmtree(mm / "release/mp_rank_00_001"),
        "lacks the file of tensor rank 0, stage 1 (of 2 x 2 that its directories show)",
    ),
    "missing file": (
        lambda mm: (mm / "release/mp_rank_01_000/model_optim_rng.pt").unlink(),
        "lacks the file of tensor rank 1, stage 0",
    ),
    "missing stage": (
        lambda mm: [shutil.rmtree(p) for p in mm.glob("release/*_001")],
        "holds 1 language layers on 1 stage(s), config.json says 3",
    ),
    "missing tensor rank": (
        lambda mm: [shutil.rmtree(p) for p in mm.glob("release/mp_rank_01_*")],
        "over 1 tensor rank(s), config.json implies",
    ),
    "two layouts at once": (rename_rank, "mixes mp_rank_TT and mp_rank_TT_PPP"),
    "no ranks": (
        lambda mm: [shutil.rmtree(p) for p in mm.glob("release/*")],
        "has no mp_rank_* directories",
    ),
    "truncated": (
        lambda mm: os.truncate(mm / "release/mp_rank_00_000/model_optim_rng.pt", 5000),
        "truncated, damaged or not a file of torch.save",
    ),
}


@pytest.mark.parametrize("name", MM_MISTAKES)
def test_mistakes_in_a_megatron_directory(made, tmp_path, name):
    spoil, message = MM_MISTAKES[name]
    shutil.copytree(made / "mm", tmp_path / "mm")
    spoil(tmp_path / "mm")
    for convert in (
        lambda: mm_to_hf(tmp_path / "mm", made / "hf", tmp_path / "out"),
        lambda: resplit(tmp_path / "mm", tmp_path / "out", hf_dir=made / "hf"),
        lambda: load_hf_tensors(tmp_path / "mm", config_of(ODD)),
    ):
        with pytest.raises(UserError) as caught:
            convert()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["mm"]


def test_a_layout_given_for_reading_is_compared(made, tmp_path):
    arguments = (made / "mm", made / "hf", tmp_path / "out")
    with pytest.raises(UserError, match=r"has 2 tensor rank\(s\), not 1"):
        mm_to_hf(*arguments, tp_size=1)
    with pytest.raises(UserError, match=r"llm \[\[1, 2\]\], .* not tp 2, pp 2, llm \[\[2, 1\]\]"):
        mm_to_hf(*arguments, llm_pp_layers=[2, 1])
    mm_to_hf(*arguments, tp_size=2, llm_pp_layers=[1, 2], vit_pp_layers="[[2,0]]")


def test_resplit_without_config_refuses_what_it_cannot_know(made, tmp_path):
    with pytest.raises(UserError, match="give hf_dir too"):
        resplit(made / "mm", tmp_path / "out", tp_size=4)
    with pytest.raises(UserError, match=r"llm_pp_layers \[\[2\]\] adds up to 2 layers; .* has 3"):
        resplit(made / "mm", tmp_path / "out", llm_pp_layers=[2])


def test_existing_directories_are_not_lost(made, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("years of work")
    for convert in (
        lambda **k: hf_to_mm(made / "hf", tmp_path / "mine", **k),
        lambda **k: mm_to_hf(made / "mm", made / "hf", tmp_path / "mine", **k),
        lambda **k: resplit(made / "mm", tmp_path / "mine", **k),
    ):
        with pytest.raises(UserError, match=r"holds thesis\.tex"):
            convert()
        assert (tmp_path / "mine/thesis.tex").exists()
    save_trained(tmp_path / "run", 3, tensors_of(ODD), config_of(ODD))
    with pytest.raises(UserError, match="holds iter_0000003"):
        hf_to_mm(made / "hf", tmp_path / "run")
    for _ in range(2):  # a converter's own product is replaced
        hf_to_mm(made / "hf", tmp_path / "mm")
        mm_to_hf(tmp_path / "mm", made / "hf", tmp_path / "hf")
    hf_to_mm(made / "hf", tmp_path / "mine", overwrite=True)
    assert not (tmp_path / "mine/thesis.tex").exists()


def test_source_and_target_must_be_apart(made, tmp_path):
    hf = hf_copy(made, tmp_path)
    for target in (hf, hf / "mm", tmp_path):
        with pytest.raises(UserError, match="must be separate directories"):
            hf_to_mm(hf, target, overwrite=True)
    assert len(list(hf.glob("*.safetensors"))) == 3


def test_full_disk_is_told_before_anything_is_written(made, tmp_path, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6, 1000))
    with pytest.raises(UserError, match=r"needs [\d,]+ bytes, the disk has 1,000 left"):
        hf_to_mm(made / "hf", tmp_path / "mm")
    assert list(tmp_path.iterdir()) == []


def test_disk_that_fills_up_leaves_nothing(made, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(UserError, match="No space left on device"):
        hf_to_mm(made / "hf", tmp_path / "mm", tp_size=2, workers=2)
    assert list(tmp_path.iterdir()) == []


def test_verify_finds_a_single_changed_bit(made, tmp_path):
    hf = hf_copy(made, tmp_path)
    assert verify(hf, made / "mm", workers=2).tensors == len(read_hf(hf))
    shard = next(hf.glob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 0x80
    shard.write_bytes(data)
    with pytest.raises(UserError, match=r"differs at element \d+"):
        verify(hf, made / "mm")
    with pytest.raises(UserError, match=r"differs at element \d+"):
        verify(made / "mm", hf)


def test_verify_option_really_reads_the_result(made, tmp_path, monkeypatch):
    """A writer that changes a byte on its way is caught, and nothing is left of its work."""
    real = os.pwrite
    done = []

    def unfaithful(fd, data, offset):
        if len(data) > 1000 and not done:
            done.append(1)
            data = bytes(data)[:-1] + bytes([data[-1] ^ 1])
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", unfaithful)
    with pytest.raises(UserError, match="differs at element"):
        hf_to_mm(made / "hf", tmp_path / "mm", verify=True)
    assert done
    assert list(tmp_path.iterdir()) == []


# --- the command line ----------------------------------------------------------------------


def run(*arguments, **keywords) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **keywords)


def test_command_line_round_trip(made, tmp_path):
    done = run(
        "hf-to-mm", "--hf-dir", made / "hf", "--mm-dir", tmp_path / "mm", "--tp", 2,
        "--llm-pp-layers", "[[1,2]]", "--vit-pp-layers", "[2, 0]", "--verify",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "read back and compared: equal" in done.stdout
    done = run(
        "resplit", "--mm-dir", tmp_path / "mm", "--save-mm-dir", tmp_path / "one", "--source-tp", 2,
        "--tp", 1, "--verify",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    done = run(
        "mm-to-hf", "--mm-dir", tmp_path / "one", "--hf-dir", made / "hf",
        "--save-hf-dir", tmp_path / "back", "--quiet", "--sync",
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert same(read_hf(tmp_path / "back"), read_hf(made / "hf"))
    done = run("verify", tmp_path / "mm", tmp_path / "back")
    assert done.returncode == 0
    assert "equal, bit for bit" in done.stdout


def test_command_line_mistakes(made, tmp_path):
    done = run("hf-to-mm", "--hf-dir", made / "hf", "--mm-dir", tmp_path / "mm", "--tp", 3)
    assert done.returncode == 1
    assert done.stderr == "error: tp_size 3 does not divide the model's 4 key-value heads\n"
    assert done.stdout == ""
    done = run("hf-to-mm", "--hf-dir", made / "hf")
    assert done.returncode == 2
    assert "required: --mm-dir" in done.stderr
    assert "Traceback" not in done.stderr
    assert run("inspect", tmp_path / "nowhere").returncode == 1


def test_inspect_prints_the_tables(made):
    done = run("inspect", made / "mm")
    assert done.returncode == 0
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "iteration release" in lines
    assert "tp 2, pp 2, llm [[1, 2]], vit [[2, 0]]" in lines
    assert any(line.startswith("mp_rank_01_001 ") for line in lines)
    found = inspect(made / "mm")
    name = "text_decoder.decoder.layers.{0..1}.self_attention.linear_qkv.weight"
    assert f"{name} mp_rank_00_001 and 1 more 2 [40, 48] bfloat16 3,840" in lines
    embedding = [t for t in found.tensors if "word_embeddings" in t.name]
    assert [(t.shape, t.dtype, t.nbytes) for t in embedding] == [((25, 48), "bfloat16", 2400)] * 2
    table = [" ".join(line.split()) for line in str(inspect(made / "hf")).splitlines()]
    embedding = "model.embed_tokens.weight model-00001-of-00003.safetensors 1"
    assert f"{embedding} [50, 48] bfloat16 4,800" in table


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_conversion_leaves_nothing_that_looks_whole(tmp_path, how):
    sizes = Sizes(heads=8, head=32, ffn=2048, layers=8, vocab=20000)  # some 40 MB
    write_hf(tmp_path / "hf", sizes)
    slow = (
        "import os, sys, time; real = os.pwrite\n"
        "def pwrite(*a):\n    time.sleep(0.02); return real(*a)\n"
        "os.pwrite = pwrite\n"
        f"sys.path.insert(0, {str(SCRIPT.parent)!r})\n"
        "from convert_checkpoint import main; sys.exit(main(sys.argv[1:]))"
    )
    command = ["hf-to-mm", "--hf-dir", tmp_path / "hf", "--mm-dir", tmp_path / "mm", "--tp", "2"]
    process = subprocess.Popen(
        [sys.executable, "-c", slow, *map(str, command)], stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 120
    while not list(tmp_path.glob(".mm.*/**/*.pt")) and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(how)
    _, errors = process.communicate(timeout=120)
    assert process.returncode in (-signal.SIGKILL, 130)
    assert "Traceback" not in errors
    assert not (tmp_path / "mm").exists()
    if how == signal.SIGKILL:  # its leavings cannot be mistaken for a checkpoint
        (partial,) = tmp_path.glob(".mm.*.partial")
        assert not (partial / TRACKER).exists()
        with pytest.raises(UserError):
            load_hf_tensors(partial, config_of(sizes), iteration="release")
    else:
        assert not list(tmp_path.glob(".mm.*"))
    hf_to_mm(tmp_path / "hf", tmp_path / "mm", tp_size=2)  # and do not stand in the way
    assert not list(tmp_path.glob(".mm.*"))
    assert same(load_hf_tensors(tmp_path / "mm", config_of(sizes)), read_hf(tmp_path / "hf"))
