"""The settings: names, defaults, spellings, files, and messages about invalid values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.engine import make_url

from ctms.database.pool import libpq_url
from ctms.errors import SettingsError
from ctms.settings import Settings
from tests.conftest import SECRET_KEY

URL = "postgresql+psycopg://ctms:s%40crT@db.example.com:5433/contacts"
GOOD: list[tuple[str, str, str, Any]] = [
    ("CTMS_DB_URL", "db_url", URL, URL),
    ("CTMS_DB_READ_URL", "db_read_url", URL, URL),
    ("CTMS_DB_READ_MAX_LAG_SECONDS", "db_read_max_lag", "0", 0),
    ("CTMS_DATA_DIR", "data_dir", "/srv/ctms", Path("/srv/ctms")),
    ("CTMS_DB_POOL_SIZE", "db_pool_size", "3", 3),
    ("CTMS_DB_MAX_OVERFLOW", "db_max_overflow", "0", 0),
    ("CTMS_DB_POOL_TIMEOUT_IN_SECONDS", "db_pool_timeout", "7", 7),
    ("CTMS_DB_POOL_RECYCLE_IN_SECONDS", "db_pool_recycle", "60", 60),
    ("CTMS_DB_STATEMENT_TIMEOUT_IN_SECONDS", "db_statement_timeout", "9", 9),
    ("CTMS_DB_PREPARED_STATEMENTS", "db_prepared_statements", "no", False),
    ("CTMS_SECRET_KEY", "secret_key", SECRET_KEY, SECRET_KEY),
    ("CTMS_SECRET_KEY_FALLBACKS", "secret_key_fallbacks", f"{'a' * 32},{'b' * 40}", ("a" * 32, "b" * 40)),
    ("CTMS_TOKEN_EXPIRATION", "token_expiration", "600", 600),
    ("CTMS_TOKEN_FAILURES_PER_MINUTE", "token_failures_per_minute", "5", 5),
    ("CTMS_ERASURE_KEY", "erasure_key", "k" * 32, "k" * 32),
    ("CTMS_ACCESS_REPORT_DAYS", "access_report_days", "36500", 36500),
    ("CTMS_TOMBSTONE_DAYS", "tombstone_days", "36500", 36500),
    ("CTMS_SERVER_PREFIX", "server_prefix", "https://ctms.example.com/", "https://ctms.example.com"),
    ("CTMS_USE_MOZLOG", "use_mozlog", "false", False),
    ("CTMS_LOGGING_LEVEL", "logging_level", "debug", "DEBUG"),
    ("CTMS_LOG_SQLALCHEMY", "log_sqlalchemy", "yes", True),
    ("SENTRY_DSN", "sentry_dsn", "https://key@sentry.example.com/1", "https://key@sentry.example.com/1"),
    ("CTMS_SENTRY_DEBUG", "sentry_debug", "1", True),
    ("HOST", "host", "0.0.0.0", "0.0.0.0"),  # noqa: S104  a value to be read
    ("PORT", "port", "8080", 8080),
    ("CTMS_PLUGINS", "plugins", "one, two", ("one", "two")),
    ("CTMS_PLUGINS_DISABLED", "plugins_disabled", "three", ("three",)),
    ("CTMS_PLUGINS_TRACE", "plugins_trace", "on", True),
    ("CTMS_STORED_DOCUMENTS", "stored_documents", "off", False),
    ("CTMS_NEWSLETTERS", "newsletters", "enforce", "enforce"),
    ("CTMS_WORKERS", "workers", "4", 4),
    ("CTMS_THREADS", "threads", "2", 2),
    ("CTMS_WORKER_CONCURRENCY", "worker_concurrency", "6", 6),
    ("CTMS_WORKER_METRICS_PORT", "worker_metrics_port", "9100", 9100),
    ("CTMS_PROMETHEUS_PUSHGATEWAY_URL", "pushgateway_url", "http://gateway:9091", "http://gateway:9091"),
    ("CTMS_EXPORT_DIR", "export_dir", "/srv/exports", Path("/srv/exports")),
    ("CTMS_EXPORT_HOURS", "export_hours", "1", 1),
    ("CTMS_RETENTION_FILE", "retention_file", "/etc/ctms/retention.toml", Path("/etc/ctms/retention.toml")),
]
BAD = [
    ("CTMS_DB_URL", "nonsense"),
    ("CTMS_DB_URL", "mysql://ctms:private@db/ctms"),
    ("CTMS_DB_URL", "postgresql://ctms:private@db:port/ctms"),
    ("CTMS_DB_URL", "postgresql://ctms:pass@private@db:5432/ctms"),
    ("CTMS_DB_URL", "postgresql://ctms:pass@private/word@db:5432/ctms"),
    ("CTMS_DB_URL", "postgresql://ctms:pass@private?word@db:5432/ctms"),
    ("CTMS_DB_URL", "postgresql://ctms:password@db:5432/ctms?private=1"),
    ("CTMS_DB_URL", "postgresql://ctms:private@a:5432,b:port/ctms"),
    ("CTMS_DB_URL", "postgresql://ctms:private@a,,b/ctms"),
    ("CTMS_DB_READ_URL", "postgresql://ctms:private@db:port/ctms"),
    ("CTMS_DB_READ_MAX_LAG_SECONDS", "-1"),
    ("CTMS_DB_POOL_SIZE", "0"),
    ("CTMS_EXPORT_HOURS", "25"),
    ("CTMS_DB_POOL_SIZE", "private"),
    ("CTMS_DB_MAX_OVERFLOW", "-1"),
    ("CTMS_DB_POOL_TIMEOUT_IN_SECONDS", "1.5"),
    ("CTMS_DB_POOL_RECYCLE_IN_SECONDS", "0"),
    ("CTMS_DB_STATEMENT_TIMEOUT_IN_SECONDS", "0"),
    ("CTMS_DB_PREPARED_STATEMENTS", "never"),
    ("CTMS_SECRET_KEY", "private"),
    ("CTMS_SECRET_KEY_FALLBACKS", f"{'a' * 32},private"),
    ("CTMS_TOKEN_EXPIRATION", "-5"),
    ("CTMS_TOKEN_FAILURES_PER_MINUTE", "0"),
    ("CTMS_ACCESS_REPORT_DAYS", "0"),
    ("CTMS_ACCESS_REPORT_DAYS", "36501"),
    ("CTMS_TOMBSTONE_DAYS", "0"),
    ("CTMS_TOMBSTONE_DAYS", "36501"),
    ("CTMS_SERVER_PREFIX", "ctms.example.com"),
    ("CTMS_USE_MOZLOG", "perhaps"),
    ("CTMS_LOGGING_LEVEL", "LOUD"),
    ("CTMS_LOG_SQLALCHEMY", "2"),
    ("CTMS_SENTRY_DEBUG", "maybe"),
    ("PORT", "0"),
    ("PORT", "65536"),
    ("PORT", "http"),
    ("CTMS_NEWSLETTERS", "private"),
    ("CTMS_WORKERS", "0"),
    ("CTMS_THREADS", "0"),
]


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings from outside."""
    for _, setting, _ in Settings.declared():
        monkeypatch.delenv(setting.variable, raising=False)
        monkeypatch.delenv(f"{setting.variable}_FILE", raising=False)


def read(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if any(name.startswith(("CTMS_DB_URL", "CTMS_DB_READ_URL")) for name in variables):
        monkeypatch.setenv("CTMS_SECRET_KEY", variables.get("CTMS_SECRET_KEY", SECRET_KEY))
    if any(name.startswith("CTMS_DB_READ_URL") for name in variables):
        monkeypatch.setenv("CTMS_DB_URL", variables.get("CTMS_DB_URL", URL))
    return Settings.from_environment()


def test_defaults() -> None:
    settings = Settings.from_environment()

    assert settings.embedded
    assert settings.db_url is settings.secret_key is settings.server_prefix is settings.sentry_dsn is None
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.token_expiration == 3600
    assert settings.use_mozlog
    assert settings.logging_level == "INFO"
    assert settings.workers >= 1
    assert settings.data_dir.name == "ctms"


def test_all_are_tested_here() -> None:
    declared = {(setting.variable, name) for name, setting, _ in Settings.declared()}

    assert {(variable, name) for variable, name, _, _ in GOOD} == declared
    assert all(setting.help for _, setting, _ in Settings.declared())


@pytest.mark.parametrize(("variable", "name", "given", "value"), GOOD, ids=[case[0] for case in GOOD])
class TestEach:
    def test_from_the_environment(
        self, monkeypatch: pytest.MonkeyPatch, variable: str, name: str, given: str, value: Any
    ) -> None:
        assert getattr(read(monkeypatch, **{variable: given}), name) == value

    def test_from_a_file(  # noqa: PLR0917  it takes a whole case
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, name: str, given: str, value: Any
    ) -> None:
        secret = tmp_path / "value"
        secret.write_text(f"{given}\n")

        assert getattr(read(monkeypatch, **{f"{variable}_FILE": str(secret)}), name) == value

    def test_blank_is_the_default(
        self, monkeypatch: pytest.MonkeyPatch, variable: str, name: str, given: str, value: Any
    ) -> None:
        default = getattr(Settings.from_environment(), name)

        for blank in ("", "  "):
            monkeypatch.setenv(variable, blank)
            assert getattr(Settings.from_environment(), name) == default

    def test_a_file_that_is_not_there(  # noqa: PLR0917  it takes a whole case
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, name: str, given: str, value: Any
    ) -> None:
        with pytest.raises(SettingsError) as error:
            read(monkeypatch, **{f"{variable}_FILE": str(tmp_path / "nothing")})

        assert error.value.message == f"{variable}_FILE must name a readable file"


@pytest.mark.parametrize(("variable", "value"), BAD)
def test_a_bad_value_is_named_and_not_repeated(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as error:
        read(monkeypatch, **{variable: value})

    assert error.value.message.startswith(f"{variable} ")
    assert error.value.exit_code == 1
    assert "\n" not in error.value.message
    assert "private" not in error.value.message


def test_all_bad_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError) as error:
        read(monkeypatch, PORT="x", CTMS_THREADS="0", CTMS_USE_MOZLOG="no idea")

    assert [part.split()[0] for part in error.value.message.split("; ")] == ["CTMS_USE_MOZLOG", "PORT", "CTMS_THREADS"]


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgres+psycopg", "postgresql+psycopg"])
def test_spellings_of_a_database_url(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    url = make_url(
        read(monkeypatch, CTMS_DB_URL=f"{scheme}://ctms:s%40cr%2FT@db:5433/contacts?sslmode=require").db_url or ""
    )

    assert url.drivername == "postgresql+psycopg"
    assert (url.username, url.password, url.host, url.port) == ("ctms", "s@cr/T", "db", 5433)
    assert url.database == "contacts"
    assert url.query == {"sslmode": "require"}


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ("a:5433,b", {"host": "a,b", "port": "5433,5432"}),
        ("[::1]:1,[fe80::2],127.0.0.1:3", {"host": "::1,fe80::2,127.0.0.1", "port": "1,5432,3"}),
    ],
)
def test_a_database_url_with_several_hosts(
    monkeypatch: pytest.MonkeyPatch, hosts: str, expected: dict[str, str]
) -> None:
    """The primary is used, unless the URL chooses another server."""
    given = f"postgresql://ctms:s%40cr%2FT@{hosts}/contacts?sslmode=require"
    url = read(monkeypatch, CTMS_DB_URL=given).db_url or ""
    chosen = read(monkeypatch, CTMS_DB_URL=f"{given}&target_session_attrs=any").db_url or ""

    found = conninfo_to_dict(libpq_url(url))
    common = {**expected, "user": "ctms", "password": "s@cr/T", "dbname": "contacts", "sslmode": "require"}
    assert found == {**common, "target_session_attrs": "read-write"}
    assert conninfo_to_dict(libpq_url(chosen)) == {**common, "target_session_attrs": "any"}


def test_replicas_need_a_primary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTMS_DB_READ_URL", URL)

    with pytest.raises(SettingsError, match="CTMS_DB_READ_URL needs CTMS_DB_URL"):
        Settings.from_environment()


def test_an_external_server_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTMS_DB_URL", URL)

    with pytest.raises(SettingsError, match="CTMS_SECRET_KEY is missing"):
        Settings.from_environment()


def test_a_key_is_long_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch, CTMS_SECRET_KEY="ä" * 16).secret_key == "ä" * 16
    with pytest.raises(SettingsError, match="CTMS_SECRET_KEY is too short"):
        read(monkeypatch, CTMS_SECRET_KEY="a" * 31)


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("CTMS_DB_URI", "CTMS_DB_URL"),
        ("CTMS_DBURL_FILE", "CTMS_DB_URL_FILE"),
        ("CTMS_SECRET_KEY_FIEL", "CTMS_SECRET_KEY_FILE"),
        ("CTMS_SECRET_KEY_FALLBACK", "CTMS_SECRET_KEY_FALLBACKS"),
        ("CTMS_WORKER", "CTMS_WORKERS"),
        ("CTMS_LOG_LEVEL", "CTMS_LOGGING_LEVEL"),
        ("CTMS_PLUGINS_DISABLE", "CTMS_PLUGINS_DISABLED"),
        ("CTMS_WORKER_METRIC_PORT", "CTMS_WORKER_METRICS_PORT"),
    ],
)
def test_a_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch, slip: str, meant: str) -> None:
    with pytest.raises(SettingsError) as error:
        read(monkeypatch, **{slip: "private"})

    assert error.value.message == f"there is no setting {slip}: did you mean {meant}?"


OTHERS = [
    *("CTMS_TEST_PROCESSES", "CTMS_DB_USER", "CTMS_DB_NAME", "CTMS_DB_PASSWORD", "CTMS_DB_HOST", "CTMS_DB_PORT"),
    *("CTMS_DB_URL_OLD", "CTMS_SECRET_KEY_ID", "CTMS_SECRET_KEY_OLD", "CTMS_WORKERS_MAX", "CTMS_ENV", "CTMS_VERSION"),
    # Variables of an older deployment.
    *("CTMS_ACOUSTIC_CLIENT_SECRET", "CTMS_ACOUSTIC_SYNC_FEATURE_FLAG", "CTMS_BACKGROUND_HEALTHCHECK_PATH"),
    *("CTMS_FASTAPI_ENV", "CTMS_IS_GUNICORN", "CTMS_ACOUSTIC_MAX_UPDATES_PER_MINUTE"),
    # Variables that Kubernetes sets for services called ctms, ctms-db, ctms-worker and ctms-workers.
    *(
        f"{service}_{end}"
        for service in ("CTMS", "CTMS_DB", "CTMS_WORKER", "CTMS_WORKERS")
        for end in ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_8000_TCP", "PORT_8000_TCP_ADDR")
    ),
    # A plugin's: whether it has such a setting is for the plugins to say.
    "CTMS_PLUGIN_DECLARED_PATHS",
]


@pytest.mark.parametrize("variable", OTHERS)
def test_unrelated_variables_are_ignored(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "tcp://10.0.0.1:8000")

    assert Settings.from_environment() == Settings()


def test_a_misspelt_variable_that_is_empty_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch, CTMS_DB_URI=" ") == Settings()
