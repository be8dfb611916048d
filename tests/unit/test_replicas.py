"""Several copies of the model that train together: processes of torchrun, with gloo, on the CPU."""

import json
import os
import shutil
import signal
import subprocess
from dataclasses import replace
from functools import cache
from itertools import islice

import psutil
import pytest
import torch
from mindtune.divergence import Diverged
from mindtune.engines import launching, training_check
from mindtune.engines.hf import group, replicas
from mindtune.engines.hf.packing import token_weights
from mindtune.engines.hf.replicas import Replicas, buckets
from mindtune.engines.hf.schedule import sample_order
from mindtune.errors import UserError
from mindtune.settings.hf import hf_problems
from mindtune.settings.sections import Settings
from mindtune.settings.typed import made_of
from unit.test_finetune import MACHINE, TRAIN, job_of, model, place, rows, train  # noqa: F401 - a fixture
from unit.test_lora import LORA

# No micro batch is cut by an epoch of eight samples: all numbers of replicas draw the same batches.
WHOLE = {
    "micro_batch_size": 1, "global_batch_size": 4, "train_iters": 12, "eval_interval": 6,
}  # fmt: skip
LAST = "iter_0000012"
PACKED = {"tokens_per_pass": 300}
DROPPING = LORA | {"dropout": 0.5}


@pytest.fixture(scope="module")
def eight(place):  # noqa: F811
    """The place with eight samples to train on."""
    records = json.loads((place / "train.json").read_text())
    for path in place.iterdir():
        if path.name != "train.json":
            (place / "eight").mkdir(exist_ok=True)
            (place / "eight" / path.name).symlink_to(path)
    (place / "eight/train.json").write_text(json.dumps([*records, records[0]]))
    return place / "eight"


@pytest.fixture(scope="module")
def alone(eight, tmp_path_factory):
    """Lines of loss.csv of one process: of a machine's name -> lines."""

    @cache
    def of(name):
        save_dir = tmp_path_factory.mktemp("alone")
        train(eight, save_dir, machine=PACKED if name == "packed" else {}, **WHOLE)
        return rows(save_dir)

    return of


@pytest.fixture(scope="module")
def together(eight, tmp_path_factory):
    """An undisturbed training of two processes: its save_dir, and the last checkpoint's bytes."""
    save_dir = tmp_path_factory.mktemp("together") / "save_dir"
    return save_dir, train(eight, save_dir, machine=PACKED | {"devices": 2}, **WHOLE)


def assert_alike(one, other, tolerance=1e-6):
    for mine, theirs in zip(one, other, strict=True):
        for name in ("loss", "grad_norm", "held_out_loss"):
            assert bool(mine[name]) == bool(theirs[name])
            if mine[name]:
                assert float(mine[name]) == pytest.approx(
                    float(theirs[name]), rel=tolerance * (10 if name == "grad_norm" else 1)
                )
        assert mine["lr"] == theirs["lr"]


def test_two_processes_train_as_one(alone, together):
    assert_alike(rows(together[0]), alone("packed"))


@pytest.mark.long
def test_four_processes_train_as_one_without_packing_too(eight, tmp_path, alone):
    train(eight, tmp_path / "a", machine={"devices": 4}, **WHOLE)
    assert_alike(rows(tmp_path / "a"), alone("one by one"))


def test_pods_with_variables_of_torchrun_train_as_one(eight, tmp_path, together, monkeypatch):
    """As Kubeflow's PyTorchJob sets them, of which the first pod knows itself as localhost. The second one runs
    the script of the training, which is not there at first, until it ends well; as docs/clusters.md says."""
    for name in launching.SLURM:
        monkeypatch.delenv(name, raising=False)
    variables = {"MASTER_PORT": str(launching.free_port()), "WORLD_SIZE": "2"}
    script = tmp_path / "a/run/launch.sh"
    loop = f'until bash "{script}"; do sleep 0.5; done'
    second = subprocess.Popen(
        ["bash", "-c", loop], env=os.environ | variables | {"MASTER_ADDR": "127.0.0.1", "RANK": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        with monkeypatch.context() as patch:
            for name, value in (variables | {"MASTER_ADDR": "localhost", "RANK": "0"}).items():
                patch.setenv(name, value)
            both = train(eight, tmp_path / "a", machine=PACKED | {"nodes": 2}, **WHOLE)
        assert second.wait(120) == 0
    finally:
        if second.poll() is None:
            os.killpg(second.pid, signal.SIGKILL)
            second.wait()
    assert both == together[1] and rows(tmp_path / "a") == rows(together[0])


def test_one_process_in_a_pod_is_alone(eight, tmp_path, alone, monkeypatch):
    """Variables of others would have it wait for them."""
    for name, value in (("MASTER_ADDR", "localhost"), ("RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    train(eight, tmp_path / "a", machine=PACKED, **WHOLE)
    assert rows(tmp_path / "a") == alone("packed")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            {},
            "hf.hosts is empty; submit it with profiles/slurm, or name the hosts, or run it where MASTER_ADDR",
        ),
        (
            {"MASTER_ADDR": "a", "RANK": "1"},
            "RANK is 1, but the workflow runs on the node of rank 0 only",
        ),
        (
            {"MASTER_ADDR": "a", "NODE_RANK": "2", "RANK": "0"},
            "NODE_RANK is 2, but the workflow runs on",
        ),
        (
            {"MASTER_ADDR": "a", "WORLD_SIZE": "3"},
            "hf.nodes is 2, but WORLD_SIZE is 3, neither the number of",
        ),
        ({"MASTER_ADDR": "a", "MASTER_PORT": "x"}, "MASTER_PORT is x, which is no port"),
    ],
)
def test_variables_that_do_not_fit_are_said(eight, tmp_path, monkeypatch, variables, words):
    for name in (
        *launching.SLURM,
        *launching.NODE_RANKS,
        "MASTER_ADDR",
        "MASTER_PORT",
        "WORLD_SIZE",
    ):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=words):
        train(eight, tmp_path / "a", machine=PACKED | {"nodes": 2}, **WHOLE)


def test_a_process_that_is_killed_ends_all_and_the_rest_ends_in_the_same_bytes(
    eight, tmp_path, together, monkeypatch
):
    """The second process is killed when the first checkpoint is whole, as for want of memory."""
    killed, children = [], []

    def second() -> psutil.Process:
        return next(
            one for one in children
            if str(group.PROGRAM) in one.cmdline() and one.environ().get("RANK") == "1"
            and "torch.distributed.run" in one.parent().cmdline()
        )  # fmt: skip

    def advance(self, count=1, note=""):
        if not killed and (tmp_path / "a/iter_0000002").exists():
            below = psutil.Process().children(recursive=True)
            ours = {"torch.distributed.run", str(group.PROGRAM)}
            children.extend(one for one in below if ours & set(one.cmdline()))
            killed.append(second())
            killed[0].send_signal(signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(group.Progress, "advance", advance)
        with pytest.raises(UserError, match="one of the 2 processes of the training failed"):
            train(eight, tmp_path / "a", machine=PACKED | {"devices": 2}, **WHOLE)
    assert killed
    psutil.wait_procs(children, timeout=30)
    assert not [one for one in children if one.is_running()]
    resumed = train(eight, tmp_path / "a", machine=PACKED | {"devices": 2}, **WHOLE)
    assert resumed == together[1] and rows(tmp_path / "a") == rows(together[0])


@pytest.mark.parametrize("packed", ["packed", pytest.param("one by one", marks=pytest.mark.long)])
def test_shared_layers_train_as_whole_ones(eight, tmp_path, alone, together, packed):
    """And what is saved of them is whole: the weights that one device would have."""
    machine = {"devices": 2, "shard": "layers"} | (PACKED if packed == "packed" else {})
    train(eight, tmp_path / "a", machine=machine, **WHOLE)
    assert_alike(rows(tmp_path / "a"), alone(packed), 1e-5)
    weights, others = model(tmp_path / "a", 12), model(together[0], 12)
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, others[name], rtol=1e-3, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize(
    ("machine", "changes"),
    [({"precision": "bf16"}, {}), ({"precision": "bf16", "recompute": "full"}, {"lora": DROPPING})],
    ids=["bf16", "adapters, recomputed"],
)
def test_a_training_of_shared_layers_resumes_exactly(eight, tmp_path, machine, changes):
    machine = PACKED | {"devices": 2, "shard": "layers"} | machine
    whole = train(eight, tmp_path / "a", machine=machine, **WHOLE, **changes)
    lines = rows(tmp_path / "a")
    shutil.rmtree(tmp_path / "a" / LAST)
    resumed = train(eight, tmp_path / "a", machine=machine, **WHOLE, **changes)
    assert resumed == whole and rows(tmp_path / "a") == lines


@pytest.mark.long
def test_dropout_goes_on_with_the_numbers_of_each_process(eight, tmp_path):
    """Adapters, with a dropout: what a process has drawn depends on its own samples."""
    machine = PACKED | {"devices": 2}
    whole = train(eight, tmp_path / "a", machine=machine, lora=DROPPING, **WHOLE)
    lines = rows(tmp_path / "a")
    shutil.rmtree(tmp_path / "a" / LAST)
    resumed = train(eight, tmp_path / "a", machine=machine, lora=DROPPING, **WHOLE)
    assert resumed == whole and rows(tmp_path / "a") == lines


def test_a_training_that_diverges_says_where(eight, tmp_path):
    with pytest.raises(Diverged) as raised:
        train(
            eight, tmp_path / "a", machine=PACKED | {"devices": 2},
            **WHOLE | {"lr": 1e30, "clip_grad": 0.0},
        )  # fmt: skip
    assert raised.value.loss == rows(tmp_path / "a")[-1]["loss"] in ("nan", "inf")
    assert raised.value.iteration == len(rows(tmp_path / "a"))


def test_what_one_process_cannot_do_is_said_in_its_own_words(eight, tmp_path):
    job = job_of(eight, tmp_path / "a", machine={"devices": 2}, **WHOLE)
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match=f"{tmp_path}/nowhere/"):
        group.train_together(replace(job, images=tmp_path / "nowhere"), 0)


@pytest.mark.parametrize(
    ("samples", "size", "ranks"), [(8, 1, 2), (7, 1, 2), (97, 4, 3), (24, 2, 4)]
)
def test_a_rank_goes_on_where_it_stood(samples, size, ranks):
    for rank in range(ranks):
        whole = list(islice(sample_order(samples, size, 0, rank, ranks), 500))
        for drawn in (1, size, 13, 100, 499):
            rest = sample_order(samples, size, drawn, rank, ranks)
            assert list(islice(rest, 500 - drawn)) == whole[drawn:]


def test_ranks_share_an_epoch():
    ranks = [list(islice(sample_order(24, 2, 0, rank, 4), 6)) for rank in range(4)]
    assert sorted(index for own in ranks for index in own) == list(range(24))
    whole = list(islice(sample_order(24, 2, 0), 24))
    assert ranks == [whole[rank::4] for rank in range(4)]


def test_weights_of_all_replicas_sum_to_one():
    answers = [[3, 5, 2, 7], [1, 1, 4, 9]]
    total = sum(
        weight * count
        for own in answers
        for weight, count in zip(token_weights(own, 2, 2), own, strict=True)
    )
    assert total == pytest.approx(1)


def test_gradients_go_in_messages_of_one_type_and_of_a_limited_size(monkeypatch):
    monkeypatch.setattr(replicas, "BUCKET", 10)
    sizes = [4, 5, 3, 20, 2]
    tensors = [torch.zeros(size) for size in sizes] + [torch.zeros(1, dtype=torch.bfloat16)]
    assert [[one.numel() for one in found] for found in buckets(tensors)] == [
        [4, 5], [3], [20], [2], [1]
    ]  # fmt: skip


def test_what_a_replica_has_no_gradient_for_counts_as_zero(monkeypatch):
    """A text has none for the vision tower, where another replica has a picture."""
    monkeypatch.setattr(replicas.distributed, "all_reduce", lambda tensor: tensor.add_(1))
    used, unused, frozen = (torch.nn.Parameter(torch.ones(2, 3)) for _ in range(3))
    unused.data, frozen.requires_grad = unused.data.bfloat16(), False
    unused.grad_dtype = torch.float32
    used.sum().backward()
    Replicas(1, 2).sum_gradients([used, unused, frozen])
    assert torch.equal(used.grad, torch.full((2, 3), 2.0))
    assert torch.equal(unused.grad, torch.ones(2, 3)) and unused.grad.dtype == torch.float32
    assert frozen.grad is None


def test_one_replica_needs_nobody():
    one = Replicas()
    assert one.is_first and one.gathered(3) == [3]
    tensor = torch.ones(2)
    assert one.sum(tensor) is tensor


@pytest.mark.parametrize(
    ("machine", "batch", "words"),
    [
        ({"devices": 3}, 4, "no multiple of train.micro_batch_size 2 x hf.devices 3 x hf.nodes 1 = 6; "
                            "the nearest that is: 6."),
        ({"devices": 2, "device": "cuda:1"}, 4, "hf.device is cuda:1, one device, but hf.devices"),
        ({"shard": "layers"}, 4, "hf.shard is layers, but there is one device"),
        ({"devices": 2, "device": "mps"}, 4, "hf.device is mps, of which there is one"),
        ({"nodes": 2, "hosts": ["a"]}, 4, "hf.hosts names 1 hosts, but hf.nodes is 2"),
        ({"nodes": 2, "hosts": ["a", "a"]}, 4, "hf.hosts names a host twice"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_said_before_anything_runs(machine, batch, words):
    settings = {
        "train": TRAIN | {"global_batch_size": batch},
        "parallel": {"context_parallel_size": 1},
        "hf": MACHINE | machine,
    }
    assert any(words in problem for problem in hf_problems(made_of(Settings, settings)))


def test_fewer_samples_than_all_replicas_take_are_refused(place, tmp_path):  # noqa: F811
    job = job_of(place, tmp_path, machine={"devices": 4}, micro_batch_size=2, global_batch_size=8)
    with pytest.raises(UserError, match=r"7 samples to train on, fewer .* 2 x 4 devices"):
        training_check("hf")(job, 0)
