"""A chat-completions server of free texts that takes only some sampling fields, and fills those that a request leaves out."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DEFAULTS = {"temperature": 0.6, "top_p": 0.8, "top_k": 20, "min_p": 0.0, "repetition_penalty": 1.1}


@dataclass
class Stub:
    """What the server takes, and what it saw.

    sampled: the sampling of each call as the server used it, its defaults in the place of what was left out.
    """

    url: str = ""
    refuses: tuple[str, ...] = ()
    system: bool = True
    bodies: list[dict] = field(default_factory=list)
    sampled: list[dict] = field(default_factory=list)

    def answer(self, body: dict) -> tuple[int, dict]:
        self.bodies.append(body)
        if unknown := [name for name in self.refuses if name in body]:
            return 400, {"error": {"message": f"Unrecognized request arguments supplied: {', '.join(unknown)}"}}
        if not self.system and body["messages"][0]["role"] == "system":
            return 400, {"error": {"message": "System role not supported"}}
        if "structured_outputs" not in body:
            self.sampled.append(DEFAULTS | {name: body[name] for name in DEFAULTS if name in body})
        mark = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:8]
        options = body.get("structured_outputs", {}).get("choice")
        text = options[int(mark, 16) % len(options)] if options else f"I would say {mark}."
        message = {"role": "assistant", "content": text}
        usage = {"prompt_tokens": 40, "completion_tokens": 10}
        return 200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}


@contextlib.contextmanager
def start(**settings: object) -> Iterator[Stub]:
    """Run the server in a thread of this process until the block ends."""
    stub = Stub(**settings)  # type: ignore[arg-type]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            status, content = stub.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
