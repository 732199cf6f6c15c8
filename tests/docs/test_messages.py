"""The docs list the messages of commands, and none that the code does not have."""

from __future__ import annotations

import pytest

from ctms.suppression.fingerprints import KEY_MISSING
from tests.docs.messages import documented, fragments, is_documented, sources

OF_OTHERS = {
    "Argument(s) … are declared in the hookimpl": "pluggy",
    "CTMS_DB_URL has a special character that is not percent-encoded: …": "composed of variable and reason",
    "CTMS_DATA_DIR … is below …, which is a file: …": "composed",
    "the database does not allow it: permission denied for schema public": "PostgreSQL",
    'the database does not allow it: permission denied for database "…"': "PostgreSQL",
    "cannot drop table … because other objects depend on it: …": "PostgreSQL",
    "… failed with RegistrationError: …": "composed",
    "the field … of its Settings …": "composed",
    "…_FILE must name a readable file": "composed",
    "backend …: 2 contacts delivered, 1 contact parked": "composed",
    "deletion handler …: 1 contact erased, 1 contact verified": "composed",
    "… is a deletion handler, not a backend: …": "composed",
    "the file of CTMS_PLUGIN_JSONL_PATH cannot be written: …": "composed",
    "Invalid value for '--…': …": "click",
}
"""Messages that are not one text in the code, and their origin."""


def test_a_message_that_is_listed_exists() -> None:
    texts = sources()
    missing = {message for message in documented() if not any(longest(message) in text for text in texts)}

    assert missing == set(OF_OTHERS)


def longest(message: str) -> str:
    return max(fragments(message), key=len).strip()


@pytest.mark.parametrize(
    "message",
    [
        KEY_MISSING,
        "there is no setting CTMS_WORKER: did you mean CTMS_WORKERS?",
        "CTMS_SECRET_KEY is too short: at least 32 bytes are needed",
        "PORT must be a whole number",
        "CTMS: serving on http://127.0.0.1:8000 with 1 process; docs at http://127.0.0.1:8000/docs",
        "the embedded PostgreSQL was killed and is started again",
    ],
)
def test_a_message_is_found(message: str) -> None:
    assert is_documented(message)


@pytest.mark.parametrize("message", ["", "everything is well", "the database sings", "root runs"])
def test_text_without_a_message_is_not_found(message: str) -> None:
    assert not is_documented(message)
