"""Properties over random small models and random layouts."""

import tempfile
import zlib
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mindtune.checkpoint import hf_to_mm, load_hf_tensors, mm_to_hf, resplit
from mindtune.errors import UserError
from mindtune.formats.checksum import crc32, crc32_combine
from mindtune.formats.sources import FileSource, MemorySource, RecordSource
from mindtune.formats.streaming import CHUNK, Target, creating, write_all
from mindtune.formats.views import stored
from mindtune.models.qwen2_vl.tensors import TENSORS
from mindtune.models.tensors import Split
from tiny_qwen2vl import Sizes, config_of, equal, rank_files, read_hf, same, write_hf

COLUMNS = {rule.mm.split("{n}.")[-1] for rule in TENSORS.rules if rule.split is Split.COLUMNS}


@st.composite
def sizes_and_tp(draw):
    """A model, and the tensor sizes that divide it."""
    base = draw(st.sampled_from([1, 2, 4]))
    kv_heads = base * draw(st.integers(1, 2))
    sizes = Sizes(
        layers=draw(st.integers(1, 5)),
        kv_heads=kv_heads,
        heads=kv_heads * draw(st.integers(1, 3)),
        head=draw(st.sampled_from([4, 8])),
        ffn=4 * draw(st.integers(1, 8)),
        vocab=4 * draw(st.integers(3, 12)),
        tied=draw(st.booleans()),
        depth=draw(st.integers(1, 4)),
        vit_heads=4,
        vit_head=draw(st.sampled_from([2, 4])),
        family=draw(st.sampled_from(["qwen2_vl", "qwen2_5_vl"])),
    )
    allowed = [tp for tp in (1, 2, 4) if kv_heads % tp == 0]
    return sizes, allowed


def rows(draw, total: int, vpp: int, pp: int) -> list[list[int]]:
    cuts = sorted(
        draw(st.lists(st.integers(0, total), min_size=vpp * pp - 1, max_size=vpp * pp - 1))
    )
    flat = [b - a for a, b in zip([0, *cuts], [*cuts, total], strict=True)]
    return [flat[n : n + pp] for n in range(0, len(flat), pp)]


@st.composite
def models_and_layouts(draw, count: int = 1):
    sizes, allowed = draw(sizes_and_tp())
    layouts = []
    for _ in range(count):
        pp = draw(st.integers(1, 4))
        vpp = draw(st.integers(1, 3)) if pp > 1 else 1
        layouts.append(
            {
                "tp_size": draw(st.sampled_from(allowed)),
                "llm_pp_layers": rows(draw, sizes.layers, vpp, pp),
                "vit_pp_layers": rows(draw, sizes.depth, vpp, pp),
            }
        )
    return sizes, layouts


@contextmanager
def model_on_disk(sizes: Sizes):
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        yield path, write_hf(path / "hf", sizes, seed=hash(sizes) % 1000)


quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(models_and_layouts(), st.integers(1, 3))
def test_there_and_back_is_bit_identical(case, workers):
    sizes, [layout] = case
    with model_on_disk(sizes) as (path, tensors):
        hf_to_mm(path / "hf", path / "mm", workers=workers, **layout)
        found = mm_to_hf(path / "mm", path / "hf", path / "back", workers=workers)
        assert same(read_hf(path / "back"), tensors)
        assert found.describe() == hf_to_mm(path / "hf", path / "mm", **layout).describe()


@quick
@given(models_and_layouts(count=2))
def test_resplit_is_the_same_as_converting_anew(case):
    sizes, [first, second] = case
    with model_on_disk(sizes) as (path, tensors):
        hf_to_mm(path / "hf", path / "a", **first)
        resplit(path / "a", path / "b", hf_dir=path / "hf", **second)
        hf_to_mm(path / "hf", path / "direct", **second)
        for rank in (path / "direct").rglob("*.pt"):
            assert (
                rank.read_bytes() == (path / "b" / rank.relative_to(path / "direct")).read_bytes()
            )
        assert same(load_hf_tensors(path / "b", config_of(sizes)), tensors)


@quick
@given(sizes_and_tp())
def test_tensor_shards_join_to_the_whole(case):
    sizes, allowed = case
    with model_on_disk(sizes) as (path, _):
        hf_to_mm(path / "hf", path / "whole")
        whole = rank_files(path / "whole")["mp_rank_00"]["model"]
        for tp in allowed:
            hf_to_mm(path / "hf", path / "cut", tp_size=tp)
            ranks = [content["model"] for content in rank_files(path / "cut").values()]
            assert len(ranks) == tp
            for name, tensor in whole.items():
                pieces = [rank[name] for rank in ranks]
                assert equal(join(name, pieces, sizes.gated), tensor), name


def join(name: str, pieces: list[torch.Tensor], gated: bool) -> torch.Tensor:
    """The whole from the ranks' pieces, by the table in docs/checkpoints.md, in plain torch."""
    if ".mlp.linear_fc1." in name and (gated or name.startswith("text_decoder.")):
        halves = [piece.chunk(2) for piece in pieces]
        return torch.cat([half[0] for half in halves] + [half[1] for half in halves])
    if name.endswith(("linear_proj.weight", "linear_fc2.weight")):
        return torch.cat(pieces, dim=1)
    if "norm" in name or "patch_embed" in name or name.endswith(("proj.bias", "fc2.bias")):
        assert all(equal(piece, pieces[0]) for piece in pieces)
        return pieces[0]
    return torch.cat(pieces)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_checksums_are_those_of_zlib_and_join(one, other):
    assert crc32(one) == zlib.crc32(one)
    assert crc32(memoryview(other), 5) == zlib.crc32(other, 5)
    assert crc32_combine(zlib.crc32(one), zlib.crc32(other), len(other)) == zlib.crc32(one + other)


@given(
    data=st.binary(min_size=1, max_size=40),
    reads=st.lists(st.tuples(st.integers(0, 39), st.integers(1, 40)), min_size=1),
    damaged=st.integers(0, 39),
)
def test_a_record_is_checked_whatever_is_read_of_it(data, reads, damaged):
    def check(content: bytes) -> None:
        path.write_bytes(content)
        file = FileSource(path)
        record = RecordSource(file, "record", 0, len(data), zlib.crc32(data))
        for start, length in reads:
            start %= len(data)
            buffer = memoryview(bytearray(min(length, len(data) - start)))
            record.read_into(buffer, start)
            assert buffer == content[start : start + len(buffer)]
        try:
            record.check()
        finally:
            file.close()

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "file"
        check(data)
        other = bytearray(data)
        other[damaged % len(data)] ^= 1
        with pytest.raises(UserError, match="damaged"):
            check(bytes(other))


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_any_number_of_threads_writes_the_same_files(tmp_path, workers):
    sizes = [[3 * CHUNK + 5, 1, CHUNK, 700], [2 * CHUNK - 1], [9, 8, 7, 6, 5, 4]]
    contents = [[bytes([(n + k) % 256]) * n for k, n in enumerate(file)] for file in sizes]
    with ExitStack() as stack:
        targets = []
        for name, parts in enumerate(contents):
            whole = sum(map(len, parts))
            fd, offset = stack.enter_context(creating(tmp_path / str(name), whole)), 0
            for part in parts:
                view = stored(MemorySource(part), 0, (len(part),), "uint8")
                targets.append(Target(fd, offset, view))
                offset += len(part)
        write_all(targets, workers=workers)
    for name, parts in enumerate(contents):
        assert (tmp_path / str(name)).read_bytes() == b"".join(parts)
    flat = [part for parts in contents for part in parts]
    assert [target.crc for target in targets] == list(map(zlib.crc32, flat))
