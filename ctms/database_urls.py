"""URLs of PostgreSQL servers, as settings give them."""

from __future__ import annotations

import re

import marshmallow as ma
import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.util import to_list

_PERCENT_ENCODING = "in user names and passwords write @ as %40, : as %3A, / as %2F, ? as %3F, # as %23 and % as %25"


_URL_PARTS = re.compile(r"([^:/@]+://(?:[^@/?]*@)?)([^/?]*)(.*)", re.DOTALL)
_HOST = re.compile(r"(?:\[(?P<ipv6>[^]]+)\]|(?P<name>[^:]+))(?::(?P<port>\d+))?")


def _parse_url(value: str) -> URL:
    """Return a URL with our driver; the other spellings are common and equivalent."""
    address, _, query = value.partition("@")[2].partition("?")
    # The rest of a password with an `@` would be parsed as the host, which messages contain.
    if "@" in address or any("@" in part and "=" not in part for part in query.split("&")):
        raise ma.ValidationError(f"has a special character that is not percent-encoded: {_PERCENT_ENCODING}")
    try:
        url = _split_hosts(value)
    except (ArgumentError, ValueError) as error:  # ValueError: a port that is not a number
        raise ma.ValidationError(
            f"is not a database URL, such as postgresql://USER:PASSWORD@HOST:5432/NAME; {_PERCENT_ENCODING}"
        ) from error
    if url.drivername not in {"postgres", "postgresql", "postgres+psycopg", "postgresql+psycopg"}:
        raise ma.ValidationError("must start with postgresql:// (PostgreSQL is the only database)")
    try:
        make_conninfo("", **dict.fromkeys(url.query, "any"))
    except psycopg.ProgrammingError as error:
        raise ma.ValidationError(f"has a parameter after ? that libpq does not know; {_PERCENT_ENCODING}") from error
    return url.set(drivername="postgresql+psycopg")


def _split_hosts(value: str) -> URL:
    """Parse a URL. Several hosts become parameters, which libpq reads, because SQLAlchemy has one host.

    Raises `ArgumentError` or `ValueError`.
    """
    parts = _URL_PARTS.fullmatch(value)
    if parts is None or "," not in parts[2]:
        return make_url(value)
    hosts = [_HOST.fullmatch(host) for host in parts[2].split(",")]
    if any(host is None for host in hosts):
        raise ValueError("a host is empty, or a port is not a number")
    found = [(host["ipv6"] or host["name"], host["port"] or "5432") for host in hosts if host]
    names, ports = zip(*found, strict=True)
    url = make_url(parts[1] + parts[3])
    return url.update_query_dict({"host": ",".join(names), "port": ",".join(ports)})


def parse_primary_url(value: str) -> str:
    """Return the URL of the server that is written to: of several hosts, the primary."""
    url = _parse_url(value)
    if has_several_hosts(url) and "target_session_attrs" not in url.query:
        url = url.update_query_dict({"target_session_attrs": "read-write"})
    return url.render_as_string(hide_password=False)


def parse_url(value: str) -> str:
    """Return the URL of servers that are only read."""
    return _parse_url(value).render_as_string(hide_password=False)


def has_several_hosts(url: URL) -> bool:
    """Return whether a URL names several servers, to connect to the first that is suitable."""
    return any("," in host for host in (url.host or "", *to_list(url.query.get("host", ""))))
