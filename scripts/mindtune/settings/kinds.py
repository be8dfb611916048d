"""What a value of the configuration may be: its type, its range, and the words for it.

A kind is in a model's annotation, `Annotated[int, Whole(1, 100)]`; beside `| None` null may be
written too. It reads a value strictly and turns down what it can't take with the rest of a
sentence that begins with the key. YAML and `--config` give numbers as text at times (`1e-3` is
text to YAML), so text that is a number is read as one; nothing else is converted.
"""

import difflib
import json
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any, ClassVar, get_args

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from mindtune.settings.variables import Wrong, expanded

MISTAKE = "mindtune"
SHOWN = 80  # characters of a value in a sentence
MOST_TEXT = 20_000
MOST_SEED = 2**32 - 1  # what numpy takes
_WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]{0,300})")
_NUMBER = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_BOOLEANS = {"true": True, "false": False, "True": True, "False": False}
_NULLS = ("", "null", "None")


def shown(value: Any) -> str:
    """A value as a sentence shows it, cut where it is long."""
    if isinstance(value, Mapping):
        return "a mapping"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def mistake(words: str, at: str = "") -> PydanticCustomError:
    """An error whose sentence is the key, `at` (an index within its value) and the words."""
    return PydanticCustomError(MISTAKE, "{words}", {"words": words, "at": at})


@dataclass(frozen=True)
class Kind:
    """A kind of value. Below, `read` takes any value but null, and `json` is its JSON Schema."""

    words: ClassVar[str]
    # Whether text can't be meant, so that `null` as text is null.
    null_text: ClassVar[bool] = True

    def read(self, value: Any, words: str, environment: Mapping[str, str]) -> Any:
        raise NotImplementedError

    def json(self) -> dict[str, Any]:
        raise NotImplementedError

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        nullable = NoneType in get_args(source)
        words = f"{self.words} or null" if nullable else self.words

        def check(value: Any, info: core_schema.ValidationInfo) -> Any:
            if nullable and (value is None or (self.null_text and value in _NULLS)):
                return None
            return self.read(value, words, (info.context or {}).get("environment", {}))

        return core_schema.with_info_plain_validator_function(
            check, metadata={"nullable": nullable}
        )

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        found = self.json()
        if (core.get("metadata") or {}).get("nullable"):
            kinds = found["type"]
            found["type"] = [*([kinds] if isinstance(kinds, str) else kinds), "null"]
        return found


def _wrong_type(value: Any, words: str, at: str = "") -> PydanticCustomError:
    return mistake(f"is {shown(value)}, but must be {words}.", at)


@dataclass(frozen=True)
class Whole(Kind):
    """A whole number within two bounds, both possible; 2.0 is 2."""

    minimum: int
    maximum: int
    words: ClassVar[str] = "a whole number"

    def read(
        self, value: Any, words: str, environment: Mapping[str, str] | None = None, at: str = ""
    ) -> int:
        number = value
        if isinstance(number, str) and _WHOLE.fullmatch(number.strip()):
            number = int(number)
        elif isinstance(number, str) and _NUMBER.fullmatch(number.strip()):
            number = float(number)
        if isinstance(number, float) and math.isfinite(number) and number.is_integer():
            number = int(number)
        if isinstance(number, bool) or not isinstance(number, int):
            raise _wrong_type(value, words, at)
        if number < self.minimum:
            raise mistake(f"is {shown(value)}, but must be at least {self.minimum}.", at)
        if number > self.maximum:
            raise mistake(f"is {shown(value)}, but must be at most {self.maximum}.", at)
        return number

    def json(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}


@dataclass(frozen=True)
class Number(Kind):
    """A finite number; bounds that are None don't count. As written: 1 stays 1, and 1.0 is 1.0."""

    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    words: ClassVar[str] = "a number"

    def read(self, value: Any, words: str, environment: Mapping[str, str]) -> float:
        number = value
        if isinstance(number, str) and _NUMBER.fullmatch(number.strip()):
            number = float(number)
        if isinstance(number, bool) or not isinstance(number, int | float) or _infinite(number):
            raise _wrong_type(value, words)
        for limit, broken, says in (
            (self.at_least, operator.lt, "at least"),
            (self.above, operator.le, "greater than"),
            (self.at_most, operator.gt, "at most"),
            (self.below, operator.ge, "less than"),
        ):
            if limit is not None and broken(number, limit):
                raise mistake(f"is {shown(value)}, but must be {says} {limit}.")
        return number

    def json(self) -> dict[str, Any]:
        limits = {
            "minimum": self.at_least, "exclusiveMinimum": self.above,
            "maximum": self.at_most, "exclusiveMaximum": self.below,
        }  # fmt: skip
        return {"type": "number"} | {k: v for k, v in limits.items() if v is not None}


def _infinite(number: float) -> bool:
    return isinstance(number, float) and not math.isfinite(number)


@dataclass(frozen=True)
class Flag(Kind):
    words: ClassVar[str] = "true or false"

    def read(self, value: Any, words: str, environment: Mapping[str, str]) -> bool:
        found = _BOOLEANS.get(value) if isinstance(value, str) else value
        if not isinstance(found, bool):
            raise _wrong_type(value, words)
        return found

    def json(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Text(Kind):
    """Text of some characters. pattern: which all of it matches; form: words for that.

    not_blank: whether spaces alone are too little. lower: capitals are read as small letters.
    """

    minimum: int = 1
    maximum: int = MOST_TEXT
    pattern: str | None = None
    form: str = ""
    not_blank: bool = False
    lower: bool = False
    words: ClassVar[str] = "text"
    null_text: ClassVar[bool] = False

    def read(
        self, value: Any, words: str, environment: Mapping[str, str] | None = None, at: str = ""
    ) -> str:
        if not isinstance(value, str):
            raise _wrong_type(value, words, at)
        if len(value) < self.minimum:
            raise mistake(f"is empty; write at least {self.minimum} character.", at)
        if self.not_blank and not value.strip():
            raise mistake("is blank; write more than spaces.", at)
        if len(value) > self.maximum:
            raise mistake(f"has {len(value)} characters, but may have at most {self.maximum}.", at)
        if re.search("[\ud800-\udfff]", value):
            raise mistake(
                f"is {ascii(value)[:SHOWN]}, which has half a character (a lone surrogate); write "
                "the character itself.", at,
            )  # fmt: skip
        if "\0" in value:
            raise mistake("has a NUL character; remove it.", at)
        if self.pattern and not re.fullmatch(self.pattern, value):
            raise mistake(f"is {shown(value)}, but must be {self.form}.", at)
        return value.lower() if self.lower else value

    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"type": "string"}
        if self.minimum:
            found["minLength"] = self.minimum
        if self.pattern:
            found["pattern"] = f"^(?:{self.pattern})$"
        return found


@dataclass(frozen=True)
class Name(Kind):
    """A name that the user gives, as a key. wrong: the sentence, from behind the name on."""

    pattern: str
    wrong: str
    maximum: int
    words: ClassVar[str] = "text"

    def read(self, value: Any, words: str, environment: Mapping[str, str]) -> str:
        if not re.fullmatch(self.pattern, value):
            raise mistake(self.wrong)
        if len(value) > self.maximum:
            raise mistake(
                f"has {len(value)} characters, but may have at most {self.maximum}: files get names "
                "that are longer still."
            )
        return value

    def json(self) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^(?:{self.pattern})$", "maxLength": self.maximum}


@dataclass(frozen=True)
class Choice(Kind):
    """One of a few words, those of the annotation's Literal, or null where it says `| None`."""

    null_text: ClassVar[bool] = False
    words: ClassVar[str] = "text"

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        within = get_args(source)
        nullable = NoneType in within
        choices = (*get_args(within[0]), None) if nullable else within
        return core_schema.no_info_plain_validator_function(
            lambda value: _chosen(value, choices), metadata={"choices": choices}
        )

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"enum": list(core["metadata"]["choices"])}


@dataclass(frozen=True)
class Choices(Kind):
    """A list of any of a few words, each once at most; kept in the order of `choices`."""

    choices: tuple[str, ...]
    words: ClassVar[str] = "a list"

    def read(self, value: Any, words: str, environment: Mapping[str, str]) -> list[str]:
        if not isinstance(value, list):
            raise _wrong_type(value, f"{words}, such as [{self.choices[0]}]")
        for number, item in enumerate(value):
            _chosen(item, self.choices, f"[{number}]")
            if item in value[:number]:
                raise mistake(f"is {shown(item)} once more; write each once.", f"[{number}]")
        return [choice for choice in self.choices if choice in value]

    def json(self) -> dict[str, Any]:
        items = {"enum": list(self.choices)}
        return {"type": "array", "items": items, "uniqueItems": True}


def _chosen(value: Any, choices: tuple[str | None, ...], at: str = "") -> str | None:
    if not isinstance(value, str | None) or value not in choices:
        names = [name for name in choices if name is not None]
        guess = difflib.get_close_matches(str(value)[:SHOWN], names, 1)
        hint = f" Did you mean {guess[0]}?" if guess else ""
        words = ", ".join([*names, *(["null"] if None in choices else [])])
        raise mistake(f"is {shown(value)}, but must be one of {words}.{hint}", at)
    return value


@dataclass(frozen=True)
class Place(Kind):
    """A place that may name environment variables: `path` or `url` (mindtune.settings.variables).

    pattern, form: of the place with its variables replaced, as for text.
    """

    format: str
    pattern: str | None = None
    form: str = ""
    words: ClassVar[str] = "text"
    null_text: ClassVar[bool] = False

    def read(self, value: Any, words: str, environment: Mapping[str, str], at: str = "") -> str:
        text = Text().read(value, words, at=at)
        try:
            found = expanded(text, self.format, environment)
        except Wrong as error:
            raise mistake(str(error), at) from None
        if self.pattern and not re.fullmatch(self.pattern, found):
            raise mistake(f"is {shown(found)}, but must be {self.form}.", at)
        return found

    def json(self) -> dict[str, Any]:
        return {"type": "string", "format": self.format, "minLength": 1}


# An address on the web, for the annotation of a key.
WEB = Place("url", "https?://.+", "an address that begins with http:// or https://")


@dataclass(frozen=True)
class Addresses(Kind):
    """An address, or several in order."""

    maximum: int = 100
    words: ClassVar[str] = "text or a list"
    null_text: ClassVar[bool] = False

    def read(self, value: Any, words: str, environment: Mapping[str, str]) -> str | list[str]:
        if not isinstance(value, list):
            return Place("url").read(value, words, environment)
        return _each(
            value, self.maximum, "",
            lambda item, at: Place("url").read(item, "text", environment, at),
        )  # fmt: skip

    def json(self) -> dict[str, Any]:
        item = Place("url").json()
        return item | {"type": ["string", "array"], "minItems": 1, "items": item}


@dataclass(frozen=True)
class Layers(Kind):
    """Numbers of layers, one for each pipeline stage, or a list of one row of them."""

    maximum: int = 1000
    words: ClassVar[str] = "a list"
    null_text: ClassVar[bool] = True

    def read(self, value: Any, words: str, environment: Mapping[str, str]) -> list:
        if not isinstance(value, list):
            raise _wrong_type(value, words)

        def row(item: Any, at: str) -> int | list[int]:
            if isinstance(item, list):
                return _each(item, self.maximum, at, number)
            return number(item, at, "a list or a whole number")

        def number(item: Any, at: str, words: str = Whole.words) -> int:
            return Whole(0, self.maximum).read(item, words, at=at)

        return _each(value, self.maximum, "", row)

    def json(self) -> dict[str, Any]:
        number = Whole(0, self.maximum).json()
        row = number | {"type": ["array", "integer"], "minItems": 1, "items": number}
        return {"type": "array", "minItems": 1, "items": row}


def _each(value: list, maximum: int, at: str, read: Callable[[Any, str], Any]) -> list:
    if not value:
        raise mistake("is empty; write at least 1 entry.", at)
    if len(value) > maximum:
        raise mistake(f"has {len(value)} entries, but may have at most {maximum}.", at)
    return [read(item, f"{at}[{number}]") for number, item in enumerate(value)]
