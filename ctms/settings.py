"""The settings: environment variables, read and checked once, before anything is done.

Each may also come from a file, named by the same variable with `_FILE` behind it (as container secrets do).
The fields of `Settings` are the only list: `flask ctms settings`, the docs and their test are made from it.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import marshmallow as ma
import platformdirs
import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from ctms.environment import Setting, close_to, declared, read_settings, set_variables, setting, variables
from ctms.errors import SettingsError

PREFIX = "CTMS_"
PREFIX_OF_PLUGINS = "CTMS_PLUGIN_"

SECRET_KEY_MIN_LENGTH = 32
"""Bytes: RFC 7518, 3.2 asks of an HS256 key that it be at least as long as the hash."""

_PERCENT_ENCODING = "in user names and passwords write @ as %40, : as %3A, / as %2F, ? as %3F, # as %23 and % as %25"


def _database_url(value: str) -> str:
    """Give the URL the driver that we use; the other spellings are common and mean the same."""
    address, _, query = value.partition("@")[2].partition("?")
    # The rest of a password with an `@` would be taken for a host, which messages name.
    if "@" in address or any("@" in part and "=" not in part for part in query.split("&")):
        raise ma.ValidationError(f"has a special character that is not percent-encoded: {_PERCENT_ENCODING}")
    try:
        url = make_url(value)
    except (ArgumentError, ValueError) as error:  # ValueError: a port that is no number
        raise ma.ValidationError(
            f"is not a database URL, such as postgresql://USER:PASSWORD@HOST:5432/NAME; {_PERCENT_ENCODING}"
        ) from error
    if url.drivername not in {"postgres", "postgresql", "postgres+psycopg", "postgresql+psycopg"}:
        raise ma.ValidationError("must start with postgresql:// (PostgreSQL is the only database)")
    try:
        make_conninfo("", **dict.fromkeys(url.query, "any"))
    except psycopg.ProgrammingError as error:
        raise ma.ValidationError(f"has a parameter after ? that libpq does not know; {_PERCENT_ENCODING}") from error
    return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


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


def _port(value: int) -> None:
    if not 0 < value < 65536:
        raise ma.ValidationError("must be a port from 1 to 65535")


def _default_data_dir() -> Path:
    # The embedded server does not run as root but as a user of its own, to whom the folders above must be open:
    # root's home is not the place.
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/ctms")
    return Path(platformdirs.user_data_path("ctms"))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the service was told, checked. `Settings.from_environment()` reads it, tests build it."""

    db_url: str | None = setting(
        "CTMS_DB_URL",
        "The PostgreSQL server (15 to 18). Unset: an embedded one, its data in CTMS_DATA_DIR.",
        default=None,
        convert=_database_url,
        secret=True,
    )
    data_dir: Path = setting(  # noqa: RUF009  it is a field
        "CTMS_DATA_DIR",
        "Where the embedded database and its keys live.",
        default=_default_data_dir,
        convert=lambda value: Path(value).expanduser(),
    )
    db_pool_size: int = setting(
        "CTMS_DB_POOL_SIZE",
        "Connections that each process keeps open.",
        default=8,
        check=_positive,
    )
    db_max_overflow: int = setting(
        "CTMS_DB_MAX_OVERFLOW",
        "Further connections that a process may open under load.",
        default=8,
        check=_not_negative,
    )
    db_pool_timeout: int = setting(
        "CTMS_DB_POOL_TIMEOUT_IN_SECONDS",
        "How long a request waits for a connection before it is answered with 503.",
        default=5,
        check=_positive,
    )
    db_pool_recycle: int = setting(
        "CTMS_DB_POOL_RECYCLE_IN_SECONDS",
        "The age at which an idle connection is replaced.",
        default=3600,
        check=_positive,
    )
    db_statement_timeout: int = setting(
        "CTMS_DB_STATEMENT_TIMEOUT_IN_SECONDS",
        "How long a statement of a request may run before the database stops it.",
        default=20,
        check=_positive,
    )
    secret_key: str | None = setting(
        "CTMS_SECRET_KEY",
        "Signs the tokens (HS256): 32 bytes or more. Unset: made and kept beside the embedded database.",
        default=None,
        check=_long_enough,
        secret=True,
    )
    secret_key_fallbacks: tuple[str, ...] = setting(
        "CTMS_SECRET_KEY_FALLBACKS",
        "Older keys, separated by commas, whose tokens are still accepted.",
        default=(),
        check=_all_long_enough,
        secret=True,
    )
    token_expiration: int = setting(
        "CTMS_TOKEN_EXPIRATION", "Seconds that a token is valid.", default=3600, check=_positive
    )
    token_failures_per_minute: int = setting(
        "CTMS_TOKEN_FAILURES_PER_MINUTE",
        "Failed attempts at a token, per process, client id and address, before the answer is 429.",
        default=30,
        check=_positive,
    )
    erasure_key: str | None = setting(
        "CTMS_ERASURE_KEY",
        "Keys the fingerprints of erased and suppressed addresses: 32 bytes or more. Unset: made and kept beside the"
        " embedded database; on a server of one's own no fingerprints are kept, and `serve`, `delete-bulk` and the"
        " heartbeat warn of it.",
        default=None,
        check=_long_enough,
        secret=True,
    )
    server_prefix: str | None = setting(
        "CTMS_SERVER_PREFIX",
        "The public origin, as in https://ctms.example.com: `next` links start with it. Unset: the request's.",
        default=None,
        check=_origin,
        convert=lambda value: value.rstrip("/"),
    )
    use_mozlog: bool = setting(
        "CTMS_USE_MOZLOG",
        "Logs in MozLog JSON; false: readable text.",
        default=True,
    )
    logging_level: str = setting(
        "CTMS_LOGGING_LEVEL",
        "The lowest level that is logged.",
        default="INFO",
        check=_level,
        convert=str.upper,
    )
    log_sqlalchemy: bool = setting(
        "CTMS_LOG_SQLALCHEMY",
        "Logs the statements that SQLAlchemy sends, never their values.",
        default=False,
    )
    sentry_dsn: str | None = setting(
        "SENTRY_DSN", "Where errors are reported. Unset: nowhere.", default=None, secret=True
    )
    sentry_debug: bool = setting("CTMS_SENTRY_DEBUG", "Lets the Sentry client log what it does.", default=False)
    host: str = setting("HOST", "The address that `flask ctms serve` binds.", default="127.0.0.1")
    port: int = setting("PORT", "The port that `flask ctms serve` binds.", default=8000, check=_port)
    plugins: tuple[str, ...] | None = setting(
        "CTMS_PLUGINS",
        "Names of plugins, separated by commas: only these are loaded. Unset: all that are installed.",
        default=None,
    )
    plugins_disabled: tuple[str, ...] = setting(
        "CTMS_PLUGINS_DISABLED",
        "Names of plugins, separated by commas, that are not loaded.",
        default=(),
    )
    plugins_trace: bool = setting("CTMS_PLUGINS_TRACE", "Logs every call of a plugin's hook.", default=False)
    workers: int = setting(
        "CTMS_WORKERS",
        "Processes that serve. Unset: as many as there are cores.",
        default=lambda: len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        check=_positive,
    )
    threads: int = setting(
        "CTMS_THREADS",
        "Threads of each process: requests that it works on at once.",
        default=4,
        check=_positive,
    )

    worker_concurrency: int = setting(
        "CTMS_WORKER_CONCURRENCY",
        "Calls to backends and deletion handlers that one `flask ctms worker` has under way at once.",
        default=4,
        check=_positive,
    )
    worker_metrics_port: int | None = setting(
        "CTMS_WORKER_METRICS_PORT",
        "The port, on HOST, where `flask ctms worker` serves its metrics. Unset: nowhere.",
        default=None,
        check=_port,
    )
    pushgateway_url: str | None = setting(
        "CTMS_PROMETHEUS_PUSHGATEWAY_URL",
        "The Prometheus Pushgateway that `flask ctms worker` pushes its metrics to. Unset: none.",
        default=None,
        check=_origin,
    )

    def __post_init__(self) -> None:
        if self.db_url and not self.secret_key:
            raise SettingsError(
                "CTMS_SECRET_KEY is missing: with CTMS_DB_URL set, give 32 random bytes or more, "
                "such as the output of `openssl rand -base64 48`"
            )

    @property
    def embedded(self) -> bool:
        """True where the service brings its own PostgreSQL."""
        return self.db_url is None

    @property
    def has_erasure_key(self) -> bool:
        """True where fingerprints of addresses are kept: the embedded database brings a key of its own."""
        return self.embedded or self.erasure_key is not None

    @classmethod
    def from_environment(cls) -> Settings:
        """Read the environment.

        Raises `SettingsError`, one line that names each variable that cannot be used and why; never its value. A
        variable that begins with `CTMS_` and is nearly one of ours cannot be used, either.
        """
        refuse_misspelt(name for name in set_variables(PREFIX) if not name.startswith(PREFIX_OF_PLUGINS))
        return read_settings(cls)

    @classmethod
    def declared(cls) -> list[tuple[str, Setting, Any]]:
        """All settings, in order: field name, how it is read, default."""
        return declared(cls)


_MISSPELT = 0.8
"""How alike two names are of which one is a slip, as `difflib` measures it, without `CTMS_`."""

_OF_KUBERNETES = re.compile(r"_SERVICE_(HOST|PORT)")


def refuse_misspelt(names: Iterable[str]) -> None:
    """Raise `SettingsError` where some of these variables are nearly settings.

    Others are somebody else's: Kubernetes sets variables for a service called `ctms`, tools and older deployments have
    theirs. Nor is a slip what has more words than a setting, such as `CTMS_DB_URL_OLD`.
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
