"""The waitlists of the bundled plugins, tested with the contract for authors."""

from __future__ import annotations

from flask import Flask

from ctms.hooks.manager import Plugins
from ctms.testing import WaitlistContract

LONGEST = "x" * 100


class TestDefault(WaitlistContract):
    """Any waitlist that has no rules of its own."""

    name = "*"
    good = ({}, {"geo": None, "platform": "win64"}, {"geo": LONGEST, "deep": {"a": [1, 2.5, None]}})
    bad = (
        ({"geo": 1}, ["geo"]),
        ({"geo": LONGEST + "x", "other": True}, ["geo"]),
        ({"geo": "ca", "platform": ["win64"]}, ["platform"]),
        ({"geo": False, "platform": {}}, ["geo", "platform"]),
    )


class TestRelay(WaitlistContract):
    """Relay's."""

    name = "relay"
    good = ({}, {"geo": None}, {"geo": LONGEST})
    bad = (({"geo": 1}, ["geo"]), ({"geo": LONGEST + "x"}, ["geo"]), ({"geo": "ca", "platform": "x"}, ["platform"]))


class TestVpn(WaitlistContract):
    """VPN's."""

    name = "vpn"
    good = ({}, {"geo": None, "platform": None}, {"geo": "ca", "platform": LONGEST})
    bad = (
        ({"geo": 1}, ["geo"]),
        ({"platform": LONGEST + "x"}, ["platform"]),
        ({"geo": [], "platform": "ios", "seats": 2}, ["geo", "seats"]),
    )


def test_every_bundled_waitlist_is_tested(app: Flask) -> None:
    plugins: Plugins = app.extensions["ctms.plugins"]
    held = {contract.name for contract in WaitlistContract.__subclasses__() if contract.__module__ == __name__}

    assert {registered.value.name for registered in plugins.collect("ctms_waitlists")} == held
