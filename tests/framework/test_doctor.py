"""The doctor: each row sound and failing on given facts, and the whole of it with fake programs."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mindtune.engines.mindspeed.framework import cann, doctor, facts, machine_rows, npu, sizes
from mindtune.engines.mindspeed.framework.rows import FAIL, OK, REHEARSED, WARNING
from mindtune.engines.mindspeed.machine import Machine
from mindtune.errors import UserError
from mindtune.estimates.checkpoints import count_checkpoints
from mindtune.glue.doctor_settings import doctor_settings, with_types
from mindtune.glue.settings_reading import Sources
from mindtune.settings import Settings, load
from mindtune.settings.typed import typed
from tiny_framework import make_home
from workflow.conftest import ROOT, SMALL, Checkout, merged

GIB = 2**30


def told(name, status=0):
    return npu.NpuSmi(True, status, (Path(__file__).parent / "npu-smi" / f"{name}.txt").read_text())


# --- NPUs --------------------------------------------------------------------------------


def test_one_npu_is_read():
    assert npu.devices(told("one").text) == [npu.Device(0, 0, "910B3", "OK", 3347, 65536)]
    assert npu.driver(told("one").text, None) == "25.0.rc1"
    assert npu.processes(told("one").text) == []


def test_eight_npus_are_read():
    found = npu.devices(told("eight").text)
    assert [device.npu for device in found] == list(range(8))
    assert {device.total_mb for device in found} == {65536}


def test_chips_with_two_dies_are_read():
    found = npu.devices(told("a3").text)
    assert [(device.npu, device.chip, device.used_mb) for device in found] == [
        (0, 0, 3416),
        (0, 1, 3195),
    ]


@pytest.mark.parametrize(
    ("given", "wanted", "visible", "status", "said"),
    [
        (told("one"), 1, None, OK, "1 x 910B3"),
        (told("eight"), 8, None, OK, "8 x 910B3"),
        (told("eight"), 2, "6,7", OK, "2 x 910B3"),
        (told("eight"), 4, "0-3", OK, "4 x 910B3"),
        (told("one"), 8, None, FAIL, "npus_per_node is 8, but this node has 1; write 1"),
        (told("eight"), 8, "0,1", FAIL, "ASCEND_RT_VISIBLE_DEVICES=0,1 leaves 2"),
        (told("ill"), 8, None, FAIL, "NPU 7 says Alarm"),
        (told("ill"), 4, None, OK, "4 used"),
        (told("910a"), 1, None, WARNING, "was made for 910B"),
        (npu.NpuSmi(False), 1, None, FAIL, "install Ascend's driver"),
        (told("no-driver", 1), 1, None, FAIL, "the driver shows no NPU"),
        (told("used", 1), 1, None, FAIL, "another container holds the NPUs"),
        (told("denied", 126), 1, None, FAIL, "group HwHiAiUser"),
        (npu.NpuSmi(True, 124, "no answer within 60 s"), 1, None, FAIL, "no answer within 60 s"),
    ],
)
def test_npu_devices(given, wanted, visible, status, said):
    row = npu.device_row(given, wanted, visible)
    assert row.status == status and said in row.sentence


@pytest.mark.parametrize(
    ("name", "needed", "status", "said"),
    [
        ("eight", 30 * GIB, OK, "64 GiB each, some 30 needed"),
        ("eight", None, OK, "64 GiB each"),
        ("eight", 60 * GIB, WARNING, "little is left for activations"),
        ("eight", 100 * GIB, FAIL, "take 100 GiB on each NPU, which has 64"),
        ("busy", 30 * GIB, WARNING, "python3.10 (pid 632268) is running"),
        ("no-driver", 1, FAIL, "unknown"),
    ],
)
def test_npu_memory(name, needed, status, said):
    text = told(name).text
    row = npu.memory_row(npu.devices(text), npu.processes(text), needed)
    assert row.status == status and said in row.sentence


@pytest.mark.parametrize(
    ("version", "status", "said"),
    [
        ("25.0.rc1", OK, "25.0.rc1"),
        ("23.0.3", WARNING, "names 25.0.RC1"),
        (None, WARNING, "can't be"),
    ],
)
def test_driver(version, status, said):
    row = npu.driver_row(version, "25.0.RC1")
    assert row.status == status and said in row.sentence


def test_the_drivers_own_file_counts_before_npu_smi():
    assert (
        npu.driver(told("one").text, "Version=24.1.rc3\nascendhal_version=7.35.19\n") == "24.1.rc3"
    )


# --- CANN --------------------------------------------------------------------------------


@pytest.fixture
def toolkit(tmp_path):
    """A toolkit of some version, with its script of variables."""

    def make(version, name="aarch64-linux/ascend_toolkit_install.info"):
        home = tmp_path / "latest"
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"package_name=Ascend-cann-toolkit\nversion={version}\narch=aarch64\n")
        set_env = tmp_path / "set_env.sh"
        set_env.write_text(f"export ASCEND_TOOLKIT_HOME={home}\n")
        return set_env

    return make


@pytest.mark.parametrize(
    ("version", "status", "said"),
    [
        ("8.1.RC1", OK, "8.1.RC1"),
        ("8.2.RC1", WARNING, "names 8.1.RC1"),
        ("7.0.0", FAIL, "is older"),
        (None, FAIL, "install CANN 8.1.RC1"),
    ],
)
def test_cann(toolkit, version, status, said):
    home, trouble = cann.toolkit_home(toolkit(version or "?"), {"PATH": os.environ["PATH"]})
    row = cann.version_row(cann.version(Path(home), "aarch64"), "8.1.RC1")
    assert trouble is None and row.status == status and said in row.sentence


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("compiler/version.info", "Version=8.1.RC1\nversion_dir=8.1.RC1\n"),
        (
            "version.cfg",
            "# version: 1.0\nruntime_running_version=[7.7.0.1.220:8.1.RC1]\nversion=[7.7.0.1.220:8.1.RC1]\n",
        ),
    ],
)
def test_cann_in_other_files(tmp_path, name, text):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    assert cann.version(tmp_path, "aarch64") == "8.1.RC1"


@pytest.mark.parametrize(
    ("script", "said"),
    [("exit 4\n", "reinstall CANN"), ("export OTHER=1\n", "doesn't set ASCEND_TOOLKIT_HOME")],
)
def test_a_script_that_will_not_do(tmp_path, script, said):
    set_env = tmp_path / "set_env.sh"
    set_env.write_text(script)
    row = cann.set_env_row(set_env, *cann.toolkit_home(set_env, {"PATH": os.environ["PATH"]}))
    assert row.status == FAIL and said in row.sentence


def test_without_a_script_the_variables_have_to_be_set():
    assert cann.set_env_row(None, *cann.toolkit_home(None, {})).status == FAIL
    assert cann.set_env_row(None, *cann.toolkit_home(None, {cann.HOME: "/cann"})).status == OK


# --- Sizes and the machine -----------------------------------------------------------------

# Qwen2-VL-2B-Instruct's config.json, the keys that give shapes.
CONFIG_2B = {
    "model_type": "qwen2_vl", "hidden_size": 1536, "intermediate_size": 8960, "vocab_size": 151936,
    "num_attention_heads": 12, "num_hidden_layers": 28, "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "vision_config": {
        "depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "in_channels": 3,
        "hidden_size": 1536, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2,
    },
}  # fmt: skip
TRAIN = {
    "train_iters": 100, "save_interval": 50, "save_optim": True, "freeze_vision_encoder": True,
    "freeze_vision_projector": True, "micro_batch_size": 1,
}  # fmt: skip


def test_sizes_are_those_of_the_published_model():
    known = sizes.parameters(CONFIG_2B, typed("train", TRAIN))
    assert known.total == 2_208_985_600  # counted in the published checkpoint
    assert known.trained == 1_543_714_304  # of these, the language model
    assert (
        sizes.parameters(
            CONFIG_2B,
            typed(
                "train", TRAIN | {"freeze_vision_encoder": False, "freeze_vision_projector": False}
            ),
        ).trained
        == known.total
    )
    # Two checkpoints of 4.4 GB with 18.5 GB of optimizer each, the release and the export.
    one = {"train": typed("train", TRAIN), "keep_checkpoints": "all"}
    assert sizes.experiment_bytes(known, one) == 4 * 4_417_971_200 + 2 * 12 * known.trained
    without = one | {"train": typed("train", TRAIN | {"save_optim": False})}
    assert sizes.experiment_bytes(known, without) == 4 * 4_417_971_200
    assert count_checkpoints(typed("train", TRAIN | {"train_iters": 101})) == 3
    assert sizes.npu_bytes(known, 2, 1) == sizes.npu_bytes(known, 1, 1) / 2
    assert sizes.npu_bytes(known, 1, 8) < sizes.npu_bytes(known, 1, 1)


def test_a_model_that_is_not_there_yet_is_counted_by_its_table(tmp_path):
    one = {
        "config": str(tmp_path / "none.json"),
        "weight_bytes": 4_417_971_200,
        "train": typed("train", TRAIN),
    }
    assert sizes.known_parameters(one) == sizes.Parameters(
        2_208_985_600, 2_208_985_600, exact=False
    )
    assert sizes.known_parameters(one | {"weight_bytes": 0}) is None
    (tmp_path / "none.json").write_text(json.dumps(CONFIG_2B))
    assert sizes.known_parameters(one).exact


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ({"free": 100}, OK, "100 B are free, 50"),
        ({"free": 55}, WARNING, "tight"),
        ({"free": 40}, FAIL, "train.save_interval"),
        ({"free": 40, "there": 20}, OK, "30"),
        ({"free": 40, "uncertain": 20}, WARNING, "may be 20"),
        ({"free": 100, "unknown": True}, WARNING, "isn't there yet"),
    ],
)
def test_disk(arguments, status, said):
    row = machine_rows.disk_row("disk", {"x": 50}, **({"there": 0} | arguments))
    assert row.status == status and said in row.sentence


def test_places_that_cannot_be_written(tmp_path):
    assert facts.write_error(tmp_path / "a" / "b") is None
    (tmp_path / "file").touch()
    error = facts.write_error(tmp_path / "file")
    row = machine_rows.writable_row({"results": None, "data": error})
    assert error and row.status == FAIL and "nothing can be written to data" in row.sentence
    assert machine_rows.writable_row({"results": None}).status == OK


@pytest.mark.parametrize(
    ("free", "workers", "status", "said"),
    [
        (64 * 2**20, 8, FAIL, "--shm-size=16g"),
        (None, 8, FAIL, "mount it"),
        (GIB, 8, OK, "1024 MiB"),
        (0, 0, OK, "not used"),
    ],
)
def test_shared_memory(free, workers, status, said):
    needed = sizes.shared_memory_bytes(workers, 1, 1, 262144)
    row = machine_rows.shared_memory_row(free, needed, workers)
    assert row.status == status and said in row.sentence


def test_a_port_that_is_taken():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        row = machine_rows.port_row(port, 1, facts.port_error(port))
    assert row.status == FAIL and f"{port} can't be had" in row.sentence
    assert machine_rows.port_row(port, 1, facts.port_error(port)).status == OK
    assert machine_rows.port_row(None, 1, None).status == OK
    assert "6000" in machine_rows.port_row(None, 2, None).sentence


@pytest.mark.parametrize(
    ("nodes", "hosts", "errors", "slurm", "status", "said"),
    [
        (1, [], {}, False, OK, "this one"),
        (2, [], {}, True, OK, "Slurm"),
        (2, [], {}, False, FAIL, "name the nodes in mindspeed.hosts"),
        (3, ["a", "b"], {}, False, FAIL, "mindspeed.hosts names 2"),
        (2, ["a", "b"], {"a": None, "b": "Connection refused"}, False, FAIL, "ssh-copy-id b"),
        (2, ["a", "b"], {"a": None, "b": None}, False, OK, "a, b answer"),
    ],
)
def test_nodes(nodes, hosts, errors, slurm, status, said):
    row = machine_rows.hosts_row(nodes, hosts, errors, slurm)
    assert row.status == status and said in row.sentence


def test_pods_meet_where_torchruns_variables_say(monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert not facts.in_pods()
    monkeypatch.setenv("MASTER_ADDR", "pod-0")
    assert machine_rows.hosts_row(2, [], {}, False, facts.in_pods()).status == OK


def test_hosts_are_asked_by_ssh(fake_programs):
    fake_programs("ssh", 'test "$5" = up || { echo "$5: refused" >&2; exit 255; }')
    assert facts.host_error("up") is None
    assert facts.host_error("down") == "down: refused"


@pytest.mark.parametrize(
    ("limit", "workers", "status"),
    [(256, 8, FAIL), (1024, 8, WARNING), (65536, 8, OK), (-1, 8, OK)],
)
def test_open_files(limit, workers, status):
    assert machine_rows.open_files_row(limit, workers, 8).status == status


@pytest.mark.parametrize(
    ("reasons", "devices", "stand_in", "status", "said"),
    [
        ({"torch_npu": None}, 8, False, OK, "sees 8 NPUs"),
        ({"torch_npu": None}, 1, False, FAIL, "it sees 1 NPUs"),
        ({"torch_npu": None}, None, True, REHEARSED, "stand-in"),
        (
            {"torch_npu": "ImportError: libhccl.so: cannot open"},
            None,
            False,
            FAIL,
            "fix mindspeed.set_env",
        ),
        (
            {"torch_npu": "ModuleNotFoundError: torch_npu"},
            None,
            True,
            FAIL,
            "mindspeed.stand_in must",
        ),
        ({"torch": "OSError: libgomp"}, None, False, FAIL, "install torch again"),
    ],
)
def test_imports(reasons, devices, stand_in, status, said):
    (row,) = machine_rows.import_rows(reasons, devices, 8, stand_in)
    assert row.status == status and said in row.sentence


# --- The whole ---------------------------------------------------------------------------


@pytest.fixture
def fake_programs(tmp_path, monkeypatch):
    """Put a shell script before everything on PATH, under a program's name."""
    place = tmp_path / "programs"
    place.mkdir()
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")

    def make(name, text):
        (place / name).write_text(f"#!/bin/sh\n{text}\n")
        (place / name).chmod(0o755)

    return make


@pytest.fixture(scope="module")
def finding(origins, tmp_path_factory):
    """A root by hand, and a stand-in for its Python that has torch and torch_npu."""
    place = tmp_path_factory.mktemp("finding")
    for name in ("torch", "torch_npu", "apex"):
        (place / "stand_in" / name).mkdir(parents=True)
        (place / "stand_in" / name / "__init__.py").write_text("")
    for name, version in origins.pins.packages.items():
        info = place / "stand_in" / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "RECORD").write_text("")
    return make_home(place / "home"), place / "stand_in"


@pytest.fixture
def settings(finding, tmp_path, monkeypatch):
    """Settings of the doctor, in a directory of this test's."""
    monkeypatch.chdir(tmp_path)
    home, stand_in = finding
    (tmp_path / "model.json").write_text(json.dumps(CONFIG_2B))
    section = Settings().mindspeed.model_dump()
    experiment = {
        "config": str(tmp_path / "model.json"), "weight_bytes": 0, "train": TRAIN, "keep_checkpoints": "all",
        "image_resolution": 262144, "tensor": 1, "context": 1, "stages": 1,
    }  # fmt: skip
    return {
        "mindspeed": section
        | {"home": str(home), "python": sys.executable, "stand_in": str(stand_in)},
        "experiments": {"baseline": experiment},
        "downloads": "data",
        "fetched": {},
    }


def named(rows):
    return {row.name: row for row in rows}


def test_a_rehearsal_says_so_and_is_recorded(settings, origins, tmp_path):
    installation = doctor.installation_of(
        with_types(settings), tmp_path / "none.json", origins.pins
    )
    rows = doctor.examine(with_types(settings), installation, origins.pins)
    found = named(rows)
    for name in (
        "NPU devices",
        "NPU memory",
        "driver",
        "CANN",
        "set_env.sh",
        "torch_npu",
        "import torch_npu",
    ):
        assert found[name].status == REHEARSED, found[name]
    assert found["import torch"].status == OK and found["files"].status == OK
    record = doctor.machine(installation | {"versions": {"torch": "2.1.0"}}, rows)
    record.write(tmp_path / "machine.json")
    read = Machine.read(tmp_path / "machine.json", typed("mindspeed", settings["mindspeed"]))
    assert read.home == finding_home(settings) and read.stand_in.is_absolute()
    assert read.cache == tmp_path / "results/cache" and read.versions == {"torch": "2.1.0"}
    assert len(read.rows) == len(rows) and read.rows[0]["status"] == REHEARSED


def finding_home(settings):
    return Path(settings["mindspeed"]["home"])


def test_a_machine_with_an_npu(settings, origins, tmp_path, fake_programs, toolkit):
    """npu-smi, CANN and torch_npu are there; nothing is rehearsed."""
    stand_in = settings["mindspeed"]["stand_in"]
    fake_programs("npu-smi", f"cat {Path(__file__).parent}/npu-smi/one.txt")
    set_env = toolkit("8.1.RC1", f"{os.uname().machine}-linux/ascend_toolkit_install.info")
    set_env.write_text(set_env.read_text() + f"export PYTHONPATH={stand_in}\n")
    settings["mindspeed"] |= {"stand_in": None, "set_env": str(set_env)}
    installation = doctor.installation_of(
        with_types(settings), tmp_path / "none.json", origins.pins
    )
    rows = doctor.examine(with_types(settings), installation, origins.pins)
    found = named(rows)
    assert REHEARSED not in {row.status for row in rows}
    for name in ("NPU devices", "NPU memory", "CANN", "set_env.sh", "import torch_npu"):
        assert found[name].status == OK, found[name]
    assert "64 GiB each, some 27 needed" in found["NPU memory"].sentence


def test_without_an_installation_the_machine_is_looked_at_all_the_same(settings, origins, tmp_path):
    settings["mindspeed"]["home"] = None
    assert (
        doctor.installation_of(with_types(settings), tmp_path / "none.json", origins.pins) is None
    )
    found = named(doctor.examine(with_types(settings), None, origins.pins))
    assert found["MindSpeed-MM"].status == WARNING and "disk" in found


def test_a_framework_whose_python_is_gone(settings, origins):
    installation = {"home": "/no", "python": "/no/python", "set_env": None}
    found = named(doctor.examine(with_types(settings), installation, origins.pins))
    assert found["Python"].status == FAIL and "/no/python" in found["Python"].sentence


def test_an_earlier_runs_checkpoints_are_not_wanted_again(tmp_path):
    (tmp_path / "baseline/save_dir/iter_0000050").mkdir(parents=True)
    (tmp_path / "baseline/save_dir/iter_0000050/model.pt").write_bytes(b"x" * 100)
    assert doctor.written_bytes(tmp_path) == 100


def test_a_record_that_is_none(tmp_path):
    (tmp_path / "installation.json").write_text("{}")
    with pytest.raises(UserError, match="no record of the rule install_mindspeed_mm"):
        doctor.read_installation(tmp_path / "installation.json")


def test_the_tutorials_configuration_is_counted():
    raw = yaml.safe_load((ROOT / "config/qwen2-vl-2b.yaml").read_text(encoding="utf-8"))
    configuration = load(raw)
    table = ROOT / "config/data_sources.yaml"
    sources = Sources(configuration, table)
    given = doctor_settings(configuration, sources)
    assert json.loads(json.dumps(given)) == given
    assert given["experiments"]["baseline"]["weight_bytes"] > 4.4e9
    # The zip of pictures, the pictures, the instructions and the model.
    assert 43e9 < sum(given["fetched"].values()) < 44e9


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    change = {"engine": "mindspeed", "mindspeed": {"python": sys.executable, "home": "/no/home"}}
    return Checkout.make(tmp_path_factory.mktemp("checkout"), merged(SMALL, change))


def command(checkout, *arguments):
    return subprocess.run(
        [sys.executable, "scripts/doctor.py", *arguments],
        cwd=checkout.path, text=True, capture_output=True, check=False,
    )  # fmt: skip


def test_the_command_fails_with_the_table(checkout):
    model = {"sources": {"model": {"use": "official"}}}
    checkout.configure(merged(SMALL, {"engine": "mindspeed", **model}))
    done = command(checkout)
    assert done.returncode == 1 and done.stderr == ""
    assert "NPU devices   FAIL" in done.stdout and "isn't installed yet" in done.stdout


def test_the_command_tells_mistakes_in_a_sentence(checkout):
    done = command(checkout, "--configfile", "none.yaml")
    assert done.returncode == 2 and "none.yaml can't be read" in done.stderr
    checkout.configure(SMALL)
    done = command(checkout)
    assert done.returncode == 2 and "the engine `hf`, which has no framework" in done.stderr


def test_nothing_is_fetched_for_a_machine_that_will_not_do(checkout):
    """The profile says keep-going, and yet nothing heavy begins."""
    everything = {name: {"use": "official"} for name in ("images", "instructions", "model")}
    change = {
        "engine": "mindspeed",
        "mindspeed": {"python": "/no/python", "set_env": None},
        "sources": everything,
        "train": {"eval_iters": 0},
    }
    checkout.configure(merged(SMALL, change))
    said = checkout.snakemake("results/compare.csv", fails=True)
    assert "install_mindspeed_mm: mindspeed.python is /no/python, but there is no" in said
    assert "Traceback" not in said and "Fetching" not in said
    assert not (checkout.path / "results").exists() and not (checkout.path / "data").exists()
