"""A proxy before an S3 server that loses, cuts, delays, repeats or refuses requests on purpose."""

import http.client
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Fault = Callable[[str, str, bytes], str]
DELAY = 0.3
PASSES = ("lost", "cut", "slow", "twice")


class Proxy(ThreadingHTTPServer):
    """Passes requests on while its block runs.

    Attributes:
        fault: (method, path, body) -> "" passes; "lost" passes but drops the answer, "cut" ends in it; "slow" waits; "twice"
            passes the request two times and gives the second answer; else an error, its status and code.
        calls: method and path of each request.
    """

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(target)
        self.fault: Fault = lambda method, path, body: ""
        self.calls: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> "Proxy":
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def pass_on(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, list[tuple[str, str]], bytes]:
        """Return status, headers and content of the server's answer."""
        connection = http.client.HTTPConnection(self.target.hostname or "", self.target.port or 80)
        connection.request(method, path, body, headers)
        reply = connection.getresponse()
        content, named = reply.read(), [(k, v) for k, v in reply.getheaders() if k.lower() != "transfer-encoding"]
        connection.close()
        return reply.status, named, content


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *_: object) -> None:
        pass

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.calls.append(f"{self.command} {self.path}")
        fault = self.server.fault(self.command, self.path, body)
        if fault and fault not in PASSES:
            status, _, code = fault.partition(" ")
            content = f"<Error><Code>{code}</Code><Message>on purpose</Message></Error>".encode()
            return self._answer(int(status), [("Content-Type", "application/xml")], None if self.command == "HEAD" else content)
        if fault == "slow":
            time.sleep(DELAY)
        for _ in range(2 if fault == "twice" else 1):
            status, headers, content = self.server.pass_on(self.command, self.path, body, dict(self.headers))
        if fault == "lost":
            self.close_connection = True
            return None
        return self._answer(status, headers, None if self.command == "HEAD" else content, cut=fault == "cut")

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes | None, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers:
            if content is None or name.lower() != "content-length":
                self.send_header(name, value)
        if content is not None:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write((content or b"")[: 5 if cut else None])
        self.close_connection = self.close_connection or cut

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on
