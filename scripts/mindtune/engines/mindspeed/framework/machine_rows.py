"""Rows about the machine beside its NPUs: disk, memory for loaders, ports, nodes, limits."""

from collections.abc import Mapping, Sequence

from tqdm import tqdm

from mindtune.engines.mindspeed.framework.rows import FAIL, OK, REHEARSED, WARNING, Row

SPARE = 1.2  # what is wanted of the disk, for one that has just enough
OPEN_FILES = 1024
MORE_OPEN_FILES = 8192
PORT_ON_NODES = 6000


def in_bytes(size: int) -> str:
    """A size for people, such as `4.4 GB`."""
    number = tqdm.format_sizeof(size)
    return f"{number} B" if number[-1].isdigit() else f"{number[:-1]} {number[-1]}B"


def disk_row(
    name: str,
    needed: Mapping[str, int],
    there: int,
    free: int,
    unknown: bool = False,
    uncertain: int = 0,
) -> Row:
    """Free disk against what a run writes on one file system.

    needed: what -> bytes. there: bytes of it that an earlier run left. unknown: whether nothing is
    known yet of a model's size. uncertain: bytes of `needed` that may turn out not to be.
    """
    left = max(sum(needed.values()) - there, 0)
    parts = ", ".join(f"{what} {in_bytes(size)}" for what, size in needed.items() if size)
    told = f"{in_bytes(free)} are free, {in_bytes(left)} still needed ({parts or 'nothing big'})"
    if left - uncertain > free:
        return Row(
            name, FAIL,
            f"{told}; free some, save less often with train.save_interval or less with "
            "train.save_optim: false, or run in a directory on a larger disk.",
        )  # fmt: skip
    if left > free:
        return Row(
            name, WARNING,
            f"{told}; it may be {in_bytes(uncertain)} less, which is known when the model is there.",
        )  # fmt: skip
    if unknown:
        return Row(name, WARNING, f"{told}; of a model that isn't there yet nothing is counted.")
    if left * SPARE > free:
        return Row(name, WARNING, f"{told}; that is tight, and others may write there too.")
    return Row(name, OK, told)


def writable_row(errors: Mapping[str, str | None]) -> Row:
    """Whether the run can write where it writes. errors: path -> why not, or None."""
    failed = {path: error for path, error in errors.items() if error}
    if not failed:
        return Row("writable", OK, ", ".join(errors))
    path, error = next(iter(failed.items()))
    return Row(
        "writable", FAIL,
        f"nothing can be written to {path} ({error}); fix its permissions, or name another place in "
        "mindspeed.cache, mindspeed.install.directory or sources.download.directory.",
    )  # fmt: skip


def shared_memory_row(free: int | None, needed: int, workers: int) -> Row:
    """Shared memory against what the loaders pass through it."""
    name = "/dev/shm"  # noqa: S108
    if workers == 0:
        return Row(name, OK, "not used, as mindspeed.num_workers is 0")
    if free is None:
        return Row(name, FAIL, "isn't there; mount it, or write mindspeed.num_workers: 0.")
    told = (
        f"{free / 2**20:.0f} MiB are free, {workers} loaders an NPU want up to {needed / 2**20:.0f}"
    )
    if free < needed:
        return Row(
            name, FAIL,
            f"{told}; start the container with --shm-size={max(16, 2 * needed >> 30)}g, or write a "
            "smaller mindspeed.num_workers.",
        )  # fmt: skip
    return Row(name, OK, told)


def port_row(port: int | None, nodes: int, error: str | None) -> Row:
    """Whether the master's port can be had. error: why not, or None."""
    name = "master port"
    if port is None and nodes == 1:
        return Row(name, OK, "a free one is taken when a training starts")
    port = port or PORT_ON_NODES
    if error is None:
        return Row(name, OK, f"{port} is free")
    return Row(
        name, FAIL,
        f"{port} can't be had ({error}): another training uses it; write another mindspeed.master_port, "
        "or null on one node.",
    )  # fmt: skip


def hosts_row(
    nodes: int,
    hosts: Sequence[str],
    errors: Mapping[str, str | None],
    slurm: bool,
    pods: bool = False,
) -> Row:
    """Whether the other nodes are there. errors: host -> why it can't be reached, or None. pods: whether
    torchrun's variables say where the nodes meet."""
    name = "nodes"
    if nodes == 1:
        return Row(name, OK, "one, this one")
    if not hosts:
        if slurm:
            return Row(name, OK, f"{nodes}, which Slurm gives")
        if pods:
            return Row(name, OK, f"{nodes}, which meet at MASTER_ADDR")
        return Row(
            name, FAIL,
            f"mindspeed.nodes is {nodes}, but mindspeed.hosts is empty and there is no Slurm; name "
            "the nodes in mindspeed.hosts, or run it where MASTER_ADDR is set (docs/clusters.md).",
        )  # fmt: skip
    if len(hosts) != nodes:
        return Row(
            name, FAIL,
            f"mindspeed.nodes is {nodes}, but mindspeed.hosts names {len(hosts)}; make them agree.",
        )  # fmt: skip
    failed = {host: error for host, error in errors.items() if error}
    if failed:
        host, error = next(iter(failed.items()))
        return Row(
            name, FAIL,
            f"{host} can't be reached by ssh without a password ({error}); fix mindspeed.hosts, or "
            f"run `ssh-copy-id {host}`.",
        )  # fmt: skip
    return Row(name, OK, f"{', '.join(hosts)} answer")


def open_files_row(limit: int, workers: int, npus: int) -> Row:
    """`ulimit -n` against what loaders and checkpoints hold open."""
    name, unlimited = "ulimit -n", limit < 0
    if not unlimited and limit < OPEN_FILES:
        return Row(
            name, FAIL,
            f"{limit} open files are too few for loaders and NPUs; run `ulimit -n {MORE_OPEN_FILES}` "
            "first, or raise nofile in /etc/security/limits.conf.",
        )  # fmt: skip
    if not unlimited and limit < MORE_OPEN_FILES and workers * npus > 32:
        return Row(
            name, WARNING,
            f"{limit} open files for {workers * npus} loaders; if one says `Too many open files`, run "
            f"`ulimit -n {MORE_OPEN_FILES}` first.",
        )  # fmt: skip
    return Row(name, OK, "unlimited" if unlimited else str(limit))


def import_rows(
    reasons: Mapping[str, str | None], devices: int | None, wanted: int, stand_in: bool
) -> list[Row]:
    """Whether torch and torch_npu import under the framework's Python, and see the NPUs."""
    rows = []
    for module, reason in reasons.items():
        name = f"import {module}"
        if reason is not None:
            rows.append(
                Row(name, FAIL, f"{reason[:300]}; {_import_remedy(module, reason, stand_in)}")
            )
        elif module != "torch" and stand_in:
            rows.append(Row(name, REHEARSED, "the stand-in's"))
        elif module == "torch_npu" and devices is not None and devices < wanted:
            rows.append(
                Row(
                    name,
                    FAIL,
                    f"it sees {devices} NPUs, but mindspeed.npus_per_node is {wanted}; look at "
                    "ASCEND_RT_VISIBLE_DEVICES and at the rows above.",
                )
            )
        else:
            seen = f", and sees {devices} NPUs" if module == "torch_npu" and devices else ""
            rows.append(Row(name, OK, f"works{seen}"))
    return rows


def _import_remedy(module: str, reason: str, stand_in: bool) -> str:
    if stand_in and module != "torch":
        return "mindspeed.stand_in must be a directory with a package of this name."
    if ".so" in reason and module == "torch_npu":
        return (
            "a library of CANN or of the driver isn't found: fix mindspeed.set_env, and in a container "
            "mount /usr/local/Ascend/driver."
        )
    return f"install {module} again in mindspeed.python."
