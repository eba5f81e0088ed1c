"""A real Chromium, driven by Playwright. Where there is none these tests skip; .ci/run makes that a failure."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, async_playwright

from tests.support.server import token

# Without the last ones it asks Google's hosts for this and that at every start.
_FLAGS = ("--no-sandbox", "--disable-quic", "--disable-background-networking", "--disable-component-update")


def _chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    why = "no Chromium was found (Debian: apt-get install chromium)"
    if os.environ.get("REQUIRE_BROWSER"):
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    path = _chromium()
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=path, args=_FLAGS)
        try:
            yield launched
        finally:
            await launched.close()


Visit = Callable[..., Awaitable[Page]]


@pytest.fixture
def visit(browser: Browser) -> Visit:
    """``await visit(url, "alice")``: a page of that server, in a browser of its own that holds alice's cookie."""

    async def visit(url: str, user: str | None, *, cookie_for: str | None = None) -> Page:
        context = await browser.new_context()
        if user is not None:
            host = urlsplit(cookie_for or url).hostname or ""
            cookie = {"name": "tidepool_token", "value": token(user), "domain": host, "path": "/"}
            await context.add_cookies([{**cookie, "httpOnly": True, "sameSite": "Lax"}])  # type: ignore[typeddict-item]
        page = await context.new_page()
        await page.goto(f"{url}/health/live")
        return page

    return visit
