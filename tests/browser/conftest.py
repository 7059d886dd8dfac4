"""Chromium, driven by Playwright, with a watch on what pages ask for and complain about.

Screenshots go to build/screenshots, so that a person can look at them.
"""

import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

SCREENSHOTS = Path("build", "screenshots")
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
# Nothing of its own goes out, whatever the page does.
QUIET = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]


@pytest.fixture(scope="session")
def chromium():
    """The program; without one these tests fail, since `make test-browser` is for them alone."""
    named = os.environ.get("CHROMIUM")
    found = named or next((path for path in map(shutil.which, PROGRAMS) if path), None)
    if found is None:
        pytest.fail("no Chromium: sudo apt-get install chromium, or name it in CHROMIUM")
    return found


@pytest.fixture(scope="session")
def browser(chromium):
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=chromium, args=QUIET, chromium_sandbox=os.geteuid() != 0
        )
        yield opened
        opened.close()


class Watched:
    """A page, with all that it complained about and all that it asked for."""

    def __init__(self, page):
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def _console(self, message):
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def foreign(self, home):
        """Requests that left the page's own server, or the page's own file."""
        return [url for url in self.requests if not url.startswith((home, "data:", "blob:"))]

    def picture(self, name):
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


@pytest.fixture
def open_page(browser):
    """Opens pages of a size and a colour scheme."""
    contexts = []

    def open_(width=1000, height=800, scheme="light"):
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme
        )
        contexts.append(context)
        return Watched(context.new_page())

    yield open_
    for context in contexts:
        context.close()
