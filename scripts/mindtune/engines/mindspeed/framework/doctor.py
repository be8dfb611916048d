"""The doctor: everything that a run needs of its machine, looked at before anything heavy."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindtune.engines.mindspeed.framework import asking, cann, facts, npu, sizes
from mindtune.engines.mindspeed.framework.checking import framework_rows
from mindtune.engines.mindspeed.framework.installation import directory, script
from mindtune.engines.mindspeed.framework.machine_rows import (
    PORT_ON_NODES,
    disk_row,
    hosts_row,
    import_rows,
    open_files_row,
    port_row,
    shared_memory_row,
    writable_row,
)
from mindtune.engines.mindspeed.framework.pins import Pins
from mindtune.engines.mindspeed.framework.rows import WARNING, Row, plain
from mindtune.engines.mindspeed.machine import Machine
from mindtune.errors import UserError
from mindtune.files import bytes_below

if TYPE_CHECKING:
    from mindtune.settings.sections.mindspeed import Mindspeed

RESULTS = Path("results")
DRIVER_INFO = Path("/usr/local/Ascend/driver/version.info")
MODULES = ("torch", "torch_npu", "apex")


def examine(
    settings: Mapping[str, Any], installation: Mapping[str, Any] | None, pins: Pins
) -> list[Row]:
    """Look at the framework and the machine. installation: its record; None if there is none yet."""
    section: Mindspeed = settings["mindspeed"]
    stand_in = directory(section.stand_in, "mindspeed.stand_in")
    return [
        *_npu_rows(settings, stand_in is not None, pins),
        *_cann_rows(section, stand_in, pins),
        *_framework_rows(section, installation, stand_in, pins),
        *_disk_rows(settings),
        *_other_rows(settings),
    ]


def machine(installation: Mapping[str, Any], rows: list[Row]) -> Machine:
    """What the other rules read of all this."""
    paths = {
        key: None if installation[key] is None else Path(installation[key])
        for key in ("home", "python", "set_env", "stand_in")
    }
    return Machine(
        **paths,
        versions=installation["versions"],
        commits=installation["commits"],
        rows=plain(rows),
    )


def read_installation(path: Path) -> dict[str, Any]:
    """The record that install_mindspeed_mm left.

    Raises
    ------
    UserError: it isn't one.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {
            key: record[key]
            for key in ("home", "python", "set_env", "stand_in", "versions", "commits")
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is no record of the rule install_mindspeed_mm ({error!r}); remove it and run the "
            "same command again."
        ) from error


def installation_of(
    settings: Mapping[str, Any], recorded: Path, pins: Pins
) -> dict[str, Any] | None:
    """What there is to look at without the rule having run: its record, or an existing `home`.

    Raises
    ------
    UserError: mindspeed.home or mindspeed.python isn't there.
    """
    section: Mindspeed = settings["mindspeed"]
    if recorded.is_file():
        return read_installation(recorded)
    if section.home is None:
        return None
    stand_in = directory(section.stand_in, "mindspeed.stand_in")
    set_env = script(section.set_env, stand_in)
    return {
        "home": str(directory(section.home, "mindspeed.home")),
        "python": str(asking.interpreter(section.python, pins.python)),
        "set_env": None if set_env is None else str(set_env),
        "stand_in": None if stand_in is None else str(stand_in),
        "versions": {},
        "commits": {},
    }


# --- The rows ----------------------------------------------------------------------------


def _npu_rows(settings: Mapping[str, Any], stand_in: bool, pins: Pins) -> Iterator[Row]:
    if stand_in:
        yield from npu.rehearsed()
        return
    section: Mindspeed = settings["mindspeed"]
    try:
        version_info = DRIVER_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        version_info = None
    yield from npu.rows(
        npu.ask(), version_info, section.npus_per_node, pins.driver, npu_bytes(settings),
        {**os.environ, **section.environment}.get("ASCEND_RT_VISIBLE_DEVICES"),
    )  # fmt: skip


def npu_bytes(settings: Mapping[str, Any]) -> float | None:
    """The most that any experiment keeps on an NPU, without activations; None if unknown."""
    section: Mindspeed = settings["mindspeed"]
    world = section.npus_per_node * section.nodes
    needed = []
    for experiment in settings["experiments"].values():
        known = sizes.known_parameters(experiment)
        if known is not None and known.exact:
            parallel = experiment["tensor"] * experiment["stages"]
            copies = max(world // (parallel * experiment["context"]), 1)
            needed.append(sizes.npu_bytes(known, parallel, copies))
    return max(needed, default=None)


def _cann_rows(section: "Mindspeed", stand_in: Path | None, pins: Pins) -> Iterator[Row]:
    if stand_in is not None:
        yield from cann.rehearsed()
        return
    try:
        set_env = script(section.set_env, stand_in)
    except UserError as error:
        yield Row("set_env.sh", "FAIL", str(error))
        return
    yield from cann.rows(set_env, pins.cann, os.environ)


def _framework_rows(
    section: "Mindspeed",
    installation: Mapping[str, Any] | None,
    stand_in: Path | None,
    pins: Pins,
) -> Iterator[Row]:
    if installation is None:
        yield Row("MindSpeed-MM", WARNING, "isn't installed yet; the run does that first.")
        return
    home, python = Path(installation["home"]), Path(installation["python"])
    set_env = None if installation["set_env"] is None else Path(installation["set_env"])
    try:
        found = asking.packages(python, home, stand_in)
        reasons, devices = asking.imports(
            python, MODULES, home, stand_in, set_env, section.environment
        )
    except UserError as error:
        yield Row("Python", "FAIL", str(error))
        return
    yield from framework_rows(home, python, found, pins, stand_in is not None)
    yield from import_rows(reasons, devices, section.npus_per_node, stand_in is not None)


def _disk_rows(settings: Mapping[str, Any]) -> Iterator[Row]:
    """A row for each file system that a run writes to."""
    every = [(sizes.known_parameters(one), one) for one in settings["experiments"].values()]
    known = [(model, one) for model, one in every if model is not None]
    checkpoints = sum(sizes.experiment_bytes(model, one) for model, one in known)
    fixed = {
        "there": min(written_bytes(RESULTS), checkpoints),
        "free": facts.free_bytes(RESULTS),
        "unknown": len(known) < len(every),
        "uncertain": sum(
            sizes.optimizer_bytes(model, one) for model, one in known if not model.exact
        ),
    }
    downloads = Path(settings["downloads"]).expanduser()
    results = {"checkpoints and models": checkpoints}
    missing = sum(size for path, size in settings["fetched"].items() if not Path(path).exists())
    fetched = {"data and models to fetch": missing}
    if facts.file_system(RESULTS) == facts.file_system(downloads):
        yield disk_row("disk", results | fetched, **fixed)
    else:
        yield disk_row(f"disk of {RESULTS}", results, **fixed)
        yield disk_row(f"disk of {downloads}", fetched, 0, facts.free_bytes(downloads))


def written_bytes(results: Path) -> int:
    """What an earlier run has written already of checkpoints and models."""
    return sum(
        bytes_below(path) for name in ("save_dir", "mm", "hf") for path in results.glob(f"*/{name}")
    )


def _other_rows(settings: Mapping[str, Any]) -> Iterator[Row]:
    section: Mindspeed = settings["mindspeed"]
    places = [
        str(RESULTS),
        "logs",
        section.cache,
        settings["downloads"] if settings["fetched"] else None,
    ]
    if section.home is None:
        places.append(section.install.directory)
    yield writable_row(
        {place: facts.write_error(Path(place).expanduser()) for place in places if place}
    )
    workers, npus = section.num_workers, section.npus_per_node
    needed = max(
        sizes.shared_memory_bytes(
            workers, npus, one["train"].micro_batch_size, one["image_resolution"]
        )
        for one in settings["experiments"].values()
    )
    yield shared_memory_row(facts.shared_memory(), needed, workers)
    nodes, hosts, port = section.nodes, section.hosts, section.master_port
    wanted = port or (PORT_ON_NODES if nodes > 1 else None)
    yield port_row(port, nodes, facts.port_error(wanted) if wanted else None)
    asked = {host: facts.host_error(host) for host in hosts} if nodes > 1 else {}
    yield hosts_row(nodes, hosts, asked, facts.under_slurm(), facts.in_pods())
    yield open_files_row(facts.open_files(), workers, npus)
