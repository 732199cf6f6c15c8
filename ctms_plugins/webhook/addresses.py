"""Connections to public addresses only: the address that was checked is the one that is used.

So nobody can make the service call its own network, by a name that resolves to a private address, or by one that
resolves differently the second time (DNS rebinding).
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NameResolutionError, NewConnectionError

_NAT64 = IPv6Network("64:ff9b::/96")


class NotPublic(Exception):
    """The host name resolves to an address that is not public."""


class PublicOnly(HTTPAdapter):
    """A transport adapter that connects only to public addresses. Requests raise `NotPublic`."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Create the connection pools."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Return whether an address is public; for one that embeds an IPv4 address, that one counts."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast


def public_addresses(host: str, port: int) -> list[str]:
    """Resolve a name and return its addresses. Raises `NotPublic` if one of them is not public, and `OSError`."""
    found = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not all(is_public(ip_address(address)) for address in found):
        raise NotPublic
    return list(dict.fromkeys(found))


class _Pinned(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        # TLS and the header Host use the name; only the address of the connection differs.
        name = self.host
        problem = NewConnectionError(self, "the name has no address")
        try:
            for address in public_addresses(name.strip("[]"), self.port):
                self.host = address
                try:
                    return super()._new_conn()
                except NewConnectionError as error:
                    problem = error
        except socket.gaierror as error:
            raise NameResolutionError(name, self, error) from error
        finally:
            self.host = name
        raise problem


class _SecurePinned(_Pinned, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Pinned


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecurePinned
