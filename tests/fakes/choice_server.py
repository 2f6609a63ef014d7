"""A chat-completions server that answers questions with lettered options as a planted function of the prompt says."""

import contextlib
import json
import math
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# A prompt's text before the question, and its options as shown -> the probability of each option.
Planted = Callable[[str, list[str]], list[float]]


class ChoiceServer:
    """Counts calls; free replies name the likeliest option, or refuse where `refuses` says so."""

    def __init__(self, planted: Planted, refuses: Callable[[str], bool]) -> None:
        self.planted, self.refuses, self.url, self.calls = planted, refuses, "", 0

    def answer(self, body: dict) -> dict:
        """Return the completion of a request."""
        self.calls += 1
        before, _, question = body["messages"][-1]["content"].rpartition("Question: ")
        options = re.findall(r"^[A-Z]\. (.*)$", question, re.MULTILINE)
        if not options:  # of a client that tries whether the server lists log-probabilities: 1 or 2
            shares, letters = [0.1, 0.9], ["1", "2"]
        else:
            shares, letters = self.planted(before, options), [chr(65 + i) for i in range(len(options))]
        best = letters[max(range(len(shares)), key=shares.__getitem__)]
        message, logprobs = {"role": "assistant", "content": f"I would choose {best}."}, None
        if body.get("logprobs"):
            message["content"] = best
            top = [{"token": f" {letter}", "logprob": math.log(p)} for letter, p in zip(letters, shares, strict=True)]
            logprobs = {"content": [{"token": best, "logprob": max(t["logprob"] for t in top), "top_logprobs": top}]}
        elif self.refuses(before):
            message["content"] = "I'm sorry, I can't answer that."
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": logprobs}
        return {"choices": [choice], "usage": {"prompt_tokens": 50, "completion_tokens": 3}}


@contextlib.contextmanager
def start(planted: Planted, refuses: Callable[[str], bool] = lambda _: False) -> Iterator[ChoiceServer]:
    """Run the server in a thread of this process until the block ends."""
    state = ChoiceServer(planted, refuses)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = json.dumps(state.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
