"""The page in a headless Chromium; its tests are skipped where Playwright or Chromium is absent."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import browser  # noqa: F401 a fixture
from fakes.server import FakeServer, running
from fakes.service import FakeService

PAGE = Path(__file__).parents[2] / "serve" / "page.html"


@pytest.fixture
def server() -> FakeServer:
    return FakeServer(FakeService(request_id="r-123"), PAGE.read_text("utf-8"))


@pytest.fixture
def page(browser, server, request) -> Iterator:  # noqa: F811 the fixture
    """The page of a fresh server; at the end no request went elsewhere, and the console has no error of the page."""
    with running(server):
        url = server.url
        context = browser.new_context(**getattr(request, "param", {}))
        page = context.new_page()
        page.set_default_timeout(15_000)
        urls, messages = [], []
        page.on("request", lambda request: urls.append(request.url))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("console", lambda message: messages.append(message.text) if message.type in ("error", "warning") else None)
        page.goto(url)
        yield page
        context.close()
        assert [address for address in urls if not address.startswith((url, "data:", f"blob:{url}"))] == []
        # Chromium itself logs every response with an error status.
        assert [line for line in messages if "the server responded with a status of" not in line] == []
