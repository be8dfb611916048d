"""Sentences about checkpoints that no conversion of an ordinary mistake leads to."""

import json
import shutil
import sys
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "checkpoint"))  # for tiny_qwen2vl

from mindtune.checkpoint import (
    ParallelLayout,
    hf_to_mm,
    inspect,
    mm_to_hf,
    resplit,
    save_trained,
    verify,
)
from mindtune.checkpoint.huggingface import HFCheckpoint, matched
from mindtune.checkpoint.lora import _check_fit, _modules
from mindtune.checkpoint.megatron import MMCheckpoint, iteration_directory, read_tracker
from mindtune.checkpoint.reading import compare
from mindtune.errors import UserError
from mindtune.formats import torch_zip
from mindtune.formats.sources import FileSource, MemorySource, RecordSource
from mindtune.formats.torch_zip import TorchFile
from mindtune.formats.unpickle import unpickle
from mindtune.formats.views import stack_rows, stored
from mindtune.models.qwen2_vl.tensors import TENSORS
from mindtune.models.shape import model_shape
from tiny_qwen2vl import Sizes, config_of, tensors_of, write_hf

SIZES = Sizes(tied=False)
SHAPE = model_shape(config_of(SIZES))
BYTES = memoryview(bytearray(8))
VIEW = stored(MemorySource(bytes(8)), 0, (2, 2), "bfloat16")
OTHER = stored(MemorySource(bytes(16)), 0, (2, 2), "float32")
LARGE = stored(MemorySource(bytes(36)), 0, (3, 3), "float32")
NORM = "text_decoder.decoder.final_layernorm.weight"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model in both forms; not to be changed."""
    path = tmp_path_factory.mktemp("made")
    write_hf(path / "hf", SIZES)
    hf_to_mm(path / "hf", path / "mm")
    return path


def told(words, function, *arguments, **keywords):
    with pytest.raises(UserError) as caught:
        function(*arguments, **keywords)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


# --- Megatron ----------------------------------------------------------------------------------


def megatron(path, *ranks):
    """A release checkpoint of tensor ranks with the given contents."""
    for number, content in enumerate(ranks):
        place = path / f"release/mp_rank_{number:02d}"
        place.mkdir(parents=True)
        torch.save(content, place / "model_optim_rng.pt")
    (path / "latest_checkpointed_iteration.txt").write_text("release")
    return path


def layers(*numbers, **others):
    names = [f"text_decoder.decoder.layers.{number}.input_layernorm.weight" for number in numbers]
    return {"model": dict.fromkeys(names, torch.ones(4)) | others}


def test_ranks_that_do_not_belong_together(tmp_path):
    odd = megatron(tmp_path / "a", {"model0": {}, "model1": {}}, {"model": {}})
    told("has 1 model chunks", MMCheckpoint, odd)
    told(
        "stage 0 hold different layers", MMCheckpoint, megatron(tmp_path / "b", layers(0), layers())
    )
    told("numbered [1, 2], not from 0", MMCheckpoint, megatron(tmp_path / "c", layers(1, 2)))


def test_tensors_that_not_all_ranks_have_alike(tmp_path):
    contents = [layers(0, **{NORM: torch.ones(4), "one": torch.ones(1)}),
                layers(0, **{NORM: torch.ones(5)})]  # fmt: skip
    norm = next(entry for entry in TENSORS.entries(1, 0, output=False) if entry.mm == NORM)
    with MMCheckpoint(megatron(tmp_path / "mm", *contents)) as checkpoint:
        told("lacks the tensor two", checkpoint.shards, "two")
        told("one is not on all 2 ranks", checkpoint.shards, "one")
        told("differs in shape or dtype between ranks", checkpoint.whole, norm)


def test_a_tensor_that_is_none_of_the_models(made, tmp_path):
    mm = shutil.copytree(made / "mm", tmp_path / "mm")
    file = mm / "release/mp_rank_00/model_optim_rng.pt"
    content = torch.load(file, weights_only=True)
    content["model"]["surplus"] = torch.ones(1)
    torch.save(content, file)
    told("has a tensor surplus that is none of Qwen2-VL's", resplit, mm, tmp_path / "out")
    told("has a tensor surplus that is none", mm_to_hf, mm, made / "hf", tmp_path / "out")


def test_places_without_a_checkpoint(made, tmp_path):
    file = tmp_path / "file"
    file.touch()
    told("is not a directory; a Megatron checkpoint is needed", read_tracker, file)
    told("a number or the word release is needed", iteration_directory, made / "mm", "last")
    told("is not a directory", inspect, file)
    told("no checkpoint", inspect, tmp_path)


# --- Hugging Face ------------------------------------------------------------------------------


def test_weights_that_are_there_twice_or_not_at_all(made, tmp_path):
    twice = {"model.language_model.norm.weight": VIEW, "model.norm.weight": VIEW}
    told("model.norm.weight is there twice, under two names", matched, twice, SHAPE, "it")
    hf = shutil.copytree(made / "hf", tmp_path / "hf")
    (hf / "model.safetensors.index.json").unlink(missing_ok=True)
    shards = sorted(hf.glob("*.safetensors"))
    for number, shard in enumerate(shards):
        shard.rename(hf / f"part-{number}.safetensors")
    shutil.copy2(hf / "part-0.safetensors", hf / "z.safetensors")
    told("is in two files, and there is no index", HFCheckpoint, hf)
    for path in hf.glob("*.safetensors"):
        path.unlink()
    told("has no *.safetensors file", HFCheckpoint, hf)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vision_config": None}, "lacks vision_config"),
        ({"hidden_size": None}, "lacks hidden_size, without which"),
        ({"num_key_value_heads": 3}, "4 attention heads cannot be shared by 3 key-value heads"),
        ({"hidden_size": 33}, "hidden_size 33 is not a multiple of 4 heads"),
        ({"vision": {"embed_dim": 15}}, "embed_dim 15 is not a multiple of 4 heads"),
        ({"vision": {"mlp_ratio": "4"}}, "mlp_ratio is '4'; a number above 0 is needed"),
    ],
)
def test_sizes_that_do_not_fit_one_another(change, words):
    config = config_of(SIZES)
    config["vision_config"] |= change.pop("vision", {})
    told(words, model_shape, config | change)


def test_a_config_that_is_no_object():
    told("is not a JSON object", model_shape, [])


# --- torch files -------------------------------------------------------------------------------


def rewritten(source, target, change):
    """A torch file with its records, by name, changed."""
    with zipfile.ZipFile(source) as archive:
        records = [[info.filename, archive.read(info)] for info in archive.infolist()]
    with warnings.catch_warnings(), zipfile.ZipFile(target, "w") as archive:
        warnings.simplefilter("ignore")
        for name, data in change(records):
            archive.writestr(name, data)
    return target


def test_files_that_torch_did_not_write(made, tmp_path, monkeypatch):
    file, bad = made / "mm/release/mp_rank_00/model_optim_rng.pt", tmp_path / "bad.pt"
    told(
        "names a record twice",
        TorchFile,
        rewritten(file, bad, lambda records: records + records[:1]),
    )
    without = rewritten(file, bad, lambda found: [r for r in found if "data.pkl" not in r[0]])
    told("no data.pkl in it", TorchFile, without)
    order = lambda found: [[n, b"big" if "byteorder" in n else d] for n, d in found]  # noqa: E731
    told("big-endian", TorchFile, rewritten(file, bad, order))
    monkeypatch.setattr(torch_zip, "_LARGEST_PICKLE", 10)
    told("its pickle is larger than", TorchFile, file)


def test_tensors_that_their_file_cannot_hold(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(2, 3)}, path)
    file = TorchFile(path)
    tensor = file.tree["a"]
    told("overlapping rows", file.view, replace(tensor, strides=(1, 1)), "a")
    told("needs 10 elements", file.view, replace(tensor, shape=(10,), strides=(1,)), "a")
    other = replace(tensor, storage=replace(tensor.storage, count=3))
    told("used with two sizes", file.view, other, "a")
    file._used.clear()
    file.file.size = 10
    told("would end beyond the file", file.view, tensor, "a")
    file.close()


@pytest.mark.parametrize(
    ("kind", "words"),
    [(RecursionError, "nested too deeply"), (MemoryError, "asks for too much memory")],
)
def test_pickles_made_to_exhaust(monkeypatch, kind, words):
    monkeypatch.setattr("mindtune.formats.unpickle._Unpickler.load", _raise(kind))
    told(words, unpickle, b"N.", "it")


def _raise(kind):
    def fail(*_, **__):
        raise kind

    return fail


def test_reads_beyond_a_record(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(20))
    record = RecordSource(FileSource(path), "data/0", 0, 4, 0)
    told("but bytes 0 to 8 are asked for", record.read_into, BYTES, 0)
    told("8 bytes at 0 of 4 are asked for", MemorySource(bytes(4)).read_into, BYTES, 0)


# --- conversions -------------------------------------------------------------------------------


def test_what_differs_between_two_checkpoints(made, tmp_path):
    told("but should be bfloat16 [2, 2]", compare, [("a", VIEW, OTHER)], Path("result"))
    told("tensors that belong together differ", stack_rows, [VIEW, OTHER])
    told("give hf_dir: its config.json is needed", verify, made / "mm", made / "mm")
    tied = shutil.copytree(made / "hf", tmp_path / "tied")
    config = json.loads((tied / "config.json").read_text())
    (tied / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    told("only one of the two has the tensor lm_head.weight", verify, made / "hf", tied)


def test_dtypes_that_are_mixed_or_not_known(tmp_path):
    tensors = tensors_of(SIZES)
    query = "model.layers.0.self_attn.q_proj.weight"
    for words, iteration, change in (
        ("belong in one tensor, but are", 1, {query: tensors[query].float()}),
        ("dtype complex64 cannot be written", 1, {query: tensors[query].to(torch.complex64)}),
        ("a whole number from 0 is needed", -1, {}),
    ):
        told(words, save_trained, tmp_path, iteration, tensors | change, config_of(SIZES))


def test_settings_of_the_converter(made, tmp_path, monkeypatch):
    told("where no model is given", ParallelLayout.make)
    out = tmp_path / "out"
    told("it has to be above 0", mm_to_hf, made / "mm", made / "hf", out, max_shard_bytes=0)
    out.touch()
    told("exists and is not a directory; remove it", hf_to_mm, made / "hf", out)
    monkeypatch.setattr(Path, "mkdir", _refused)
    told("cannot be written", hf_to_mm, made / "hf", tmp_path / "new")


def _refused(self, *_, **__):
    raise PermissionError(13, "Permission denied", str(self))


def test_adapters_that_cannot_be_merged(tmp_path):
    one = "text_decoder.decoder.layers.0.mlp.linear_fc1"

    def adapters(path, **tensors):
        return MMCheckpoint(megatron(path, {"model": tensors}))

    with adapters(tmp_path / "a", **{"a.lora_magnitude": torch.ones(1)}) as found:
        told("a.lora_magnitude is no adapter that can be merged", _modules, found)
    names = [f"{one}.lora_A.default.weight", f"{one}.lora_A.other.weight"]
    with adapters(tmp_path / "b", **dict.fromkeys(names, torch.ones(2, 2))) as found:
        told("has two adapters for", _modules, found)
    names = [f"{one}.lora_{which}.default.weight" for which in "AB"]
    with adapters(tmp_path / "c", **dict.fromkeys(names, torch.ones(2, 2))) as found:
        a, b = (found.shards(name)[0] for name in names)
        told("do not fit", _check_fit, found, one, a, b, (4, 2))


def test_layers_nested_deeply_are_no_list():
    told("a list like [[14, 14]] is needed", ParallelLayout.make, SHAPE, llm_pp_layers="[" * 10**5)
