"""The longest time that one request body, as large as is allowed, keeps the event loop of the HTTP service from others.

python -m benchmarks.bodies

Each body, refused or accepted, goes to POST /v1/score/stream over a service without models, in this process, the last ones also
to POST /v1/score and eight at once; a second caller sends light requests
meanwhile. A line for each: its status, seconds to its answer, the longest stall of the event loop, the slowest light answer,
how many light ones were refused, and resident megabytes afterwards. The last line is the largest stall of all.
"""

import psutil

from serve.http import create
from serve.settings import HttpConfig
from tests.fakes.service import FakeService
from tests.serve_http.heavy import BODIES, Load, load, scoring_body


def report(name: str, result: Load) -> None:
    """Print the line of one body."""
    refused = sum(answer.status != 200 for answer in result.light)
    seconds, light = (max(answer.seconds for answer in answers) for answers in (result.heavy, result.light))
    megabytes = psutil.Process().memory_info().rss / 2**20
    print(
        f"{name:26} {result.heavy[0].status} {seconds:6.2f} s, stall {result.stall:5.3f} s, light {light:5.3f} s, "
        f"{refused} of {len(result.light)} refused, {megabytes:5.0f} MB"
    )


def main() -> None:
    app = create(FakeService, HttpConfig())
    stalls = {}
    for name, body in BODIES.items():
        result = load(app, "/v1/score/stream", body())
        stalls[name] = result.stall
        report(name, result)
    stream, many = BODIES["10,000 accepted texts"](), scoring_body(1_000, ["all"])
    for name, path, body, copies in (
        ("8 x 700,000 keys", "/v1/score", BODIES["700,000 keys"](), 8),
        ("8 x 10,000 accepted texts", "/v1/score/stream", stream, 8),
        ("32,000 scores", "/v1/score", many, 1),
        ("8 x 32,000 scores", "/v1/score", many, 8),
    ):
        result = load(app, path, body, copies)
        stalls[name] = result.stall
        report(name, result)
    worst = max(stalls, key=lambda name: stalls[name])
    print(f"largest stall of the event loop: {stalls[worst]:.3f} s ({worst})")


if __name__ == "__main__":
    main()
