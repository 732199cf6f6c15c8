"""Classification of stored data: its category, its purpose, and how long it is kept.

`registry` classifies the columns of a contact's parts, `service_tables` those of all other tables. The report of an
access request and `docs/reference/personal-data.md` show the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Classification:
    """The category of some data, the purpose that it is stored for, and its retention.

    Data that is not `personal` says nothing about the person of a contact.
    """

    category: str
    purpose: str
    retention: str
    personal: bool = True


Classified = Mapping[Classification, Sequence[str]]
"""The columns of a table, by their classification."""


def by_column(classified: Classified) -> Mapping[str, Classification]:
    """Return the classification of each column."""
    return {column: one for one, columns in classified.items() for column in columns}


UNTIL_DELETED = "until the contact is deleted"

CONTACT_DETAILS = Classification("contact details", "address the person in mail", UNTIL_DELETED)
IDENTIFIER = Classification("identifier", "recognize the contact here and in other systems", UNTIL_DELETED)
PREFERENCE = Classification("preference", "send mail in the format and language that the person reads", UNTIL_DELETED)
CONSENT = Classification("consent", "send only mail that the person wants, and prove the consent", UNTIL_DELETED)
INTEREST = Classification("interest", "offer a product when it becomes available to the person", UNTIL_DELETED)
ACCOUNT = Classification("account", "select mail by the person's use of an account", UNTIL_DELETED)
ADD_ONS = Classification("add-ons", "select mail by the add-ons that the person writes", UNTIL_DELETED)
FOUNDATION = Classification("foundation", "select the contacts that the foundation writes to", UNTIL_DELETED)
TIMES = Classification("time of a change", "find changes, and prove when data was stored", UNTIL_DELETED)
ROW_NUMBER = Classification("row number", "identify a row of the table", UNTIL_DELETED, personal=False)
