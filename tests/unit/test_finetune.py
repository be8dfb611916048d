"""Fine-tuning by the hf engine: layouts, precisions, and a resume that is exact."""

import csv
import itertools
import json
import multiprocessing
import os
import random
import shutil
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from mindtune.demo.base_model import write_base_model
from mindtune.demo.drawing import draw_scene
from mindtune.demo.scenes import conversation, scenes
from mindtune.engines import stage, training_check
from mindtune.engines.checks import checkpoint_bytes
from mindtune.engines.converting import converter
from mindtune.engines.hf.checkpoints import Checkpoints
from mindtune.engines.hf.dataset import Collator, Conversations
from mindtune.engines.hf.device import open_device
from mindtune.engines.hf.features import Tower
from mindtune.engines.hf.loading import loader_processes
from mindtune.engines.hf.model import load_model
from mindtune.engines.hf.processing import Processor
from mindtune.engines.hf.schedule import sample_order
from mindtune.engines.ordering import in_order, write_in_order
from mindtune.engines.requests import ExportJob, FinetuneJob, PrepareJob
from mindtune.engines.training_directory import claimed
from mindtune.errors import UserError
from mindtune.models.shape import read_config
from mindtune.settings.typed import typed

TRAIN = {
    "train_iters": 4, "save_interval": 2, "eval_interval": 2, "eval_iters": 1, "micro_batch_size": 2,
    "global_batch_size": 4, "lr": 1e-3, "min_lr": 0.0, "lr_decay_style": "cosine",
    "lr_warmup_fraction": 0.0, "weight_decay": 0.1, "clip_grad": 1.0, "adam_beta1": 0.9,
    "adam_beta2": 0.999, "adam_eps": 1e-8, "seed": 42, "seq_length": 256,
    "freeze_vision_encoder": True, "freeze_vision_projector": True, "save_optim": True,
}  # fmt: skip
ONE = {"tensor_model_parallel_size": 1, "llm_pp_layers": None, "vit_pp_layers": None}
MACHINE = {"device": "cpu", "precision": "fp32", "threads": 1}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("finetune")
    write_base_model(place / "base")
    (place / "images").mkdir()
    records = []
    for image_id, scene in scenes(10, 5):
        rng = random.Random(image_id)
        draw_scene(scene, rng)[0].save(place / "images" / f"{image_id}.jpg")
        messages = []
        for number, (question, answer) in enumerate(conversation(scene, rng)):
            messages.append({"role": "user", "content": ("" if number else "<image>\n") + question})
            messages.append({"role": "assistant", "content": answer})
        records.append({"images": [f"{image_id}.jpg"], "messages": messages})
    records.insert(3, {"images": [], "messages": records[0]["messages"][2:]})
    (place / "train.json").write_text(json.dumps(records[:7]))
    (place / "held_out.json").write_text(json.dumps(records[7:]))
    converter("mindtune").prepare(PrepareJob.of("hf", place / "base", place / "mm", parallel=ONE))
    return place


def job_of(place, save_dir, mm="mm", machine=None, hf="base", features=None, **changes):
    return FinetuneJob.of(
        "hf",
        train_data=place / "train.json", held_out_data=place / "held_out.json",
        images=place / "images", hf_dir=place / hf, mm_dir=place / mm, save_dir=save_dir,
        train=TRAIN | changes, processor={"image_resolution": 512 * 512}, parallel=ONE,
        machine=MACHINE | (machine or {}), features=features,
    )  # fmt: skip


def train(place, save_dir, mm="mm", machine=None, features=None, **changes):
    """Check and train, as scripts/finetune_model.py does; returns the last checkpoint's bytes."""
    job = job_of(place, save_dir, mm, machine, features=features, **changes)
    training_check("hf")(job, 0)
    save_dir.mkdir(exist_ok=True)
    stage("hf", "finetune")(job)
    last = f"iter_{job.train.train_iters:07d}"
    return (save_dir / last / "mp_rank_00/model_optim_rng.pt").read_bytes()


def model(save_dir, iteration=4):
    file = save_dir / f"iter_{iteration:07d}/mp_rank_00/model_optim_rng.pt"
    return torch.load(file, weights_only=True)["model"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_halves_are_one_whole(place, tmp_path, precision):
    machine = {"precision": precision}
    whole = train(place, tmp_path / "a", machine=machine)
    shutil.rmtree(tmp_path / "a/iter_0000004")  # what a kill before the second save leaves …
    assert train(place, tmp_path / "a", machine=machine) == whole  # … with the tracker ahead
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    assert {tensor.dtype for tensor in model(tmp_path / "a").values()} == {dtype}
    with open(tmp_path / "a/loss.csv", newline="") as handle:
        assert [row["iteration"] for row in csv.DictReader(handle)] == ["1", "2", "3", "4"]


@pytest.mark.parametrize(("iterations", "kept"), [(4, 4), (3, 2)])
def test_a_training_given_more_iterations_ends_as_one_that_had_them(
    place, tmp_path, caplog, iterations, kept
):
    """At 3, the end, held-out data was looked at, which the longer training would not have done."""
    caplog.set_level("INFO")
    long = {"lr_decay_style": "constant", "train_iters": 6}
    for changes in (long | {"train_iters": iterations}, long):
        with claimed(tmp_path / "a", {"train": TRAIN | changes}):
            extended = train(place, tmp_path / "a", **changes)
    assert f"resuming from iteration {kept}" in caplog.text
    assert extended == train(place, tmp_path / "b", **long)
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


def rows(save_dir):
    with open(save_dir / "loss.csv", newline="") as handle:
        return [
            {key: row[key] for key in ("iteration", "lr", "loss", "grad_norm", "held_out_loss")}
            for row in csv.DictReader(handle)
        ]


def test_a_checkpoint_without_its_tracker_or_half_written_is_handled(place, tmp_path):
    whole = train(place, tmp_path / "a")
    shutil.rmtree(tmp_path / "a/iter_0000004")
    (tmp_path / "a/latest_checkpointed_iteration.txt").unlink()
    (tmp_path / "a/.iter_0000004.partial").mkdir()
    (tmp_path / "a/iter_0000003").mkdir()  # no file in it: not a checkpoint
    assert train(place, tmp_path / "a") == whole


def test_without_the_optimizers_state_a_warning_says_what_is_lost(place, tmp_path, caplog):
    whole = train(place, tmp_path / "a", save_optim=False)
    shutil.rmtree(tmp_path / "a/iter_0000004")
    assert train(place, tmp_path / "a", save_optim=False) != whole
    assert "Adam's moments start over" in caplog.text


def test_a_base_cut_into_tensor_parallel_shards_trains_alike(place, tmp_path):
    parallel = {
        "tensor_model_parallel_size": 2,
        "llm_pp_layers": [[1, 3]],
        "vit_pp_layers": [[4, 0]],
    }
    converter("mindtune").prepare(
        PrepareJob.of("hf", place / "base", tmp_path / "mm", parallel=parallel)
    )
    assert len(list((tmp_path / "mm/release").iterdir())) == 4
    assert train(place, tmp_path / "a", mm=tmp_path / "mm") == train(place, tmp_path / "b")


def test_order_seeds_give_other_weights_and_null_gives_todays(place, tmp_path):
    today = train(place, tmp_path / "today")
    assert train(place, tmp_path / "null", order_seed=None) == today
    found = {seed: train(place, tmp_path / f"seed {seed}", order_seed=seed) for seed in (1, 2)}
    assert len({today, *found.values()}) == 3
    assert train(place, tmp_path / "again", order_seed=1) == found[1]


def test_a_training_in_another_order_resumes_exactly(place, tmp_path):
    whole = train(place, tmp_path / "a", order_seed=1)
    shutil.rmtree(tmp_path / "a/iter_0000004")
    assert train(place, tmp_path / "a", order_seed=1) == whole


@pytest.mark.parametrize("machine", [{}, {"tokens_per_pass": 300}])
def test_more_loader_processes_change_no_byte(place, tmp_path, monkeypatch, machine):
    loaders = []
    found = {}
    for count in (1, 3):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, count=count: set(range(count + 1)))
        found[count] = train(place, tmp_path / str(count), machine=machine)
        loaders.append(loader_processes(1))
    assert loaders == [1, 3]
    assert found[1] == found[3] and rows(tmp_path / "1") == rows(tmp_path / "3")


@pytest.mark.parametrize(
    ("cores", "threads", "processes"), [(1, 1, 1), (2, 1, 1), (2, 4, 1), (6, 2, 4), (64, 1, 8)]
)
def test_loader_processes_take_the_cores_that_are_spare(monkeypatch, cores, threads, processes):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert loader_processes(threads) == processes


def test_without_dropout_the_seed_has_no_effect(place, tmp_path):
    """What the documentation of train.seed says; only the saved states of generators differ."""
    train(place, tmp_path / "a")
    train(place, tmp_path / "b", seed=43)
    first, second = model(tmp_path / "a"), model(tmp_path / "b")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_order_is_a_permutation_fixed_by_its_seed(tmp_path):
    records = [{"images": [f"{n}.jpg"], "messages": []} for n in range(6)]
    assert in_order(records, None) == records
    permuted = in_order(records, 1)
    assert [record["images"][0][0] for record in permuted] == ["4", "1", "3", "5", "2", "0"]
    (tmp_path / "train.json").write_text(json.dumps(records))
    write_in_order(tmp_path / "train.json", 1, tmp_path / "ordered.json")
    assert (tmp_path / "ordered.json").read_text() == json.dumps(list(permuted))


def test_the_loss_is_megatrons_mean_of_the_means_of_micro_batches(place, tmp_path):
    """Recomputed by hand from the base model and the first samples in MindSpeed-MM's order."""
    train(place, tmp_path / "a")
    with open(tmp_path / "a/loss.csv", newline="") as handle:
        row = next(csv.DictReader(handle))
    first = float(row["loss"])
    processor = Processor(place / "base")
    records = json.loads((place / "train.json").read_text())
    data = Conversations(records, place / "images", processor, 256)
    order = list(itertools.islice(sample_order(len(data), 2, 0), 4))
    base = load_model(place / "base", torch.float32)
    collate = Collator(processor)
    halves = [collate([data[n] for n in half]) for half in (order[:2], order[2:])]
    with torch.no_grad():
        losses = [base(**half).loss.item() for half in halves]
    tokens = [(half["labels"] != -100).sum().item() for half in halves]
    assert first == pytest.approx(sum(losses) / 2, rel=1e-5)
    assert passed(row) == pytest.approx(
        sum(half["attention_mask"].sum().item() for half in halves), rel=0.01
    )
    # The micro batches have different numbers of tokens, so a mean over tokens would differ.
    by_tokens = sum(n * loss for n, loss in zip(tokens, losses, strict=True)) / sum(tokens)
    assert first != pytest.approx(by_tokens, rel=1e-4)


def passed(row):
    """The tokens of an iteration, by its line: as many as its time and its speed say."""
    return float(row["tokens_per_second"]) * float(row["ms_per_iteration"]) / 1000


@pytest.mark.parametrize("tokens_per_pass", [200, 4096])
def test_packed_passes_train_alike(place, tmp_path, tokens_per_pass):
    """Losses and held-out losses, but for last digits; a training that resumes ends in the same bytes."""
    packed = {"tokens_per_pass": tokens_per_pass}
    constant = {"lr_decay_style": "constant"}  # so that half a training is a beginning
    whole = train(place, tmp_path / "packed", machine=packed, **constant)
    train(place, tmp_path / "plain", **constant)
    expected, found = (pd.read_csv(tmp_path / name / "loss.csv") for name in ("plain", "packed"))
    for column in ("lr", "loss", "grad_norm", "held_out_loss"):
        np.testing.assert_allclose(found[column], expected[column], rtol=2e-5)
    np.testing.assert_allclose(
        found.apply(passed, axis=1), expected.apply(passed, axis=1), rtol=0.02
    )
    train(place, tmp_path / "halves", machine=packed, train_iters=2, **constant)
    assert train(place, tmp_path / "halves", machine=packed, **constant) == whole


def kept_files(features):
    return [path for path in features.rglob("*") if path.is_file()]


@pytest.mark.parametrize("machine", [{}, {"tokens_per_pass": 300}])
def test_a_projector_that_is_trained_gets_kept_features(place, tmp_path, machine):
    changes = {"freeze_vision_projector": False, "machine": machine}
    features = tmp_path / "features" / "code"
    off = changes | {"machine": machine | {"feature_cache": "off"}}
    expected = train(place, tmp_path / "off", **off)
    assert train(place, tmp_path / "kept", features=features, **changes) == expected
    shutil.rmtree(tmp_path / "kept/iter_0000004")
    assert train(place, tmp_path / "kept", features=features, **changes) == expected
    assert kept_files(features)
    assert len(list(features.iterdir())) == 1  # whatever the projector's weights are by now


@pytest.mark.parametrize(("machine", "ahead"), [({}, True), ({"tokens_per_pass": 300}, False)])
def test_kept_features_change_no_byte(place, tmp_path, monkeypatch, machine, ahead):
    """With none, in memory, on the disk, from another experiment's, damaged, and after a kill.

    ahead: whether processes that load data compute them, or the training does.
    """
    features = tmp_path / "features" / "code"
    expected = train(place, tmp_path / "off", machine=machine | {"feature_cache": "off"})
    method = "fork" if ahead else "spawn"
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: method)
    assert train(place, tmp_path / "memory", machine=machine) == expected
    (tmp_path / "features" / "of other code").mkdir(parents=True)
    features.mkdir()
    (features / ".half-written.partial").write_text("")
    assert train(place, tmp_path / "disk", machine=machine, features=features) == expected
    assert [path.name for path in features.parent.iterdir()] == ["code"]
    files = kept_files(features)
    assert not any(path.name.endswith(".partial") for path in files)
    assert len(files) >= 7  # at least the pictures of training, and some of held-out data
    files[0].write_bytes(files[0].read_bytes()[:-1])
    files[1].write_bytes(b"")
    files[2].write_bytes(files[2].read_bytes().replace(b"crc32", b"crc33"))
    whole = files[3].read_bytes()
    files[3].write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    shutil.rmtree(tmp_path / "disk/iter_0000004")
    assert train(place, tmp_path / "disk", machine=machine, features=features) == expected
    assert train(place, tmp_path / "again", machine=machine, features=features) == expected
    assert files[3].read_bytes() == whole
    monkeypatch.setattr(Tower, "__call__", None)  # which nothing needs any more
    assert train(place, tmp_path / "shared", machine=machine, features=features) == expected
    assert rows(tmp_path / "shared") == rows(tmp_path / "off")


def test_features_are_kept_only_of_a_frozen_tower_and_within_their_room(place, tmp_path):
    features = tmp_path / "features" / "code"
    train(place, tmp_path / "a", features=features, freeze_vision_encoder=False)
    assert not features.exists()
    tiny = replace(
        job_of(place, tmp_path / "b", features=features),
        operation=typed("hf", {"feature_cache": "1 MB"}),
    )
    features.mkdir(parents=True)
    (features / "filled").write_bytes(bytes(10**6 - 9000))  # of 1 MB, so one picture fits
    tiny.save_dir.mkdir()
    stage("hf", "finetune")(tiny)
    assert len(kept_files(features)) <= 2


def test_a_picture_that_is_missing_is_reported_where_features_are_kept(place, tmp_path):
    (tmp_path / "images").mkdir()
    job = replace(
        job_of(place, tmp_path / "a", features=tmp_path / "f" / "c"), images=tmp_path / "images"
    )
    job.save_dir.mkdir()
    with pytest.raises(UserError, match=r"\.jpg"):
        stage("hf", "finetune")(job)


def test_an_export_of_a_bf16_training_is_bf16(place, tmp_path):
    train(place, tmp_path / "a", machine={"precision": "bf16"})
    job = ExportJob.of("hf", tmp_path / "a", place / "base", tmp_path / "hf", parallel=ONE)
    converter("mindtune").export(job)
    config = json.loads((tmp_path / "hf/config.json").read_text())
    assert config["torch_dtype"] == "bfloat16"


def test_frozen_parts_do_not_move_and_thawed_ones_do(place, tmp_path):
    train(place, tmp_path / "a", freeze_vision_encoder=False, freeze_vision_projector=False)
    tuned = model(tmp_path / "a")
    base = torch.load(place / "mm/release/mp_rank_00/model_optim_rng.pt", weights_only=True)[
        "model"
    ]
    assert not any(torch.equal(tuned[name], base[name].float()) for name in base)


def test_fewer_samples_than_a_micro_batch_are_refused(place, tmp_path):
    with pytest.raises(UserError, match="there are 7 samples to train on, fewer than"):
        train(place, tmp_path / "a", micro_batch_size=8, global_batch_size=8)


def test_a_loss_that_is_no_number_stops_with_advice(place, tmp_path):
    with pytest.raises(
        UserError, match=r"the loss of iteration \d is not a number; lower train.lr"
    ):
        train(place, tmp_path / "a", lr=1e30, clip_grad=0.0)


def test_the_last_checkpoint_alone_is_kept_and_a_resume_from_it_is_exact(
    place, tmp_path, monkeypatch
):
    whole = train(place, tmp_path / "a", save_interval=1)
    job = replace(job_of(place, tmp_path / "b", save_interval=1), keep="last")
    job.save_dir.mkdir()
    save = Checkpoints.save

    def broken_off(self, iteration, *rest):
        if iteration == 4:
            raise KeyboardInterrupt
        save(self, iteration, *rest)

    monkeypatch.setattr(Checkpoints, "save", broken_off)
    with pytest.raises(KeyboardInterrupt):
        stage("hf", "finetune")(job)
    assert [path.name for path in job.save_dir.glob("*iter_*")] == ["iter_0000003"]
    monkeypatch.setattr(Checkpoints, "save", save)
    stage("hf", "finetune")(job)
    assert [path.name for path in job.save_dir.glob("*iter_*")] == ["iter_0000004"]
    last = job.save_dir / "iter_0000004/mp_rank_00/model_optim_rng.pt"
    assert last.read_bytes() == whole
    assert rows(job.save_dir) == rows(tmp_path / "a")


def test_a_device_that_is_not_there_is_said(place, tmp_path):
    for device in ("cuda", "npu"):
        with pytest.raises(UserError, match=f"hf.device is {device}"):
            train(place, tmp_path / "a", machine={"device": device})


@pytest.fixture
def one_card(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


def test_a_card_that_is_not_there_is_said(one_card):
    with pytest.raises(
        UserError, match=r"hf\.device is cuda:7, but there is 1 here.*write cuda:0 or"
    ):
        open_device(typed("hf", MACHINE | {"device": "cuda:7"}))
    with pytest.raises(UserError, match=r"hf\.devices is 2, but there is 1 here; write 1 or less"):
        open_device(typed("hf", MACHINE | {"device": "cuda", "devices": 2}))
    assert one_card == []
    assert open_device(typed("hf", MACHINE | {"device": "cuda:0"})) == torch.device("cuda:0")
    assert one_card == [0]  # or what asks for `cuda` gets whichever comes first


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ("hf.device is cuda:7, but torch", {"machine": {"device": "cuda:7"}}),
        ("train.seed is 4294967296, but must be from 0 to 4294967295", {"seed": 2**32}),
        ("7 samples to train on, fewer than train.micro_batch_size 8", {"micro_batch_size": 8}),
        ("no usable tokenizer or image processor", {"hf": "no model"}),
        ("a checkpoint of this training takes", {"room": 1000, "lr": 2e-3}),
    ],
)
def test_a_mistake_is_said_before_anything_is_moved(place, tmp_path, monkeypatch, words, given):
    """… and with the earlier settings the finished training is there as it was."""
    save_dir = tmp_path / "save_dir"
    first, before = finished_in(place, save_dir)
    if room := given.pop("room", None):
        monkeypatch.setattr(
            "mindtune.engines.checks.shutil.disk_usage", lambda _: SimpleNamespace(free=room)
        )
    job = job_of(place, save_dir, **given)
    plain = job.plain()
    settings = {"train": plain["train"], "machine": plain["machine"], "hf": given.get("hf", "base")}
    check = partial(training_check("hf"), job)
    for _ in range(2):
        with pytest.raises(UserError, match=words), claimed(save_dir, settings, check):
            pass
        assert files_below(tmp_path) == before
    monkeypatch.undo()
    assert finished_in(place, save_dir) == (first, before)


def finished_in(place, save_dir):
    """Train unless that is done; what was taken, and when each file below was written."""
    settings = {"train": TRAIN, "machine": MACHINE, "hf": "base"}
    check = partial(training_check("hf"), job_of(place, save_dir))
    with claimed(save_dir, settings, check):
        return train(place, save_dir), files_below(save_dir.parent)


def files_below(place):
    return {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}


def test_a_checkpoint_takes_the_bytes_that_are_asked_for(place, tmp_path):
    config = read_config(place / "base")
    for precision in ("fp32", "bf16"):
        file = train(place, tmp_path / precision, machine={"precision": precision})
        assert checkpoint_bytes(config, typed("train", TRAIN), precision) == pytest.approx(
            len(file), rel=0.03
        )
        assert checkpoint_bytes(config, typed("train", TRAIN), precision) < len(file)


def test_a_training_that_ends_too_early_is_no_success(place, tmp_path, monkeypatch):
    monkeypatch.setattr("mindtune.engines.hf.finetune.MegatronOrderTrainer.train", lambda _: None)
    with pytest.raises(UserError, match="training ended at iteration 0 of 4"):
        train(place, tmp_path / "a")
