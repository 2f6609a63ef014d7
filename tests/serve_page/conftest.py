"""The page in a headless Chromium; its tests are skipped where Playwright or Chromium is absent."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.server import FakeServer, running
from fakes.service import FakeService

PAGE = Path(__file__).parents[2] / "serve" / "page.html"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")  # not longer: no other event loop can run in this thread meanwhile
def browser() -> Iterator:
    playwright_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with playwright_api.sync_playwright() as playwright:
        # Chromium's sandbox does not start for root.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        playwright_api.expect.set_options(timeout=15_000)
        yield browser
        browser.close()


@pytest.fixture
def server() -> FakeServer:
    return FakeServer(FakeService(request_id="r-123"), PAGE.read_text("utf-8"))


@pytest.fixture
def page(browser, server, request) -> Iterator:
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
