"""Which code a result depends on, as one short hash.

Snakemake notices a changed script by its time stamp, which a fresh checkout changes too, and
does not notice a changed module at all. The workflow therefore gives each rule the hash of
its script and of all project modules that it imports, directly or not, as a parameter: what
re-runs a rule is another content, wherever and whenever the files were written.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

PACKAGE = "mindtune"
ROOT = Path(__file__).resolve().parents[1]


def code_hash(*sources: Path, data: Iterable[Path] = ()) -> str:
    """Hash of some source files, of all that they import from this project, and of data files.

    Sixteen hexadecimal digits. Names are hashed relative to `scripts/`, so that the
    place of the checkout doesn't matter.
    """
    digest = hashlib.sha256()
    for path in sorted({*closure(sources), *data}):
        digest.update(f"{path.relative_to(ROOT)}\0".encode())
        digest.update(path.read_bytes())
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def closure(sources: Iterable[Path]) -> set[Path]:
    """The given files and every project module they import, at any depth."""
    found: set[Path] = set()
    waiting = [Path(source).resolve() for source in sources]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += imports(path)
    return found


@cache
def imports(path: Path) -> tuple[Path, ...]:
    """The project's files that a source file imports, with the packages they lie in."""
    tree = ast.parse(path.read_bytes(), str(path))
    return tuple(dict.fromkeys(file for name in _names(tree) for file in _files(name)))


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _files(name: str) -> Iterator[Path]:
    """The files that importing a dotted name runs: the packages on the way, and the module."""
    parts = name.split(".")
    if parts[0] != PACKAGE:
        return
    for depth in range(1, len(parts) + 1):
        place = ROOT.joinpath(*parts[:depth])
        if (place / "__init__.py").is_file():
            yield place / "__init__.py"
        elif place.with_suffix(".py").is_file():
            yield place.with_suffix(".py")
