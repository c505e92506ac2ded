"""A server on this machine that answers like Arctic Shift's API, and misbehaves on request."""

import gzip
import json
import random
import sys
import urllib.parse
from dataclasses import dataclass, field
from email.message import Message
from typing import Any

from tests.support.local_server import Handler, LocalServer

JSON = {"Content-Type": "application/json"}


@dataclass
class Fault:
    """What comes instead of posts."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None  # bytes of the body after which the connection ends
    silent: bool = False  # no answer at all


def refusal(status: int, error: str, **headers: str) -> Fault:
    return Fault(status, json.dumps({"data": None, "error": error}).encode(), JSON | headers)


class ArcticShift(LocalServer):
    """Answers /api/posts/search well unless its attributes say otherwise."""

    def __init__(self, posts: list[dict[str, Any]]) -> None:
        super().__init__(_Handler)
        self.posts = posts
        self.queries: list[dict[str, str]] = []
        self.headers_seen: list[Message] = []
        self.together = self.most_together = 0  # requests at a time
        self.faults: list[Fault | None] = []  # an answer each; None for a good one
        self.always: Fault | None = None  # once there are no more faults
        self.auto = 1000  # posts that limit=auto gives
        self.too_many = sys.maxsize  # a limit for which the database takes too long
        self.after_includes, self.before_includes = True, False
        self.heeds_after = self.heeds_subreddit = True
        self.descending = False
        self.shuffles = False  # the posts of a second, anew for each request
        self.headers: dict[str, str] = {}  # with every answer
        self.closes_after = sys.maxsize  # requests, after which nobody listens any more
        self.halt_at = sys.maxsize  # the number of the request, from 1, in whose answer it halts

    def found(self, query: dict[str, str]) -> list[dict[str, Any]]:
        after = int(query["after"]) + (0 if self.after_includes else 1) if self.heeds_after else 0
        before = int(query.get("before", 1 << 40)) + (1 if self.before_includes else 0)
        name = query["subreddit"].lower()
        posts = [
            post
            for post in self.posts
            if after <= int(float(post.get("created_utc", after))) < before
            and (not self.heeds_subreddit or post.get("subreddit", name).lower() == name)
        ]
        if self.shuffles:
            chance = random.Random(len(self.queries))
            posts.sort(key=lambda post: (post["created_utc"], chance.random()))
        if self.descending:
            posts.reverse()
        return posts[: self.auto if query["limit"] == "auto" else int(query["limit"])]


class _Handler(Handler):
    server: ArcticShift

    def do_GET(self) -> None:
        server, (_, _, path, query, _) = self.server, urllib.parse.urlsplit(self.path)
        server.together += 1
        server.most_together = max(server.together, server.most_together)
        asked = dict(urllib.parse.parse_qsl(query))
        server.queries.append(asked)
        server.headers_seen.append(self.headers)
        try:
            self._answer(path, asked)
        finally:
            server.together -= 1

    def _answer(self, path: str, query: dict[str, str]) -> None:
        server = self.server
        if fault := server.faults.pop(0) if server.faults else server.always:
            self._send(fault)
        elif path != "/api/posts/search":
            self._send(Fault(404, b"<html><title>404 Not Found</title>", {"Content-Type": "text/html"}))
        elif limit_error := _limit_error(query["limit"]):
            self._send(refusal(400, limit_error))
        elif _size(query["limit"]) >= server.too_many:
            self._send(refusal(422, "Timeout. Maybe slow down a bit"))
        else:
            body = json.dumps({"data": server.found(query)}).encode()
            self._send(Fault(200, body, JSON))

    def _send(self, fault: Fault) -> None:
        server, body = self.server, fault.body
        if fault.silent:
            raise ConnectionError
        headers = server.headers | fault.headers
        if len(server.queries) >= server.closes_after:
            server.socket.close()
            headers["Connection"] = "close"
        if "gzip" in self.headers.get("Accept-Encoding", "") and "Content-Encoding" not in headers:
            body, headers = gzip.compress(body), headers | {"Content-Encoding": "gzip"}
        self.send_head(fault.status, headers | {"Content-Length": str(len(body))})
        stop = len(body) if fault.cut is None else fault.cut
        if len(server.queries) >= server.halt_at:
            stop = len(body) // 2
        self.wfile.write(body[:stop])
        if len(server.queries) >= server.halt_at:
            server.halt()
        if fault.cut is not None:
            raise ConnectionError


def _size(limit: str) -> int:
    return 1000 if limit == "auto" else int(limit)


def _limit_error(limit: str) -> str:
    if limit == "auto" or (limit.isdecimal() and 1 <= int(limit) <= 100):
        return ""
    return "'limit' must be between 1 and 100"
