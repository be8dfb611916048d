"""Fetching the missing ranges of a file, several at a time, until all of it is there."""

import logging
import os
import random
import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from mindtune.download.parts import CHUNK, PartFile
from mindtune.errors import UserError
from mindtune.progress import Progress

log = logging.getLogger(__name__)
PIECE = 16 << 20  # a request each, so that the file is hashed while it arrives in order
INTERRUPTED = 130  # the exit status of what Ctrl-C ended
BUSY = (408, 429, 500, 502, 503, 504)
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
TROUBLES = (requests.RequestException, HTTPError, OSError)


@dataclass(frozen=True)
class Line:
    """How to treat the line and the server.

    connections: ranges fetched at a time. retries: failures in a row, without a byte between
    them, after which it is given up. timeout: seconds without a byte. backoff: seconds before
    the second try, doubled with each more. longest_wait: seconds, whatever the server asks for.
    """

    connections: int = 4
    retries: int = 8
    timeout: float = 60.0
    backoff: float = 1.0
    longest_wait: float = 300.0

    def session(self) -> requests.Session:
        session = requests.Session()
        retry = Retry(
            total=None, connect=0, read=0, other=0, redirect=10, status=self.retries,
            status_forcelist=BUSY, raise_on_status=False, backoff_factor=self.backoff,
            backoff_max=self.longest_wait, backoff_jitter=self.backoff,
            respect_retry_after_header=True, retry_after_max=self.longest_wait,
        )  # fmt: skip
        adapter = HTTPAdapter(pool_maxsize=self.connections + 1, max_retries=retry)
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        # Packed on the way, a range would be one of other bytes.
        session.headers["Accept-Encoding"] = "identity"
        return session

    def pause(self, failures: int) -> float:
        wait = self.backoff * 2 ** min(failures - 1, 16)
        return min(self.longest_wait, wait) * random.uniform(0.5, 1.0)


class Busy(requests.ConnectionError):
    """The server has said so often that it has no time now that this is its last word."""


class Unfit(Exception):
    """This address does not have the file; another may."""


@dataclass(frozen=True)
class Remote:
    """What a server says of a file before it is fetched."""

    size: int | None
    validator: str | None  # ETag or time of the last change


def probe(url: str, line: Line) -> Remote:
    """Ask for the size of a file of which nothing is known."""
    with (
        line.session() as session,
        _get(session, url, line, {"Range": "bytes=0-0"}) as response,
    ):
        match = CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        if response.status_code == 206 and match and match[3] != "*":
            size = int(match[3])
        elif response.status_code == 200 and "Content-Length" in response.headers:
            size = int(response.headers["Content-Length"])
        else:
            size = None
        return Remote(size, _validator(response))


def _validator(response: requests.Response) -> str | None:
    return response.headers.get("ETag") or response.headers.get("Last-Modified")


def _get(session: requests.Session, url: str, line: Line, headers: dict) -> requests.Response:
    response = session.get(url, headers=headers, stream=True, timeout=line.timeout)
    status = response.status_code
    if status in (200, 206):
        return response
    response.close()
    if status in BUSY:
        raise Busy(f"the server answers {status} {response.reason}")
    raise Unfit(f"the server answers {status} {response.reason}")


def fetch_missing(
    urls: Sequence[str], part: PartFile, line: Line, name: str, validator: str | None = None
) -> None:
    """Fetch what a part file lacks.

    validator: when given, the file's content must keep it; wanted where no checksum is known.

    Raises
    ------
    UserError: no address has the file, or the line fails too often. What has arrived stays.
    """
    transfer = _Transfer(urls, part, line, validator)
    pieces = [
        (begin, min(begin + PIECE, b))
        for a, b in part.gaps(0, part.size)
        for begin in range(a, b, PIECE)
    ]
    hasher = threading.Thread(target=part.hash_along, args=(transfer.stop,), daemon=True)
    with Progress(f"fetching {name}", "B", part.size, part.present) as shown:
        transfer.shown = shown
        hasher.start()
        try:
            with ThreadPoolExecutor(line.connections) as pool:
                futures = [pool.submit(transfer.piece, *piece) for piece in pieces]
                try:
                    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                    for future in done:
                        future.result()
                except KeyboardInterrupt:
                    # Part file and journal are right at any moment: nothing to wait for, least
                    # of all a connection that stalls.
                    os._exit(INTERRUPTED)
                finally:
                    transfer.stop.set()
                    pool.shutdown(wait=True, cancel_futures=True)
        finally:
            transfer.stop.set()
            hasher.join()
            transfer.session.close()


class _Transfer:
    def __init__(
        self, urls: Sequence[str], part: PartFile, line: Line, validator: str | None
    ) -> None:
        self.urls, self.part, self.line, self.validator = list(urls), part, line, validator
        self.session = line.session()
        self.stop = threading.Event()
        self.turn = threading.Lock()
        self.counting = threading.Lock()
        self.ranges = True
        self.shown: Progress | None = None
        self.unfit: dict[str, str] = {}

    def piece(self, begin: int, end: int) -> None:
        """Fetch a piece, whatever it takes."""
        failures = 0
        while (gaps := self.part.gaps(begin, end)) and not self.stop.is_set():
            url = self._address()
            before = self.part.present
            try:
                if self.ranges:
                    self._range(url, *gaps[0])
                else:  # one at a time: each may get the whole file
                    with self.turn:
                        if gaps := self.part.gaps(begin, end):
                            self._range(url, *gaps[0])
            except Unfit as error:
                self.unfit[url] = str(error)
            except TROUBLES as error:
                failures = 0 if self.part.present > before else failures + 1
                if failures > self.line.retries or (failures and isinstance(error, Busy)):
                    raise self._given_up(url, error) from error
                log.info("%s: %s; trying again", urlsplit(url).netloc, _short(error))
                self.stop.wait(self.line.pause(max(failures, 1)))

    def _address(self) -> str:
        for url in self.urls:
            if url not in self.unfit:
                return url
        reasons = "; ".join(f"{url}: {why}" for url, why in self.unfit.items())
        raise UserError(
            f"no address has {self.part.path.name[1:-5]} as it should be ({reasons}); choose "
            "another `use`, or fetch the file by hand and give its path."
        )

    def _range(self, url: str, begin: int, end: int) -> None:
        headers = {"Range": f"bytes={begin}-{end - 1}"}
        with _get(self.session, url, self.line, headers) as response:
            if self.validator and _validator(response) not in (None, self.validator):
                raise UserError(
                    f"{url} has changed while it was fetched; run the same command again, which "
                    "begins with the new file, and give its sha256 if you know it."
                )
            if response.status_code == 206:
                self._check_range(response, begin)
                self._take(response, begin, end)
            elif begin == 0 and end == self.part.size:
                self._check_length(response)
                self._take(response, begin, end)
            elif self.ranges:
                self.ranges = False
                raise requests.ConnectionError("the server ignores ranges")
            else:
                self._check_length(response)
                self._take(response, 0, self.part.size)

    def _check_range(self, response: requests.Response, begin: int) -> None:
        header = response.headers.get("Content-Range", "")
        match = CONTENT_RANGE.match(header)
        if not match or int(match[1]) != begin:
            raise requests.ConnectionError(f"the server sent another range ({header or 'none'})")
        if match[3] != "*" and int(match[3]) != self.part.size:
            raise Unfit(f"its file has {match[3]} bytes, not {self.part.size}")

    def _check_length(self, response: requests.Response) -> None:
        length = response.headers.get("Content-Length")
        if length is not None and int(length) != self.part.size:
            raise Unfit(f"its file has {length} bytes, not {self.part.size}")

    def _take(self, response: requests.Response, begin: int, end: int) -> None:
        """Write what arrives for the positions from begin to end, where it is missing."""
        position, waiting = begin, bytearray()
        try:
            # As it arrives: waiting for whole chunks would lose more when the line is cut.
            for data in response.raw.stream(CHUNK // 4, decode_content=False):
                waiting += data[: max(0, end - position - len(waiting))]
                if len(waiting) >= CHUNK or position + len(waiting) >= end:
                    position = self._put(position, waiting)
                if position >= end or self.stop.is_set():
                    return
        finally:
            self._put(position, waiting)
        if position < end:
            raise requests.ConnectionError(f"the server closed the line after {position - begin} B")

    def _put(self, position: int, waiting: bytearray) -> int:
        reached = position + len(waiting)
        for a, b in self.part.gaps(position, reached):
            self.part.write(a, bytes(waiting[a - position : b - position]))
            with self.counting:
                self.shown.advance(b - a)
        waiting.clear()
        return reached

    def _given_up(self, url: str, error: Exception) -> UserError:
        missing = self.part.size - self.part.present
        return UserError(
            f"{url} can't be fetched ({_short(error)}, {self.line.retries + 1} times in a row); "
            f"{self.part.present} bytes are there and {missing} missing: run the same command "
            "again to resume from there."
        )


def fetch_stream(url: str, handle, line: Line, name: str) -> None:
    """Fetch a file of unknown size, in one go: nothing can be resumed."""
    with line.session() as session, Progress(f"fetching {name}", "B") as shown:
        try:
            with _get(session, url, line, {}) as response:
                for data in response.raw.stream(CHUNK, decode_content=False):
                    handle.write(data)
                    shown.advance(len(data))
        except (*TROUBLES, Unfit) as error:
            raise UserError(
                f"{url} can't be fetched ({_short(error)}), and can't be resumed, as the server "
                "doesn't tell its size; run the same command again."
            ) from error


def _short(error: Exception) -> str:
    text = str(error)
    reason = re.search(r"(\w+ timed out|Connection refused|Connection reset|Name or service[^')]*"
                       r"|too many \d+ error responses|Connection broken|Tunnel[^')]*)", text)  # fmt: skip
    return reason[0] if reason else text.splitlines()[0][:160] or type(error).__name__


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
