"""docs/errors.yaml has every sentence that the program can tell, and a test for each."""

import ast

import pytest
from errors.catalogue import ROOT, entries, in_source
from errors.recorder import SEEN


def test_every_sentence_is_in_the_catalogue_and_no_other():
    known, made = entries().keys(), in_source()
    missing = [f"{file}: {pattern}" for pattern, file in made.items() if pattern not in known]
    assert missing == [], "add them to docs/errors.yaml: python tests/errors/catalogue.py"
    assert sorted(known - made.keys()) == [], "no longer in the source"
    assert [pattern for pattern, test in entries().items() if test is None] == [], "no test"


NAMED = sorted(filter(None, entries().values()))


@pytest.mark.parametrize("file", sorted({test.split("::")[0] for test in NAMED}))
def test_every_entry_names_a_test(file):
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    there = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    named = {test.split("::")[1] for test in NAMED if test.startswith(f"{file}::")}
    assert named <= there


def test_every_sentence_was_provoked_by_its_test():
    """The last test of a full run, and left out of any other; see tests/conftest.py."""
    lacking = {
        pattern: test for pattern, test in entries().items() if test not in SEEN.get(pattern, ())
    }
    assert lacking == {}, "these tests did not make these sentences"
