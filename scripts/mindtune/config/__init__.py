"""Reading the configuration: defaults, experiments, and every check that needs no job.

A configuration is checked in five steps, each of which ends in sentences for the
user rather than in a traceback: the environment variables in its paths, the shape
(`config/schema.yaml`), the experiments' overlays, conditions across keys, and the files that
it names.
"""

import copy
import json
import math
import os
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from mindtune.config.checks import SHARED, condition_problems, overlay_problems, source_problems
from mindtune.config.schema import load_schema, resolve
from mindtune.config.sentences import schema_errors, sentence
from mindtune.config.variables import with_variables
from mindtune.errors import UserError

__all__ = [
    "LAYOUT",
    "SHARED",
    "STAGES",
    "ConfigError",
    "Configuration",
    "load",
    "load_schema",
    "lookup",
    "source_problems",
]

# How an mm checkpoint is cut into shards.
LAYOUT = ("tensor_model_parallel_size", "llm_pp_layers", "vit_pp_layers")
# The settings on which each kind of shared result depends, as dotted keys. A result is
# shared by all experiments whose settings are equal.
STAGES = {
    "data": ("sources.images", "sources.instructions", "sources.mixture", "sources.demo", "data"),
    "base": ("sources.model",),
    "mm": ("sources.model", *(f"parallel.{key}" for key in LAYOUT)),
    "prompts": (
        "sources.images", "sources.instructions", "sources.mixture", "sources.demo", "data",
        "prompts",
    ),
    "before": (
        "sources.images", "sources.instructions", "sources.mixture", "sources.demo", "data",
        "prompts",
        "sources.model", "processor", "answer",
    ),
}  # fmt: skip


class ConfigError(UserError):
    """One or more mistakes in the configuration, a sentence each."""

    def __init__(self, problems: Iterable[str], files: Iterable[str] = ()) -> None:
        self.problems = list(problems)
        where = ", ".join(files)
        head = f"The configuration{f' ({where})' if where else ''} can't be used:"
        super().__init__("\n  - ".join([head, *self.problems]))


def lookup(config: Mapping, dotted: str) -> Any:
    """The value at a dotted key, e.g. `train.lr`."""
    value: Any = config
    for key in dotted.split("."):
        value = value[key]
    return value


class Configuration:
    """The checked configuration: the common settings and those of each experiment.

    Attributes
    ----------
    common: all settings without any experiment's overlay.
    experiments: name -> its complete settings, in the order of the configuration.
    """

    def __init__(self, common: dict, experiments: dict[str, dict]) -> None:
        self.common = common
        self.experiments = experiments
        self.stages = dict(STAGES)
        self._scopes: dict[tuple[str, ...], dict[str, str]] = {}

    def answer_from_checkpoints(self) -> None:
        """Let answers depend on how checkpoints are cut, for an engine that reads them."""
        self.stages["before"] += STAGES["mm"]

    def settings(self, scope: str) -> dict:
        """The complete settings of an experiment, or the common ones for `shared`."""
        return self.common if scope == SHARED else self.experiments[scope]

    def scope(self, experiment: str, stage: str) -> str:
        """Where an experiment's result of a stage lives: `shared`, or an experiment's name.

        It is `shared` when the experiment changes nothing that the stage depends on, and
        otherwise the first experiment with equal settings.
        """
        keys = self.stages[stage]
        if keys not in self._scopes:
            self._scopes[keys] = self._first_with_equal(keys)
        return self._scopes[keys][experiment]

    def _first_with_equal(self, keys: tuple[str, ...]) -> dict[str, str]:
        """For each scope the first one with equal settings of these keys."""
        first: dict[Hashable, str] = {}
        found = {}
        for scope in (SHARED, *self.experiments):
            settings = self.settings(scope)
            wanted = tuple(_frozen(lookup(settings, key)) for key in keys)
            found[scope] = first.setdefault(wanted, scope)
        return found


def load(
    raw: Mapping,
    schema: Mapping,
    files: Iterable[str] = (),
    environment: Mapping[str, str] = os.environ,
) -> Configuration:
    """Check a raw configuration and return it with all defaults filled in.

    environment: the variables that its paths may name.

    Raises
    ------
    ConfigError: with a sentence for each mistake found.
    """
    files = list(files)
    # Plain containers, whatever the reader used; text for dates and for what isn't finite.
    raw = json.loads(json.dumps(raw, default=str), parse_constant=str)
    raw = with_numbers(raw, schema)
    raw, problems = with_variables(raw, schema, environment)
    if isinstance(raw.get("experiments"), dict):
        for name, overlay in raw["experiments"].items():
            raw["experiments"][name], found = with_variables(
                with_numbers(overlay, schema), schema, environment, f"experiments.{name}"
            )
            problems += found
    if not problems:
        problems = [sentence(error) for error in schema_errors(raw, schema)]
    if problems:
        raise ConfigError(problems, files)
    overlays = raw.get("experiments") or {"baseline": {}}
    base = {key: value for key, value in raw.items() if key != "experiments"}
    common = with_defaults(base, schema)
    del common["experiments"]
    experiments: dict[str, dict] = {}
    for name, overlay in overlays.items():
        here = f"experiments.{name}"
        overlay = overlay or {}
        problems += overlay_problems(name, overlay)
        merged = with_defaults(merge(base, overlay), schema)
        del merged["experiments"]
        problems += [
            sentence(error, prefix=here) for error in schema_errors(merge(base, overlay), schema)
        ]
        experiments[name] = merged
    if not problems:
        problems += condition_problems(common)
        for name, settings in experiments.items():
            found = condition_problems(settings)
            problems += [
                f"experiments.{name}: {problem}" for problem in found if problem not in problems
            ]
    if problems:
        raise ConfigError(dict.fromkeys(problems), files)
    return Configuration(common, experiments)


def _frozen(value: Any) -> Hashable:
    """Settings as something that a dictionary can look up, equal where they are."""
    if isinstance(value, Mapping):
        return frozenset((key, _frozen(item)) for key, item in value.items())
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def merge(base: Mapping, overlay: Mapping) -> dict:
    """A copy of `base` in which the keys of `overlay` win, key by key at every depth."""
    merged = copy.deepcopy(dict(base))
    for key, value in overlay.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def with_defaults(value: Any, schema: Mapping, root: Mapping | None = None) -> Any:
    """`value` with the schema's default for each key that is not there, at every depth.

    Keys are in the order of the schema, whatever that of the file: Snakemake compares texts.
    """
    root = root or schema
    node = resolve(schema, root)
    if isinstance(value, Mapping):
        children = {key: resolve(child, root) for key, child in node.get("properties", {}).items()}
        filled = {
            key: with_defaults(copy.deepcopy(value.get(key, child.get("default"))), child, root)
            for key, child in children.items()
            if key in value or "default" in child
        }
        others = {key: copy.deepcopy(item) for key, item in value.items() if key not in children}
        return filled | others
    if isinstance(value, list) and isinstance(node.get("items"), Mapping):
        return [with_defaults(item, node["items"], root) for item in value]
    return value


def with_numbers(value: Any, schema: Mapping, root: Mapping | None = None) -> Any:
    """`value` with text turned into numbers where the schema wants numbers.

    YAML reads `1e-3` as text (it wants a point: `1.0e-3`), and `--config train={...}` makes text
    of everything.
    """
    root = root or schema
    node = resolve(schema, root)
    if isinstance(value, dict):
        children = node.get("properties", {})
        return {
            key: with_numbers(item, children[key], root) if key in children else item
            for key, item in value.items()
        }
    if isinstance(value, list) and isinstance(node.get("items"), Mapping):
        return [with_numbers(item, node["items"], root) for item in value]
    types = [node["type"]] if isinstance(node.get("type"), str) else node.get("type", [])
    if isinstance(value, str) and "string" not in types:
        for kind, read in (
            ("integer", int),
            ("number", _finite),
            ("boolean", _BOOLEANS.__getitem__),
        ):
            if kind in types:
                try:
                    return read(value)
                except (ValueError, KeyError):
                    pass
        if "null" in types and value in ("", "null", "None"):
            return None
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


_BOOLEANS = {"true": True, "false": False, "True": True, "False": False}
