"""The one form of a conversation in which every engine trains and asks.

It is the template of the model's family (`mindtune.models.template`), which MindSpeed-MM's training uses
whatever template the model's directory has. Asking in that other form would measure the form, so it is
only warned of.
"""

import json
import logging
from pathlib import Path

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mindtune.data.conversation import IMAGE_MARK
from mindtune.errors import UserError
from mindtune.files import read_json, read_text
from mindtune.models.template import Template, template_of

log = logging.getLogger(__name__)

TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
SHOWN = 60

_QUESTIONS = ("\nWhat is this?", "And where?")
_ANSWER = "A bus."


def prompt_text(template: Template, question: str, system: str | None = None) -> str:
    """A question that is asked alone, with one token for each `<image>` mark."""
    shown = question.replace(IMAGE_MARK, template.picture_text())
    return template.question_text(shown, True, system)


def warn_of_other_template(hf_dir: Path) -> None:
    """Say in the log when the chat template of a model's directory renders another text."""
    difference = template_difference(hf_dir)
    if difference:
        log.warning(
            "the chat template in %s is not the one that training and asking use here (%s): who "
            "asks this model by its own template, asks in another form",
            *difference,
        )


def template_difference(hf_dir: Path) -> tuple[Path, str] | None:
    """The file of a directory's own chat template, and where its text parts from ours.

    None: there is no template, or it renders the same. The sample is two questions about a
    picture, without a system turn, as who uses the model elsewhere gives them.
    """
    file, template = own_template(hf_dir)
    if not template:
        return None
    form = template_of(hf_dir)
    first, second = _QUESTIONS
    ours = (
        form.question_text(form.picture_text() + first, first=True)
        + form.answer_text(_ANSWER)
        + form.question_text(second, first=False)
    )
    renderings = []
    for content in (_as_parts, _as_text):
        try:
            renderings.append(_render(template, content, form))
        except Exception as error:  # a template is a program, and may fail in any way
            why = _one_line(error)
    if not renderings:
        return file, f"it can't be rendered: {why}"
    if ours in renderings:
        return None
    theirs = next((text for text in renderings if form.picture_start in text), renderings[-1])
    place = next(
        (n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
        min(len(ours), len(theirs)),
    )
    start = max(0, place - 10)
    return file, (
        f"{ours[start : start + SHOWN]!r} here is {theirs[start : start + SHOWN]!r} there"
    )


def own_template(hf_dir: Path) -> tuple[Path | None, str | None]:
    """A directory's chat template, in the order in which transformers looks for it.

    Raises
    ------
    UserError: a file of it can't be read.
    """
    for name in TEMPLATE_FILES:
        file = hf_dir / name
        if not file.is_file():
            continue
        if file.suffix == ".jinja":
            return file, read_text(file)
        content = read_json(file)
        found = content.get("chat_template") if isinstance(content, dict) else None
        if isinstance(found, list):  # several, by name
            named = {entry.get("name"): entry.get("template") for entry in found}
            found = named.get("default")
        if found is not None and not isinstance(found, str):
            raise UserError(f"{file}: chat_template is {type(found).__name__}, but must be text.")
        if found:
            return file, found
    return None, None


def _as_parts(text: str, picture: str) -> list[dict]:
    return [{"type": "image"}] * bool(picture) + [{"type": "text", "text": text}]


def _as_text(text: str, picture: str) -> str:
    return picture + text


def _render(template: str, content, form: Template) -> str:
    """As transformers does: in a sandbox, with its few additions."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = lambda value, **given: json.dumps(
        value, ensure_ascii=False, **given
    )
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: ""
    first, second = _QUESTIONS
    messages = [
        {"role": "user", "content": content(first, form.picture_text())},
        {"role": "assistant", "content": content(_ANSWER, "")},
        {"role": "user", "content": content(second, "")},
    ]
    return environment.from_string(template).render(
        messages=messages,
        add_generation_prompt=True,
        tools=None,
        documents=None,
        bos_token="",
        eos_token=form.turn_end,
        pad_token=form.text_end,
    )


def _raise(message: str) -> None:
    raise TemplateError(message)


def _one_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
