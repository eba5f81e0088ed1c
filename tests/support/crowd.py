"""Some nodes on one primary, the clients that use them, and what goes wrong with them meanwhile."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg

from primary.cursor import Cursor
from primary.postgres import EPOCH_SQL
from tests.support.causal import History, Rows, Saw, Wrote
from tests.support.http import IMAGE
from tests.support.proxy import PostgresProxy, proxied
from tests.support.server import ServerProcess
from tests.support.sse import Event, Stream, listening

FAULTS = ("kill", "pause", "cut", "stall", "deafen")
PATIENCE_S = 2.0  # of a client: what is not answered by then may have happened or not
_IMAGES_MAX = 12  # of a user: small states, which change often

_INSERT = "INSERT INTO image (user_id, id, prompt, image_url) VALUES (%s, %s, %s, 'https://images.example/1.png')"
_DELETE = "DELETE FROM image WHERE user_id = %s AND id = ANY(%s::uuid[])"
_HEAD = f"SELECT {EPOCH_SQL}, version FROM tidepool.head WHERE user_id = %s".encode()

_REFUSED = (httpx.HTTPError, AssertionError, TimeoutError)


class Node:
    """One node: a process with its own data directory, which reaches Postgres through its own proxy."""

    def __init__(self, name: str, data_dir: Path, proxy: PostgresProxy) -> None:
        self.name = name
        self.data_dir = data_dir
        self.proxy = proxy
        self.process = ServerProcess(data_dir, proxy.url, {"TIDEPOOL_MIN_VERSION_WAIT_MS": "1200"})

    async def suffer(self, fault: str, for_s: float) -> None:
        """Let one thing go wrong for a while, and mend it."""
        match fault:
            case "kill":
                await self.process.kill()
                await self.process.start()
            case "pause":
                os.kill(self.process.pid, signal.SIGSTOP)
                try:
                    await asyncio.sleep(for_s)
                finally:
                    os.kill(self.process.pid, signal.SIGCONT)
            case "cut":
                await self.proxy.cut()
                await asyncio.sleep(for_s)
                await self.proxy.resume()
            case "stall":
                self.proxy.stall()
                await asyncio.sleep(for_s)
                await self.proxy.resume()
            case "deafen":
                await self.proxy.deafen()
                await asyncio.sleep(for_s)
                await self.proxy.resume()


@asynccontextmanager
async def nodes(folder: Path, database_url: str, count: int) -> AsyncIterator[list[Node]]:
    """Start so many nodes; end what is left of them."""
    async with AsyncExitStack() as stack:
        made = []
        for number in range(count):
            proxy = await stack.enter_async_context(proxied(database_url))
            node = Node(f"node-{number}", folder / f"node-{number}", proxy)
            stack.push_async_callback(node.process.kill)
            made.append(node)
        await asyncio.gather(*(node.process.start() for node in made))
        yield made


class _Someone:
    """A client of a user that goes from node to node, and hands over the last cursor that it saw."""

    def __init__(self, user: str, crowd: Sequence[Node], history: History, rng: random.Random) -> None:
        self.user = user
        self._crowd = crowd
        self._history = history
        self._rng = rng
        self._cursor: Cursor | None = None
        self._stop = False

    def stop(self) -> None:
        self._stop = True

    def _node(self) -> Node:
        return self._rng.choice(self._crowd)

    def _client(self, node: Node) -> httpx.AsyncClient:
        return node.process.client(self.user)

    def _handed_over(self) -> dict[str, str]:
        return {"X-Min-Version": str(self._cursor)} if self._cursor is not None else {}

    def _advance(self, cursor: Cursor) -> None:
        if self._cursor is None or cursor > self._cursor:
            self._cursor = cursor

    async def _read(self, client: httpx.AsyncClient, node: Node, *, hand_over: bool) -> tuple[Cursor, Rows] | None:
        """Read all images; None where the node does not answer with them."""
        at_least = self._cursor if hand_over else None
        asked_at = asyncio.get_running_loop().time()
        headers = self._handed_over() if hand_over else {}
        answer = await client.get("/api/images", params={"limit": 500}, headers=headers)
        if answer.status_code != 200:
            self._history.counts[f"read {answer.status_code}"] += 1
            return None
        stale = "x-replica-stale" in answer.headers
        version = Cursor.parse(answer.headers["x-replica-version"])
        rows = {image["id"]: image["prompt"] for image in answer.json()["images"]}
        self._history.counts["read stale" if stale else "read"] += 1
        self._history.saw.append(
            Saw("read", self.user, node.name, version, rows, at_least, None if stale else asked_at)
        )
        return version, rows


class Reader(_Someone):
    """Reads what there is, over and over, and hands nothing over: what it sees has to be fresh by itself."""

    async def run(self) -> None:
        """Go on until it is stopped."""
        while not self._stop:
            node = self._node()
            try:
                async with asyncio.timeout(PATIENCE_S), self._client(node) as client:
                    for _ in range(4):
                        await self._read(client, node, hand_over=False)
                        await asyncio.sleep(0.02)
            except (httpx.HTTPError, TimeoutError) as error:
                self._history.counts[f"lost: {type(error).__name__}"] += 1
                await asyncio.sleep(0.05)


class Client(_Someone):
    """Writes, syncs and reads, in no order."""

    def __init__(self, name: str, user: str, crowd: Sequence[Node], history: History, rng: random.Random) -> None:
        super().__init__(user, crowd, history, rng)
        self._name = name
        self._mine: list[str] = []
        self._count = 0

    async def run(self) -> None:
        """Go on until it is stopped."""
        while not self._stop:
            node = self._node()
            try:
                async with asyncio.timeout(PATIENCE_S), self._client(node) as client:
                    for _ in range(self._rng.randrange(1, 5)):
                        await self._act(client, node)
            except (httpx.HTTPError, TimeoutError) as error:
                self._history.counts[f"lost: {type(error).__name__}"] += 1
                await asyncio.sleep(0.02)

    async def _act(self, client: httpx.AsyncClient, node: Node) -> None:
        match self._rng.random():
            case chance if chance < 0.4:
                await self._write(client, node)
            case chance if chance < 0.5:
                await self._sync(client, node)
            case chance if chance < 0.6:
                await self._read(client, node, hand_over=False)
            case _:
                if (read := await self._read(client, node, hand_over=True)) is not None:
                    self._advance(read[0])
        await asyncio.sleep(self._rng.uniform(0, 0.02))

    async def _write(self, client: httpx.AsyncClient, node: Node) -> None:
        self._count += 1
        prompt: str | None = f"{self.user} {self._name} {self._count}"
        chance = self._rng.random()
        if not self._mine or (chance < 0.4 and len(self._mine) < _IMAGES_MAX):
            image = str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
            self._mine.append(image)  # though it may never come to be
            answer = await client.post("/api/images", json=IMAGE | {"id": image, "prompt": prompt})
        elif chance < 0.8:
            image = self._rng.choice(self._mine)
            answer = await client.patch(f"/api/images/{image}", json={"prompt": prompt})
        else:
            image, prompt = self._mine.pop(self._rng.randrange(len(self._mine))), None
            answer = await client.delete(f"/api/images/{image}")
        self._history.counts[f"write {answer.status_code}"] += 1
        if answer.is_success:
            self._acknowledge(node.name, Cursor.parse(answer.json()["version"]), image, prompt)

    def _acknowledge(self, node: str, cursor: Cursor, image: str, prompt: str | None) -> None:
        now = asyncio.get_running_loop().time()
        self._history.wrote.append(Wrote(self.user, node, cursor, image, prompt, now))
        self._advance(cursor)

    async def _sync(self, client: httpx.AsyncClient, node: Node) -> None:
        at_least = self._cursor
        asked_at = asyncio.get_running_loop().time()
        body = {"min_version": str(at_least)} if at_least is not None else {}
        answer = await client.post("/api/sync", json=body)
        self._history.counts[f"sync {answer.status_code}"] += 1
        if answer.is_success:
            version = Cursor.parse(answer.json()["version"])
            self._history.saw.append(Saw("sync", self.user, node.name, version, None, at_least, asked_at))
            self._advance(version)


class Stranger(Client):
    """Writes past all nodes, as psql does."""

    def __init__(self, url: str, user: str, history: History, rng: random.Random) -> None:
        super().__init__("psql", user, (), history, rng)
        self._url = url

    async def run(self) -> None:
        """Go on until it is stopped."""
        async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as connection:
            while not self._stop:
                await self._write_to(connection)
                await asyncio.sleep(self._rng.uniform(0, 0.3))

    async def _write_to(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._count += 1
        image, prompt = str(uuid.UUID(int=self._rng.getrandbits(128), version=4)), f"{self.user} psql {self._count}"
        async with connection.transaction():
            if len(self._mine) >= _IMAGES_MAX:
                await connection.execute(_DELETE, [self.user, self._mine])
                self._mine.clear()
            await connection.execute(_INSERT, [self.user, image, prompt])
            found = await connection.execute(_HEAD, [self.user])
            ((epoch, version),) = await found.fetchall()
        self._mine.append(image)
        self._history.counts["write by psql"] += 1
        self._acknowledge("psql", Cursor(epoch, version), image, prompt)


class Listener(_Someone):
    """Keeps a copy of its user's images from event streams alone, connecting anew wherever one ends."""

    def __init__(self, user: str, crowd: Sequence[Node], history: History, rng: random.Random) -> None:
        super().__init__(user, crowd, history, rng)
        self._copy: Rows = {}
        self._told: Cursor | None = None  # the last id

    async def run(self) -> None:
        """Go on until it is stopped."""
        while not self._stop:
            node = self._node()
            asked = {"last_event_id": str(self._told)} if self._told is not None else {}
            try:
                async with (
                    self._client(node) as client,
                    asyncio.timeout(PATIENCE_S) as opening,
                    listening(client, changes="true", **asked) as stream,
                ):
                    opening.reschedule(None)
                    await self._listen(client, node, stream)
            except _REFUSED as error:
                self._history.counts[f"stream lost: {type(error).__name__}"] += 1
                await asyncio.sleep(0.05)

    async def _listen(self, client: httpx.AsyncClient, node: Node, stream: Stream) -> None:
        for _ in range(self._rng.randrange(5, 60)):  # then it tries another
            if self._stop:
                return
            await self._take_in(client, node, await stream.next(within_s=PATIENCE_S))

    async def _take_in(self, client: httpx.AsyncClient, node: Node, event: Event) -> None:
        self._history.counts[f"event {event.name}"] += 1
        cursor = Cursor.parse(event.data["version"])
        if event.name == "reset" or self._told is None:
            await self._begin_anew(client, node, cursor)
            return
        self._saw(node, cursor, None)  # never back without a reset
        if self._cursor is not None and cursor <= self._cursor and event.name == "changes" and not event.data["more"]:
            self._told = cursor  # the copy is past it
            return
        if event.name == "changes":
            for change in event.data["changes"]:
                if change["table"] == "image":
                    if change.get("deleted"):
                        self._copy.pop(change["key"][0], None)
                    else:
                        self._copy[change["key"][0]] = change["row"]["prompt"]
        if event.id is not None:
            self._told = self._cursor = cursor
            self._saw(node, cursor, dict(self._copy))

    def _saw(self, node: Node, cursor: Cursor, rows: Rows | None) -> None:
        self._history.saw.append(Saw("stream", self.user, node.name, cursor, rows, self._told))

    async def _begin_anew(self, client: httpx.AsyncClient, node: Node, cursor: Cursor) -> None:
        """Read everything as of that cursor or later; events up to what was read then say nothing new."""
        self._told, self._cursor = None, cursor
        read = await self._read(client, node, hand_over=True)
        if read is not None:
            self._told = cursor
            self._cursor, self._copy = read[0], dict(read[1])


async def go_wrong(node: Node, faults: Sequence[tuple[str, float]], rng: random.Random) -> None:
    """Let these things happen to a node for so many seconds, one after the other, with some peace between them."""
    for fault, for_s in faults:
        await asyncio.sleep(rng.uniform(0.2, 0.8))
        await node.suffer(fault, for_s)


async def settled(node: Node, user: str, within_s: float) -> tuple[Cursor, Rows]:
    """Wait until a node says of what it has that it is not stale, and give it."""
    time = asyncio.get_running_loop().time
    ends_at, said = time() + within_s, "nothing"
    async with node.process.client(user) as client:
        while time() < ends_at:
            answer = await client.get("/api/images", params={"limit": 500})
            said = f"{answer.status_code} {dict(answer.headers)}"
            if answer.status_code == 200 and "x-replica-stale" not in answer.headers:
                rows = {image["id"]: image["prompt"] for image in answer.json()["images"]}
                return Cursor.parse(answer.headers["x-replica-version"]), rows
            await asyncio.sleep(0.05)
    raise AssertionError(f"{node.name} said {said}; it wrote {node.process.logs[-12:]}")
