"""A client of event streams: reads server-sent events off a real connection, as a browser's EventSource does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its name, its id (None where it had none), its data as JSON, and when it was there (loop's time)."""

    name: str
    id: str | None
    data: Any
    at: float


@dataclass
class Stream:
    """An open stream. ``beats`` counts heartbeats; ``ended`` is set when it is over, ``failure`` when it was cut."""

    response: httpx.Response
    events: list[Event] = field(default_factory=list)
    beats: int = 0
    ended: bool = False
    failure: httpx.HTTPError | None = None
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def next(self, within_s: float = 10) -> Event:
        """Wait for the next event that was not given before."""
        async with asyncio.timeout(within_s):
            async with self._news:
                await self._news.wait_for(lambda: self.events or self.ended)
        assert self.events, "the stream ended"
        return self.events.pop(0)

    async def until(self, version: str, within_s: float = 10) -> list[Event]:
        """Wait until the stream tells of a version, or one past it; give the events up to there."""
        seen: list[Event] = []
        epoch, number = version.rsplit(".", 1)
        while True:
            event = await self.next(within_s)
            seen.append(event)
            told = event.data["version"].rsplit(".", 1)
            if event.id is not None and told[0] == epoch and int(told[1]) >= int(number):
                return seen

    async def end(self, within_s: float = 10) -> None:
        """Wait until the server ends the stream."""
        async with asyncio.timeout(within_s), self._news:
            await self._news.wait_for(lambda: self.ended)

    async def beat(self, within_s: float = 10) -> None:
        """Wait for another heartbeat."""
        before = self.beats
        async with asyncio.timeout(within_s), self._news:
            await self._news.wait_for(lambda: self.beats > before)

    async def _read(self) -> None:
        name, identity, data = "message", None, ""
        try:
            async for line in self._lines():
                field_name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if not line:
                    if data:
                        at = asyncio.get_running_loop().time()
                        await self._tell(Event(name, identity, json.loads(data), at))
                    name, identity, data = "message", None, ""
                elif not field_name:
                    await self._tell(None)
                elif field_name == "event":
                    name = value
                elif field_name == "id":
                    identity = value
                elif field_name == "data":
                    data += value
        except httpx.HTTPError as error:
            self.failure = error
        async with self._news:
            self.ended = True
            self._news.notify_all()

    async def _lines(self) -> AsyncIterator[str]:
        """Give the lines as the standard has them: httpx would also end them where a text has U+2028 or U+0085."""
        rest = b""
        async for part in self.response.aiter_bytes():
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                yield line.removesuffix(b"\r").decode()

    async def _tell(self, event: Event | None) -> None:
        async with self._news:
            if event is None:
                self.beats += 1
            else:
                self.events.append(event)
            self._news.notify_all()


@asynccontextmanager
async def listening(client: httpx.AsyncClient, **parameters: Any) -> AsyncIterator[Stream]:
    """Open a stream and read it in the background; ``last_event_id`` is sent as the header."""
    headers = {"Last-Event-ID": parameters.pop("last_event_id")} if "last_event_id" in parameters else {}
    timeout = httpx.Timeout(30, read=None)
    async with client.stream("GET", "/api/events", params=parameters, headers=headers, timeout=timeout) as response:
        if response.status_code != 200:
            await response.aread()
            raise AssertionError(response.text)
        stream = Stream(response)
        reading = asyncio.create_task(stream._read())
        try:
            yield stream
        finally:
            reading.cancel()
            await asyncio.wait([reading])
