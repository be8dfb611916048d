"""The sentences that the program can tell a user, found in its source.

A sentence is the text of a `UserError` (or of an exception derived from it), what a function
called `…problems` or `…sentence` yields or returns, and what is appended to `problems`. Its *pattern* is the text with `{}` for whatever is filled in.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ERRORS = {"UserError", "ConfigError"}


@dataclass(frozen=True)
class Message:
    """A sentence in the source: its pattern, and the file and expression that make it."""

    pattern: str
    file: str
    node: ast.expr


def messages(root: Path) -> Iterator[Message]:
    """All sentences of the sources below `root`, by file and line."""
    for path in sorted(root.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in sentences(tree):
            yield Message(pattern(node), str(path.relative_to(root)), node)


def sentences(tree: ast.AST) -> list[ast.expr]:
    """The expressions that make a source file's sentences."""
    found = [node for candidate in _candidates(tree) for node in _texts(candidate)]
    return sorted(dict.fromkeys(found), key=lambda node: (node.lineno, node.col_offset))


def _candidates(tree: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) in ERRORS and node.args:
            yield node.args[0]
        elif isinstance(node, ast.FunctionDef) and node.name.endswith(("problems", "sentence")):
            yield from _told(node)
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "append"
            and _name(node.func.value) == "problems"
        ):
            yield node.args[0]


def _told(function: ast.FunctionDef) -> Iterator[ast.expr]:
    for node in ast.walk(function):
        if isinstance(node, ast.Yield | ast.Return) and node.value is not None:
            yield node.value


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")


def _texts(node: ast.expr) -> Iterator[ast.expr]:
    """The literal texts that an expression may be: itself, its branches, or its items."""
    if isinstance(node, ast.IfExp):
        yield from _texts(node.body)
        yield from _texts(node.orelse)
    elif isinstance(node, ast.List | ast.Tuple):
        for item in node.elts:
            yield from _texts(item)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        if any(True for side in (node.left, node.right) for _ in _texts(side)):
            yield node
    elif isinstance(node, ast.JoinedStr | ast.Constant) and " " in pattern(node):
        yield node


def pattern(node: ast.expr) -> str:
    """The text of an expression with `{}` for what is filled in."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(pattern(part) for part in parts)
        case ast.BinOp(left=left, right=right):
            return pattern(left) + pattern(right)
    return "{}"
