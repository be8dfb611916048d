"""What the Snakefile asks before it knows any job: is the configuration sound?"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from mindtune.config import ConfigError, Configuration, load, load_schema, source_problems
from mindtune.engines import ENGINES, Engine


def read_configuration(
    raw: Mapping, *, schema: Path, files: Iterable[str | Path] = ()
) -> tuple[Configuration, Engine]:
    """Check a configuration and the files it names, and look its engine up.

    Raises
    ------
    ConfigError: with a sentence for each mistake.
    """
    names = [os.path.relpath(path) for path in files]
    configuration = load(raw, load_schema(schema), names)
    name = configuration.common["engine"]
    if name not in ENGINES:
        raise ConfigError(
            [
                f"engine is {name}, which this version does not have yet; it has "
                f"{', '.join(ENGINES)} (the files are the same, so data and checkpoints can be made)."
            ],
            names,
        )
    problems = list(source_problems(configuration.common))
    for experiment, settings in configuration.experiments.items():
        problems += [
            f"experiments.{experiment}: {problem}"
            for problem in source_problems(settings)
            if problem not in problems
        ]
    if problems:
        raise ConfigError(problems, names)
    return configuration, ENGINES[name]
