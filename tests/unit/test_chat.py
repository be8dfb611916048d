"""One form of conversation for training and asking, and the warning where a model has another."""

import json

import pytest
import torch
from mindtune.demo.base_model import CHAT_TEMPLATE, write_base_model
from mindtune.engines import chat
from mindtune.engines.hf.processing import Processor
from mindtune.errors import UserError
from mindtune.models.template import template_of


@pytest.fixture
def model(tmp_path):
    write_base_model(tmp_path / "model")
    return tmp_path / "model"


def give(model, template, file):
    """The model with this template, in this file only."""
    config = model / "tokenizer_config.json"
    kept = {k: v for k, v in json.loads(config.read_text()).items() if k != "chat_template"}
    (model / "chat_template.json").unlink(missing_ok=True)
    if file == "tokenizer_config.json":
        kept["chat_template"] = template
    elif file == "chat_template.json":
        (model / file).write_text(json.dumps({"chat_template": template}))
    elif file:
        (model / file).write_text(template)
    config.write_text(json.dumps(kept))


@pytest.mark.parametrize(
    "file", ["chat_template.json", "chat_template.jinja", "tokenizer_config.json", None]
)
@pytest.mark.parametrize("system", [None, "Answer in French."])
def test_a_question_is_asked_as_training_showed_it_whatever_template_there_is(model, file, system):
    give(model, "{{ messages[0].content }} {{ nothing.like.it }}", file)
    processor = Processor(model)
    grids = [torch.tensor([1, 4, 4]), torch.tensor([1, 2, 2])]
    question = "<image>\n<image>\nWhich is red?"
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "Both."}]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    ids, _ = processor.encode_conversation(messages, grids, 1024)
    asked = processor.encode_prompt(question, grids, system)
    assert ids[: len(asked)] == asked
    said = f"<|im_start|>system\n{system or 'You are a helpful assistant.'}<|im_end|>\n<|im_start|>user\n"
    assert chat.prompt_text(template_of(model), question, system).startswith(said)
    assert chat.prompt_text(template_of(model), question, system) == processor.tokenizer.decode(
        asked
    ).replace("<|image_pad|>" * 4, "<|image_pad|>")


@pytest.mark.parametrize(
    "file", ["chat_template.json", "chat_template.jinja", "tokenizer_config.json"]
)
def test_qwen2_vls_own_template_is_not_warned_of(model, file, caplog):
    give(model, CHAT_TEMPLATE, file)
    assert chat.own_template(model) == (model / file, CHAT_TEMPLATE)
    chat.warn_of_other_template(model)
    assert not caplog.records


def test_a_template_of_text_alone_that_says_the_same_is_not_warned_of(model):
    text = (
        "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant."
        "<|im_end|>\n{% endif %}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content"
        " + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
        "{% endif %}"
    )
    give(model, text, "chat_template.jinja")
    assert chat.template_difference(model) is None


NO_SYSTEM = CHAT_TEMPLATE.replace(
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n", ""
)
THINKING = CHAT_TEMPLATE.replace(
    "<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>\n{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        (NO_SYSTEM, r"system\nYou are"),
        (THINKING, r"assistant\n<think>\n' there"),
        ("{{ raise_exception('no pictures, please') }}", "can't be rendered: no pictures, please"),
        ("{% for %}", "can't be rendered"),
        ("{{ messages.__class__.__mro__ }}", "can't be rendered"),
    ],
    ids=["no system turn", "an opened think", "raises", "no template", "breaks out"],
)
def test_another_template_is_warned_of_with_the_difference(model, template, shown, caplog):
    give(model, template, "chat_template.jinja")
    chat.warn_of_other_template(model)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "chat_template.jinja is not the one that training and asking use" in record.message
    assert shown in record.message


def test_templates_by_name_and_broken_ones(model):
    both = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": CHAT_TEMPLATE}]
    give(model, both, "tokenizer_config.json")
    assert chat.template_difference(model) is None
    give(model, None, None)
    assert chat.own_template(model) == (None, None) and chat.template_difference(model) is None
    give(model, 7, "chat_template.json")
    with pytest.raises(UserError, match="chat_template is int, but must be text"):
        chat.own_template(model)
