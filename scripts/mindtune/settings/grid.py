"""`grid`: lists of values, every combination of which is an experiment.

    grid: { train.lr: [1e-5, 3e-5], train.order_seed: [1, 2, 3] }

stands for six experiments, `lr-1e-5_order_seed-1` and so on. A name follows from keys and values
alone: not from the order of the keys, nor from how a number is written.
"""

import difflib
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import reduce
from typing import Any

from mindtune.settings.checks import OVERLAY_SECTIONS
from mindtune.settings.kinds import shown
from mindtune.settings.section import item_model
from mindtune.settings.sections import Settings
from mindtune.settings.sentences import unknown_key

MOST = 1000  # combinations
LONGEST = 100  # characters of a name
_SMALL, _LARGE = 1e-3, 1e6  # outside of them a number is written with an exponent
_OTHER = re.compile(r"[^A-Za-z0-9_.-]+")

# Overlay -> the checked settings (None where something is wrong) and sentences.
Check = Callable[[Mapping], tuple[Settings | None, list[str]]]


def expanded(
    grid: Mapping[str, Any], named: Iterable[str], check: Check
) -> tuple[dict[str, dict], list[str]]:
    """The experiments of a grid as name -> overlay, and what is wrong with it.

    named: the names of the other experiments. check: of the settings with one overlay; what is
    wrong with the settings without any is no sentence of it. There are no experiments where
    something is wrong. A value that is no list of values is left out: of it there is a sentence.
    """
    swept = {key: grid[key] for key in sorted(grid) if isinstance(grid[key], list) and grid[key]}
    problems = [problem for key in sorted(grid) for problem in _key_problems(key)]
    if problems or len(swept) < len(grid) or not swept:
        return {}, problems
    words: dict[str, list[str]] = {}
    for key, values in swept.items():
        words[key], found = _value_words(key, values, check)
        problems += found
    problems += _number_problems(swept)
    if problems:
        return {}, problems
    return _combined(swept, words, named)


def _key_problems(key: str) -> Iterator[str]:
    section = key.partition(".")[0]
    if section == "sources":
        yield (
            f"grid.{key} can't be swept: paths make no short names; write an experiment for each "
            "model."
        )
    elif section not in OVERLAY_SECTIONS:
        guess = difflib.get_close_matches(section, OVERLAY_SECTIONS, 1)
        hint = f"did you mean `{guess[0]}`?" if guess else "it may have keys of "
        more = "" if guess else f"{', '.join(OVERLAY_SECTIONS)}."
        yield f"grid.{key} can't differ between experiments; {hint}{more}"
    else:
        yield from _unknown(key)


def _unknown(key: str) -> Iterator[str]:
    """What keeps a key of a section from being swept."""
    place, model = "", Settings
    for part in key.split("."):
        known = model.model_fields
        if part not in known:
            yield unknown_key(f"grid.{place}", part, list(known))
            return
        if (known[part].json_schema_extra or {}).get("without_effect"):
            yield f"grid.{key} can't be swept: no result depends on it; write it in `{place}`."
            return
        place = f"{place}.{part}" if place else part
        model = item_model(known[part].annotation)
        if model is None:
            break
    if model is not None:
        first = next(iter(model.model_fields))
        yield f"grid.{key} is a section; write a key of it, such as `{key}.{first}`."
    elif place != key:
        yield f"grid.{key} is not a key; {place} has no keys of its own."


def _value_words(key: str, values: Sequence, check: Check) -> tuple[list[str], list[str]]:
    """How a name says each value of a key, and what is wrong with them."""
    words, problems = [], []
    for number, value in enumerate(values):
        place = f"grid.{key}[{number}]"
        settings, found = check(overlay_of({key: value}))
        problems += [
            place + problem.removeprefix(key) if problem.startswith(key) else f"{place}: {problem}"
            for problem in found
        ]
        if settings is None:
            continue
        word = word_of(reduce(getattr, key.split("."), settings))
        if word in words:
            problems.append(
                f"{place} is {shown(value)}, which is the same as another value of the list or makes the "
                f"same name, `{word}`; write each value once."
            )
        words.append(word)
    return words, problems


def _number_problems(swept: Mapping[str, Sequence]) -> Iterator[str]:
    number = math.prod(len(values) for values in swept.values())
    if number > MOST:
        counts = " x ".join(str(len(values)) for values in swept.values())
        yield (
            f"grid has {number:,} combinations ({counts}), but may have at most {MOST:,}; sweep fewer "
            "values at once."
        )


def _combined(
    swept: Mapping[str, Sequence], words: Mapping[str, Sequence[str]], named: Iterable[str]
) -> tuple[dict[str, dict], list[str]]:
    named, short = set(named), _short(swept)
    found: dict[str, dict] = {}
    for numbers in itertools.product(*(range(len(values)) for values in swept.values())):
        chosen = dict(zip(swept, numbers, strict=True))
        name = "_".join(f"{short[key]}-{words[key][number]}" for key, number in chosen.items())
        if len(name) > LONGEST:
            return {}, [
                f"grid would make an experiment of the name {name[:40]}…, which has {len(name)} characters, "
                f"but may have at most {LONGEST}; sweep fewer keys at once."
            ]
        if name in found or name in named:
            other = "experiments" if name in named else "another combination"
            return {}, [
                f"grid would make the experiment {name}, but {other} has that name; rename or remove it."
            ]
        found[name] = overlay_of({key: swept[key][number] for key, number in chosen.items()})
    return found, []


def _short(keys: Iterable[str]) -> dict[str, str]:
    """Key -> its last part, with its section where another key ends so too."""
    keys = list(keys)
    ends = Counter(key.rpartition(".")[2] for key in keys)
    return {
        key: end if ends[end := key.rpartition(".")[2]] == 1 else key.replace(".", "_")
        for key in keys
    }


def overlay_of(values: Mapping[str, Any]) -> dict[str, dict]:
    """Dotted keys as sections of keys."""
    found: dict[str, dict] = {}
    for key, value in values.items():
        *sections, name = key.split(".")
        within = found
        for section in sections:
            within = within.setdefault(section, {})
        within[name] = value
    return found


def word_of(value: Any) -> str:
    """A value as a name has it: `1e-5`, `0.001`, `3`, `null`, `true`, `2-2` for a list."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return "-".join(word_of(item) for item in value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number_word(value)
    return _OTHER.sub("-", str(value))


def _number_word(value: float) -> str:
    number = Decimal(repr(value)).normalize()
    if value and not _SMALL <= abs(value) < _LARGE:
        return f"{number:E}".lower().replace("+", "")
    return f"{number:f}"
