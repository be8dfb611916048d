"""What should not happen, told when it does: tools that end well and have done nothing."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from mindtune.engines.mindspeed.framework import asking, installing, repositories
from mindtune.errors import UserError


def test_a_python_that_says_nothing(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho hello\n")
    python.chmod(0o755)
    with pytest.raises(UserError, match="said nothing that can be read: 'hello"):
        asking.packages(python)


def test_a_patched_file_that_is_no_copy(tmp_path, monkeypatch):
    root = tmp_path / "MindSpeed-MM"

    def fetch(plan, name, place):
        for part in ("a.py", "b.py", "megatron/c.py"):
            (place / part).parent.mkdir(parents=True, exist_ok=True)
            (place / part).write_text(part)

    monkeypatch.setattr(installing, "_fetch", fetch)
    monkeypatch.setattr(installing, "patched", lambda *_: False)
    pins = SimpleNamespace(patched=(Path("a.py"), Path("b.py")), files={})
    plan = SimpleNamespace(directory=tmp_path, pins=pins, home=root, root=root)
    with pytest.raises(UserError, match="is no copy of"):
        installing._make_root(plan)
    assert not root.exists()


def test_a_pip_that_installs_nothing(monkeypatch, tmp_path):
    wanted = [SimpleNamespace(name="torch")]
    pins = SimpleNamespace(requirements=lambda stand_in: wanted)
    monkeypatch.setattr(installing, "lacking", lambda some, found: list(some))
    monkeypatch.setattr(installing.asking, "packages", lambda _: SimpleNamespace(damaged=()))
    monkeypatch.setattr(installing, "_pip_install", lambda *_, **__: None)
    plan = SimpleNamespace(pins=pins, stand_in=None, environment_python=tmp_path / "python")
    with pytest.raises(UserError, match="but torch are not there as the lock has them"):
        installing._install_packages(plan)


def test_a_build_of_apex_that_leaves_no_wheel(monkeypatch, tmp_path):
    (tmp_path / installing.APEX).mkdir(parents=True)
    monkeypatch.setattr(installing.environment, "run", lambda *_, **__: "")
    plan = SimpleNamespace(
        directory=tmp_path, environment_python=tmp_path / "bin/python", set_env=None,
        pins=SimpleNamespace(python="3.10"), apex_wheel=None, install={"apex_wheel": None},
    )  # fmt: skip
    with pytest.raises(UserError, match="but left no wheel in a directory `dist`"):
        installing._build_apex(plan)


def test_a_checkout_that_ends_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setattr(repositories, "_git", lambda *_: "")
    monkeypatch.setattr(repositories, "resolved", lambda *_: "a" * 40)
    monkeypatch.setattr(repositories, "head", lambda _: "b" * 40)
    repository = SimpleNamespace(name="mindspeed", commit="a" * 40, leave_out=())
    with pytest.raises(UserError, match=f"is at {'b' * 40} and not at {'a' * 40}; remove it"):
        repositories.fetch(repository, str(tmp_path / "source.git"), tmp_path / "target")
