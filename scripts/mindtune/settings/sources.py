"""From a source in the configuration to what is fetched, from where, and where it is put.

The table of sources (config/data_sources.yaml) says what is published; `use` chooses. No
file is looked at here but the table.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError

from mindtune.errors import UserError
from mindtune.settings.kinds import shown
from mindtune.settings.sections.sources import Source
from mindtune.settings.sentences import sentences
from mindtune.settings.table import Entry
from mindtune.settings.variables import LONGEST_NAME, has_control_characters
from mindtune.settings.yaml_files import plain, read_yaml

KINDS = {
    "images": "coco-train2017",
    "instructions": "llava-instruct-150k",
    "model": "qwen2-vl-2b-instruct",
}
FETCHED = ("official", "modelscope", "huggingface", "url")
HUBS = ("modelscope", "huggingface")
FILE = "{file}"


@dataclass(frozen=True)
class Download:
    """What is fetched for a source.

    key: its name among the results. directory: where the files are kept. files: name, bytes,
    sha256 and support of each. urls: with `{file}` for the name. repository: on a hub, instead.
    pictures: how many a zip must hold.
    """

    key: str
    directory: str
    files: list[dict]
    urls: list[str] = field(default_factory=list)
    repository: dict | None = None
    pictures: int | None = None

    def parameters(self) -> dict[str, Any]:
        return asdict(self)


def load_table(path: Path) -> dict[str, dict]:
    """The table of sources, checked.

    Raises
    ------
    UserError: with a sentence for each mistake.
    """
    table = read_yaml(path, "sources.table")
    if not isinstance(table, dict):
        raise UserError(
            f"The table of sources {path} can't be used:\n  - it is {shown(table)}, but must be a "
            "mapping of entries."
        )
    problems: list[str] = []
    found = {}
    for name, entry in table.items():
        try:
            found[name] = Entry.model_validate(
                plain(entry), context={"environment": os.environ}
            ).model_dump(exclude_unset=True, by_alias=True)
        except ValidationError as error:
            problems += sentences(error, Entry, name)
    if problems:
        raise UserError("\n  - ".join([f"The table of sources {path} can't be used:", *problems]))
    return found


def choice_problems(name: str, source: Source, table: Mapping[str, Mapping]) -> Iterator[str]:
    """What is wrong with the choice of a source, a sentence for each."""
    here, use = f"sources.{name}", source.use
    if use == "url":
        if name == "model":
            yield (
                f"{here}.use is `url`, but a model has several files; write `use: official` and "
                f"`url: https://…/{FILE}`."
            )
        elif not source.url:
            yield f"{here}.use is `url`, but {here}.url is missing."
        elif not _file_name(_list(source.url)[0]):
            yield f"{here}.url is {source.url}, which ends in no file name."
        elif not _usable(_file_name(_list(source.url)[0])):
            yield (
                f"{here}.url is {source.url}, but a file whose name has a brace or a line break "
                "can't be used here; fetch it by hand under another name and write `use: path`."
            )
        elif len(_file_name(_list(source.url)[0]).encode()) > LONGEST_NAME:
            yield (
                f"{here}.url ends in a file name of {len(_file_name(_list(source.url)[0]).encode())} "
                f"bytes, but may have at most {LONGEST_NAME}; fetch it by hand under another name and "
                "write `use: path`."
            )
    elif use in FETCHED:
        entry = source.name or KINDS[name]
        if entry not in table:
            yield f"{here}.name is {entry}, which the table of sources lacks; it has {', '.join(table)}."
        elif table[entry]["kind"] != name:
            yield f"{here}.name is {entry}, which the table has under {table[entry]['kind']}."
        elif use not in table[entry]["from"] and not (use == "official" and source.url):
            known = ", ".join(table[entry]["from"])
            yield f"{here}.use is {use}, but the table has {entry} from {known} only."
    for url in _list(source.url):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            yield f"{here}.url is {url}, but must begin with http:// or https://; for a file write `use: path`."
    if source.url and use not in ("url", "official"):
        yield f"{here}.url is given, but {here}.use is `{use}`; write `use: url` for it to count."
    if source.sha256 and use != "url":
        yield f"{here}.sha256 counts with `use: url` only; the table has the others' sums."


def download_of(
    name: str, source: Source, table: Mapping[str, Mapping], directory: str
) -> Download | None:
    """What is fetched for a source; None when it is there already (`demo`, `path`)."""
    use = source.use
    if use not in FETCHED:
        return None
    if use == "url":
        urls = _list(source.url)
        # Another address is another file, as far as anybody knows; a checksum knows better.
        known = source.sha256 or "\n".join(urls)
        key = hashlib.sha256(known.encode()).hexdigest()[:8]
        wanted = {"name": _file_name(urls[0]), "size": source.bytes, "sha256": source.sha256}
        return Download(key, str(Path(directory, key)), [wanted], urls)
    key = source.name or KINDS[name]
    entry = table[key]
    place = str(Path(directory, entry["place"]))
    files = [
        {"name": file["name"], "size": file["bytes"], "sha256": file["sha256"],
         "support": file["support"]}
        for file in entry["files"]
    ]  # fmt: skip
    pictures = entry.get("pictures")
    if use in HUBS:
        origin = entry["from"][use]
        kind = "model" if "model" in origin else "dataset"
        repository = {
            "hub": use, "kind": kind, "id": origin[kind], "revision": origin["revision"],
            "endpoint": source.endpoint,
        }  # fmt: skip
        return Download(key, place, files, repository=repository, pictures=pictures)
    urls = _list(source.url) or entry["from"]["official"]["urls"]
    return Download(key, place, files, urls, pictures=pictures)


def _list(url: str | list[str] | None) -> list[str]:
    return [] if url is None else [url] if isinstance(url, str) else list(url)


def _file_name(url: str) -> str:
    return PurePosixPath(unquote(urlsplit(url).path)).name


def _usable(name: str) -> bool:
    """Whether Snakemake can take a name for a file's: braces would be wildcards to it."""
    return not set(name) & set("{}") and not has_control_characters(name)
