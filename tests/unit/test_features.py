"""Features of pictures: the same bits alone, in a batch and from a file; and when they are kept."""

import pickle
import random
from concurrent.futures import ThreadPoolExecutor

import clean
import pytest
import torch
from mindtune.engines.feature_cache import in_effect, is_kept, place_of_features, room
from mindtune.engines.hf import features
from mindtune.engines.hf.features import Features, Store, Tower, packed, unpacked
from mindtune.engines.hf.model import load_model
from mindtune.engines.hf.packing import picture_features
from mindtune.engines.hf.segments import use_segments
from mindtune.engines.hf.shown import Shown
from mindtune.errors import UserError
from mindtune.settings import load
from mindtune.settings.typed import typed
from PIL import Image

SIZES = [(400, 320), (320, 400), (100, 60), (400, 320), (28, 28), (90, 300)]


@pytest.fixture(scope="module")
def pictures(processor):
    chance = random.Random(1)
    return [
        processor.picture(Image.frombytes("RGB", size, chance.randbytes(size[0] * size[1] * 3)))
        for size in SIZES
    ]


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "packed"])
def tower(request, base):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = load_model(base, torch.float32).requires_grad_(False)
    if request.param:
        use_segments(model)
    yield Tower(model.model, packed=request.param)
    torch.set_num_threads(threads)


def test_a_picture_alone_has_the_bits_that_it_has_in_a_batch(tower, pictures):
    alone = [tower(picture.pixel_values, picture.grid_thw) for picture in pictures]
    pixels = torch.cat([picture.pixel_values for picture in pictures])
    grids = torch.cat([picture.grid_thw for picture in pictures])
    if tower.packed:
        batch = picture_features(tower.inner, pixels, grids)
    else:
        batch = torch.cat(tower.inner.get_image_features(pixels, grids).pooler_output)
    assert torch.equal(torch.cat(alone), batch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_file_gives_the_bits_back_or_nothing(dtype):
    shown = Shown("a", torch.tensor([[1, 4, 6]]), torch.randn(6, 5).to(dtype))
    content = packed(shown)
    found = unpacked("a", content)
    assert torch.equal(found.features, shown.features) and found.features.dtype == dtype
    assert torch.equal(found.grid_thw, shown.grid_thw)
    header = content.index(b"\n") + 1
    for place in range(header, len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1
        assert unpacked("a", bytes(damaged)) is None
    assert all(unpacked("a", content[:length]) is None for length in range(len(content)))


def test_a_store_that_cannot_be_written_gives_up_with_one_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file", 10**6)
    shown = Shown("ab", torch.tensor([[1, 2, 2]]), torch.ones(1, 4))
    store.write(shown)
    store.write(shown)
    assert store.read("ab") is None
    assert caplog.text.count("features of pictures are kept in memory only") == 1


def test_what_features_depend_on_is_in_their_place(base, tower, processor, tmp_path):
    def place(tower, processor=processor):
        return Features(tower, processor, tmp_path, 0, 1).store.directory

    assert place(tower) == place(Tower(tower.inner, tower.packed))
    model = load_model(base, torch.float32)
    with torch.no_grad():
        next(model.model.visual.parameters()).view(-1)[0] += 1e-6
    others = [
        place(tower),
        place(Tower(model.model, tower.packed)),
        place(Tower(tower.inner, not tower.packed)),
        place(Tower(load_model(base, torch.bfloat16).model, tower.packed)),
        place(tower, type(processor)(base, processor.image_resolution - 1)),
    ]
    assert len(set(others)) == len(others)


def test_beside_a_device_features_are_kept_by_a_thread(
    tower, processor, pictures, tmp_path, monkeypatch
):
    """As on a GPU, where the training does not wait for what is copied and written."""
    monkeypatch.setattr(features, "MOST_PENDING", 1)
    kept = Features(tower, processor, tmp_path, 10**6, 1)
    kept.ahead, kept.beside = False, ThreadPoolExecutor(1)
    found = []
    for number in range(len(pictures)):
        image = tmp_path / f"{number}.png"
        Image.new("RGB", (number + 60, 40)).save(image)
        shown = kept.look(image)
        assert shown.features is None and shown.pixel_values is not None
        found.append(kept.of(shown))
        assert torch.equal(found[-1], tower(shown.pixel_values, shown.grid_thw))
    kept.beside.shutdown()
    assert len(kept.kept) == len(pictures)
    again = Features(tower, processor, tmp_path, 10**6, 1)
    again.tower = None  # which nothing needs: all is on the disk
    for number, expected in enumerate(found):
        assert torch.equal(again.of(again.look(tmp_path / f"{number}.png")), expected)
    assert pickle.dumps(kept)  # for a process that is started anew: without tower and thread


@pytest.mark.parametrize(
    ("device", "chosen", "kept", "left"),
    [
        ("cpu", None, True, None), ("cpu", "auto", True, None), ("cpu", "5 GB", True, None),
        ("cpu", "off", False, "off"), ("cuda", None, False, None), ("cuda:1", "auto", False, None),
        ("cuda", "off", False, None), ("npu", "900MB", True, "on"),
    ],
)  # fmt: skip
def test_a_result_depends_on_whether_features_are_kept_and_not_on_how_many(
    device, chosen, kept, left
):
    machine = {"device": device} | ({"feature_cache": chosen} if chosen else {})
    assert is_kept(typed("hf", machine)) == kept
    in_params = in_effect(machine, typed("hf", machine))
    assert in_params == {"device": device} | ({"feature_cache": left} if left else {})
    assert is_kept(typed("hf", in_params)) == kept


def test_room_is_what_the_key_says(tmp_path):
    assert [room(typed("hf", {"feature_cache": size})) for size in ("5 MB", "20GB", "2 TB")] == [
        5 * 10**6, 20 * 10**9, 2 * 10**12,
    ]  # fmt: skip
    assert room(typed("hf", {})) == room(typed("hf", {"feature_cache": "auto"})) == 10**10
    save_dir = tmp_path / "results/baseline/save_dir"
    assert place_of_features(save_dir) == tmp_path / "results/shared/features"


@pytest.mark.parametrize("wrong", ["on", "0 GB", "5", "5 kB", "5  GB", "much"])
def test_a_room_that_is_none_is_refused(wrong):
    with pytest.raises(UserError, match=r"hf\.feature_cache is .* a size such as `50 GB`"):
        load({"hf": {"feature_cache": wrong}, "experiments": {"baseline": {}}}, ["config.yaml"])


def test_clean_lists_kept_features_and_removes_them(tmp_path, capsys):
    kept = tmp_path / "results/shared/features/code/of/ab/abc"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(bytes(2_000_000))
    results = ["--results", str(tmp_path / "results")]
    assert clean.main(results) == 0
    assert "shared/features  0.002 GB, features of pictures" in capsys.readouterr().out
    assert clean.main(["--yes", "shared/features", *results]) == 0 and not kept.exists()
    assert (tmp_path / "results/shared").is_dir()
    assert clean.main(results) == 0
    assert "Nothing is put aside" in capsys.readouterr().out
