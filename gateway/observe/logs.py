"""Logs: one JSON object a line on stderr, each with the id of the request that it belongs to.

What the program tells goes straight to the stream: by way of the standard library's records a line takes more than
twice as long, and a write's line is written while its readers wait for the event.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from gateway.observe.request_ids import current


def configure_logs(level: str = "info", layout: str = "json", stream: TextIO | None = None) -> None:
    """Set up logging for the process, the same for us and for the libraries.

    ``layout`` is json, or console for people. Call it once, from what starts the program.
    """
    stream = stream or sys.stderr
    renderer: Processor = structlog.processors.JSONRenderer(serializer=_as_json)
    if layout == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=stream.isatty())
    tracebacks: list[Processor] = [structlog.processors.format_exc_info] if layout == "json" else []
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_add_what_each_has],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *tracebacks, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for chatty in ("httpx", "httpcore", "asyncio", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    structlog.configure(
        processors=[_add_what_each_has, *tracebacks, renderer],
        logger_factory=partial(_Lines, stream),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        cache_logger_on_first_use=True,
    )


class _Lines(structlog.WriteLogger):
    """Writes lines; what cannot be written is lost, and stops nobody."""

    def __init__(self, stream: TextIO, name: str) -> None:
        super().__init__(stream)
        self.name = name

    def msg(self, message: str) -> None:
        """Write a line."""
        with suppress(OSError, ValueError):  # there is no room, nobody reads; the stream is closed
            super().msg(message)

    debug = info = warning = error = critical = msg


def _add_what_each_has(logger: WrappedLogger, level: str, event: EventDict) -> EventDict:
    """Add what structlog has four processors for; after a rest each function called costs as much as what it does."""
    event["level"] = level
    event["logger"] = event["_record"].name if "_record" in event else logger.name
    if request_id := current.get():
        event["request_id"] = request_id
    event["timestamp"] = f"{datetime.now(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
    return event


def _as_json(event: EventDict, default: Callable[[Any], Any], **options: Any) -> str:
    try:
        return msgspec.json.encode(event, enc_hook=default).decode()
    except Exception:  # noqa: BLE001 - a text that is no Unicode, a number that is too large: told slowly, but told
        return json.dumps(event, default=default, **options)
