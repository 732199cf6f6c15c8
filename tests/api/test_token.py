"""`/token` and its tokens: credentials, key rotation, refusals and the limit of attempts."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import replace
from typing import Any

import jwt
import pytest
from flask import Flask

from ctms.clients import secrets
from ctms.clients.attempt_limiter import init_attempt_limiter
from ctms.clients.tokens import Tokens, init_tokens
from tests.clients.factories import QUICK_HASHER, SECRET, create_client
from tests.conftest import SECRET_KEY
from tests.contacts.rows import execute
from tests.http import Answer, ApiClient, assert_error

WRONG = "Incorrect username or password"
OLD_KEY = "an older key for tests only, of thirty-two bytes or more"
NOBODYS_HASH = QUICK_HASHER.hash("nobody's")
NEVER_STORED = {"Cache-Control": "no-store", "Pragma": "no-cache"}


@pytest.fixture(autouse=True)
def fresh(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Isolate failed attempts and keys of each test, and make hashes fast."""
    monkeypatch.setattr(secrets, "_hasher", QUICK_HASHER)
    monkeypatch.setattr(secrets, "_dummy_hash", lambda: NOBODYS_HASH)
    for name in ("ctms.attempt_limiter", "ctms.tokens"):
        monkeypatch.setitem(app.extensions, name, app.extensions[name])
    init_attempt_limiter(app, app.extensions["ctms.settings"])


def ask(api: ApiClient, *, basic: tuple[str, str] | None = None, **form: Any) -> Answer:
    credentials = base64.b64encode(":".join(basic).encode()).decode() if basic else ""
    return api.request(
        "POST", "/token", data=form or None, headers={"Authorization": f"Basic {credentials}"} if basic else {}
    )


def assert_refused(answer: Answer, status: int, detail: str | None, error: str) -> dict[str, Any]:
    body = assert_error(answer, status, detail)
    assert body["error"] == error
    assert NEVER_STORED.items() <= dict(answer.headers).items()
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)
    return body


def assert_challenged(answer: Answer) -> None:
    """RFC 6749, 5.2: a client that uses HTTP Basic learns that the scheme is right and the credentials are wrong."""
    body = assert_refused(answer, 401, WRONG, "invalid_client")
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="CTMS", charset="UTF-8"'
    assert set(body) == {"detail", "error"}


def token_of(claims: dict[str, Any], key: str = SECRET_KEY, algorithm: str = "HS256") -> str:
    return jwt.encode(claims, key, algorithm=algorithm)


def sound(client_id: str = "id_test", **claims: Any) -> dict[str, Any]:
    return {"sub": f"api_client:{client_id}", "exp": int(time.time()) + 60, **claims}


class TestCredentials:
    @pytest.mark.parametrize("grant", [{}, {"grant_type": "client_credentials"}, {"grant_type": "refresh_token"}])
    def test_as_a_form(self, anonymous: ApiClient, client_id: str, grant: dict[str, Any]) -> None:
        answer = ask(anonymous, client_id=client_id, client_secret=SECRET, **grant)

        assert answer.status_code == 200
        assert answer.content_type == "application/json"
        assert NEVER_STORED.items() <= dict(answer.headers).items()
        token = answer.json["access_token"]
        assert answer.json == {"access_token": token, "token_type": "bearer", "expires_in": 3600}
        claims = jwt.decode(token, SECRET_KEY, algorithms=["HS256"])
        assert claims["sub"] == f"api_client:{client_id}"
        assert 3590 < claims["exp"] - time.time() <= 3600

    def test_as_http_basic(self, anonymous: ApiClient, client_id: str) -> None:
        answer = ask(anonymous, basic=(client_id, SECRET))

        assert answer.status_code == 200
        read = anonymous.get("/ctms?sfdc_id=x", headers={"Authorization": f"Bearer {answer.json['access_token']}"})
        assert read.status_code == 200

    @pytest.mark.parametrize("grant", ["password", "CLIENT_CREDENTIALS", "x" * 300, "\0"])
    def test_other_grants_are_refused(self, anonymous: ApiClient, client_id: str, grant: str) -> None:
        answer = ask(anonymous, client_id=client_id, client_secret=SECRET, grant_type=grant)

        assert_refused(answer, 422, None, "unsupported_grant_type")
        assert answer.json["detail"][0]["loc"] == ["body", "grant_type"]

    @pytest.mark.parametrize(
        ("name", "secret"),
        [
            ("id_test", "secret_wrong"),
            ("id_test", f"{SECRET} "),
            ("id_test", ""),
            ("id_unknown", SECRET),
            ("", ""),
            ("ID_TEST", SECRET),
            ("id_test'--", SECRET),
            ("id_\U0001f600", SECRET),
            ("id_test\n", SECRET),
        ],
    )
    def test_bad_ones_all_get_one_answer(self, anonymous: ApiClient, client_id: str, name: str, secret: str) -> None:
        assert client_id == "id_test"
        assert_refused(ask(anonymous, client_id=name, client_secret=secret), 400, WRONG, "invalid_client")
        assert_challenged(ask(anonymous, basic=(name, secret)))

    def test_none(self, anonymous: ApiClient) -> None:
        assert_refused(ask(anonymous), 400, WRONG, "invalid_client")
        assert_refused(anonymous.post("/token", {"client_id": "id_test"}), 400, WRONG, "invalid_client")

    def test_a_disabled_client(self, anonymous: ApiClient) -> None:
        create_client("id_off", roles=["admin"], enabled=False)

        assert_refused(ask(anonymous, client_id="id_off", client_secret=SECRET), 400, WRONG, "invalid_client")

    @pytest.mark.parametrize("header", ["Basic", "basic", "Basic ====", "Basic ÿ", "BASIC " + "A" * 9, "Basic Og=="])
    def test_odd_basic_headers(self, anonymous: ApiClient, header: str) -> None:
        assert_challenged(anonymous.request("POST", "/token", headers={"Authorization": header}))

    @pytest.mark.parametrize("header", ["Bearer x", "Digest x=y", "Basically", ""])
    def test_other_schemes(self, anonymous: ApiClient, header: str) -> None:
        answer = anonymous.request("POST", "/token", headers={"Authorization": header})

        assert_refused(answer, 400, WRONG, "invalid_client")

    def test_a_disabled_client_by_http_basic(self, anonymous: ApiClient) -> None:
        create_client("id_off", roles=["admin"], enabled=False)

        assert_challenged(ask(anonymous, basic=("id_off", SECRET)))

    def test_no_missing_field_is_reported_when_none_is_missing(self, anonymous: ApiClient, client_id: str) -> None:
        refused = ask(anonymous, client_id=client_id, client_secret="no")

        assert set(assert_refused(refused, 400, WRONG, "invalid_client")) == {"detail", "error"}

    BOTH = "Missing form fields: client_id, client_secret."
    NO_FORM = " The body is not a form: send Content-Type: application/x-www-form-urlencoded."
    QUERY = " Credentials in the query string are ignored: send them in the body."

    @pytest.mark.parametrize(
        ("request_", "description"),
        [
            ({}, BOTH),
            ({"data": {"grant_type": "client_credentials"}}, BOTH),
            ({"data": {"client_id": "id_test"}}, "Missing form fields: client_secret."),
            ({"data": {"client_id": "", "client_secret": SECRET}}, "Missing form fields: client_id."),
            ({"json": {"client_id": "id_test", "client_secret": SECRET}}, BOTH + NO_FORM),
            ({"data": f"client_id=id_test&client_secret={SECRET}"}, BOTH + NO_FORM),
            ({"query_string": {"client_id": "id_test", "client_secret": SECRET}}, BOTH + QUERY),
            (
                {"data": {"client_id": "id_test"}, "query_string": {"client_secret": SECRET}},
                "Missing form fields: client_secret." + QUERY,
            ),
            ({"json": {"client_secret": SECRET}, "query_string": {"client_id": "id_test"}}, BOTH + NO_FORM + QUERY),
        ],
    )
    def test_credentials_in_the_wrong_place(
        self, anonymous: ApiClient, client_id: str, request_: dict[str, Any], description: str
    ) -> None:
        answer = anonymous.request("POST", "/token", **request_)

        assert_refused(answer, 400, WRONG, "invalid_client")
        assert answer.json["error_description"] == description
        assert client_id not in answer.text
        assert SECRET not in answer.text

    def test_a_form_of_several_parts_is_a_form(self, anonymous: ApiClient, client_id: str) -> None:
        form = {"client_id": client_id, "client_secret": SECRET}

        assert anonymous.request("POST", "/token", data=form, content_type="multipart/form-data").status_code == 200
        refused = anonymous.request("POST", "/token", data={"client_id": "x"}, content_type="multipart/form-data")
        assert refused.json["error_description"] == "Missing form fields: client_secret."

    def test_text_that_is_too_long_is_refused_and_not_repeated(self, anonymous: ApiClient) -> None:
        answer = ask(anonymous, client_id="id_" + "x" * 300, client_secret="y" * 300)

        assert_refused(answer, 422, None, "invalid_request")
        assert "xxx" not in answer.text

    def test_an_unknown_client_takes_as_long_as_a_wrong_secret(
        self, anonymous: ApiClient, client_id: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each check costs one argon2 verification for any caller: counted, since times vary."""
        checked: list[str] = []

        class Counting:
            def verify(self, hashed: str, secret: str) -> bool:
                checked.append(hashed)
                return QUICK_HASHER.verify(hashed, secret)

        monkeypatch.setattr(secrets, "_hasher", Counting())
        create_client("id_off", enabled=False)
        for name in (client_id, "id_unknown", "id_off", "no id at all"):
            ask(anonymous, client_id=name, client_secret="secret_wrong")

        assert len(checked) == 4
        assert checked[0] != NOBODYS_HASH
        assert checked[1:] == [NOBODYS_HASH] * 3

    def test_get_is_not_allowed(self, anonymous: ApiClient) -> None:
        assert_error(anonymous.get("/token"), 405, "Method Not Allowed")


class TestAttempts:
    def test_a_client_with_too_many_failures_waits(self, app: Flask, anonymous: ApiClient, client_id: str) -> None:
        init_attempt_limiter(app, replace(app.extensions["ctms.settings"], token_failures_per_minute=2))
        for _ in range(2):
            assert ask(anonymous, client_id=client_id, client_secret="no").status_code == 400

        refused = ask(anonymous, client_id=client_id, client_secret=SECRET)

        assert_refused(refused, 429, "Too many failed attempts", "invalid_request")
        assert 1 <= int(refused.headers["Retry-After"]) <= 60

    def test_others_do_not(self, app: Flask, anonymous: ApiClient, client_id: str) -> None:
        init_attempt_limiter(app, replace(app.extensions["ctms.settings"], token_failures_per_minute=1))
        create_client("id_other", roles=["viewer"])
        ask(anonymous, client_id="id_other", client_secret="no")

        assert ask(anonymous, client_id=client_id, client_secret=SECRET).status_code == 200
        elsewhere = anonymous.request(
            "POST",
            "/token",
            data={"client_id": "id_other", "client_secret": SECRET},
            environ_overrides={"REMOTE_ADDR": "192.0.2.7"},
        )
        assert elsewhere.status_code == 200

    def test_success_does_not_count(self, app: Flask, anonymous: ApiClient, client_id: str) -> None:
        init_attempt_limiter(app, replace(app.extensions["ctms.settings"], token_failures_per_minute=1))

        for _ in range(3):
            assert ask(anonymous, client_id=client_id, client_secret=SECRET).status_code == 200


class TestBearer:
    def read(self, api: ApiClient, authorization: str) -> Answer:
        return api.get("/ctms?sfdc_id=x", headers={"Authorization": authorization})

    @pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic aWRfdGVzdDp4", "Token x", "bearer"])
    def test_none(self, anonymous: ApiClient, client_id: str, header: str) -> None:
        for answer in (self.read(anonymous, header), anonymous.get("/ctms?sfdc_id=x")):
            assert_error(answer, 401, "Not authenticated")
            assert answer.headers["WWW-Authenticate"] == "Bearer"

    def test_the_scheme_is_written_in_any_case(self, anonymous: ApiClient, client_id: str) -> None:
        for scheme in ("Bearer", "bearer", "BEARER"):
            assert self.read(anonymous, f"{scheme} {token_of(sound(client_id))}").status_code == 200

    @pytest.mark.parametrize(
        "token",
        [
            token_of(sound(exp=int(time.time()) - 1)),
            token_of({"sub": "api_client:id_test"}),
            token_of({"exp": int(time.time()) + 3600}),
            token_of(sound(sub="id_test")),
            token_of(sound(sub="user:id_test")),
            token_of(sound(sub="")),
            token_of(sound(exp="soon")),
            token_of(sound(exp=None)),
            token_of(sound("id_unknown")),
            token_of(sound("")),
            token_of(sound("\0")),
            token_of(sound(), key=SECRET_KEY + "x"),
            pytest.param(token_of(sound(), key="", algorithm="none"), id="unsigned"),  # its id would contain the time
            token_of(sound(), key=SECRET_KEY * 2, algorithm="HS512"),
            jwt.encode({"sub": 17, "exp": int(time.time()) + 3600}, SECRET_KEY, algorithm="HS256"),
            jwt.encode({"sub": None, "exp": int(time.time()) + 3600}, SECRET_KEY, algorithm="HS256"),
            jwt.api_jws.encode(b'{"sub": "api_client:id_test", "exp": Infinity}', SECRET_KEY, algorithm="HS256"),
            jwt.api_jws.encode(b'{"sub": "api_client:id_test", "exp": 1e400}', SECRET_KEY, algorithm="HS256"),
            jwt.api_jws.encode(b"[" * 20000, SECRET_KEY, algorithm="HS256"),
            jwt.api_jws.encode(b"[]", SECRET_KEY, algorithm="HS256"),
            f"{base64.urlsafe_b64encode(b'[' * 20000).decode()}.e30.x",
            f"{base64.urlsafe_b64encode(b'[]').decode()}.e30.x",
            "x",
            "...",
            "ÿ.ÿ.ÿ",
            "a b",
        ],
    )
    def test_bad_ones(self, anonymous: ApiClient, client_id: str, token: str) -> None:
        answer = self.read(anonymous, f"Bearer {token}")

        assert_error(answer, 401, "Could not validate credentials")
        assert answer.headers["WWW-Authenticate"] == "Bearer"

    def test_a_token_that_was_good_expires(
        self, anonymous: ApiClient, client_id: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        token = token_of(sound(client_id))
        assert self.read(anonymous, f"Bearer {token}").status_code == 200
        now = time.time()

        monkeypatch.setattr("ctms.clients.tokens.time.time", lambda: now + 61)

        assert_error(self.read(anonymous, f"Bearer {token}"), 401, "Could not validate credentials")

    def test_a_disabled_client_is_refused_at_once(self, api: ApiClient, client_id: str) -> None:
        assert api.get("/ctms?sfdc_id=x").status_code == 200
        for value in ("false", "NULL"):
            execute(f"UPDATE api_client SET enabled = {value} WHERE client_id = :id", id=client_id)
            for method, path in (("GET", "/ctms?sfdc_id=x"), ("DELETE", "/ctms/x"), ("PATCH", "/ctms/x")):
                assert_error(api.request(method, path), 400, "API Client has been disabled")

    def test_a_deleted_client_is_refused_at_once(self, api: ApiClient, client_id: str) -> None:
        execute("DELETE FROM api_client WHERE client_id = :id", id=client_id)

        assert_error(api.get("/ctms?sfdc_id=x"), 401, "Could not validate credentials")


class TestRotation:
    def test_tokens_of_older_keys_are_accepted_and_the_newest_signs(
        self, app: Flask, anonymous: ApiClient, client_id: str
    ) -> None:
        old = token_of(sound(client_id), key=OLD_KEY)
        authorization = {"Authorization": f"Bearer {old}"}
        assert anonymous.get("/ctms?sfdc_id=x", headers=authorization).status_code == 401

        init_tokens(app, replace(app.extensions["ctms.settings"], secret_key_fallbacks=(OLD_KEY,)))

        assert anonymous.get("/ctms?sfdc_id=x", headers=authorization).status_code == 200
        expired = token_of(sound(client_id, exp=int(time.time()) - 1), key=OLD_KEY)
        assert anonymous.get("/ctms?sfdc_id=x", headers={"Authorization": f"Bearer {expired}"}).status_code == 401
        new = ask(anonymous, client_id=client_id, client_secret=SECRET).json["access_token"]
        assert jwt.decode(new, SECRET_KEY, algorithms=["HS256"])["sub"] == f"api_client:{client_id}"

    def test_verified_secrets_are_cached_only_while_they_are_valid(self) -> None:
        keys = Tokens(lambda: SECRET_KEY, (), 60)
        token = keys.issue("id_a")

        assert keys.verify(token) == keys.verify(token) == "id_a"
        header, claims, signature = token.split(".")
        forged = base64.urlsafe_b64encode(json.dumps(sound("id_b")).encode()).decode().rstrip("=")
        with pytest.raises(Exception, match="signature"):
            keys.verify(f"{header}.{forged}.{signature}")
        assert keys.verify(f"{header}.{claims}.{signature}") == "id_a"
