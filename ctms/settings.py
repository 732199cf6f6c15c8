"""The settings: environment variables, read and validated once, at start.

Each may also come from a file, named by the same variable with the suffix `_FILE` (as for container secrets). The
fields of `Settings` are the only list of settings; `flask ctms settings` and the reference page are generated from it.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import marshmallow as ma
import platformdirs

from ctms.current import extension
from ctms.database_urls import parse_primary_url, parse_url
from ctms.environment import Setting, close_to, declared, read_settings, set_variables, setting, variables
from ctms.errors import SettingsError

PREFIX = "CTMS_"
PREFIX_OF_PLUGINS = "CTMS_PLUGIN_"

SECRET_KEY_MIN_LENGTH = 32
"""In bytes: RFC 7518, 3.2 requires an HS256 key to be at least as long as the hash."""

MAX_KEPT_DAYS = 36_500
"""A hundred years: the database can subtract them from now."""

NewslettersMode = Literal["off", "warn", "enforce"]
"""The treatment of new subscriptions to newsletters that are unknown or retired."""


def _long_enough(value: str) -> None:
    if len(value.encode()) < SECRET_KEY_MIN_LENGTH:
        raise ma.ValidationError(f"is too short: at least {SECRET_KEY_MIN_LENGTH} bytes are needed")


def _all_long_enough(values: tuple[str, ...]) -> None:
    for value in values:
        _long_enough(value)


def _origin(value: str) -> None:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise ma.ValidationError("must be an absolute http:// or https:// URL")


def _level(value: str) -> None:
    if value.upper() not in logging.getLevelNamesMapping():
        raise ma.ValidationError("must be a level of Python's logging, such as INFO")


def _positive(value: int) -> None:
    if value < 1:
        raise ma.ValidationError("must be at least 1")


def _not_negative(value: int) -> None:
    if value < 0:
        raise ma.ValidationError("must not be negative")


def _kept_days(value: int) -> None:
    if not 1 <= value <= MAX_KEPT_DAYS:
        raise ma.ValidationError(f"must be 1 to {MAX_KEPT_DAYS:,} days")


def _export_hours(value: int) -> None:
    if not 1 <= value <= 24:
        raise ma.ValidationError("must be 1 to 24 hours")


def _port(value: int) -> None:
    if not 0 < value < 65536:
        raise ma.ValidationError("must be a port from 1 to 65535")


def _default_data_dir() -> Path:
    # The embedded server runs as its own user, not as root, and needs access to all parent directories. Root's home
    # does not grant it.
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/ctms")
    return Path(platformdirs.user_data_path("ctms"))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The validated settings of the service. `Settings.from_environment()` reads them; tests construct them."""

    db_url: str | None = setting(
        "CTMS_DB_URL",
        "URL of the PostgreSQL server (15 to 18). Of several hosts, as in HOST:5432,HOST:5432, the primary is used."
        " If unset, an embedded server with its data in CTMS_DATA_DIR.",
        default=None,
        convert=parse_primary_url,
        secret=True,
    )
    db_read_url: str | None = setting(
        "CTMS_DB_READ_URL",
        "URL of replicas of the PostgreSQL server, for searches, exports, `/updates?stale_ok=true` and backends."
        " If unset, these use CTMS_DB_URL.",
        default=None,
        convert=parse_url,
        secret=True,
    )
    db_read_max_lag: int = setting(
        "CTMS_DB_READ_MAX_LAG_SECONDS",
        "Maximum time that a read waits for a replica to catch up before it uses the primary, in seconds.",
        default=1,
        check=_not_negative,
    )
    data_dir: Path = setting(  # noqa: RUF009  it is a field
        "CTMS_DATA_DIR",
        "Directory of the embedded database and its keys.",
        default=_default_data_dir,
        convert=lambda value: Path(value).expanduser(),
    )
    db_pool_size: int = setting(
        "CTMS_DB_POOL_SIZE",
        "Database connections that each process keeps open.",
        default=8,
        check=_positive,
    )
    db_max_overflow: int = setting(
        "CTMS_DB_MAX_OVERFLOW",
        "Additional database connections that each process may open under load.",
        default=8,
        check=_not_negative,
    )
    db_pool_timeout: int = setting(
        "CTMS_DB_POOL_TIMEOUT_IN_SECONDS",
        "Maximum time that a request waits for a database connection before it gets 503, in seconds.",
        default=5,
        check=_positive,
    )
    db_pool_recycle: int = setting(
        "CTMS_DB_POOL_RECYCLE_IN_SECONDS",
        "Age at which an idle database connection is replaced, in seconds.",
        default=3600,
        check=_positive,
    )
    db_statement_timeout: int = setting(
        "CTMS_DB_STATEMENT_TIMEOUT_IN_SECONDS",
        "Maximum run time of a request's statement before the database cancels it, in seconds.",
        default=20,
        check=_positive,
    )
    db_prepared_statements: bool = setting(
        "CTMS_DB_PREPARED_STATEMENTS",
        "Whether connections prepare the statements that they repeat. PgBouncer before 1.21 needs `no` if it pools"
        " transactions.",
        default=True,
    )
    secret_key: str | None = setting(
        "CTMS_SECRET_KEY",
        "Key that signs the tokens (HS256), at least 32 bytes. If unset, generated and stored next to the embedded"
        " database.",
        default=None,
        check=_long_enough,
        secret=True,
    )
    secret_key_fallbacks: tuple[str, ...] = setting(
        "CTMS_SECRET_KEY_FALLBACKS",
        "Comma-separated list of older signing keys whose tokens are still accepted.",
        default=(),
        check=_all_long_enough,
        secret=True,
    )
    token_expiration: int = setting(
        "CTMS_TOKEN_EXPIRATION", "Lifetime of a token, in seconds.", default=3600, check=_positive
    )
    token_failures_per_minute: int = setting(
        "CTMS_TOKEN_FAILURES_PER_MINUTE",
        "Maximum number of failed token requests per minute, per process, client id and IP address, before the response"
        " is 429.",
        default=30,
        check=_positive,
    )
    erasure_key: str | None = setting(
        "CTMS_ERASURE_KEY",
        "Key for the fingerprints of erased and suppressed addresses, at least 32 bytes. If unset, generated and stored"
        " next to the embedded database. With a server of your own, no fingerprints are stored without it, and `serve`,"
        " `delete-bulk` and the heartbeat warn about it.",
        default=None,
        check=_long_enough,
        secret=True,
    )
    access_report_days: int = setting(
        "CTMS_ACCESS_REPORT_DAYS",
        "Days for which the report of an access request over the API is stored. An erasure deletes it at once.",
        default=7,
        check=_kept_days,
    )
    tombstone_days: int = setting(
        "CTMS_TOMBSTONE_DAYS",
        "Days for which `/updates?deleted=true` lists deleted contacts. Older tombstones are deleted.",
        default=90,
        check=_kept_days,
    )
    server_prefix: str | None = setting(
        "CTMS_SERVER_PREFIX",
        "Public origin of the service for `next` links, as in https://ctms.example.com. If unset, the request's.",
        default=None,
        check=_origin,
        convert=lambda value: value.rstrip("/"),
    )
    use_mozlog: bool = setting(
        "CTMS_USE_MOZLOG",
        "Whether to log in MozLog JSON rather than readable text.",
        default=True,
    )
    logging_level: str = setting(
        "CTMS_LOGGING_LEVEL",
        "Minimum log level.",
        default="INFO",
        check=_level,
        convert=str.upper,
    )
    log_sqlalchemy: bool = setting(
        "CTMS_LOG_SQLALCHEMY",
        "Whether to log SQLAlchemy's statements, without their values.",
        default=False,
    )
    sentry_dsn: str | None = setting(
        "SENTRY_DSN", "DSN of the Sentry project that receives errors. If unset, none.", default=None, secret=True
    )
    sentry_debug: bool = setting("CTMS_SENTRY_DEBUG", "Whether the Sentry client logs debug output.", default=False)
    host: str = setting("HOST", "Address that `flask ctms serve` binds.", default="127.0.0.1")
    port: int = setting("PORT", "Port that `flask ctms serve` binds.", default=8000, check=_port)
    plugins: tuple[str, ...] | None = setting(
        "CTMS_PLUGINS",
        "Comma-separated list of plugins to load. If unset, all installed plugins.",
        default=None,
    )
    plugins_disabled: tuple[str, ...] = setting(
        "CTMS_PLUGINS_DISABLED",
        "Comma-separated list of plugins that are not loaded.",
        default=(),
    )
    plugins_trace: bool = setting("CTMS_PLUGINS_TRACE", "Whether to log every call of a plugin's hook.", default=False)
    stored_documents: bool = setting(
        "CTMS_STORED_DOCUMENTS",
        "Whether rendered contacts are stored, which makes reads faster and takes about as much disk as the contacts.",
        default=True,
    )
    newsletters: NewslettersMode = setting(  # noqa: RUF009  it is a field
        "CTMS_NEWSLETTERS",
        "Whether new subscriptions to newsletters that are unknown or retired are accepted (`off`), logged (`warn`) or"
        " refused (`enforce`).",
        default="off",
    )
    workers: int = setting(
        "CTMS_WORKERS",
        "Number of server processes. If unset, the number of cores.",
        default=lambda: len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        check=_positive,
    )
    threads: int = setting(
        "CTMS_THREADS",
        "Threads per process: the number of requests that it handles concurrently.",
        default=4,
        check=_positive,
    )

    worker_concurrency: int = setting(
        "CTMS_WORKER_CONCURRENCY",
        "Maximum number of concurrent calls to backends and deletion handlers, per `flask ctms worker`.",
        default=4,
        check=_positive,
    )
    worker_metrics_port: int | None = setting(
        "CTMS_WORKER_METRICS_PORT",
        "Port on HOST where `flask ctms worker` serves its metrics. If unset, none.",
        default=None,
        check=_port,
    )
    pushgateway_url: str | None = setting(
        "CTMS_PROMETHEUS_PUSHGATEWAY_URL",
        "URL of the Prometheus Pushgateway that `flask ctms worker` pushes its metrics to. If unset, none.",
        default=None,
        check=_origin,
    )

    export_dir: Path | None = setting(  # noqa: RUF009  it is a field
        "CTMS_EXPORT_DIR",
        "Directory of exports over the API, shared by the service and `flask ctms worker`. If unset, none.",
        default=None,
        convert=lambda value: Path(value).expanduser(),
    )
    export_hours: int = setting(
        "CTMS_EXPORT_HOURS",
        "Hours for which the files of an export over the API are stored, at most 24: no erasure reaches them.",
        default=24,
        check=_export_hours,
    )

    retention_file: Path | None = setting(  # noqa: RUF009  it is a field
        "CTMS_RETENTION_FILE",
        "TOML file with retention rules, which `flask ctms worker` applies weekly. If unset, none.",
        default=None,
        convert=lambda value: Path(value).expanduser(),
    )

    def __post_init__(self) -> None:
        if self.db_url and not self.secret_key:
            raise SettingsError(
                "CTMS_SECRET_KEY is missing: with CTMS_DB_URL set, give 32 random bytes or more, "
                "such as the output of `openssl rand -base64 48`"
            )

        if self.db_read_url and not self.db_url:
            raise SettingsError("CTMS_DB_READ_URL needs CTMS_DB_URL: set it to the URL of the primary")

    @property
    def embedded(self) -> bool:
        """Whether the service runs its own, embedded PostgreSQL."""
        return self.db_url is None

    @property
    def has_erasure_key(self) -> bool:
        """Whether fingerprints of addresses are stored: the embedded database comes with a key."""
        return self.embedded or self.erasure_key is not None

    @classmethod
    def from_environment(cls) -> Settings:
        """Read the settings from the environment.

        Raises `SettingsError` with one line that names each invalid variable and the reason, never its value. A
        variable that begins with `CTMS_` and is almost the name of a setting is also invalid.
        """
        refuse_misspelt(name for name in set_variables(PREFIX) if not name.startswith(PREFIX_OF_PLUGINS))
        return read_settings(cls)

    @classmethod
    def declared(cls) -> list[tuple[str, Setting, Any]]:
        """Return all settings, in order: field name, definition, default."""
        return declared(cls)


_MISSPELT = 0.8
"""Similarity of a misspelt name to the right one, as measured by `difflib`, without `CTMS_`."""

_OF_KUBERNETES = re.compile(r"_SERVICE_(HOST|PORT)")


def refuse_misspelt(names: Iterable[str]) -> None:
    """Raise `SettingsError` if some of these variables are misspelt settings.

    Other variables belong to others: Kubernetes sets variables for a service called `ctms`, and tools and older
    deployments have their own. A name with more words than a setting, such as `CTMS_DB_URL_OLD`, is not misspelt.
    """
    known = variables(Settings.declared())
    problems = []
    for name in names:
        right = name in known or _OF_KUBERNETES.search(name)
        close = None if right else close_to(name, sorted(known), PREFIX, _MISSPELT)
        if close is not None and not name.startswith(f"{close}_"):
            problems.append(f"there is no setting {name}: did you mean {close}?")
    if problems:
        raise SettingsError("; ".join(problems))


def app_settings() -> Settings:
    """Return the settings of the current app."""
    return cast(Settings, extension("ctms.settings"))
