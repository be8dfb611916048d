"""Which test makes which of the program's sentences, seen while the tests run.

Modules of the package, and scripts, are imported with each expression that makes a sentence (as
`mindtune.messages` finds them) wrapped in a call that remembers the sentence and the test. What
runs in other processes isn't seen.
"""

import ast
import builtins
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path

from mindtune.messages import pattern, sentences

SCRIPTS = Path(__file__).parents[2] / "scripts"
# pattern -> the tests, without their parameters, that made it
SEEN: dict[str, set[str]] = {}
_MARK = "__mindtune_told__"


def _told(pattern: str, sentence: str) -> str:
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rsplit(" ", 1)[0].split("[")[0]
    SEEN.setdefault(pattern, set()).add(test)
    return sentence


class _Wrapping(ast.NodeTransformer):
    def __init__(self, tree: ast.AST) -> None:
        self.wanted = {id(node) for node in sentences(tree)}

    def visit(self, node: ast.AST) -> ast.AST:
        if id(node) not in self.wanted:
            return super().generic_visit(node)
        call = ast.Call(ast.Name(_MARK, ast.Load()), [ast.Constant(pattern(node)), node], [])
        return ast.fix_missing_locations(ast.copy_location(call, node))


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str):
        tree = ast.parse(self.get_data(self.path), self.path)
        return compile(_Wrapping(tree).visit(tree), self.path, "exec", dont_inherit=True)


class _Finder:
    @staticmethod
    def find_spec(name: str, path=None, target=None) -> ModuleSpec | None:
        if not name.startswith("mindtune.") and not (SCRIPTS / f"{name}.py").is_file():
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def start() -> None:
    """Wrap all modules that are imported from now on."""
    setattr(builtins, _MARK, _told)
    sys.meta_path.insert(0, _Finder)
