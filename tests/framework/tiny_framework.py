"""A tiny MindSpeed-MM: real Git repositories and wheels of the same form, in kilobytes."""

import base64
import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from mindtune.engines.mindspeed.framework.pins import Pins, Repository, read_lock

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
PATCHED = (
    "examples/qwen2vl/dot_product_attention.py",
    "MindSpeed/mindspeed/core/transformer/dot_product_attention.py",
)
# A build backend in the tree, so that `pip install -e` needs nothing from an index.
BACKEND = """
import zipfile
from pathlib import Path

NAME = {name!r}

def get_requires_for_build_editable(config_settings=None):
    return []

def build_editable(directory, config_settings=None, metadata_directory=None):
    info = NAME.replace("-", "_") + "-0.1"
    wheel = info + "-py3-none-any.whl"
    with zipfile.ZipFile(Path(directory, wheel), "w") as file:
        file.writestr(NAME + ".pth", str(Path.cwd()) + "\\n")
        file.writestr(info + ".dist-info/METADATA", "Metadata-Version: 2.1\\nName: " + NAME + "\\nVersion: 0.1\\n")
        file.writestr(info + ".dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        file.writestr(info + ".dist-info/RECORD", "")
    return wheel

build_wheel = build_editable
"""
PROJECT = """
[project]
name = {name!r}
version = "0.1"
[build-system]
requires = []
build-backend = "tiny_backend"
backend-path = ["."]
"""
BUILD_APEX = """
set -e
test "$1" = "--python={python}"
test "$CANN_WAS_SOURCED" = yes
mkdir -p apex/dist
python -c "import sys; sys.path.insert(0, '.'); import make; make.wheel('apex/dist')"
"""


def package(name: str) -> dict[str, str]:
    return {
        "tiny_backend.py": BACKEND.format(name=name),
        "pyproject.toml": PROJECT.format(name=name),
    }


FILES = {
    "mindspeed_mm": {
        **package("mindspeed-mm"),
        "pretrain_vlm.py": "import mindspeed_mm\n",
        "mindspeed_mm/__init__.py": "",
        "checkpoint/__init__.py": "",
        PATCHED[0]: "KV_CACHE = True\n",
        "sources/videos/large.gif": "GIF89a" + "x" * 5000,
    },
    "megatron_lm": {
        "megatron/core/__init__.py": "",
        "megatron/training/__init__.py": "",
        "README.md": "not copied\n",
    },
    "mindspeed": {
        **package("mindspeed"),
        "mindspeed/__init__.py": "",
        PATCHED[1].removeprefix("MindSpeed/"): "KV_CACHE = False\n",
    },
    "apex": {
        "scripts/build.sh": BUILD_APEX.replace("{python}", PYTHON),
        "make.py": "",
    },
}


def git(place: Path, *arguments: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(
        ["git", *who, "-C", str(place), *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def repository(place: Path, files: dict[str, str]) -> str:
    """Make a repository whose pinned commit isn't its newest; returns that commit."""
    place.mkdir(parents=True)
    git(place, "init", "-q")
    for name, text in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git(place, "add", "-A")
    git(place, "commit", "-qm", "pinned")
    commit = git(place, "rev-parse", "HEAD")
    (place / "LATER").write_text("after the pinned commit\n")
    git(place, "add", "-A")
    git(place, "commit", "-qm", "later")
    return commit


def wheel(directory: Path, name: str, version: str, tag: str = "py3-none-any") -> str:
    """Make a wheel of pure Python; returns its SHA-256."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    files = {
        f"{module}/__init__.py": f"__version__ = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    lines = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip('=')},{len(text)}"
        for path, text in files.items()
    ]
    files[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,"]) + "\n"
    path = directory / f"{module}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for place, text in files.items():
            archive.writestr(place, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Origins:
    """Where a tiny framework comes from: repositories, a directory of wheels, and its pins."""

    place: Path
    pins: Pins

    @property
    def wheels(self) -> Path:
        return self.place / "wheels"

    @property
    def sources(self) -> dict[str, str]:
        return {name: str(self.place / name) for name in FILES}


def make_origins(place: Path) -> Origins:
    commits = {name: repository(place / name, files) for name, files in FILES.items()}
    wheels = place / "wheels"
    wheels.mkdir()
    packages = {
        "torch": "2.1.0",
        "torch_npu": "2.1.0.post12",
        "transformers": "4.45.0",
        "numpy": "1.26.4",
    }
    lock = "# a lock\n"
    for name, version in {**packages, "wheel": "0.45.1"}.items():
        lock += f"{name}=={version} \\\n    --hash=sha256:{wheel(wheels, name, version)}\n"
    return Origins(
        place,
        Pins(
            python=PYTHON,
            cann="8.1.RC1",
            driver="25.0.RC1",
            packages=packages,
            repositories={
                name: Repository(name, f"https://example.org/{name}.git", "main", commit)
                for name, commit in commits.items()
            },
            patched=PATCHED,
            folders=("logs", "data", "ckpt", "save_dir"),
            files=checksums(),
            lock=tuple(read_lock(lock)),
        ),
    )


def checksums() -> dict[str, str]:
    """path -> SHA-256 of the Python files of a whole root, with the patched one in place."""
    texts = {name: text for name, text in FILES["mindspeed_mm"].items() if name.endswith(".py")}
    texts |= {name: text for name, text in FILES["megatron_lm"].items() if name.endswith(".py")}
    texts |= {
        f"MindSpeed/{name}": text
        for name, text in FILES["mindspeed"].items()
        if name.startswith("mindspeed/")
    }
    texts[PATCHED[1]] = texts[PATCHED[0]]
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}


def make_home(place: Path) -> Path:
    """A root as a user would have made it by hand, without Git data."""
    for prefix, name in (("", "mindspeed_mm"), ("", "megatron_lm"), ("MindSpeed/", "mindspeed")):
        for path, text in FILES[name].items():
            target = place / prefix / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
    (place / PATCHED[1]).write_text(FILES["mindspeed_mm"][PATCHED[0]])
    return place
