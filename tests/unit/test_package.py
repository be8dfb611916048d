"""`pip install .` brings all that the package reads: modules, templates, the demo's weights."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_wheel_has_every_file_of_the_package(tmp_path):
    copy = tmp_path / "copy"
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "scripts/mindtune", "pyproject.toml", "README.md", "LICENSE"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")[:-1]
    for name in tracked:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, copy]
    subprocess.run(build, check=True)
    [wheel] = tmp_path.glob("mindtune-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("mindtune/")}
    wanted = {
        Path(name).relative_to("scripts").as_posix() for name in tracked if "mindtune" in name
    }
    assert held == wanted
    assert "mindtune/demo/base/weights.safetensors" in held
