"""docs/errors.yaml beside the sentences of the source: what is missing, what is dead.

    python tests/errors/catalogue.py     # after a run of the tests: entries to paste, dead ones

An entry's test is that which the last runs of pytest saw making the sentence, null where none did.
"""

import json
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
SEEN = ROOT / ".pytest_cache/v/mindtune/messages"


def entries() -> dict[str, str | None]:
    """The sentences of docs/errors.yaml, each with the test that provokes it; None for none yet.

    Raises
    ------
    ValueError: one is there twice.
    """
    found: dict[str, str | None] = {}
    for area in yaml.safe_load((ROOT / "docs/errors.yaml").read_text(encoding="utf-8")):
        for entry in area["entries"]:
            for pattern, test in entry["says"].items():
                if pattern in found:
                    raise ValueError(f"docs/errors.yaml has twice: {pattern}")
                found[pattern] = test
    return found


def in_source() -> dict[str, str]:
    """The patterns of all sentences of the source, each with a file that makes it."""
    from mindtune.messages import messages

    return {message.pattern: message.file for message in messages(ROOT / "scripts")}


def main() -> int:
    known, made = entries(), in_source()
    seen = json.loads(SEEN.read_text(encoding="utf-8")) if SEEN.is_file() else {}
    for pattern in known.keys() - made.keys():
        print(f"# no longer in the source: {pattern}")
    for pattern, file in made.items():
        if pattern not in known:
            test = (seen.get(pattern) or [None])[0]
            stub = [{"why": "", "do": "", "says": {pattern: test}}]
            print(
                f"# {file}\n{yaml.safe_dump(stub, allow_unicode=True, sort_keys=False, width=1000)}"
            )
    return int(known.keys() != made.keys())


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "scripts"))
    sys.exit(main())
