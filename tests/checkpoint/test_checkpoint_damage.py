"""Damaged and hostile files: an error in one sentence or a correct result, nothing else."""

import os
import pickle
import random
import shutil
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from mindtune.checkpoint import hf_to_mm, load_hf_tensors, mm_to_hf
from mindtune.errors import UserError
from mindtune.formats.unpickle import Placeholder, unpickle
from tiny_qwen2vl import Sizes, config_of, read_hf, same, tensors_of, write_hf

SMALL = Sizes(layers=1, depth=1, vocab=16, ffn=16, head=4)


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """A model in both forms, cut over two ranks."""
    path = tmp_path_factory.mktemp("intact")
    tensors = write_hf(path / "hf", SMALL, files=2)
    hf_to_mm(path / "hf", path / "mm", tp_size=2)
    return path, tensors


def damage(path: Path, rng: random.Random) -> str:
    """Cut a file short or flip one to three bits; half of the flips among its headers."""
    data = bytearray(path.read_bytes())
    if rng.random() < 0.3:
        size = rng.randrange(len(data))
        path.write_bytes(data[:size])
        return f"cut at {size}"
    flips = []
    for _ in range(rng.randint(1, 3)):
        where = rng.randrange(len(data))
        if rng.random() < 0.5:
            where = rng.choice([rng.randrange(min(2000, len(data))), -rng.randint(1, 2000)])
        bit = rng.randrange(8)
        data[where] ^= 1 << bit
        flips.append((where % len(data), bit))
    path.write_bytes(data)
    return f"flipped {flips}"


@pytest.mark.parametrize("seed", range(200))
def test_damaged_rank_file_never_gives_a_wrong_result(intact, tmp_path, seed):
    path, tensors = intact
    shutil.copytree(path / "mm", tmp_path / "mm")
    rng = random.Random(seed)
    victim = rng.choice(sorted((tmp_path / "mm").rglob("*.pt")))
    what = damage(victim, rng)
    try:
        mm_to_hf(tmp_path / "mm", path / "hf", tmp_path / "back")
    except UserError as error:
        assert is_one_sentence(error), what
        assert not (tmp_path / "back").exists(), what
    else:
        assert same(read_hf(tmp_path / "back"), tensors), what


@pytest.mark.parametrize("seed", range(200))
def test_damaged_shard_gives_an_error_or_what_the_file_says(intact, tmp_path, seed):
    """safetensors has no checksums: flipped weights are weights. All else has to be noticed."""
    path, tensors = intact
    shutil.copytree(path / "hf", tmp_path / "hf")
    rng = random.Random(seed)
    what = damage(rng.choice(sorted((tmp_path / "hf").glob("*.safetensors"))), rng)
    try:
        hf_to_mm(tmp_path / "hf", tmp_path / "mm")
    except UserError as error:
        assert is_one_sentence(error), what
        assert not (tmp_path / "mm").exists(), what
    else:
        found = load_hf_tensors(tmp_path / "mm", config_of(SMALL))
        assert same(found, read_hf(tmp_path / "hf")), what
        assert {k: (t.dtype, t.shape) for k, t in found.items()} == {
            k: (t.dtype, t.shape) for k, t in tensors.items()
        }, what


def is_one_sentence(error: UserError) -> bool:
    text = str(error)
    return 20 < len(text) < 600 and "\n" not in text


def test_fuzzing_finds_what_it_is_for(intact, tmp_path):
    """The fuzz above is no test unless its damage reaches the weights: here it surely does."""
    path, _ = intact
    shutil.copytree(path / "mm", tmp_path / "mm")
    victim = tmp_path / "mm/release/mp_rank_01/model_optim_rng.pt"
    with zipfile.ZipFile(victim) as archive:
        tensors = [info for info in archive.infolist() if "/data/" in info.filename]
        largest = max(tensors, key=lambda info: info.file_size)
    data = bytearray(victim.read_bytes())
    data[largest.header_offset + 200] ^= 1
    victim.write_bytes(data)
    with pytest.raises(UserError, match=r"is damaged: record .* has checksum"):
        mm_to_hf(tmp_path / "mm", path / "hf", tmp_path / "back")
    with pytest.raises(UserError, match="checksum"):
        load_hf_tensors(tmp_path / "mm", config_of(SMALL))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["mm"]


class Payload:
    """Pickles as a call that leaves a file behind."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("place", ["args", "in the model", "as the model", "as the whole"])
def test_malicious_pickle_does_not_run(intact, tmp_path, place):
    path, tensors = intact
    trap = tmp_path / "sprung"
    payload = Payload(os.mkdir, str(trap))
    hf_to_mm(path / "hf", tmp_path / "mm")
    file = tmp_path / "mm/release/mp_rank_00/model_optim_rng.pt"
    content = torch.load(file, weights_only=True)
    match place:
        case "args":
            content["args"] = payload
        case "in the model":
            content["model"]["payload"] = payload
        case "as the model":
            content["model"] = payload
        case _:
            content = payload
    torch.save(content, file)
    try:
        mm_to_hf(tmp_path / "mm", path / "hf", tmp_path / "back")
        assert place == "args"
        assert same(read_hf(tmp_path / "back"), tensors)
    except UserError:
        assert place != "args"
    assert not trap.exists()
    torch.load(file, weights_only=False)  # the payload is live: an ordinary load runs it
    assert trap.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"cos\nsystem\n(S'false'\ntR.",
        b"cbuiltins\neval\n(S'1/0'\ntR.",
        b"cbuiltins\ngetattr\n(cbuiltins\n__import__\nS'x'\ntR.",
        b"\x80\x02cbuiltins\nexec\nq\x00X\x03\x00\x00\x001/0\x85R.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x05false\x85R.",
        b"ctorch._utils\n_rebuild_tensor_v2\n}(S'__code__'\nI1\nub.",
    ],
)
def test_calls_become_placeholders_or_errors(data):
    try:
        value = unpickle(data, "it")
    except UserError:
        return
    assert isinstance(value, Placeholder)


def test_a_pickle_cannot_change_how_later_ones_are_read(intact):
    """BUILD sets attributes: on one of our constructors it must not outlive its pickle."""
    spoil = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(N}X\x04\x00\x00\x00_keyNstb"
    unpickle(spoil + b".", "it")
    path, tensors = intact
    assert same(load_hf_tensors(path / "mm", config_of(SMALL)), tensors)


def test_objects_of_the_framework_stay_inert_but_readable():
    data = pickle.dumps({"a": [1, (2, "x")], "b": None}, protocol=2)
    assert unpickle(data, "it") == {"a": [1, (2, "x")], "b": None}
    import argparse

    args = argparse.Namespace(lora_alpha=32, lora_r=8)
    found = unpickle(pickle.dumps(args, protocol=2), "it")
    assert isinstance(found, Placeholder)
    assert found.state == {"lora_alpha": 32, "lora_r": 8}


def test_a_view_beyond_its_storage_is_refused(intact, tmp_path):
    """A forged size in the pickle, its checksum made right again."""
    path, _ = intact
    shutil.copytree(path / "mm", tmp_path / "mm")
    victim = tmp_path / "mm/release/mp_rank_00/model_optim_rng.pt"
    with zipfile.ZipFile(victim) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    name = "model_optim_rng/data.pkl"
    hidden = struct.pack("<i", SMALL.hidden)
    assert hidden in records[name]
    records[name] = records[name].replace(b"J" + hidden, b"J" + struct.pack("<i", 10**6))
    with zipfile.ZipFile(victim, "w") as archive:
        for record, data in records.items():
            archive.writestr(record, data)
    with pytest.raises(UserError, match=r"damaged|overlapping|strides"):
        mm_to_hf(tmp_path / "mm", path / "hf", tmp_path / "back")


@pytest.mark.parametrize("kind", ["empty", "text", "legacy", "compressed", "directory"])
def test_what_is_no_torch_file_is_said_to_be_none(intact, tmp_path, kind):
    path, _ = intact
    shutil.copytree(path / "mm", tmp_path / "mm")
    victim = tmp_path / "mm/release/mp_rank_00/model_optim_rng.pt"
    match kind:
        case "empty":
            victim.write_bytes(b"")
        case "text":
            victim.write_text("version https://git-lfs.github.com/spec/v1\n")
        case "legacy":
            torch.save({"model": {}}, victim, _use_new_zipfile_serialization=False)
        case "compressed":
            with zipfile.ZipFile(victim) as archive:
                records = {info.filename: archive.read(info) for info in archive.infolist()}
            with zipfile.ZipFile(victim, "w", zipfile.ZIP_DEFLATED) as archive:
                for record, data in records.items():
                    archive.writestr(record, data)
        case _:
            victim.unlink()
            victim.mkdir()
    with pytest.raises(UserError, match=r"mp_rank_00|tensor rank 0"):
        mm_to_hf(tmp_path / "mm", path / "hf", tmp_path / "back")


def test_safetensors_with_extra_bytes_or_gaps_are_refused(tmp_path):
    write_hf(tmp_path / "hf", SMALL, files=1)
    shard = next((tmp_path / "hf").glob("*.safetensors"))
    intact_bytes = shard.read_bytes()
    shard.write_bytes(intact_bytes + b"\0")
    with pytest.raises(UserError, match="the file at"):
        hf_to_mm(tmp_path / "hf", tmp_path / "mm")
    shard.write_bytes(intact_bytes.replace(b'"BF16"', b'"F16" ', 1))
    hf_or_error = tensors_of(SMALL)  # one of a fused pair may now differ in dtype
    try:
        hf_to_mm(tmp_path / "hf", tmp_path / "mm")
    except UserError as error:
        assert "belong in one tensor, but are bfloat16 and float16" in str(error)
    else:
        found = load_hf_tensors(tmp_path / "mm", config_of(SMALL))
        assert sum(found[n].dtype == torch.float16 for n in hf_or_error) == 1
