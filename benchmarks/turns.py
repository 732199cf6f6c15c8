"""Measuring servers in turns, so that what else the machine does meets all of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import astuple

from benchmarks import load
from benchmarks.data import Contacts
from benchmarks.kinds import Kind
from benchmarks.load import Measurement
from benchmarks.servers import Server


def in_turns(
    servers: Sequence[Server],
    kind: Kind,
    contacts: Contacts,
    *,
    rounds: int,
    seconds: int,
    connections: int,
    warm_up: int = 1,
) -> list[list[Measurement]]:
    """Return what `rounds` rounds showed of each server, of `seconds` each. Raises `load.WrongAnswer`.

    Who is first in one round is last in the next.
    """
    if warm_up:
        for server in servers:
            load.measure(server, kind, contacts, seconds=warm_up, connections=connections)
    measured: list[list[Measurement]] = [[] for _ in servers]
    for number in range(rounds):
        order = range(len(servers))
        for index in order if number % 2 == 0 else reversed(order):
            found = load.measure(servers[index], kind, contacts, seconds=seconds, connections=connections)
            measured[index].append(found)
    return measured


def median(measured: Sequence[Measurement]) -> Measurement:
    """Return the medians of what rounds showed."""
    return Measurement(*map(statistics.median, zip(*map(astuple, measured), strict=True)))


def ratios(measured: Sequence[Measurement], others: Sequence[Measurement]) -> list[float]:
    """Return, round by round, how many times as many requests the first answered."""
    return [one.rate / other.rate for one, other in zip(measured, others, strict=True)]
