"""Reading the configuration: defaults, experiments, and every check that needs no job.

A configuration is checked in four steps, each of which ends in sentences for the user rather
than in a traceback: the files as text (`yaml_files`), types and ranges of all keys (the models in
`sections`, which replace environment variables in places too), conditions across keys and the
experiments' overlays (`checks`), and the files that it names.

A new key is one declaration in a module of `sections`; see `section.key`.
"""

import copy
import os
import re
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from mindtune.errors import UserError
from mindtune.settings.checks import (
    OVERLAY_KEYS,
    OVERLAY_SECTIONS,
    OVERLAY_SOURCES,
    SHARED,
    condition_problems,
    experiment_problems,
    name_problems,
    overlay_problems,
    source_problems,
)
from mindtune.settings.grid import expanded
from mindtune.settings.lora import export_problems
from mindtune.settings.sections import Settings
from mindtune.settings.sentences import printable, sentences
from mindtune.settings.typed import made_of
from mindtune.settings.yaml_files import Written, plain

__all__ = [
    "LAYOUT",
    "SHARED",
    "STAGES",
    "ConfigError",
    "Configuration",
    "Settings",
    "load",
    "lookup",
    "of_experiments",
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
    """One or more mistakes in the configuration, a sentence each.

    written: its files as they are written, for the lines.
    """

    def __init__(
        self,
        problems: Iterable[str],
        files: Iterable[str] = (),
        written: Iterable[Written] = (),
    ) -> None:
        self.problems = [printable(problem) for problem in problems]
        where = ", ".join(files)
        head = f"The configuration{f' ({where})' if where else ''} can't be used:"
        written = list(written)
        told = [f"{place_of(problem, written)}{problem}" for problem in self.problems]
        super().__init__("\n  - ".join([head, *told]))


def place_of(problem: str, written: Iterable[Written]) -> str:
    """Where the key stands with which a sentence begins: `FILE, line N: `, or nothing.

    Where only a section above the key is written, it is the section's line; of several files the
    last one counts, as it does for the value.
    """
    experiment = re.match(r"experiments\.(\S+): ", problem)
    rest = problem[experiment.end() :] if experiment else problem
    named = re.match(r"the name (?P<name>.+?) in (?P<path>\S+) ", rest)
    key = named["path"] if named else re.split(r"[ ,:;]", rest, maxsplit=1)[0]
    keys = [f"experiments.{experiment[1]}.{key}"] if experiment else []
    if named:
        keys.append(f"{key}.{named['name'][1:-1]}")
    for wanted in (*keys, key):
        while wanted:
            for file in reversed(list(written)):
                if wanted in file.lines:
                    return f"{file.path}, line {file.lines[wanted]}: "
            wanted = wanted[: max(wanted.rfind("."), wanted.rfind("["), 0)]
    return ""


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
    common: all settings without any experiment's overlay, as plain containers: what Snakemake gets.
    experiments: name -> its complete settings, in the order of the configuration.
    """

    def __init__(self, typed: Mapping[str, Settings]) -> None:
        """typed: the common settings, as `shared`, and those of each experiment."""
        self._typed = dict(typed)
        self.experiments = {scope: _plain(settings) for scope, settings in typed.items()}
        self.common = self.experiments.pop(SHARED)
        self.stages = dict(STAGES)
        self._scopes: dict[tuple[str, ...], dict[str, str]] = {}

    @classmethod
    def of_plain(cls, common: Mapping, experiments: Mapping[str, Mapping]) -> "Configuration":
        """One of the plain containers of another."""
        found = {SHARED: common, **experiments}
        return cls({scope: made_of(Settings, plain) for scope, plain in found.items()})

    def typed(self, scope: str = SHARED) -> Settings:
        """The settings of an experiment, or the common ones, as attributes: `train.lr`."""
        return self._typed[scope]

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
    files: Iterable[str] = (),
    environment: Mapping[str, str] = os.environ,
    written: Iterable[Written] = (),
) -> Configuration:
    """Check a raw configuration and return it with all defaults filled in.

    files: for the sentences. environment: the variables that its paths may name. written: the
    files as they are written, where they were read.

    Raises
    ------
    ConfigError: with a sentence for each mistake found.
    """
    files, written = list(files), list(written)
    if not isinstance(raw, Mapping):
        raise ConfigError(["the configuration must be a mapping of keys to values."], files)
    raw = plain(raw)
    context = {"environment": environment}
    common, problems = _validated(raw, context)
    problems += [
        f"{key} is given for all experiments, but counts within one only; write experiments.NAME.{key}."
        for key in OVERLAY_KEYS
        if raw.get(key) is not None
    ]
    own = ("experiments", "grid", *OVERLAY_KEYS)
    base = {key: value for key, value in raw.items() if key not in own}
    in_common = set(problems)
    overlays, found = _overlays(raw, base, context, in_common)
    problems += [*found, *name_problems(overlays)]
    experiments: dict[str, Settings] = {}
    for name, overlay in overlays.items():
        if not isinstance(overlay, dict | None):
            continue  # which is among the problems
        overlay = overlay or {}
        refused = list(overlay_problems(name, overlay))
        problems += refused
        merged, found = _validated(merge(base, _allowed(overlay)), context)
        problems += [
            f"experiments.{name}.{problem}" for problem in found if problem not in in_common
        ]
        if merged:
            experiments[name] = merged
    if not problems:
        configuration = Configuration({SHARED: common, **experiments})
        problems += of_experiments(configuration, condition_problems)
        problems += export_problems(list(experiments.values()))
        problems += [
            f"experiments.{name}: {problem}"
            for name, settings in experiments.items()
            for problem in experiment_problems(settings)
        ]
    if problems:
        raise ConfigError(dict.fromkeys(problems), files, written)
    return configuration


def of_experiments(
    configuration: Configuration, look: Callable[[Settings], Iterable[str]]
) -> Iterator[str]:
    """What is wrong with the common settings and with each experiment's, every sentence once.

    Many combinations of a grid may break one condition.
    """
    told = set()
    for scope in (SHARED, *configuration.experiments):
        for problem in look(configuration.typed(scope)):
            if problem not in told:
                told.add(problem)
                yield problem if scope == SHARED else f"experiments.{scope}: {problem}"


def _overlays(
    raw: dict, base: dict, context: Mapping, in_common: Collection[str]
) -> tuple[dict[str, Any], list[str]]:
    """The overlays of the named experiments and of the grid, and what is wrong with the grid."""
    grid = raw.get("grid")
    grid = grid if isinstance(grid, dict) else {}
    named = raw.get("experiments")
    if not isinstance(named, dict) or not named:
        named = {} if grid and "experiments" not in raw else {"baseline": {}}

    def check(overlay: Mapping) -> tuple[Settings | None, list[str]]:
        settings, found = _validated(merge(base, overlay), context)
        return settings, [problem for problem in found if problem not in in_common]

    swept, problems = expanded(grid, named, check)
    return {**named, **swept}, problems


def _validated(raw: dict, context: Mapping) -> tuple[Settings | None, list[str]]:
    try:
        return Settings.model_validate(raw, context=context), []
    except ValidationError as error:
        return None, list(sentences(error, Settings))


def _allowed(overlay: Mapping) -> dict:
    """What an overlay changes, without what it may not, of which there are sentences already."""
    allowed = (*OVERLAY_SECTIONS, *OVERLAY_KEYS)
    found = {key: value for key, value in overlay.items() if key in allowed}
    sources = overlay.get("sources")
    if isinstance(sources, Mapping):
        found["sources"] = {key: sources[key] for key in OVERLAY_SOURCES if key in sources}
    elif "sources" in overlay:
        found["sources"] = sources
    return found


def _plain(settings: Settings) -> dict[str, Any]:
    """The settings as plain containers, in the order of the models: Snakemake compares texts."""
    return settings.model_dump(exclude={"experiments", "grid"})


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
