"""The page in a headless Chromium; its tests are skipped where Playwright or Chromium is absent."""

import os
import shutil
from collections.abc import Iterator

import pytest
from page_api import Faults, serving

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
def faults() -> Faults:
    return Faults()


@pytest.fixture
def page(browser, faults, request) -> Iterator:
    """The page of a fresh server; afterwards nothing was asked elsewhere, and the console holds no error of the page."""
    with serving(faults) as url:
        context = browser.new_context(**getattr(request, "param", {}))
        page = context.new_page()
        page.set_default_timeout(15_000)
        asked, said = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.goto(url)
        yield page
        context.close()
        assert [address for address in asked if not address.startswith((url, "data:", f"blob:{url}"))] == []
        # Chromium itself notes every answer with an error status.
        assert [line for line in said if "the server responded with a status of" not in line] == []
