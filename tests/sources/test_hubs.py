"""The hubs' own clients, against a stand-in of their addresses on the loopback interface."""

import hashlib
import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from mindtune.download import hubs
from mindtune.download.hubs import Repository, fetch_from_hub
from mindtune.download.store import Wanted, receipt_path
from mindtune.errors import UserError

CONTENT = b'[{"id": "1"}]' * 500
SUM = hashlib.sha256(CONTENT).hexdigest()
NAME = "llava_instruct_150k.json"
WANTED = Wanted(NAME, len(CONTENT), SUM)
COMMIT = "d5db3806e395c60496630a206c336932e85a2d00"


class StandIn(BaseHTTPRequestHandler):
    """What ModelScope's and Hugging Face's servers answer to a download of one file."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        parts = urlsplit(self.path)
        self.server.asked.append(self.path)
        self.server.headers.append(str(self.headers))
        asked = parse_qs(parts.query)
        modelscope = parts.path.endswith("/repo") and asked.get("FilePath") == [NAME]
        if not (modelscope or parts.path.endswith(f"/{NAME}")):
            return self.answer(404, json.dumps({"Code": 404, "Message": "no such thing"}).encode())
        return self.answer(200, self.server.content)

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def hub(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "MINDTUNE_OFFLINE", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    server.asked, server.headers, server.content = [], [], CONTENT
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def repository(hub, name, kind="dataset"):
    return Repository(name, kind, "org/data", COMMIT, f"http://127.0.0.1:{hub.server_port}")


@pytest.mark.parametrize("by_variable", [False, True])
@pytest.mark.parametrize("name", ["modelscope", "huggingface"])
def test_no_token_goes_over_a_line_that_anybody_may_read(
    hub, tmp_path, monkeypatch, name, by_variable
):
    need(name)
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MODELSCOPE_API_TOKEN"):
        monkeypatch.setenv(variable, "hidden-token")
    asked = repository(hub, name)
    if by_variable:
        # What HF_ENDPOINT sets when the client is imported.
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", asked.endpoint)
        template = f"{asked.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setenv("MODELSCOPE_DOMAIN", asked.endpoint.removeprefix("http://"))
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", asked.endpoint)
        if name == "huggingface":
            asked = replace(asked, endpoint=None)
    fetch_from_hub(tmp_path / NAME, WANTED, asked, offline=False)
    assert hub.headers and "hidden-token" not in "".join(hub.headers)


def need(name):
    if name == "modelscope":
        pytest.importorskip("modelscope", reason="pip install -r envs/modelscope.txt")


@pytest.mark.parametrize("kind", ["dataset", "model"])
@pytest.mark.parametrize("name", ["modelscope", "huggingface"])
def test_a_client_brings_the_pinned_revision(hub, tmp_path, name, kind):
    need(name)
    target = tmp_path / "data" / NAME
    fetch_from_hub(target, WANTED, repository(hub, name, kind), offline=False)
    assert target.read_bytes() == CONTENT
    assert any(COMMIT in path for path in hub.asked)
    assert json.loads(receipt_path(target).read_text())["from"] == (
        f"{name} {kind} org/data at {COMMIT}"
    )
    asked = len(hub.asked)
    fetch_from_hub(target, WANTED, repository(hub, name, kind), offline=False)
    assert len(hub.asked) == asked
    names = {path.name for path in target.parent.iterdir()} - {f".{NAME}.lock"}
    assert names == {NAME, f".{NAME}.verified.json"}


@pytest.mark.parametrize("name", ["modelscope", "huggingface"])
def test_what_a_client_brings_is_verified(hub, tmp_path, name):
    need(name)
    hub.content = CONTENT[::-1]
    wrong = hashlib.sha256(hub.content).hexdigest()
    with pytest.raises(UserError, match=f"sha256 {wrong}, but should have .* {SUM}; it is kept as"):
        fetch_from_hub(tmp_path / NAME, WANTED, repository(hub, name), offline=False)
    assert not (tmp_path / NAME).exists() and (tmp_path / f"{NAME}.wrong").exists()


@pytest.mark.parametrize("name", ["modelscope", "huggingface"])
def test_a_client_that_fails_is_a_sentence(hub, tmp_path, name):
    need(name)
    wanted = Wanted("other.json", 1, SUM)
    with pytest.raises(
        UserError, match=r"other\.json can't be fetched from .* choose another `use`"
    ):
        fetch_from_hub(tmp_path / "other.json", wanted, repository(hub, name), offline=False)


def test_offline_no_client_is_asked(hub, tmp_path):
    with pytest.raises(UserError, match="nothing may be fetched offline"):
        fetch_from_hub(tmp_path / NAME, WANTED, repository(hub, "huggingface"), offline=True)
    assert not hub.asked


def test_modelscope_is_wanted_only_where_it_is_used(hub, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "modelscope.hub.file_download", None)
    with pytest.raises(UserError, match=r"pip install -r envs/modelscope.txt"):
        hubs.fetch_from_hub(tmp_path / NAME, WANTED, repository(hub, "modelscope"), offline=False)
