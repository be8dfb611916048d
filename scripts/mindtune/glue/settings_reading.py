"""What the Snakefile asks before it knows any job: is the configuration sound?"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mindtune.engines import ENGINES, Engine
from mindtune.errors import UserError
from mindtune.files import read_json
from mindtune.models import FAMILIES, family
from mindtune.models.mindspeed import unknown_problems
from mindtune.settings import (
    SHARED,
    ConfigError,
    Configuration,
    Settings,
    load,
    merge,
    of_experiments,
    source_problems,
)
from mindtune.settings.checks import answering_engine
from mindtune.settings.sections.sources import Source
from mindtune.settings.sources import (
    KINDS,
    Download,
    choice_problems,
    download_of,
    load_table,
)
from mindtune.settings.variables import has_control_characters
from mindtune.settings.yaml_files import as_written, read_written
from mindtune.trackers import missing

FETCHED = "results/sources"
DEMO = Path(__file__).parents[1] / "demo" / "base"


def read_configuration(
    raw: Mapping, *, files: Iterable[str | Path] = (), own_python: bool = True
) -> tuple[Configuration, Engine]:
    """Check a configuration and the files it names, and look its engine up.

    raw: what Snakemake made of the files and the command line. own_python: whether jobs run in a Python like
    this one, so that optional packages which they want must be installed here.

    Raises
    ------
    ConfigError: with a sentence for each mistake. UserError: the place can't be worked in, or a
    file is none to read.
    """
    if has_control_characters(str(Path.cwd())):
        raise UserError(
            f"the working directory {str(Path.cwd())!r} has a line break or the like in its name; "
            "rename it."
        )
    names = [os.path.relpath(path) for path in files]
    written = [read_written(Path(name)) for name in names if Path(name).exists()]
    found = [problem for file in written for problem in file.problems]
    if found:
        raise ConfigError(found, names)
    configuration, engine = with_engine(load(as_written(raw, written), names, written=written))
    problems = list(of_experiments(configuration, source_problems))
    if own_python:
        problems += [*tracker_problems(configuration), *package_problems(configuration)]
    if problems:
        raise ConfigError(problems, names, written)
    return configuration, engine


def tracker_problems(configuration: Configuration) -> Iterator[str]:
    """A sentence for each tracker that is wanted and not installed."""
    wanted = {
        name: None
        for scope in (SHARED, *configuration.experiments)
        for name in configuration.typed(scope).train.report_to
    }
    for name in missing(list(wanted)):
        yield (
            f"train.report_to names {name}, but the package {name} is not installed; "
            "`pip install -r envs/trackers.txt`, or take it out."
        )


def package_problems(configuration: Configuration) -> Iterator[str]:
    """A sentence for each optional package that a training by the hf engine wants and that is not installed."""
    every = map(configuration.typed, configuration.experiments)
    trainings = [settings.train for settings in every if settings.tuned_model is None]
    common = configuration.typed()
    if common.engine != "hf" or not trainings:
        return
    hf, lora = common.hf, any(train.lora for train in trainings)
    wanted = (
        (lora, "train.lora is given", "peft", "lora", "take it out"),
        (hf.kernels == "liger", "hf.kernels is liger", "liger_kernel", "kernels", "write torch"),
        (hf.optimizer == "adamw_8bit", "hf.optimizer is adamw_8bit", "bitsandbytes", "optimizers",
         "write adamw"),
        (hf.frozen_weights == "nf4", "hf.frozen_weights is nf4", "bitsandbytes", "optimizers",
         "write whole"),
    )  # fmt: skip
    for is_wanted, said, module, file, otherwise in wanted:
        if is_wanted and find_spec(module) is None:
            yield (
                f"{said}, but the package {module.replace('_', '-')} is not installed; "
                f"`pip install -r envs/{file}.txt`, or {otherwise}."
            )


def with_engine(configuration: Configuration) -> tuple[Configuration, Engine]:
    """A configuration and its engine, the one that trains; what answers depend on follows from who answers."""
    engine = ENGINES[configuration.typed().engine]
    if answerer(configuration).answers_from == "mm":
        configuration.answer_from_checkpoints()
    return configuration, engine


def answerer(configuration: Configuration) -> Engine:
    """The engine that answers: by default the one that trains."""
    return ENGINES[answering_engine(configuration.typed())]


def guard_default(path: Path) -> None:
    """Look at the default configuration before Snakemake does, which would run its templates.

    Raises
    ------
    UserError: it is not there, or none to read.
    """
    if not path.exists():
        raise UserError(
            f"the configuration {path} is not there; write it, or give another by --configfile."
        )
    problems = read_written(path).problems
    if problems:
        raise ConfigError(problems, [str(path)])


def check_files(paths: Sequence[Path], table: Path) -> Configuration:
    """Check configuration files by themselves, one over the other, without Snakemake.

    table: of published sources, where the configuration names none.

    Raises
    ------
    ConfigError, UserError: see `read_configuration`.
    """
    raw: dict = {}
    problems = []
    for path in paths:
        try:
            written = read_written(path)
        except UserError as error:
            if len(paths) == 1:
                raise
            problems.append(str(error))
            continue
        problems += written.problems
        raw = merge(raw, written.value)
    if problems:
        raise ConfigError(problems, map(str, paths))
    configuration, _ = read_configuration(raw, files=paths)
    Sources(configuration, table)
    return configuration


def family_problems(
    download: Download | None, entries: Mapping[str, Mapping], settings: Settings
) -> Iterator[str]:
    """Why the model that is fetched for an experiment's settings can't be used as they want."""
    model_type = entries.get(download.key, {}).get("family") if download else None
    if model_type is not None:
        yield from unknown_problems(model_type, settings)


def _family(model: str | None) -> str | None:
    """The family of a model's directory (None: the demo's); None where it can't be told."""
    try:
        return family(read_json(Path(model or DEMO) / "config.json"))
    except (UserError, OSError, AttributeError):
        return None  # where it matters, there is a sentence about it


@dataclass(frozen=True)
class Unpacking:
    """A zip of pictures that is unpacked: where it is, where to, and how many it must hold."""

    source: str
    target: str
    pictures: int | None


class Sources:
    """Where each source is for a job, and what is fetched and unpacked to have it there.

    Attributes
    ----------
    files, models: key of a download -> the download. pictures: key -> the unpacking. entries: the
    table.
    """

    def __init__(
        self,
        configuration: Configuration,
        table: Path,
        entries: Mapping[str, Mapping] | None = None,
    ) -> None:
        """entries: what the table had when it was read, where it is not to be read again.

        Raises
        ------
        ConfigError: a source is not in the table, or not available that way.
        """
        self.configuration = configuration
        common = configuration.typed().sources
        if entries is None:
            entries = load_table(Path(common.table or table))
        self.entries = entries
        self.directory = common.download.directory
        self.files: dict[str, Download] = {}
        self.models: dict[str, Download] = {}
        self.pictures: dict[str, Unpacking] = {}
        self.paths: dict[tuple[str, str], str | None] = {}
        problems: list[str] = []
        for scope in (SHARED, *configuration.experiments):
            for name in KINDS:
                settings = configuration.typed(scope)
                chosen = getattr(settings.sources, name)
                found = list(choice_problems(name, chosen, entries))
                if not found:
                    download = download_of(name, chosen, entries, self.directory)
                    self.paths[scope, name] = self._place(name, chosen, download)
                    found = list(family_problems(download, entries, settings))
                problems += [problem for problem in found if problem not in problems]
        if problems:
            raise ConfigError(problems)

    def _place(self, name: str, chosen: Source, download: Download | None) -> str | None:
        if download is None:
            path = chosen.path
        elif name == "model":
            self.models[download.key] = download
            return f"{FETCHED}/models/{download.key}"
        else:
            self.files[download.key] = download
            path = f"{FETCHED}/files/{download.key}/{download.files[0]['name']}"
        unpack = download is not None if chosen.unpack is None else chosen.unpack
        if name != "images" or path is None or not unpack or Path(path).suffix != ".zip":
            return path
        stem = Path(path).stem
        key = download.key if download else hashlib.sha256(path.encode()).hexdigest()[:8]
        target = str(Path(download.directory if download else self.directory, stem))
        self.pictures[key] = Unpacking(path, target, download.pictures if download else None)
        return f"{FETCHED}/pictures/{key}/{stem}"

    def path(self, name: str, scope: str) -> str | None:
        """Where a source is; None for the demo's."""
        return self.paths[scope, name]

    def families(self) -> list[str]:
        """The model families of all experiments: every one, where nobody knows yet."""
        found = set()
        for (_, name), path in self.paths.items():
            if name == "model":
                known = self._fetched_family(path) if self._is_made(path) else _family(path)
                found |= set(FAMILIES) if known is None else {known}
        return sorted(found)

    def _fetched_family(self, path: str) -> str | None:
        return self.entries.get(Path(path).name, {}).get("family")

    def is_fetched(self, name: str, scope: str) -> bool:
        """Whether a source is made by a rule, and not the user's own."""
        return self._is_made(self.path(name, scope))

    @staticmethod
    def _is_made(path: str | None) -> bool:
        return (path or "").startswith(f"{FETCHED}/")
