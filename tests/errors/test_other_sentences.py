"""Sentences of downloads and models that no test of theirs leads to."""

import doctor
import pytest
import torch
from mindtune.download import store
from mindtune.download.parts import PartFile
from mindtune.download.store import Wanted, fetch
from mindtune.download.transfer import Line, Remote, fetch_missing
from mindtune.engines.hf.model import build_model, load_model
from mindtune.engines.mindspeed.framework import environment
from mindtune.engines.mindspeed.machine import Machine
from mindtune.errors import UserError
from mindtune.settings.checks import DEMO_CONFIG
from sources.server import Server

LINE = Line(connections=1, retries=0, timeout=0.4, backoff=0.001, longest_wait=0.01)
CONTENT = bytes(range(256)) * 40


@pytest.fixture
def server(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "MINDTUNE_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as running:
        running.files["a.zip"] = CONTENT
        yield running


def told(words, function, *arguments):
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert words in str(caught.value)


def test_files_of_which_little_is_known(server, tmp_path):
    url, target = server.url("a.zip"), tmp_path / "a.zip"
    told(
        "has 10240 bytes and not 5, as `bytes` says", fetch, target, Wanted("a.zip", 5), [url], LINE
    )
    told("no address answers", fetch, target, Wanted("b.zip"), [server.url("b.zip")], LINE)
    assert not target.exists()


def test_a_file_that_changes_between_two_ranges(server, tmp_path):
    server.etag = '"new"'
    with PartFile(tmp_path / "a.zip", len(CONTENT), {}) as part:
        told("has changed while it was fetched", fetch_missing, [server.url("a.zip")], part, LINE,
             "a.zip", '"old"')  # fmt: skip


def test_a_line_that_breaks_in_a_file_of_unknown_size(server, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_probe_any", lambda *_: Remote(None, None))
    server.files.clear()
    told("can't be resumed, as the server doesn't tell its size", fetch, tmp_path / "a.zip",
         Wanted("a.zip"), [server.url("a.zip")], LINE)  # fmt: skip


def test_models_that_cannot_be_loaded(tmp_path):
    told("can't be loaded", load_model, tmp_path, torch.float32)
    (tmp_path / "config.json").write_bytes(DEMO_CONFIG.read_bytes())
    told("are missing or unknown", build_model, tmp_path, {}, torch.float32)


def test_records_and_programs_that_are_not_what_they_should_be(tmp_path):
    (tmp_path / "machine.json").write_text("{}")
    told("is no record of the rule doctor", Machine.read, tmp_path / "machine.json", {})
    told("can't be run (No such file", environment.run, [str(tmp_path / "none")], "asking none")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "can't be read: No such file or directory."),
        ("{", "is not YAML: "),
        ("engine: hf", "has the engine `hf`, which has no framework to look at"),
    ],
)
def test_configurations_that_the_doctor_cannot_use(tmp_path, capsys, text, words):
    file = tmp_path / "my.yaml"
    if text is not None:
        file.write_text(text)
    assert doctor.command(["--configfile", str(file)]) == 2
    assert words in capsys.readouterr().err
