"""Installing a tiny framework for real: Git, venv, pip, and what interrupts them."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from mindtune.engines.mindspeed.framework import asking, environment, installing, repositories
from mindtune.engines.mindspeed.framework.checking import content_problems, patched
from mindtune.engines.mindspeed.framework.installation import make_sure
from mindtune.engines.mindspeed.framework.installing import install
from mindtune.engines.mindspeed.framework.pins import Repository, load_pins, read_lock
from mindtune.errors import UserError
from mindtune.files import partial_name
from mindtune.settings.typed import typed
from tiny_framework import FILES, PATCHED, PYTHON, git, make_home, wheel


@pytest.fixture(scope="module")
def settings(origins, tmp_path_factory):
    """The section `mindspeed`, for a rehearsal in a place of this module's."""
    place = tmp_path_factory.mktemp("rehearsal")
    stand_in = place / "stand_in"
    (stand_in / "torch_npu").mkdir(parents=True)
    (stand_in / "torch_npu/__init__.py").write_text("")
    install = {
        "directory": str(place / "framework"),
        **origins.sources,
        "apex_wheel": None,
        "wheels": str(origins.wheels),
        "package_index": None,
    }
    return {
        "home": None,
        "python": sys.executable,
        "set_env": "/no/such/set_env.sh",
        "stand_in": str(stand_in),
        "install": install,
    }


@pytest.fixture(scope="module")
def record(settings, origins):
    os.environ["PYTHONPATH"] = str(origins.place)  # must leak nowhere
    try:
        return make_sure(typed("mindspeed", settings), origins.pins)
    finally:
        del os.environ["PYTHONPATH"]


def test_it_is_installed_as_pinned(record, settings, origins):
    home = Path(record["home"])
    assert home == Path(settings["install"]["directory"]) / "MindSpeed-MM"
    assert content_problems(home, origins.pins) == []
    assert (home / PATCHED[1]).read_text() == FILES["mindspeed_mm"][PATCHED[0]]
    assert all((home / folder).is_dir() for folder in ("logs", "data", "ckpt", "save_dir"))
    assert (home / "megatron/core/__init__.py").is_file() and not (home / "LATER").exists()
    assert not [path for path in home.parent.iterdir() if path.name.endswith(".partial")]


def test_the_record_says_what_it_is(record, settings, origins):
    assert record["installed_by"] == "mindtune" and record["set_env"] is None
    assert record["stand_in"] == settings["stand_in"]
    assert record["versions"]["torch"] == "2.1.0"
    assert record["versions"]["torch_npu"] == "stand-in" == record["versions"]["apex"]
    assert record["commits"] == {
        name: origins.pins.repositories[name].commit
        for name in ("mindspeed_mm", "megatron_lm", "mindspeed")
    }


def test_with_a_stand_in_nothing_is_installed_that_only_an_npu_needs(record):
    found = asking.packages(Path(record["python"]))
    assert "torch-npu" not in found.versions and "apex" not in found.versions
    assert found.versions["numpy"] == "1.26.4"


def test_what_is_there_is_kept(record, settings, origins, monkeypatch):
    ran = []

    def watched(command, what, **more):
        ran.append(what)
        return real(command, what, **more)

    real = environment.run
    monkeypatch.setattr(environment, "run", watched)
    assert make_sure(typed("mindspeed", settings), origins.pins) == record
    assert all(what.startswith("asking") for what in ran), ran


def test_a_package_that_was_cut_off_is_installed_again(record, settings, origins):
    python = Path(record["python"])
    place = Path(asking.packages(python).places["mindspeed_mm"]).parent
    packages = next(python.parents[1].glob("lib/python*/site-packages"))
    (packages / "numpy/__init__.py").write_text("")
    shutil.rmtree(packages / "transformers")
    assert set(asking.packages(python).damaged) == {"numpy", "transformers"}
    make_sure(typed("mindspeed", settings), origins.pins)
    assert asking.packages(python).damaged == {}
    assert (packages / "numpy/__init__.py").read_text() == "__version__ = '1.26.4'\n"
    assert place == Path(record["home"])


def test_for_an_npu_the_rest_is_added_and_apex_is_built_by_its_script(
    record, settings, origins, tmp_path
):
    tag = f"cp{PYTHON.replace('.', '')}"
    wheel(tmp_path, "apex", "0.1+ascend", tag=f"{tag}-none-any")
    built = next(tmp_path.glob("apex*.whl"))
    set_env = tmp_path / "set_env.sh"
    set_env.write_text("export CANN_WAS_SOURCED=yes\n")
    place = tmp_path / "apex"
    code = f"import shutil\ndef wheel(to): shutil.copyfile({str(built)!r}, to + '/{built.name}')\n"
    for name, text in (FILES["apex"] | {"make.py": code}).items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    given = {**settings, "stand_in": None, "set_env": str(set_env)}
    given["install"] = {**settings["install"], "apex": str(place)}
    found = make_sure(typed("mindspeed", given), origins.pins)
    assert found["versions"]["torch_npu"] == "2.1.0.post12"
    assert found["versions"]["apex"] == "0.1+ascend"
    assert found["commits"]["apex"] == origins.pins.repositories["apex"].commit
    assert found["set_env"] == str(set_env)


# --- The root: what interrupts it, and where it comes from ---------------------------------


def make_root(plan):
    plan.directory.mkdir(parents=True, exist_ok=True)
    installing._make_root(plan)
    return plan.root


@pytest.mark.parametrize("after", range(0, 12, 2))
def test_wherever_it_is_cut_off_it_goes_on(plan, monkeypatch, after):
    """Fail after so many commands, and leave locks as a killed git does."""
    real, plan, ran = environment.run, plan(), []

    def failing(command, what, **more):
        if len(ran) == after:
            raise UserError("cut off")
        ran.append(what)
        return real(command, what, **more)

    monkeypatch.setattr(environment, "run", failing)
    with pytest.raises(UserError, match="cut off"):
        make_root(plan)
    assert not plan.root.exists()
    for place in partial_name(plan.root).rglob(".git"):
        (place / "shallow.lock").touch()
        (place / "index.lock").touch()
    monkeypatch.setattr(environment, "run", real)
    make_root(plan)
    assert content_problems(plan.root, plan.pins) == []


def test_a_root_that_was_changed_is_refused_and_left(plan):
    root = make_root(plan())
    (root / "pretrain_vlm.py").write_text("changed\n")
    with pytest.raises(UserError, match=r"pretrain_vlm.py is another.*mindspeed.home"):
        make_root(plan())
    assert (root / "pretrain_vlm.py").read_text() == "changed\n"


def test_directories_without_git_data_will_do(plan, origins, tmp_path):
    home = make_home(tmp_path / "home")
    sources = {"mindspeed_mm": str(home), "mindspeed": str(home / "MindSpeed"),
               "megatron_lm": str(home)}  # fmt: skip
    root = make_root(plan(sources=sources))
    assert content_problems(root, origins.pins) == [] and patched(root, origins.pins)


def test_a_mirror_that_lacks_a_large_file_will_do(plan, origins, tmp_path):
    mirror = tmp_path / "mirror"
    shutil.copytree(origins.place / "mindspeed_mm", mirror)
    blob = git(
        mirror,
        "rev-parse",
        f"{origins.pins.repositories['mindspeed_mm'].commit}:sources/videos/large.gif",
    )
    (mirror / ".git/objects" / blob[:2] / blob[2:]).unlink()
    root = make_root(plan(sources=origins.sources | {"mindspeed_mm": str(mirror)}))
    assert content_problems(root, origins.pins) == [] and not (root / "sources").exists()


def test_a_shallow_mirror_will_do(plan, origins, tmp_path):
    pinned = origins.pins.repositories["mindspeed"]
    (tmp_path / "m").mkdir()
    git(tmp_path / "m", "init", "-q", "--bare")
    git(tmp_path / "m", "fetch", "-q", "--depth=1", str(origins.place / "mindspeed"), pinned.commit)
    repositories.fetch(pinned, str(tmp_path / "m"), tmp_path / "out")
    assert repositories.head(tmp_path / "out") == pinned.commit


@pytest.mark.parametrize("source", ["/no/such/place", "other"])
def test_a_source_without_the_commit_is_told_with_its_key(origins, tmp_path, source):
    if source == "other":
        source = str(origins.place / "apex")
    with pytest.raises(UserError, match=r"mindspeed.install.mindspeed\b") as told:
        repositories.fetch(origins.pins.repositories["mindspeed"], source, tmp_path / "out")
    assert origins.pins.repositories["mindspeed"].commit in str(told.value)


def test_another_source_takes_the_place_of_one_that_failed(origins, tmp_path):
    pinned = origins.pins.repositories["mindspeed"]
    with pytest.raises(UserError):
        repositories.fetch(pinned, str(origins.place / "apex"), tmp_path / "out")
    address = (origins.place / "mindspeed").as_uri()
    repositories.fetch(pinned, address, tmp_path / "out")
    assert repositories.head(tmp_path / "out") == pinned.commit
    assert "uploadpack" not in git(tmp_path / "out", "config", "--local", "--list")


def test_other_content_at_the_commit_never_becomes_the_root(plan, origins):
    other = replace(origins.pins, files=origins.pins.files | {"pretrain_vlm.py": "0" * 64})
    with pytest.raises(UserError, match="isn't MindSpeed-MM at the pinned commits"):
        make_root(plan(pins=other))
    assert not plan().root.exists()


# --- Mistakes, before anything is made ----------------------------------------------------


def test_two_runs_do_not_install_at_once(plan):
    plan = plan()
    plan.directory.mkdir()
    with FileLock(plan.directory / ".lock"), pytest.raises(UserError, match="another run is inst"):
        install(plan)


@pytest.mark.parametrize(
    ("python", "said"),
    [("/no/python", "there is no such program"), (sys.executable, "which is Python")],
)
def test_a_python_that_will_not_do_is_told(python, said):
    with pytest.raises(UserError, match=rf"mindspeed.python is {python}.*{said}"):
        asking.interpreter(python, "3.1")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            "stand_in",
            "/no/stand_in",
            "mindspeed.stand_in is /no/stand_in, which is not a directory",
        ),
        ("home", "/no/home", "mindspeed.home is /no/home, which is not a directory"),
    ],
)
def test_paths_that_are_not_there_are_told(settings, origins, key, value, said):
    with pytest.raises(UserError, match=said):
        make_sure(typed("mindspeed", {**settings, key: value}), origins.pins)


def test_a_processor_that_the_lock_is_not_for_is_told(settings, origins, monkeypatch):
    lines = "x==1 ; platform_machine == 'aarch64' \\\n    --hash=sha256:" + "0" * 64
    pins = replace(origins.pins, lock=tuple(read_lock(lines)))
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(UserError, match="this is Linux on riscv64"):
        make_sure(typed("mindspeed", settings), pins)


def test_without_a_stand_in_cann_has_to_be_there(settings, origins):
    with pytest.raises(
        UserError, match=r"mindspeed.set_env is /no/such/set_env.sh, but there is no"
    ):
        make_sure(typed("mindspeed", {**settings, "stand_in": None}), origins.pins)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (None, b"", "there is no such file"),
        ("apex-0.1-cp39-cp39-linux_aarch64.whl", b"", "isn't named as a wheel of apex"),
        ("torch-2.1.0-cp310-cp310-linux_aarch64.whl", b"", "isn't named as a wheel of apex"),
        ("apex-0.1+ascend-cp310-cp310-linux_aarch64.whl", b"PK half", "is damaged"),
    ],
)
def test_a_wheel_of_apex_that_will_not_do_is_told(tmp_path, name, content, said):
    path = tmp_path / (name or "apex.whl")
    if name:
        path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        installing.check_apex(path, "3.10")


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM", "isn't the one of the lock"),
        ("ERROR: No matching distribution found for torch==2.1.0", "which lacks it"),
        ("OSError: [Errno 28] No space left on device", "The disk is full"),
    ],
)
def test_what_pip_says_is_answered(plan, said, remedy):
    assert remedy in installing.pip_remedy(said, plan())


def test_without_a_directory_of_wheels_the_index_is_named(plan):
    bare = plan(wheels=None)
    assert "package_index" in installing.pip_remedy("No matching distribution found", bare)
    assert installing.pip_sources(bare) == []
    assert installing.pip_sources(plan(wheels=None, package_index="https://i/simple")) == [
        "--index-url", "https://i/simple",
    ]  # fmt: skip


def test_a_package_with_another_hash_is_refused(record, settings, origins):
    """In the environment that is there, with a lock that wants a newer one."""
    lines = "attrs==9 \\\n    --hash=sha256:" + "0" * 64
    wheel(origins.wheels, "attrs", "9")
    lock = (*origins.pins.lock, *read_lock(lines))
    with pytest.raises(UserError, match="isn't the one of the lock"):
        make_sure(typed("mindspeed", settings), replace(origins.pins, lock=lock))
    assert "attrs" not in asking.packages(Path(record["python"])).versions


# --- The environment of programs ----------------------------------------------------------


def test_nothing_of_our_python_gets_into_the_frameworks():
    ours = {"PYTHONPATH": "/ours", "VIRTUAL_ENV": "/venv", "PYTHONHOME": "/h", "PIP_USER": "1",
            "PATH": "/venv/bin:/usr/bin", "HOME": "/root"}  # fmt: skip
    assert environment.clean_environment(ours) == {
        "PATH": "/usr/bin", "HOME": "/root", "PYTHONNOUSERSITE": "1",
    }  # fmt: skip


def test_canns_own_python_packages_come_after_the_frameworks(tmp_path):
    set_env = tmp_path / "set env.sh"
    set_env.write_text("export PYTHONPATH=/cann/python ASCEND_TOOLKIT_HOME=/cann\n")
    command = environment.in_framework(
        ["sh", "-c", 'echo "$PYTHONPATH $ASCEND_TOOLKIT_HOME $1"', "sh", "a b; c"],
        Path("/mm"), Path("/stand in"), set_env,
    )  # fmt: skip
    said = environment.run(command, "echo").strip()
    assert said == "/stand in:/mm:/mm/MindSpeed:/cann/python /cann a b; c"


def test_a_program_that_fails_is_told_with_its_last_lines():
    with pytest.raises(UserError, match=r"(?s)trying failed \(exit status 3\).*the reason"):
        environment.run(["sh", "-c", "echo the reason; exit 3"], "trying")


def test_programs_end_when_their_parent_is_killed(tmp_path):
    code = (
        "import sys; sys.path[:0] = sys.argv[1:2]\n"
        "from mindtune.engines.mindspeed.framework import environment\n"
        "environment.run(['sh', '-c', 'echo $$ > pid; exec sleep 60'], 'sleeping')"
    )
    scripts = str(Path(environment.__file__).parents[4])
    parent = subprocess.Popen([sys.executable, "-c", code, scripts], cwd=tmp_path)
    while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text().strip():
        assert parent.poll() is None
    child = int((tmp_path / "pid").read_text())
    parent.kill()
    parent.wait()
    for _ in range(10**6):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
    raise AssertionError("it goes on")


def test_a_repository_is_not_confused_by_a_surrounding_one(origins, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(origins.place / "apex/.git"))
    pinned: Repository = origins.pins.repositories["mindspeed"]
    repositories.fetch(pinned, str(origins.place / "mindspeed"), tmp_path / "out")
    assert repositories.head(tmp_path / "out") == pinned.commit


# --- The real ones -------------------------------------------------------------------------

MIRRORS = os.environ.get("MINDSPEED_MM_MIRRORS")


@pytest.mark.mindspeed
@pytest.mark.skipif(
    not MIRRORS, reason="the real repositories are not fetched: MINDSPEED_MM_MIRRORS is not set"
)
def test_the_real_repositories_give_the_pinned_root(plan):
    """MINDSPEED_MM_MIRRORS: a directory with mindspeed_mm, megatron_lm and mindspeed in it."""
    pins = load_pins()
    sources = {
        name: str(Path(MIRRORS, name)) for name in ("mindspeed_mm", "megatron_lm", "mindspeed")
    }
    root = make_root(plan(pins=pins, sources=sources))
    assert content_problems(root, pins) == [] and patched(root, pins)
    assert repositories.head(root) == pins.repositories["mindspeed_mm"].commit
