"""The settings: every default in one block, each with its unit in its name and its reason beside it.

    settings = Settings.from_environment(os.environ)

A setting called ``port`` is read from ``TIDEPOOL_PORT``, or else from ``PORT``. An empty text is no setting.
Everything that is wrong is told at once, in one `SettingsError`.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_type_hints

from gateway.rules import (
    Choice,
    Database,
    Duration,
    Folder,
    Host,
    Rule,
    SigningSecret,
    Switch,
    Url,
    Whole,
    Words,
    is_loopback,
)
from replica.faults import CRASH_VARIABLE

PREFIX = "TIDEPOOL_"
_NO_SETTINGS = frozenset({CRASH_VARIABLE})  # variables of that prefix that tests use

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["json", "console"]


class SettingsError(Exception):
    """The settings cannot be used; ``problems`` names each that is wrong and what it may be."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How one server runs. Raises `SettingsError` when its parts contradict each other."""

    # Where the data is. No database: an embedded Postgres inside the data directory.
    database_url: Annotated[str | None, Database()] = field(default=None, repr=False)
    data_dir: Annotated[Path, Folder()] = Path("data")

    # Where to listen. Loopback, for a server that nobody configured must not be open to a network.
    host: Annotated[str, Host()] = "127.0.0.1"
    port: Annotated[int, Whole(0, 65_535)] = 8000  # 0: any free one, told when the server is ready

    # Whose tokens to believe: those signed with a secret (HS256), or with the keys behind a URL
    # (RS256, ES256, EdDSA). With neither, a secret is made and kept in the data directory.
    jwt_secret: Annotated[str | None, SigningSecret()] = field(default=None, repr=False)
    jwks_url: Annotated[str | None, Url(("https", "http"))] = None
    jwt_audience: Annotated[str | None, Words()] = None  # unset: a token made out to some audience is refused
    jwt_issuer: Annotated[str | None, Words()] = None  # unset: any issuer that holds the key
    jwks_cache_s: Annotated[float, Duration(1, 86_400)] = 300  # how long a key that was withdrawn may live on
    # A verified token costs a lookup (under 1 µs), an unknown one a signature check (30–150 µs).
    token_cache_max: Annotated[int, Whole(0, 1_000_000)] = 10_000  # about 0.5 KB each

    # What is written to stderr.
    log_level: Annotated[LogLevel, Choice(("debug", "info", "warning", "error"))] = "info"
    log_format: Annotated[LogFormat, Choice(("json", "console"))] = "json"

    # What one request may ask for. A full batch of long prompts is 10 MB; a batch is one transaction, which
    # holds its user's other writes up; a page is put together in memory, about 1 KB a row.
    request_body_max_bytes: Annotated[int, Whole(1_024, 1 << 30)] = 16 << 20
    batch_max: Annotated[int, Whole(1, 10_000)] = 1_000
    page_max: Annotated[int, Whole(1, 10_000)] = 500
    page_default: Annotated[int, Whole(1, 10_000)] = 50
    # Long enough for a sync behind a busy one, shorter than the patience of a browser or a proxy.
    min_version_wait_ms: Annotated[int, Whole(0, 60_000)] = 5_000

    # How long an answer is kept for who asks again under its Idempotency-Key: a day outlasts a client's retries and
    # a night offline. Each is a row in Postgres, as large as the answer.
    idempotency_kept_s: Annotated[float, Duration(1, 30 * 86_400)] = 86_400

    # What the replicas may take. An open one is a connection, and of a few that were synced last another; a
    # sync holds a connection to the primary while it pulls.
    replica_open_max: Annotated[int, Whole(1, 10_000)] = 128
    sync_concurrency: Annotated[int, Whole(1, 1_000)] = 8

    # Whose replicas follow the primary by themselves: users that were read lately, and those with an event stream.
    follow_idle_s: Annotated[float, Duration(0, 86_400)] = 60  # unread for so long: the next read looks first
    # Between two looks at who moved. A look costs Postgres some 0.1 ms; while somebody moves it is taken every 2 ms.
    # Without one for a second nobody counts as followed, so neither may be anywhere near that.
    look_live_ms: Annotated[int, Whole(2, 500)] = 8  # at most, with an event stream open: an event is late by that
    look_idle_ms: Annotated[int, Whole(2, 500)] = 100  # at most, with none: so old may be what is read

    # Event streams: a few tabs of a few devices for each user; one costs the node some 30 KB.
    event_streams_per_user_max: Annotated[int, Whole(0, 100_000)] = 100
    event_streams_max: Annotated[int, Whole(0, 100_000)] = 5_000
    event_heartbeat_s: Annotated[float, Duration(0.05, 3_600)] = 15  # proxies cut what is silent for 30 to 60 s
    event_age_max_s: Annotated[float, Duration(0.05, 86_400)] = 3_600  # so that streams move to nodes that were added
    event_stall_max_s: Annotated[float, Duration(0.05, 3_600)] = 30  # for a client that does not read what it is sent

    # Exports: each is a file in the data directory, as large as the user's rows, until its last byte is sent.
    exports_per_user_max: Annotated[int, Whole(0, 1_000)] = 2  # one, and the one before it that is still going on
    exports_max: Annotated[int, Whole(0, 1_000)] = 8
    export_stall_max_s: Annotated[float, Duration(0.05, 3_600)] = 30  # for a client that takes no more of it

    # What the primary is asked for. The pool carries writes and syncs together, so it is larger than the
    # bound on syncs; the probe's interval is how late a lost primary may be noticed.
    primary_pool_max: Annotated[int, Whole(1, 1_000)] = 10
    primary_probe_interval_s: Annotated[float, Duration(0.05, 3_600)] = 1
    prepared_statements: Annotated[bool, Switch()] = True  # false behind a pooler that does not keep them

    # Mirroring to servers that users name. Only public addresses, for the server can reach what users cannot; a home
    # server whose users are its owners allows its own network. Each delivery side by side is a connection; looking
    # costs the primary 0.2 ms; 36 tries are a day or more. Keys are sealed with a secret of its own where tokens come
    # from a JWKS and several servers share one database, else with the one that signs tokens.
    mirror_private_addresses_allowed: Annotated[bool, Switch()] = False
    mirror_concurrency: Annotated[int, Whole(1, 100)] = 8
    mirror_poll_interval_s: Annotated[float, Duration(0.05, 3_600)] = 1
    mirror_tries_max: Annotated[int, Whole(1, 1_000)] = 36
    mirror_secret: Annotated[str | None, SigningSecret()] = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if problems := [told for _, told in _contradictions(self)]:
            raise SettingsError(problems)

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> Settings:
        """Read the settings; raise `SettingsError` naming all that is wrong, unknown names too."""
        rules = _rules()
        problems = [_unknown(name, rules) for name in sorted(env) if _is_unknown(name, rules)]
        values: dict[str, Any] = {}
        wrong: set[str] = set()
        for name, rule in rules.items():
            key, text = _find(env, name)
            if not text:
                continue
            try:
                values[name] = rule.read(text)
            except ValueError:
                wrong.add(name)
                problems.append(_refused(key, text, rule))
        # What was misread stands at its default here, so nothing that involves it is held against the rest.
        draft = object.__new__(cls)
        for one in fields(cls):
            object.__setattr__(draft, one.name, values.get(one.name, one.default))
        problems += [told for names, told in _contradictions(draft) if not wrong.intersection(names)]
        if problems:
            raise SettingsError(problems)
        return cls(**values)


def _contradictions(s: Settings) -> list[tuple[tuple[str, ...], str]]:
    """Tell where settings contradict each other: the settings at fault, and the words for it."""
    found: list[tuple[tuple[str, ...], str]] = []
    if s.jwt_secret is None and s.jwks_url is None and not is_loopback(s.host):
        told = (
            f"TIDEPOOL_HOST is {s.host!r}, which others can reach, and nothing says whose tokens to believe: "
            "set TIDEPOOL_JWT_SECRET or TIDEPOOL_JWKS_URL, or listen on 127.0.0.1"
        )
        found.append((("host", "jwt_secret", "jwks_url"), told))
    if s.jwt_secret is not None and s.jwks_url is not None:
        found.append(
            (
                ("jwt_secret", "jwks_url"),
                "TIDEPOOL_JWT_SECRET and TIDEPOOL_JWKS_URL: set one of them, not both",
            )
        )
    if s.page_default > s.page_max:
        told = f"TIDEPOOL_PAGE_DEFAULT is {s.page_default}; it may be at most TIDEPOOL_PAGE_MAX ({s.page_max})"
        found.append((("page_default", "page_max"), told))
    return found


def _rules() -> dict[str, Rule]:
    hints = get_type_hints(Settings, include_extras=True)
    return {one.name: cast("Rule", hints[one.name].__metadata__[0]) for one in fields(Settings)}


def _find(env: Mapping[str, str], name: str) -> tuple[str, str]:
    """Give the variable that holds a setting, and its text, empty when neither name is set."""
    bare = name.upper()
    if text := env.get(PREFIX + bare, ""):
        return PREFIX + bare, text
    return bare, env.get(bare, "")


def _refused(key: str, text: str, rule: Rule) -> str:
    shown = "cannot be used" if rule.secret else f"is {text if len(text) <= 80 else text[:77] + '...'!r}"
    told = f"{key} {shown}; it may be {rule}"
    if text.startswith("tcp://"):
        # Kubernetes sets NAME_PORT=tcp://… for every service of the namespace, one called tidepool included.
        told += " (Kubernetes sets this for a service of that name: turn enableServiceLinks off)"
    return told


def _is_unknown(name: str, rules: Collection[str]) -> bool:
    return name.startswith(PREFIX) and name not in _NO_SETTINGS and name.removeprefix(PREFIX).lower() not in rules


def _unknown(name: str, rules: Collection[str]) -> str:
    near = difflib.get_close_matches(name.removeprefix(PREFIX).lower(), rules, n=1)
    return f"{name} is no setting" + (f"; did you mean {PREFIX}{near[0].upper()}?" if near else "")
