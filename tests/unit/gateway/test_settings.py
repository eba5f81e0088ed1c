"""Settings: read from the environment, checked whole, refused with words that help."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from threading import Barrier

import pytest

from gateway.auth import load_or_create_secret
from gateway.settings import Settings, SettingsError

SECRET = "a-secret-of-at-least-thirty-two-bytes"


def problems(env: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(env)
    return caught.value.problems


def test_an_empty_environment_gives_a_server_that_only_this_machine_can_reach():
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert (settings.host, settings.port, settings.data_dir) == ("127.0.0.1", 8000, Path("data"))
    assert settings.database_url is None
    assert settings.jwt_secret is None


def test_the_prefixed_name_comes_before_the_bare_one():
    assert Settings.from_environment({"PORT": "1", "TIDEPOOL_PORT": "2"}).port == 2
    assert Settings.from_environment({"PORT": "1"}).port == 1
    assert Settings.from_environment({"PORT": "1", "TIDEPOOL_PORT": ""}).port == 1


def test_every_setting_can_be_set():
    env = {
        "database_url": "postgresql://u:p@db/x",
        "data_dir": "/tmp",
        "host": "::1",
        "port": "0",
        "jwt_secret": SECRET,
        "jwks_url": "",
        "jwt_audience": "tidepool",
        "jwt_issuer": "https://issuer",
        "jwks_cache_s": "1.5",
        "token_cache_max": "0",
        "log_level": "DEBUG",
        "log_format": "console",
        "request_body_max_bytes": "2048",
        "batch_max": "10",
        "page_max": "20",
        "page_default": "5",
        "min_version_wait_ms": "0",
        "idempotency_kept_s": "60",
        "replica_open_max": "3",
        "sync_concurrency": "1",
        "follow_idle_s": "0",
        "look_live_ms": "2",
        "look_idle_ms": "500",
        "event_streams_per_user_max": "0",
        "event_streams_max": "1",
        "event_heartbeat_s": "0.05",
        "event_age_max_s": "60",
        "event_stall_max_s": "1",
        "exports_per_user_max": "0",
        "exports_max": "1",
        "export_stall_max_s": "1",
        "primary_pool_max": "2",
        "primary_probe_interval_s": "0.1",
        "prepared_statements": "false",
        "mirror_private_addresses_allowed": "yes",
        "mirror_concurrency": "2",
        "mirror_poll_interval_s": "5",
        "mirror_tries_max": "3",
        "mirror_secret": SECRET,
    }
    assert set(env) == {field.name for field in fields(Settings)}
    settings = Settings.from_environment({f"TIDEPOOL_{name.upper()}": text for name, text in env.items()})
    assert settings.jwks_cache_s == 1.5
    assert settings.log_level == "debug"
    assert settings.prepared_statements is False
    assert settings.data_dir == Path("/tmp")
    assert (settings.host, settings.port, settings.page_default) == ("::1", 0, 5)


@pytest.mark.parametrize(
    ("name", "text", "may_be"),
    [
        ("PORT", "eighty", "a whole number from 0 to 65535"),
        ("PORT", "65536", "a whole number from 0 to 65535"),
        ("PORT", "-1", "a whole number"),
        ("PORT", "1_000", "a whole number"),
        ("PORT", "٨٠", "a whole number"),
        ("HOST", "http://x", "without a port"),
        ("HOST", "localhost:80", "without a port"),
        ("LOG_LEVEL", "loud", "one of debug, info, warning, error"),
        ("PREPARED_STATEMENTS", "maybe", "true or false"),
        ("JWKS_CACHE_S", "nan", "a number of seconds"),
        ("JWKS_CACHE_S", "1_0", "a number of seconds"),
        ("JWKS_CACHE_S", " 7 ", "a number of seconds"),
        ("JWKS_CACHE_S", "٧", "a number of seconds"),
        ("JWKS_URL", "ftp://x/keys", "https:// or http://"),
        ("JWKS_URL", "https:///keys", "https:// or http://"),
        ("DATABASE_URL", "mysql://db/x", "postgresql://"),
        ("DATABASE_URL", "postgresql://u@db/x?sslmod=require", "postgresql://"),
        ("LOOK_LIVE_MS", "1", "a whole number from 2 to 500"),
        ("LOOK_IDLE_MS", "501", "a whole number from 2 to 500"),
        ("EVENT_HEARTBEAT_S", "0", "a number of seconds"),
        ("DATA_DIR", "/dev/null", "a folder"),
        ("DATA_DIR", "~nobody-of-that-name/data", "a folder"),
        ("DATA_DIR", "n" * 300, "a folder"),
        ("JWT_AUDIENCE", "two\nlines", "one line"),
    ],
)
def test_a_bad_setting_is_named_with_what_it_may_be(name, text, may_be):
    told = "\n".join(problems({f"TIDEPOOL_{name}": text}))
    assert told.startswith(f"TIDEPOOL_{name} ")
    assert may_be in told


def test_all_bad_settings_are_told_at_once():
    told = problems({"PORT": "x", "TIDEPOOL_PAGE_MAX": "0", "TIDEPOOL_PROT": "1", "TIDEPOOL_JWT_SECRET": "x"})
    assert len(told) == 4
    assert "TIDEPOOL_PROT is no setting; did you mean TIDEPOOL_PORT?" in told
    assert any(line.startswith("PORT is 'x'") for line in told)


def test_an_unknown_name_is_refused_even_when_nothing_is_near():
    assert problems({"TIDEPOOL_QQQQ": "1"}) == ("TIDEPOOL_QQQQ is no setting",)
    Settings.from_environment({"QQQQ": "1", "PATH": "/bin"})


@pytest.mark.parametrize(
    "secret", ["short", "-----BEGIN PUBLIC KEY-----\nMFkwEwYH\n-----END PUBLIC KEY-----", "ssh-rsa " + "A" * 99]
)
def test_a_secret_that_is_short_or_a_public_key_is_refused_and_not_shown(secret):
    (told,) = problems({"TIDEPOOL_JWT_SECRET": secret})
    assert "at least 32 bytes" in told
    assert secret not in told


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hunter%2zz@db/x",
        "postgresql://u:hunter2@db:x/y?options=-c a=1",
        "postgresql://u:hunter2/hunter@db/x",
        "postgresql://u:x,hunter2/y@db/x",
        "postgresql://u:hunter2@db:65536/x",
    ],
)
def test_a_database_url_that_cannot_be_read_is_refused_and_not_shown(url):
    (told,) = problems({"TIDEPOOL_DATABASE_URL": url})
    assert "%25" in told
    assert "hunter" not in told


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://one:5432,two:5433/x?target_session_attrs=read-write",
        "postgres:///x?host=/run/postgresql",
        "postgres://a:1,b/",
    ],
)
def test_a_database_url_may_be_all_that_libpq_reads(url):
    assert Settings.from_environment({"TIDEPOOL_DATABASE_URL": url}).database_url == url


def test_no_text_form_of_settings_shows_a_secret():
    settings = Settings(jwt_secret=SECRET, database_url="postgresql://u:hunter2@db/x")
    assert SECRET not in repr(settings)
    assert "hunter2" not in repr(settings)
    (told,) = problems({"DATABASE_URL": "mysql://u:hunter2@db/x"})
    assert "hunter2" not in told


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_a_host_that_others_reach_needs_a_secret_or_keys(host):
    (told,) = problems({"HOST": host})
    assert "TIDEPOOL_JWT_SECRET or TIDEPOOL_JWKS_URL" in told
    Settings.from_environment({"HOST": host, "JWT_SECRET": SECRET})
    Settings.from_environment({"HOST": host, "JWKS_URL": "https://issuer/keys"})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_loopback_needs_neither(host):
    Settings.from_environment({"HOST": host})


def test_a_secret_that_was_misread_is_the_only_thing_complained_about():
    (told,) = problems({"HOST": "0.0.0.0", "JWT_SECRET": "short"})
    assert told.startswith("JWT_SECRET cannot be used")


def test_settings_that_contradict_each_other_are_refused_however_they_are_made():
    with pytest.raises(SettingsError, match="not both"):
        Settings(jwt_secret=SECRET, jwks_url="https://issuer/keys")
    with pytest.raises(SettingsError, match="at most TIDEPOOL_PAGE_MAX"):
        Settings(page_default=501)


def test_what_kubernetes_sets_for_a_service_called_tidepool_is_explained():
    (told,) = problems({"TIDEPOOL_PORT": "tcp://10.0.0.1:8000"})
    assert "enableServiceLinks" in told


def test_a_made_secret_is_kept_for_its_owner_alone(tmp_path):
    data_dir = tmp_path / "new"
    secret = load_or_create_secret(data_dir)
    assert len(secret) >= 32
    assert load_or_create_secret(data_dir) == secret
    (file,) = data_dir.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    load_or_create_secret(data_dir)
    assert file.stat().st_mode & 0o777 == 0o600


def test_all_who_make_a_secret_at_once_have_the_same(tmp_path, monkeypatch):
    all_there = Barrier(4)  # where each has made one, and nobody has named theirs
    monkeypatch.setattr(os, "fsync", lambda _: all_there.wait(5))
    for attempt in range(10):
        data_dir = tmp_path / str(attempt)
        with ThreadPoolExecutor(4) as threads:
            assert len(set(threads.map(load_or_create_secret, [data_dir] * 4))) == 1
        assert [file.name for file in data_dir.iterdir()] == ["jwt-secret"]


def test_a_made_secret_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    named: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda _: named.append((tmp_path / "jwt-secret").exists()))
    load_or_create_secret(tmp_path)
    assert named[0] is False


@pytest.mark.parametrize(
    "held", [b"\n", b"\xff" * 40, b"-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0C\n-----END PUBLIC KEY-----\n"]
)
def test_a_secret_file_without_a_secret_is_refused(tmp_path, held):
    (tmp_path / "jwt-secret").write_bytes(held)
    with pytest.raises(SettingsError, match="delete it"):
        load_or_create_secret(tmp_path)


def test_a_secret_that_cannot_be_read_or_made_is_told(tmp_path):
    (tmp_path / "jwt-secret").mkdir()
    for data_dir in (tmp_path, Path("/proc/none-of-that-name")):
        with pytest.raises(SettingsError, match=f"{data_dir}/jwt-secret cannot be read"):
            load_or_create_secret(data_dir)
