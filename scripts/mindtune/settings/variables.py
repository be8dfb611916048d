"""Places in the configuration: what may be in them, and environment variables.

In a path or an address `$NAME` and `${NAME}` stand for the variable's value, `$$` for a dollar
sign, and `~` at the beginning of a path for the home directory. Any other text, such as a
question to the model, is taken as it is.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

LONGEST_NAME = 200  # bytes: of 255, with what we put before and behind
LONGEST_PATH = 1024  # bytes: of 4096, as files with long names lie below
_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|(?P<bare>[A-Za-z_]\w*)|\{(?P<braced>[A-Za-z_]\w*)\})")
# Parameters of an address that let somebody in.
_SECRET = re.compile(
    r"(^|[-_.])(token|key|apikey|secret|password|passwd|pwd|auth|authorization|credential|"
    r"credentials|sig|signature)$|^(access_?token|api_?key|authtoken|private_?token)$",
    re.IGNORECASE,
)


class Wrong(Exception):
    """What is wrong with a place: the sentence, from behind its key on."""


def expanded(text: str, kind: str, environment: Mapping[str, str]) -> str:
    """A place with its variables replaced. kind: `path` or `url`.

    Raises
    ------
    Wrong: it names a variable that is not set, or can't be a place.
    """

    def replaced(match: re.Match) -> str:
        if match["dollar"]:
            return "$"
        name = match["bare"] or match["braced"]
        if not environment.get(name):
            raise Wrong(
                f"is {_cut(text)}, but the environment variable {name} is not set; set it, or "
                "write the place itself."
            )
        return environment[name]

    found = _VARIABLE.sub(replaced, text)
    if has_control_characters(found):
        raise Wrong(f"is {_cut(found)!r}, which has a line break or the like; rename the place.")
    if kind == "url" or re.match(r"https?:", found, re.IGNORECASE):
        _check_address(found)
    if kind == "url":
        return found
    if set(found) & set("{}"):
        raise Wrong(
            f"is {_cut(found)}, but braces in a path are wildcards to Snakemake; rename the place, "
            "or link to it by another name."
        )
    # Of the text as it was written: a variable's value is taken as it is.
    if text.startswith("~"):
        try:
            found = str(Path(found).expanduser())
        except RuntimeError:
            raise Wrong(
                f"is {_cut(found)}, but there is no user {_cut(found[1:].split('/')[0])} with a "
                "home directory; write the place itself."
            ) from None
    _check_length(found)
    return found


def _check_length(path: str) -> None:
    size = len(path.encode())
    if size > LONGEST_PATH:
        raise Wrong(
            f"is {_cut(path)} and has {size} bytes, but may have at most {LONGEST_PATH}; link to the "
            "place by a shorter name."
        )
    for part in path.split("/"):
        if len(part.encode()) > 255:
            raise Wrong(
                f"has a part of {len(part.encode())} bytes, {_cut(part)}, but a file system takes "
                "at most 255; correct it."
            )


def _check_address(address: str) -> None:
    """Raises Wrong, which doesn't show the secret that it may be about."""
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError as error:
        # The reason names at most the port or the host, the address may hold more.
        raise Wrong(f"is no address ({_cut(str(error))}); correct it.") from None
    if "@" in parts.netloc:
        raise Wrong(
            "has a user's name or a password in it, which logs and records would show; put "
            "them into ~/.netrc, which is read."
        )
    secret = next(
        (name for name, _ in parse_qsl(parts.query, keep_blank_values=True)
         if _SECRET.search(name)), None,
    )  # fmt: skip
    if secret:
        raise Wrong(
            f"has `{_cut(secret)}` behind its question mark, which logs and records would show; "
            "fetch the file by hand and write `use: path`, or put a password into ~/.netrc."
        )
    if re.search(r"\s", address):
        raise Wrong(f"is {_cut(address)}, which has a space; write %20 for it.")
    if len(address) > 2000:
        raise Wrong(
            f"is {_cut(address)} and has {len(address)} characters, but may have at most 2000."
        )
    host = parts.hostname or ""
    if len(host) > 253 or any(len(label) > 63 for label in host.split(".")):
        raise Wrong(
            f"has the host {_cut(host)} of {len(host)} characters, more than a host's name may have; "
            "correct it."
        )
    if parts.scheme in ("http", "https") and not host:
        raise Wrong(f"is {_cut(address)}, which names no host; correct it.")


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}…"


def has_control_characters(name: str) -> bool:
    """Whether a name has characters that end lines in logs and lists: none of ours can hold it."""
    return any(character < " " or character == "\x7f" for character in name)
