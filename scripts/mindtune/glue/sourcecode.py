"""Which code a result depends on, as one short hash.

Snakemake notices a changed script by its time stamp, which a fresh checkout changes too, and
does not notice a changed module at all. The workflow therefore gives each rule the hash of
its script and of all project modules that it imports, directly or not, as a parameter: what
re-runs a rule is another content, wherever and whenever the files were written.

What is chosen at run time shows in no import: the engine is given as a further file, and who imports
`mindtune.models.NAME` asks the module NAME of the model's family. What is imported for a type checker
alone (`if TYPE_CHECKING:`) doesn't run, and no result depends on it.
"""

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

from mindtune.files import write_json
from mindtune.models import FAMILIES

PACKAGE = "mindtune"
# Where it is kept which files each hash stands for, below the working directory.
RECORDS = Path(".snakemake", "mindtune", "code")
ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / PACKAGE / "models"
CHECKED_ONLY = ("TYPE_CHECKING", "typing.TYPE_CHECKING")
# Where a statement has further ones; no expression holds an import.
BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


def code_files(
    *sources: Path, data: Iterable[Path] = (), families: Iterable[str] = FAMILIES
) -> dict[str, str]:
    """Some source files, all that they import from this project, and data files.

    By name relative to `scripts/`, so that the place of the checkout doesn't matter, a hash of the
    content of each. families: the model families that can be met.
    """
    return {
        str(path.relative_to(ROOT)): file_hash(path)
        for path in sorted({*closure(sources, families), *data})
    }


def hash_of(files: Mapping[str, str]) -> str:
    """One hash of all that `code_files` found, sixteen hexadecimal digits."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]


def record(found: Mapping[str, Mapping[str, str]], place: Path) -> None:
    """Keep what each hash stands for, so that it can be said later which file changed."""
    place.mkdir(parents=True, exist_ok=True)
    for name, files in found.items():
        path = place / f"{name}.json"
        if not path.exists():
            write_json(path, files)


def recorded(name: str, place: Path) -> dict[str, str] | None:
    """What a hash stood for; None when that was not kept."""
    path = place / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


@cache
def file_hash(path: Path) -> str:
    """Sixteen hexadecimal digits of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def closure(sources: Iterable[Path], families: Iterable[str] = FAMILIES) -> set[Path]:
    """The given files and every project module they import, at any depth, with those of families."""
    families = tuple(families)
    found: set[Path] = set()
    waiting = [Path(source).resolve() for source in sources]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [*imports(path), *_of_families(path, families)]
    return found


def _of_families(path: Path, families: Iterable[str]) -> Iterator[Path]:
    """The modules of families that one of `mindtune.models` asks by its own name."""
    if path.parent == MODELS and path.name != "__init__.py":
        for family in families:
            if (MODELS / family / path.name).is_file():
                yield from _files(f"{PACKAGE}.models.{family}.{path.stem}")


@cache
def imports(path: Path) -> tuple[Path, ...]:
    """The project's files that a source file imports, with the packages they lie in."""
    return tuple(dict.fromkeys(file for name in imported_names(path) for file in _files(name)))


def imported_names(path: Path) -> Iterator[str]:
    """The dotted names that a source file imports when it runs, also those within modules."""
    for node in _run(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _run(tree: ast.AST) -> Iterator[ast.AST]:
    """All statements below a node, but for what only a type checker reads."""
    for block in BLOCKS:
        for node in getattr(tree, block, ()):
            if isinstance(node, ast.If) and ast.unparse(node.test) in CHECKED_ONLY:
                node.body = []
            yield node
            yield from _run(node)


@cache
def _files(name: str) -> tuple[Path, ...]:
    """The files that importing a dotted name runs: the packages on the way, and the module."""
    if not f"{name}.".startswith(f"{PACKAGE}."):
        return ()
    package, _, _ = name.rpartition(".")
    place = ROOT.joinpath(*name.split("."))
    own = next(filter(Path.is_file, (place / "__init__.py", place.with_suffix(".py"))), None)
    return (*(_files(package) if package else ()), *([own] if own else ()))
