"""A server before the BigQuery emulator that answers what BigQuery would and the emulator never does, on request."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from tests.support.local_server import Handler, LocalServer

_LEAST_BILLED = 10 << 20  # bytes, and rounded up to whole MiB
_DROPPED = {"host", "content-length", "accept-encoding", "connection"}


@dataclass(frozen=True)
class Fault:
    """An answer of BigQuery's own form; one without a reason is a plain page, as a broken gateway gives."""

    status: int
    reason: str
    message: str

    def body(self) -> bytes:
        if not self.reason:
            return self.message.encode()
        what = {"reason": self.reason, "message": self.message, "domain": "global"}
        return json.dumps({"error": {"code": self.status, "message": self.message, "errors": [what]}}).encode()


class Proxy(LocalServer):
    """Passes everything on to the emulator, unless its attributes say otherwise."""

    def __init__(self, upstream: str) -> None:
        super().__init__(_Handler)
        self.upstream = upstream
        self.first: list[Fault | None] = []  # answers to the first jobs sent, dry runs included; None: passed on
        self.ever: Fault | None = None  # answer to all further jobs
        self.of_job: dict[str, Any] | None = None  # the errorResult of every job that is no dry run
        self.bytes = 0  # that every query claims to read; such jobs are refused above their limit
        self.changes: dict[str, Any] = {}  # to the statistics of every dry run's query
        self.loses_answers = 0  # of jobs sent, after they were passed on
        self.of_polls: Fault | None = None  # answer to every look at a job
        self.of_pages: Fault | None = None  # answer to every question for a result, but for its first page
        self.no_cancel: Fault | None = None  # answer to every attempt to cancel one
        self.requests: list[tuple[str, str]] = []
        self.jobs: list[dict[str, Any]] = []  # their configurations
        self.job_ids: list[str] = []
        self._failed: dict[str, dict[str, Any]] = {}

    def count(self, method: str, end: str) -> int:
        """How many requests there were to paths that end so."""
        return sum(how == method and path.endswith(end) for how, path in self.requests)

    def sent(self, job: dict[str, Any]) -> tuple[int, bytes] | None:
        """The answer to a job that is sent; None if it is the emulator's."""
        configuration = job["configuration"]
        self.jobs.append(configuration)
        self.job_ids.append(job["jobReference"]["jobId"])
        fault = self.first.pop(0) if self.first else self.ever
        if fault:
            return fault.status, fault.body()
        if not configuration.get("dryRun") and (error := self.of_job or self._over_limit(configuration)):
            reference = job["jobReference"] | {"location": "US"}
            failed = job | {"jobReference": reference, "status": {"state": "DONE", "errorResult": error}}
            self._failed[reference["jobId"]] = failed
            return 200, json.dumps(failed).encode()
        return None

    def about(self, path: str, query: str) -> tuple[int, bytes] | None:
        """The answer to a request about a job; None if it is the emulator's."""
        if fault := self.no_cancel if path.endswith("/cancel") else self.of_polls if "/jobs/" in path else None:
            return fault.status, fault.body()
        if self.of_pages and "/queries/" in path and "pageToken=" in query:
            return self.of_pages.status, self.of_pages.body()
        failed = self._failed.get(path.rpartition("/")[2])
        return (200, json.dumps(failed).encode()) if failed else None

    def _over_limit(self, configuration: dict[str, Any]) -> dict[str, str] | None:
        limit = int(configuration["query"].get("maximumBytesBilled", 1 << 60))
        needed = max(_LEAST_BILLED, -(-self.bytes // (1 << 20)) * (1 << 20))
        if not self.bytes or needed <= limit:
            return None
        message = f"Query exceeded limit for bytes billed: {limit}. {needed} or higher required."
        return {"reason": "bytesBilledLimitExceeded", "message": message}

    def told(self, answer: bytes) -> bytes:
        """The emulator's answer with the bytes that the proxy claims."""
        if (not self.bytes and not self.changes) or b'"statistics"' not in answer:
            return answer
        job = json.loads(answer)
        query = job["statistics"].get("query", {})
        for statistics in (job["statistics"], query):
            if "totalBytesProcessed" in statistics:
                statistics["totalBytesProcessed"] = str(self.bytes)
        if "totalBytesBilled" in query:
            query["totalBytesBilled"] = str(max(_LEAST_BILLED, self.bytes))
        if job["configuration"].get("dryRun"):
            query |= self.changes
        return json.dumps(job).encode()


class _Handler(Handler):
    server: Proxy

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        proxy = self.server
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        proxy.requests.append((self.command, path))
        is_job = self.command == "POST" and path.endswith("/jobs")
        answer = proxy.sent(json.loads(body)) if is_job else proxy.about(path, query)
        status, content = answer or self._passed_on(body)
        if is_job and proxy.loses_answers and not json.loads(body)["configuration"].get("dryRun"):
            proxy.loses_answers -= 1
            self.close_connection = True
            return
        self.send_json(status, content)

    def _passed_on(self, body: bytes) -> tuple[int, bytes]:
        headers = {key: value for key, value in self.headers.items() if key.lower() not in _DROPPED}
        request = urllib.request.Request(self.server.upstream + self.path, body or None, headers, method=self.command)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, self.server.told(response.read())
        except urllib.error.HTTPError as error:
            return error.code, error.read()
