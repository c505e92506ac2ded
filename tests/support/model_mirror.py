"""A server of one model's files on this machine, which misbehaves on request."""

import base64
import hashlib
import re
import socket
import sys
from collections import Counter

from tests.support.local_server import Handler, LocalServer


class Mirror(LocalServer):
    """Serves files below /gpt-2/models/124M/, whole and well unless its attributes say otherwise."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(_Handler)
        self.files = files
        self.requests: list[tuple[str, str, str]] = []  # method, file, range
        self.sent: Counter[str] = Counter()  # bytes of bodies by file
        self.credentials: set[str] = set()
        self.first: dict[str, list[int]] = {}  # statuses to answer with before it serves the file; -1: not at all
        self.retry_after = ""
        self.cuts: dict[str, list[int]] = {}  # bytes of a body after which the connection ends, an answer each
        self.halt_at: tuple[str, int] = ("", 0)  # a file and the bytes of a body after which it halts
        self.headers: dict[str, dict[str, str]] = {}  # of a file, instead of the usual ones; '' for none
        self.usual_headers: dict[str, str] = {}
        self.knows_ranges = self.knows_if_range = self.knows_head = True
        self.redirects: dict[str, str] = {}
        self.behind = b""  # what stands behind the rest of a file when a part is asked for
        self.most = sys.maxsize  # bytes of such a part

    def usual(self, name: str) -> dict[str, str]:
        content = self.files[name]
        return {
            "Content-Length": str(len(content)),
            "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
            "Content-MD5": md5(content),
        }

    @property
    def url(self) -> str:
        return f"{super().url}/gpt-2"

    def asked(self, method: str, name: str) -> list[str]:
        """The ranges asked for of a file, '' for the whole."""
        return [span for how, what, span in self.requests if (how, what) == (method, name)]

    @property
    def got_nothing(self) -> bool:
        return not any(method == "GET" for method, _, _ in self.requests)


class _Handler(Handler):
    server: Mirror

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        mirror, place = self.server, self.path.partition("?")[0]
        name = place.rpartition("/")[2]
        mirror.requests.append((self.command, name, self.headers.get("Range", "")))
        mirror.credentials |= {self.headers.get("Authorization", ""), self.path.partition("?")[2]}
        if status := self._first(name):
            self._refuse(status)
        elif place in mirror.redirects:
            self._refuse(302, Location=mirror.redirects[place])
        elif self.command == "HEAD" and not mirror.knows_head:
            self._refuse(405)
        elif place != f"/gpt-2/models/124M/{name}" or name not in mirror.files:
            self._refuse(404)
        else:
            self._answer(name)

    def _first(self, name: str) -> int:
        statuses = self.server.first.get(name, [])
        if statuses and statuses[0] == -1:
            statuses.pop(0)
            self.connection.shutdown(socket.SHUT_RDWR)
            raise ConnectionError
        return statuses.pop(0) if statuses else 0

    def _refuse(self, status: int, **headers: str) -> None:
        if self.server.retry_after:
            headers["Retry-After"] = self.server.retry_after
        self.send_head(status, headers | {"Content-Length": "0"})

    def _answer(self, name: str) -> None:
        mirror = self.server
        headers = mirror.usual(name) | mirror.usual_headers | mirror.headers.get(name, {})
        body, status = mirror.files[name], 200
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
        if span and mirror.knows_ranges and self._is_same_version(headers["ETag"]):
            body, status, first = body[int(span[1]) : int(span[2]) + 1][: mirror.most], 206, int(span[1])
            headers |= {"Content-Range": f"bytes {first}-{first + len(body) - 1}/{len(mirror.files[name])}"}
            body += mirror.behind
            headers |= {"Content-Length": str(len(body)), "Content-MD5": md5(body)} | mirror.headers.get("206", {})
        self.send_head(status, {key: value for key, value in headers.items() if value})
        if self.command == "GET":
            self._send(name, body)

    def _is_same_version(self, etag: str) -> bool:
        condition = self.headers.get("If-Range", etag) if self.server.knows_if_range else etag
        return condition == etag and not ("If-Range" in self.headers and etag.startswith("W/"))

    def _send(self, name: str, body: bytes) -> None:
        mirror = self.server
        cuts = mirror.cuts.get(name, [])
        ends_early, stop = bool(cuts), cuts.pop(0) if cuts else len(body)
        if mirror.halt_at[0] == name:
            stop = mirror.halt_at[1]
        mirror.sent[name] += len(body[:stop])
        self.wfile.write(body[:stop])
        if mirror.halt_at[0] == name:
            mirror.halt()
        if ends_early:
            raise ConnectionError


def md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content).digest()).decode()
