"""LoRA by the framework itself: parity with the `hf` engine, resumes, and our export of its adapters."""

import shutil

import pytest
import torch
from mindtune.checkpoint import mm_to_hf
from mindtune.checkpoint.adapters import load_adapters, save_adapters
from mindtune.engines.hf.adapters import Adapters
from mindtune.engines.hf.model import load_model
from mindtune.settings.typed import typed
from place import TUTORIAL
from safetensors.torch import load_file

pytestmark = pytest.mark.mindspeed

LORA = {
    "rank": 8, "alpha": 16, "dropout": 0.0,
    "target_modules": ["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"],
}  # fmt: skip
FEW = TUTORIAL | {"train_iters": 12, "global_batch_size": 4, "lr": 4e-3, "lora": LORA}


@pytest.fixture(scope="module")
def begun(place, tmp_path_factory):
    """The adapters with which the hf engine begins, as a checkpoint of the framework's."""
    directory = tmp_path_factory.mktemp("begun")
    adapters = Adapters(load_model(place.base, torch.float32), place.config, typed("train", FEW))
    save_adapters(directory, 0, adapters.tensors(), place.config, lora=LORA)
    (directory / "iter_0000000").rename(directory / "release")
    (directory / "latest_checkpointed_iteration.txt").write_text("release")
    return directory


def losses(rows):
    return [float(row["loss"]) for row in rows]


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.01), ("fp32", 1e-3)])
def test_losses_from_equal_adapters_are_within_the_bounds(
    mindspeed, place, begun, tmp_path, precision, tolerance
):
    theirs = place.train_by_framework(
        mindspeed, tmp_path / "framework", FEW, precision=precision, mm=begun, beside=place.mm
    )
    ours = losses(place.train_by_hf(tmp_path / "hf", FEW, precision))
    assert [line.loss for line in theirs] == pytest.approx(ours, rel=tolerance)
    assert ours[-1] < 0.8 * ours[0]
    print([line.loss / loss - 1 for line, loss in zip(theirs, ours, strict=True)])
    # Both leave the same adapters, in one form, which our converter merges.
    merged = {}
    for name, save_dir in (("theirs", tmp_path / "framework/save_dir"), ("ours", tmp_path / "hf")):
        mm_to_hf(save_dir, place.base, tmp_path / name)
        merged[name] = {}
        for path in sorted((tmp_path / name).glob("*.safetensors")):
            merged[name] |= load_file(path)
    base = {}
    for path in sorted(place.base.glob("*.safetensors")):
        base |= load_file(path)
    changed = [n for n in base if not torch.equal(base[n].float(), merged["theirs"][n].float())]
    assert len(changed) == 7 * 4
    for name in changed:
        moved = (merged["ours"][name].float() - base[name].float()).norm()
        apart = (merged["ours"][name].float() - merged["theirs"][name].float()).norm()
        assert apart < 0.3 * moved, (name, float(apart / moved))


def test_it_resumes_as_if_it_had_not_stopped(mindspeed, place, tmp_path):
    """From a checkpoint with adapters only, by the arguments that the engine renders."""
    settings = FEW | {"train_iters": 4, "save_interval": 2, "save_optim": True}
    whole = place.train_by_framework(mindspeed, tmp_path / "a", settings)
    shutil.rmtree(tmp_path / "a/save_dir/iter_0000004")
    (tmp_path / "a/save_dir/latest_checkpointed_iteration.txt").write_text("2")
    again = place.train_by_framework(
        mindspeed, tmp_path / "a", settings, mm=tmp_path / "a/save_dir", resume=True
    )
    assert [(one.iteration, one.loss) for one in again] == [
        (one.iteration, one.loss) for one in whole if one.iteration > 2
    ]
    pairs = load_adapters(tmp_path / "a/save_dir", place.config)
    assert len(pairs) == 7 * 4 and all(b.abs().max() > 0 for _, b in pairs.values())
