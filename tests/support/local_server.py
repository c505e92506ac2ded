"""What the servers on this machine that tests talk to have in common."""

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NoReturn, TypeVar


class LocalServer(ThreadingHTTPServer):
    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.halted, self._go_on = threading.Event(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def halt(self) -> NoReturn:
        """In the middle of an answer: nothing more comes, until the connection ends."""
        self.halted.set()
        self._go_on.wait(60)
        raise ConnectionError

    def go_on(self) -> None:
        """End the connections that halted."""
        self._go_on.set()

    def shutdown(self) -> None:
        self.go_on()
        super().shutdown()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hangs up is no error here."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


Server = TypeVar("Server", bound=LocalServer)


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """The server, which answers from a thread of its own."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    headers: Message
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def send_head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def send_json(self, status: int, content: bytes) -> None:
        self.send_head(status, {"Content-Type": "application/json", "Content-Length": str(len(content))})
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass
