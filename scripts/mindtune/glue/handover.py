"""The settings that a run began with, handed over to the jobs that it submits to a cluster.

A job of a cluster reads the Snakefile once more, hours later maybe. Were it to read the
configuration once more, too, it would work with another one than the run that submitted it, and that
records what it knows: settings that were never used. So a run keeps its settings in a file named
by its content, and jobs read that; its path goes with them in an environment variable.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mindtune.errors import UserError
from mindtune.files import write_json

VARIABLE = "MINDTUNE_SETTINGS"
PLACE = Path(".snakemake", "mindtune", "settings")


def hand_over(settings: Mapping[str, Any]) -> None:
    """Keep the settings, and name them to all processes that this one starts from now on."""
    text = json.dumps(settings, ensure_ascii=False)
    path = PLACE / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    PLACE.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write_json(path, settings)
    os.environ[VARIABLE] = str(path)


def handed_over() -> dict[str, Any]:
    """The settings of the run that submitted this job.

    Raises
    ------
    UserError: they are not there.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        raise UserError(
            f"this job was submitted without the environment variable {VARIABLE}, which names the "
            "settings of its run; let the submit command hand on the environment, and start Snakemake "
            "without --no-hooks."
        )
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}, the settings of the run that submitted this job, can't be read ({error}); leave "
            ".snakemake alone while jobs are in the queue, and give the same command again."
        ) from error


def check_rules(now: Mapping[str, str], then: Mapping[str, str]) -> None:
    """Compare the hashes of the files of rules, by name.

    Raises
    ------
    UserError: the rules are no longer those of the run that submitted this job.
    """
    changed = _changed(now, then)
    if changed:
        raise UserError(
            f"{', '.join(changed)} changed after this job was submitted; give the same command again, "
            "so that all jobs are of one version."
        )


def changed_code(now: Mapping[str, str], then: Mapping[str, str]) -> str | None:
    """A sentence when a job's code, by name a hash each, is not what it was when it was submitted."""
    changed = _changed(now, then)
    if not changed:
        return None
    shown = ", ".join(f"scripts/{name}" for name in changed[:3])
    more = f" and {len(changed) - 3} more" if changed[3:] else ""
    return (
        f"{shown}{more} changed after this job was submitted; give the same command again, and it runs "
        "with the new code."
    )


def _changed(now: Mapping[str, str], then: Mapping[str, str]) -> list[str]:
    """The names under which not the same is found."""
    return sorted(name for name in {*now, *then} if now.get(name) != then.get(name))
