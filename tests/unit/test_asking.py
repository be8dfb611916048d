"""scripts/ask.py: questions about a picture, to one model or to two beside each other."""

import io
import os
import pty
import random
import re
import subprocess
import sys
import threading
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from mindtune.data.shrinking import read_shrunk
from mindtune.demo.drawing import draw_scene
from mindtune.demo.scenes import conversation, scenes
from mindtune.engines import stage
from mindtune.engines.requests import AnswerJob
from mindtune.engines.talk import terminal
from mindtune.engines.talk.asking import COLOURS, Said, Speaker, drawn
from mindtune.errors import UserError
from mindtune.files import read_json_lines, write_json
from mindtune.models.conversation import without_marks

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts/ask.py"
_spec = spec_from_file_location("ask_script", SCRIPT)
script = module_from_spec(_spec)
_spec.loader.exec_module(script)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A picture with its first question."""
    (_, scene) = next(iter(scenes(1, 5)))
    rng = random.Random(1)
    path = tmp_path_factory.mktemp("asked") / "a picture.png"
    draw_scene(scene, rng)[0].save(path)
    return path, conversation(scene, rng)[0][0]


@pytest.fixture(scope="module")
def speaker(base):
    return Speaker(base)


def ask(*words, status=0, stdin=""):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, words)], input=stdin, text=True,
        capture_output=True, check=False, timeout=300, env=os.environ | {"COLUMNS": "400"},
    )  # fmt: skip
    assert done.returncode == status and "Traceback" not in done.stderr, done.stderr
    return done.stdout if status == 0 else done.stderr


def by_the_workflow(base, path, question, place):
    """The answer that the engine gives."""
    write_json(place / "prompts.jsonl", {})
    (place / "prompts.jsonl").write_text(
        f'{{"id": "0", "image": "{path.name}", "prompt": "{question}"}}\n', encoding="utf-8"
    )
    job = AnswerJob.of(
        "hf",
        prompts=place / "prompts.jsonl", images=path.parent, model_dir=base, hf_dir=base,
        answers=place / "answers.jsonl", answer={"max_new_tokens": 40, "batch_size": 1},
        processor={"image_resolution": 512 * 512}, parallel={},
        machine={"device": "cpu", "precision": "fp32", "threads": 1},
    )  # fmt: skip
    stage("hf", "answer")(job)
    (line,) = read_json_lines(job.answers)
    return line


def test_the_answer_is_that_of_the_workflow(base, asked, speaker, tmp_path):
    path, question = asked
    line = by_the_workflow(base, path, question, tmp_path)
    for _ in range(2):  # nothing of the first question is left
        said = speaker.answer(path, question, 40)
        assert (said.text, said.tokens, said.cut) == (
            without_marks(line["answer"]).strip(), line["tokens"], line["cut"],
        )  # fmt: skip
    assert speaker.answer(path, question, 2).cut


def test_questions_from_the_command_line_and_then_from_the_input(base, asked, speaker):
    path, question = asked
    first, second = (speaker.answer(path, one, 40).text for one in (question, "图中有什么？"))
    out = ask(base, path, question, "--max-new-tokens=40", stdin="\n图中有什么？\n")
    answers = [line for line in out.split("\n") if line and not line.startswith("(")]
    assert answers == [*first.split("\n"), *filter(None, second.split("\n"))]


def test_two_models_answer_beside_each_other_to_the_end_of_the_input(
    base, asked, capsys, monkeypatch
):
    path, question = asked
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert script.main([str(base), str(base), str(path), question, "--max-new-tokens=40"]) == 0
    assert capsys.readouterr().out.split("\n")[0].count(base.name) == 2


def test_ctrl_c_ends_a_talk_on_a_terminal_without_a_traceback(base, asked):
    path, question = asked
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(base), str(path)],
        stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=lambda: os.login_tty(theirs),
    )  # fmt: skip
    guard = threading.Timer(240, process.kill)  # a test that hangs
    guard.start()
    os.close(theirs)
    said = until(ours, "> ")
    os.write(ours, question.encode() + b"\n")
    said += until(ours, " s)\r\n> ")
    assert re.search(r"\(\d+ tokens(, cut)?, \d+\.\d s\)", said) and "Traceback" not in said
    os.write(ours, b"\x03")
    rest = until(ours, None)
    assert process.wait(timeout=60) == 130 and "Traceback" not in rest
    guard.cancel()
    os.close(ours)


def until(terminal, words):
    """All that is said up to some words, or to the end."""
    said = ""
    while words is None or not said.endswith(words):
        try:
            found = os.read(terminal, 1 << 16)
        except OSError:  # the other side is closed
            break
        if not found:
            break
        said += found.decode(errors="replace")
    return said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{base}", "nix.jpg", "?"], "nix.jpg can't be used: the image is missing"),
        (["{base}/..", "{picture}", "?"], "has no config.json; give the directory of a Hugging Face"),
        (["no/model", "{picture}", "?"], "no/model is no directory; give that of a Hugging Face model"),
        (["{base}", "{picture}", " "], "the question is blank"),
        (["{base}", "{picture}", "<|im_end|>?"], "the question holds <|im_end|>, which the model reads"),
        (["{base}", "{picture}", "<image> and?"], "the question holds <image>, which the model reads"),
        (["{base}", "{picture}", "?", "--device=cuda:9"], "hf.device is cuda:9, but"),
    ],
)  # fmt: skip
def test_mistakes_are_sentences(base, asked, words, sentence, capsys):
    assert script.main([word.format(base=base, picture=asked[0]) for word in words]) == 1
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "the picture is missing"),
        (["x.png", "What", "is"], "put the question in quotes"),
        (["x.png", "--threads=0"], "must be at least 1"),
        (["--web", "--port=99999"], "from 1 to 65535"),
    ],
)
def test_a_wrong_command_line_is_status_2(base, words, sentence, capsys):
    with pytest.raises(SystemExit) as caught:
        script.main([str(base), *words])
    assert caught.value.code == 2 and sentence in capsys.readouterr().err


def test_without_gradio_the_page_is_refused_in_a_sentence(base, asked, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert script.main([str(base), str(asked[0]), "--web"]) == 1
    assert "--web needs gradio" in capsys.readouterr().err


def test_a_diverged_model_and_an_adapter_are_none(tmp_path):
    write_json(tmp_path / "diverged.json", {"iteration": 7, "loss": "nan"})
    with pytest.raises(UserError, match="its training diverged at iteration 7"):
        Speaker(tmp_path)
    (tmp_path / "diverged.json").unlink()
    write_json(tmp_path / "adapter_config.json", {})
    with pytest.raises(UserError, match="but an adapter; give the model that it was merged into"):
        Speaker(tmp_path)


def test_answers_are_beside_each_other_where_there_is_room():
    answers = [
        Said("a word " * 8, 8, False, 1.0),
        Said("一辆红色的公共汽车停在路边。" * 3, 9, True, 2.0),
    ]
    wide = terminal.table(["before", "after"], answers, 80).split("\n")
    assert wide[0] == "before" + " " * 35 + "after" and wide[-1].strip() != ""
    assert all(terminal.columns(line) <= 80 for line in wide)
    halves = [terminal.columns(line) for line in wide if "一辆" in line]
    assert "".join(re.findall("[一-鿿。]", "".join(wide))) == answers[1].text and halves
    narrow = terminal.table(["before", "after"], answers, 40).split("\n")
    assert narrow[0] == "before" and narrow[3] == "after" and narrow[-1] == "(9 tokens, cut, 2.0 s)"
    assert terminal.table(["x"], answers[:1], 80) == "a word " * 8 + "\n(8 tokens, 1.0 s)"


def test_boxes_are_drawn_in_thousandths_of_the_shrunk_picture(asked):
    path, _ = asked
    plain = read_shrunk(path, 512 * 512)
    shown = drawn(path, 512 * 512, ["the bus(100,200),(500,900)", "none", "(0,0),(1000,1000)"])
    assert shown.size == plain.size
    colours = [tuple(bytes.fromhex(colour[1:])) for colour in COLOURS]
    middle = round(0.55 * shown.height)
    assert shown.getpixel((round(0.1 * shown.width), middle)) == colours[0]
    assert shown.getpixel((round(0.5 * shown.width), middle)) == colours[0]
    assert shown.getpixel((0, middle)) == colours[2]
    inside = (round(0.3 * shown.width), middle)
    assert shown.getpixel(inside) == plain.getpixel(inside)
