"""A browser's own EventSource: let in by its cookie, back by itself after a restart, and closed to other sites."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page

from tests.browser.conftest import Visit
from tests.support.http import execute, save
from tests.support.server import RunningServer, ServerProcess, client_of

pytestmark = pytest.mark.browser

# A page as one would write it: it keeps what it is told, in order, and who waits is told too.
LISTEN = """path => {
    window.told = [];
    window.opened = 0;
    window.source = new EventSource(path);
    window.source.onopen = () => { window.opened += 1; };
    for (const name of ["version", "changes", "reset"])
        window.source.addEventListener(name, event =>
            window.told.push({name, id: event.lastEventId, ...JSON.parse(event.data)}));
}"""
SEEN = "prompt => window.told.some(one => (one.changes ?? []).some(({row}) => row && row.prompt === prompt))"
INSERT = "INSERT INTO image (user_id, prompt, image_url) VALUES (%s, %s, 'u')"


async def told(page: Page, name: str) -> list[dict[str, Any]]:
    every: list[dict[str, Any]] = await page.evaluate("window.told")
    return [one for one in every if one["name"] == name]


async def test_a_page_is_told_of_what_it_saves_and_of_what_others_write(
    server: RunningServer, visit: Visit, database_url: str
) -> None:
    page, bobs = await visit(server.url, "alice"), await visit(server.url, "bob")
    await page.evaluate(LISTEN, "/api/events?changes=true")
    await bobs.evaluate(LISTEN, "/api/events?changes=true")
    for each in (page, bobs):
        await each.wait_for_function("window.told.length > 0")
    saved = await page.evaluate(
        """async () => {
            const answer = await fetch("/api/images", {
                method: "POST",
                headers: {"Content-Type": "application/json"},
                body: JSON.stringify({prompt: "from the page 🌊", image_url: "https://images.example/1.png"}),
            });
            return {status: answer.status, ...await answer.json()};
        }"""
    )
    assert saved["status"] == 201, saved
    await page.wait_for_function(SEEN, arg="from the page 🌊")
    await execute(database_url, INSERT, "alice", "from psql")
    await page.wait_for_function(SEEN, arg="from psql")
    changes = await told(page, "changes")
    assert changes[0]["id"] == saved["version"], "the id is the cursor that the write was answered with"
    await save(server.client("bob"), prompt="bob's own")
    await bobs.wait_for_function(SEEN, arg="bob's own")
    assert len(await told(bobs, "changes")) == 1, "nothing of another user's"


async def test_a_page_comes_back_by_itself_and_is_told_what_it_missed(
    data_dir: Path, database_url: str, visit: Visit
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = ServerProcess(data_dir, database_url, {"TIDEPOOL_PORT": str(port)})
    try:
        url = await process.start()
        page = await visit(url, "alice")
        await page.evaluate(LISTEN, "/api/events?changes=true")
        await page.wait_for_function("window.told.length > 0")
        async with client_of(url, "alice") as client:
            await save(client, prompt="before")
        await page.wait_for_function(SEEN, arg="before")
        await process.kill()
        await execute(database_url, INSERT, "alice", "while the server was away")
        await process.start()
        await page.wait_for_function(SEEN, arg="while the server was away")
        await page.wait_for_function("window.opened === 2")
        await process.stop()
    finally:
        await process.kill()
    prompts = [change["row"]["prompt"] for event in await told(page, "changes") for change in event["changes"]]
    assert prompts == ["before", "while the server was away"], "each once: it came back to where it was"
    assert not await told(page, "reset")


@pytest.mark.parametrize("path", ["/api/events", "/api/images"])
async def test_a_page_of_another_site_hears_and_reads_nothing(server: RunningServer, visit: Visit, path: str) -> None:
    elsewhere = server.url.replace("127.0.0.1", "localhost")  # another site to a browser, and the same server
    page = await visit(elsewhere, "alice", cookie_for=server.url)
    listened = await page.evaluate(
        """url => new Promise(done => {
            const source = new EventSource(url, {withCredentials: true});
            source.onerror = () => done(source.readyState);
            source.addEventListener("version", () => done("told"));
        })""",
        server.url + path,
    )
    assert listened == 2, "closed for good"
    read = await page.evaluate(
        """url => fetch(url, {credentials: "include"}).then(answer => answer.status, error => error.name)""",
        server.url + path,
    )
    assert read == "TypeError"
