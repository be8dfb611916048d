"""Fetching from a server that misbehaves: the file is right, or a sentence says why not."""

import hashlib
import json
import os
import random
import shutil
import signal

import pytest
from forking import loaded_forks
from mindtune.download import store, transfer
from mindtune.download.parts import PartFile
from mindtune.download.store import Wanted, fetch, is_there, receipt_path
from mindtune.download.transfer import Line
from mindtune.errors import UserError
from sources.server import GOOD, Server

CHUNK, PIECE, SIZE = 1 << 14, 1 << 17, 1_500_007
LINE = Line(connections=3, retries=6, timeout=0.4, backoff=0.005, longest_wait=0.05)
CONTENT = random.Random(0).randbytes(SIZE)
SUM = hashlib.sha256(CONTENT).hexdigest()
WANTED = Wanted("a.zip", SIZE, SUM)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "MINDTUNE_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(transfer, "CHUNK", CHUNK)
    monkeypatch.setattr(transfer, "PIECE", PIECE)


@pytest.fixture
def server():
    with Server() as running:
        running.files["a.zip"] = CONTENT
        yield running


def leftovers(directory):
    return sorted(path.name for path in directory.iterdir() if path.name != ".a.zip.lock")


def test_a_file_arrives_in_parallel_and_is_not_fetched_twice(server, tmp_path):
    target = tmp_path / "data" / "a.zip"
    fetch(target, WANTED, [server.url("a.zip")], LINE)
    assert target.read_bytes() == CONTENT
    assert server.sent == SIZE and len(server.requests) == -(-SIZE // PIECE)
    assert leftovers(target.parent) == [".a.zip.verified.json", "a.zip"]
    fetch(target, WANTED, [server.url("a.zip")], LINE)
    assert server.sent == SIZE
    receipt = json.loads(receipt_path(target).read_text())
    assert receipt["sha256"] == SUM and receipt["from"] == server.url("a.zip")


@pytest.mark.parametrize(
    "mood",
    ["drop", "stall", "429", "503", "redirect", "other range", "wrong length", "too much",
     "ignore range"],
)  # fmt: skip
@pytest.mark.parametrize("seed", [1, 2])
def test_the_file_is_right_however_the_server_behaves(server, tmp_path, mood, seed):
    server.moods, server.rng = [GOOD, mood], random.Random(seed)
    server.stall = 0.6
    fetch(tmp_path / "a.zip", WANTED, [server.url("a.zip")], LINE)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert any(request[3] == mood for request in server.requests)


def test_a_server_that_never_gives_a_range_gives_the_whole(server, tmp_path):
    server.moods = ["ignore range"]
    fetch(tmp_path / "a.zip", WANTED, [server.url("a.zip")], LINE)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_all_moods_at_once(server, tmp_path):
    server.moods = [GOOD, "drop", "429", "503", "redirect", "other range", "too much"]
    server.rng = random.Random(5)
    fetch(tmp_path / "a.zip", WANTED, [server.url("a.zip")], LINE)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def _killed(target, url, connections):
    transfer.CHUNK, transfer.PIECE = CHUNK, PIECE
    fetch(target, WANTED, [url], Line(connections, 6, 0.5, 0.005, 0.05))


def _extents(journal):
    lines = journal.read_text().splitlines()[1:] if journal.exists() else []
    fields = [line.split() for line in lines]
    return [(int(f[0]), int(f[0]) + int(f[1])) for f in fields if len(f) == 3]


@pytest.mark.parametrize("seed", range(50))
def test_killed_and_resumed(tmp_path, seed):
    """Killed at a random byte, twice: right at the end, and no good byte asked for twice."""
    rng = random.Random(seed)
    target, connections = tmp_path / "a.zip", rng.randrange(1, 5)
    journal = target.with_name(".a.zip.part.journal")
    with Server([GOOD] * 4 + ["drop", "redirect"], seed) as server:
        server.files["a.zip"] = CONTENT
        kills = 0
        for kill_at in sorted(rng.randrange(SIZE) for _ in range(2)):
            good, asked = _extents(journal), len(server.requests)
            process = loaded_forks().Process(
                target=_killed, args=(target, server.url("a.zip"), connections), daemon=True
            )
            process.start()

            def watch(sent, pid=process.pid, kill_at=kill_at):
                if sent >= kill_at:
                    os.kill(pid, signal.SIGKILL)

            server.watch = watch
            process.join()
            server.watch = lambda sent: None
            kills += process.exitcode == -signal.SIGKILL
            assert not target.exists() or kills == 0 or process.exitcode == 0
            assert_not_again(server.requests[asked:], good)
        good, asked = _extents(journal), len(server.requests)
        fetch(target, WANTED, [server.url("a.zip")], LINE)
        assert_not_again(server.requests[asked:], good)
        assert target.read_bytes() == CONTENT
        assert kills


def assert_not_again(requests, good):
    for _, begin, end, _ in requests:
        again = sum(max(0, min(end, b) - max(begin, a)) for a, b in good)
        assert not again, f"{again} good bytes of {begin}-{end} were asked for again"


def test_what_is_lost_at_a_kill_is_less_than_a_chunk_for_each_connection(server, tmp_path):
    """The journal is not behind: what was read before a stop is there, but for a chunk."""
    server.moods = ["drop"]
    line = Line(connections=1, retries=0, timeout=0.5, backoff=0.001, longest_wait=0.01)
    with pytest.raises(UserError, match="resume from there"):
        for _ in range(200):
            server.rng = random.Random(0)
            server.rng.randrange = lambda stop: 0 if server.sent else 100_000
            fetch(tmp_path / "a.zip", WANTED, [server.url("a.zip")], line)
    there = sum(b - a for a, b in _extents(tmp_path / ".a.zip.part.journal"))
    assert there == server.sent == 100_000


def test_a_chunk_that_the_disk_lost_is_fetched_again(server, tmp_path):
    part_path = tmp_path / ".a.zip.part"
    with PartFile(tmp_path / "a.zip", SIZE, {"sha256": SUM}) as part:
        for begin in range(0, 10 * CHUNK, CHUNK):
            part.write(begin, CONTENT[begin : begin + CHUNK])
    with open(part_path, "r+b") as handle:
        handle.seek(3 * CHUNK)
        handle.write(bytes(CHUNK))
    fetch(tmp_path / "a.zip", WANTED, [server.url("a.zip")], LINE)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert server.sent == SIZE - 9 * CHUNK


def test_a_wrong_checksum_names_both_and_keeps_the_file_aside(server, tmp_path):
    server.moods = ["wrong bytes"]
    target = tmp_path / "a.zip"
    wrong = hashlib.sha256(bytes(255 - byte for byte in CONTENT)).hexdigest()
    with pytest.raises(UserError, match=f"sha256 {wrong}, but should have {SUM}; it is kept as"):
        fetch(target, WANTED, [server.url("a.zip")], LINE)
    assert leftovers(tmp_path) == ["a.zip.wrong"]
    server.moods = [GOOD]
    fetch(target, WANTED, [server.url("a.zip")], LINE)
    assert target.read_bytes() == CONTENT


def test_a_weak_checksum_is_said_to_be_weak(server, tmp_path):
    server.moods = ["wrong bytes"]
    with pytest.raises(UserError, match="a sum that a single public record supports"):
        fetch(tmp_path / "a.zip", Wanted("a.zip", SIZE, SUM, "one"), [server.url("a.zip")], LINE)


def test_the_next_address_is_taken_when_one_has_another_file(server, tmp_path):
    server.files["old/a.zip"] = CONTENT[:-5]
    urls = [server.url("none/a.zip"), server.url("old/a.zip"), server.url("a.zip")]
    fetch(tmp_path / "a.zip", WANTED, urls, LINE)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_no_address_is_a_sentence_with_each_reason(server, tmp_path):
    server.moods = ["wrong size"]
    urls = [server.url("none/a.zip"), server.url("a.zip")]
    with pytest.raises(UserError, match=r"no address has a.zip .*404 Not Found.*has 1501007 bytes"):
        fetch(tmp_path / "a.zip", WANTED, urls, LINE)


@pytest.mark.parametrize("mood", ["503", "drop"])
def test_a_line_that_stays_bad_is_given_up_and_what_is_there_is_kept(server, tmp_path, mood):
    server.moods = [mood]
    server.rng.randrange = lambda stop: 0
    line = Line(2, retries=2, timeout=0.3, backoff=0.001, longest_wait=0.01)
    with pytest.raises(UserError, match=r"can't be fetched .* run the same command again"):
        fetch(tmp_path / "a.zip", WANTED, [server.url("a.zip")], line)
    assert (tmp_path / ".a.zip.part").exists()


def test_retry_after_is_waited_for(server, tmp_path, monkeypatch):
    slept = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", slept.append)
    moods = iter(["429"])
    server.mood = lambda: next(moods, GOOD)
    server.retry_after = "7"
    line = Line(1, longest_wait=5.0)
    fetch(tmp_path / "a.zip", WANTED, [server.url("a.zip")], line)
    assert slept == [5.0]  # seven, but no longer than the longest wait


def interrupted(server, tmp_path, url):
    """Fetch a part of a file of which nothing is known."""
    server.moods = ["drop"]
    places = iter([1, 50_000])  # of the answer to the first question, and of the first piece
    server.rng.randrange = lambda stop: next(places, 0)
    with pytest.raises(UserError, match="resume from there"):
        fetch(tmp_path / "a.zip", Wanted("a.zip"), [url], Line(1, 0, 0.5, 0.001, 0.01))


def test_an_unknown_file_is_fetched_resumed_and_said_to_be_unverified(server, tmp_path, caplog):
    server.etag = '"v1"'
    url = server.url("a.zip")
    interrupted(server, tmp_path, url)
    server.moods, server.sent = [GOOD], 0
    fetch(tmp_path / "a.zip", Wanted("a.zip"), [url], LINE)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT and server.sent < SIZE
    assert f"not verified, as no sha256 is known; it is {SUM}" in caplog.text


def test_an_unknown_file_that_changed_between_two_runs_is_begun_anew(server, tmp_path):
    server.etag, url = '"v1"', server.url("a.zip")
    interrupted(server, tmp_path, url)
    server.etag, server.moods = '"v2"', [GOOD]
    server.files["a.zip"] = CONTENT[::-1]
    fetch(tmp_path / "a.zip", Wanted("a.zip"), [url], LINE)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT[::-1]


def test_a_file_of_unknown_length_is_taken_in_one_go(server, tmp_path):
    server.moods = ["no length"]
    server.files["a.zip"] = CONTENT
    for_range = server.http.RequestHandlerClass.do_GET

    def without_ranges(self):
        del self.headers["Range"]
        for_range(self)

    server.http.RequestHandlerClass.do_GET = without_ranges
    fetch(tmp_path / "a.zip", Wanted("a.zip", None, SUM), [server.url("a.zip")], LINE)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_the_proxy_of_the_environment_is_used(server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", server.address)
    monkeypatch.setenv("no_proxy", "")
    fetch(tmp_path / "a.zip", WANTED, ["http://pictures.invalid/a.zip"], LINE)
    assert set(server.proxied) == {"http://pictures.invalid/a.zip"}


@pytest.mark.parametrize("how", ["configuration", "HF_HUB_OFFLINE", "MINDTUNE_OFFLINE"])
def test_offline_nothing_is_fetched_but_what_is_there_is_used(server, tmp_path, monkeypatch, how):
    offline = how == "configuration"
    if not offline:
        monkeypatch.setenv(how, "1")
    with pytest.raises(UserError, match=r"a.zip is not there.*copy a.zip \(1500007 bytes\) to"):
        fetch(tmp_path / "a.zip", WANTED, [server.url("a.zip")], LINE, offline)
    assert not server.requests
    (tmp_path / "a.zip").write_bytes(CONTENT)
    fetch(tmp_path / "a.zip", WANTED, [server.url("a.zip")], LINE, offline)
    assert not server.requests and receipt_path(tmp_path / "a.zip").exists()


def test_a_full_disk_is_seen_before_the_first_byte(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=SIZE - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(
        UserError, match=r"a.zip needs 1500007 bytes more .* 1500006 bytes are free"
    ):
        fetch(tmp_path / "a.zip", WANTED, [server.url("a.zip")], LINE)
    assert not server.requests


def test_another_file_of_the_name_is_not_overwritten(server, tmp_path):
    target = tmp_path / "a.zip"
    for content, words in ((b"x", "has 1 bytes and not"), (bytes(SIZE), "its sha256 is")):
        target.write_bytes(content)
        with pytest.raises(UserError, match=words):
            fetch(target, WANTED, [server.url("a.zip")], LINE)
        assert target.read_bytes() == content and not server.requests


def test_a_file_that_was_touched_is_verified_again(server, tmp_path):
    target = tmp_path / "a.zip"
    fetch(target, WANTED, [server.url("a.zip")], LINE)
    target.write_bytes(bytes(SIZE))
    with pytest.raises(UserError, match="its sha256 is"):
        is_there(target, WANTED)


def test_two_processes_do_not_fetch_the_same_file(server, tmp_path):
    def second():
        with pytest.raises(UserError, match="another process is fetching"):
            store.with_lock(tmp_path / "a.zip", lambda: None)

    store.with_lock(tmp_path / "a.zip", second)
