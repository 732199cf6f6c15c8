"""Interleaved measurements of several servers, so that other load on the machine affects all of them alike."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import astuple

from benchmarks import load
from benchmarks.data import Contacts
from benchmarks.kinds import Kind
from benchmarks.load import Measurement
from benchmarks.servers import Server


def add_arguments(parser: argparse.ArgumentParser, *, seconds: int = 4, rounds: int = 5) -> None:
    """Add the options of a measurement to a command line; `seconds` and `rounds` are defaults."""
    parser.add_argument(
        "--seconds", type=int, default=seconds, help="duration of one measurement (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=rounds, help="measurements of each server, interleaved (default: %(default)s)"
    )
    parser.add_argument("--connections", type=int, default=16, help="kept alive (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes of each server (default: %(default)s)")


def measure_interleaved(
    servers: Sequence[Server], kind: Kind, contacts: Contacts, options: argparse.Namespace, *, warm_up: int = 1
) -> list[list[Measurement]]:
    """Return the measurements of each server, in the rounds of the `options` after `warm_up` seconds.

    The order of the servers is reversed in every second round. Raises `load.WrongAnswer`.
    """
    if warm_up:
        for server in servers:
            load.measure(server, kind, contacts, seconds=warm_up, connections=options.connections)
    measured: list[list[Measurement]] = [[] for _ in servers]
    for number in range(options.rounds):
        order = range(len(servers))
        for index in order if number % 2 == 0 else reversed(order):
            measured[index].append(
                load.measure(servers[index], kind, contacts, seconds=options.seconds, connections=options.connections)
            )
    return measured


def median(measured: Sequence[Measurement]) -> Measurement:
    """Return the medians of the measurements."""
    return Measurement(*map(statistics.median, zip(*map(astuple, measured), strict=True)))


def ratios(measured: Sequence[Measurement], others: Sequence[Measurement]) -> list[float]:
    """Return the ratio of the rates of each round."""
    return [one.rate / other.rate for one, other in zip(measured, others, strict=True)]
