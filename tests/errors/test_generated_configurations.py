"""480 bad configurations, made by a seeded generator: a sentence each, soon, and none taken.

What is made is wrong for certain: a value of another kind or beyond its bounds at a key of the
models, a key that isn't one, a name or a place that can't be, text that isn't YAML or holds itself,
a model or a table of sources that is damaged. A new key is tried without a line here.
"""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import yaml
from mindtune.errors import UserError
from mindtune.glue.settings_reading import check_files
from mindtune.settings import Settings
from mindtune.settings.checks import DEMO_CONFIG
from mindtune.settings.reference import keys

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "config/data_sources.yaml"
TEXT = (ROOT / "config/config.yaml").read_text(encoding="utf-8")
DEMO = yaml.safe_load(TEXT)
COUNT, SEED = 480, 12
SLOWEST = 10  # seconds

# YAML text that no whole number, number or truth value is.
NO_NUMBER = ("many", "[]", "[1]", "{}", "{ a: 1 }", ".nan", ".inf", "-.inf", "true", "1:30", "0o10",
             "'1 000'", "'１２'", "'010'", "2024-01-01", "2024-01-01 10:00:00", "1,5", "1e999", "'--1'",
             "1e400000000", "'0x10'", "9" * 5000, "!!binary aGk=", "!x 3", "*nothing", "@", "%", "'")  # fmt: skip
NO_TEXT = ("5", "1.5", "true", "[a]", "{ a: b }", "''", "1:30", "!!set { a }", '"\\ud800"', '"a\\0b"',
           f"'{'x' * 30_000}'")  # fmt: skip
NO_PLACE = (*NO_TEXT, "~nouser/x", '"a\\nb"', "'a{b}'", "$MINDTUNE_UNSET/x", "${MINDTUNE_UNSET}",
            f"'{'x/' * 1500}'", f"'{'x' * 300}'")  # fmt: skip
NO_ADDRESS = (*NO_TEXT, "'http://[::1/x'", "http://a:99999/x", "https://me:secret@a/x", "'a b'", "ftp://a/b",
              "https://a/b?token=secret", "https://a/b?Signature=secret", f"https://{'a' * 300}/x",
              f"https://a/{'x' * 3000}", "https:///x", "$MINDTUNE_UNSET")  # fmt: skip
NAMES = ("../a", "-x", '"a\\n"', "a b", "a/b", "实验", '""', "shared", "Shared", "sources", "x" * 255, "ab" * 60,
         "2024-01-01", "$(id)", "{a}", ".a", "compare.csv", "~", "'~'", "'*'", "!x a", '"a\\0"')  # fmt: skip
ODD_KEYS = ("'a[b'", "'a[0]'", "a.b", "''", "x y", "'['", "']'", '"a\\nb"', "😀", "é", '"\\ud800"', "'{a}'", "'%s'",
            "x" * 1000, "null", "1", "1.5", "true", "'experiments.a: b'", "'the name a in b '")  # fmt: skip
FILES = {
    "nothing": b"", "a comment": b"# engine: hf\n", "a list": b"- engine\n", "text": b"engine",
    "latin-1": "train: { lr: é }\n".encode("latin-1"), "utf-16": TEXT.encode("utf-16"),
    "zeros": bytes(4096), "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "itself": b"train: &a { lr: *a }\n", "itself in a list": b"prompts: { named: &a [ *a ] }\n",
    "laughs": b"a0: &a0 [x, x]\n" + b"".join(b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9))
                                             for n in range(1, 12)),
    "laughs as mappings": b"b0: &b0 { x: y }\n" + b"".join(
        b"b%d: &b%d {%s}\n" % (n, n, b", ".join(b"k%d: *b%d" % (k, n - 1) for k in range(9))) for n in range(1, 12)),
    "deep lists": b"a: " + b"[" * 50_000 + b"]" * 50_000, "deep and open": b"{a: " * 10_000,
    "deep by dashes": b"a: " + b"- " * 5000 + b"x\n", "long": b"# " + b"x" * 1_000_000 + TEXT.encode(),
    "tabs": b"train:\n\tlr: 1\n", "two documents": b"engine: hf\n---\nengine: hf\n", "a template": b"__use_yte__: true\n",
    "a template at the end": TEXT.encode() + b"\n__use_yte__: false\n", "code": b"engine: !!python/name:os.system\n",
    "merges nothing": b"train: { <<: 5 }\n", "a list for a key": b"? [engine]\n: hf\n", "JSON, cut": b'{"engine": "hf"',
    "no anchor": b"train: *train\n", "twice": TEXT.encode() + b"\ntrain: { seed: 1 }\n", "a directive": b"%YAML 9.9\n---\n[",
}  # fmt: skip
MODELS = {
    "none": None, "no JSON": "{", "a list": "[]", "nothing": "", "another": '{"model_type": "llama"}',
    "text": '"qwen2_vl"', "deep": "[" * 5000, "digits": '{"model_type": ' + "9" * 10_000 + "}",
    "no type": "{}", "null": "null",
}  # fmt: skip
INDEXES = (
    "[]",
    '{"weight_map": []}',
    '{"weight_map": {"a": 5}}',
    "{",
    "",
    '{"weight_map": {"a": "b.safetensors"}}',
)
TABLES = ("[]", "", "a", "a: {}", "a: []", "- a", "{", "a: { kind: video }", "coco-train2017: null",
          "a: { kind: images, licence: x, place: x, from: {}, files: [] }",
          "a: { kind: images, licence: x, place: x, from: {}, files: [{ name: ../x }] }", "!x a")  # fmt: skip


def text_of(dotted: str, value: str) -> bytes:
    """The demo's configuration with YAML text for a value at a key."""
    raw = json.loads(json.dumps(DEMO))
    *above, last = dotted.split(".")
    place = raw
    for key in above:
        place = place.setdefault(key, {})
    place[last] = "@HERE@"
    return yaml.safe_dump(raw, sort_keys=False).replace("'@HERE@'", value).encode()


def misspelt(name: str, chance: random.Random) -> str:
    at = chance.randrange(len(name))
    return chance.choice(
        [name[:at] + "x" + name[at:], name[:at] + name[at] + name[at:], name.upper() + "_"]
    )


def wrong_values(node: dict) -> list[str]:
    """YAML text of values that a key can't have. node: its JSON Schema."""
    kinds = node.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if "enum" in node:
        wrong = ["other", f"'{node['enum'][0]} '", node["enum"][0].upper(), *NO_TEXT]
        kinds = ["null"] if None in node["enum"] else []
    elif "integer" in kinds and "array" not in kinds:
        wrong = [*NO_NUMBER, "''" if "null" not in kinds else "x", "2.5", str(node["minimum"] - 1),
                 str(node["maximum"] + 1), str(10**30), "1e300", "-1e300", str(node["minimum"] - 0.5)]  # fmt: skip
    elif "number" in kinds:
        wrong = [*NO_NUMBER, "-1", "-1e-300", "1e300", str(10**30), "101000000"]
    elif "boolean" in kinds:
        wrong = ["y", "1", "0", "'yes'", "[true]", "{}", "TRUE!", "2024-01-01"]
    elif node.get("format") == "path":
        wrong = list(NO_PLACE)
    elif node.get("format") == "url":
        wrong = [value for value in NO_ADDRESS if "array" not in kinds or value != "[a]"]
    elif "string" in kinds:
        wrong = [value for value in NO_TEXT if value != "''" or node.get("minLength")]
    elif "array" in kinds:
        wrong = ["5", "text", "{ a: b }", "[null]", "[{}]", "[[]]", "true"]
    else:
        wrong = ["5", "text", "[a]", "{ a: [] }", "{ a: [[]] }", "true", "null"]
    return wrong if "null" in kinds else [*wrong, "null"] if "object" not in kinds else wrong


def values_of_keys() -> list[tuple[str, str, object]]:
    """Name, kind and content of a bad input for every key and all that can't be its value."""
    chance = random.Random(SEED)
    found: list[tuple[str, str, object]] = []
    for key in keys(Settings):
        if "[]" in key.name:
            continue
        if key.is_section:
            wrong = ["null", "5", "text", "[]", "[a]", "true", "1:30", "2024-01-01 01:01:01"]
        else:
            wrong = wrong_values(key.schema)
            name = misspelt(key.name, chance)
            found += [(f"{name}: 1", "value", (name, "1"))]
        found += [(f"{key.name}: {value[:30]}", "value", (key.name, value)) for value in wrong]
    return found


def others() -> list[tuple[str, str, object]]:
    """The same of all that is wrong in another way."""
    found: list[tuple[str, str, object]] = [
        (f"experiment {name[:30]}", "value", ("experiments", f"{{ {name}: {{}} }}"))
        for name in NAMES
    ]
    for name in ODD_KEYS:
        found += [(f"key {name}", "file", f"{name}: 1\n".encode())]
        found += [(f"key train.{name}", "file", f"train:\n  {name}: 1\n".encode())]
    found += [("capitals", "value", ("experiments", "{ a: {}, A: {} }"))]
    found += [(name, "file", content) for name, content in FILES.items()]
    found += [(f"model: {name}", "model", content) for name, content in MODELS.items()]
    found += [(f"index: {text}", "index", text) for text in INDEXES]
    found += [(f"table: {text}", "table", text) for text in TABLES]
    found += [(name, name, None) for name in ("a pipe", "a directory", "a device", "not there")]
    return found


def chosen() -> list[tuple[str, str, object]]:
    """All that are no values of keys, and of those as many as fill up."""
    first = others()
    return first + random.Random(SEED).sample(values_of_keys(), COUNT - len(first))


CASES = chosen()


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """A check that hangs fails, instead of holding everything up."""
    monkeypatch.delenv("MINDTUNE_UNSET", raising=False)

    def late(*_):
        raise TimeoutError(f"no answer within {SLOWEST} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SLOWEST)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def model_in(place: Path, config: str | None, index: str | None) -> bytes:
    """A configuration with a model of ours that is whole but for what is given."""
    model = place / "model"
    model.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        (model / name).write_text("{}")
    (model / "model.safetensors").write_bytes(b"x")
    if config is not None:
        (model / "config.json").write_text(config)
    if index is not None:
        (model / "model.safetensors.index.json").write_text(index)
    return text_of("sources.model", f"{{ use: path, path: {model} }}")


def written(place: Path, kind: str, content) -> Path:
    """The configuration file of a case."""
    path = place / "my.yaml"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a directory":
        path.mkdir()
    elif kind == "a device":
        return Path("/dev/zero")
    elif kind == "model":
        path.write_bytes(model_in(place, content, None))
    elif kind == "index":
        path.write_bytes(model_in(place, DEMO_CONFIG.read_text(encoding="utf-8"), content))
    elif kind == "table":
        (place / "table.yaml").write_text(content)
        path.write_bytes(text_of("sources.table", str(place / "table.yaml")))
    elif kind == "value":
        path.write_bytes(text_of(*content))
    elif kind == "file":
        path.write_bytes(content)
    return path


def test_there_are_as_many_as_is_said():
    assert len(CASES) == COUNT and len({json.dumps(case[0]) for case in CASES}) > 470
    assert {kind for _, kind, _ in CASES} >= {"file", "model", "index", "table", "a pipe"}


@pytest.mark.parametrize(("kind", "content"), [case[1:] for case in CASES],
                         ids=[f"{n}-{case[0]}"[:70] for n, case in enumerate(CASES)])  # fmt: skip
def test_it_is_told_in_sentences(kind, content, tmp_path):
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        check_files([written(tmp_path, kind, content)], TABLE)
    assert time.monotonic() - start < SLOWEST
    said = str(caught.value)
    said.encode()
    assert "Traceback" not in said and "secret" not in said
    head, *sentences = said.split("\n  - ")
    assert "\n" not in head and (sentences or head.endswith("."))
    for sentence in sentences:
        assert sentence.rstrip().endswith((".", "?")) and "\n" not in sentence, sentence
        assert len(sentence) < 1200, sentence
