"""Connections to public addresses only: the very address that was looked at is connected to.

So nobody gets the service to call its own network, neither by a name that leads there nor by one that leads elsewhere
when it is looked up a second time.
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
    """The other side's name leads to an address that is not public."""


class PublicOnly(HTTPAdapter):
    """What a session is given to connect by. Requests raise `NotPublic`."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools of connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """True for an address that anybody may have; for one that stands for an IPv4 address, that one counts."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast


def public_addresses(host: str, port: int) -> list[str]:
    """Look a name up; return its addresses. Raises `NotPublic` when one of them is not public, and `OSError`."""
    found = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not all(is_public(ip_address(address)) for address in found):
        raise NotPublic
    return list(dict.fromkeys(found))


class _Pinned(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        # The name stays what TLS and the header Host go by; only where to connect is another.
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
