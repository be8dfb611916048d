"""Having all files of a source: what the rules ask for."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindtune.download.hubs import Repository, fetch_from_hub
from mindtune.download.store import Wanted, fetch
from mindtune.download.transfer import Line

if TYPE_CHECKING:
    from mindtune.settings.sections.sources import Download


def fetch_all(what: Mapping[str, Any], settings: "Download") -> list[Path]:
    """Have each file of a download in its directory, verified; returns the paths.

    Parameters
    ----------
    what: of mindtune.settings.sources.Download. settings: the section sources.download.

    Raises
    ------
    UserError: a file can't be had.
    """
    line = Line(
        connections=settings.connections,
        retries=settings.retries,
        timeout=settings.timeout,
    )
    offline = settings.offline
    paths = []
    for file in what["files"]:
        wanted = Wanted(**file)
        target = Path(what["directory"], wanted.name)
        if what["repository"]:
            fetch_from_hub(target, wanted, Repository(**what["repository"]), offline)
        else:
            urls = [url.replace("{file}", wanted.name) for url in what["urls"]]
            fetch(target, wanted, urls, line, offline)
        paths.append(target)
    return paths
