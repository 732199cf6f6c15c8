"""The rule for consents in items that are older than what is stored, such as those of an import.

Items of clients state what a person has just chosen. A list from elsewhere does not: it must subscribe nobody again who
has unsubscribed since, unless the operator names where the new consent comes from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ctms.contacts.registry import AMO, EMAIL, LISTS
from ctms.contacts.schemas import UNSUBSCRIBE

Values = Mapping[str, Any]

SOURCE = "consent_source"
"""The member of an evidence that names the source of a consent."""

_CONSENTS = {EMAIL.name: ("has_opted_out_of_email", "unsubscribe_reason", "double_opt_in"), AMO.name: ("email_opt_in",)}
"""The consents outside the lists. They stay as they are if the contact has opted out of everything."""


@dataclass(frozen=True)
class ConsentRule:
    """The rule: `keep_unsubscribed`, unless `source` names why people may be subscribed again.

    With `keep_unsubscribed`, a newsletter or waitlist that was unsubscribed stays as it is stored. A contact that has
    opted out of everything stays so, and gets no new newsletters or waitlists. With a source, it becomes part of the
    evidence of each new subscription. Evidence that comes with no change of a subscription is ignored: a list that is
    imported again adds nothing to the history.
    """

    source: str | None = None

    @property
    def keep_unsubscribed(self) -> bool:
        """Whether nobody is subscribed again."""
        return self.source is None

    def apply(self, values: Values, stored: Values) -> Values:
        """Return the changes to a stored contact that the rule allows."""
        result = dict(values)
        is_out = bool(stored[EMAIL.name]["has_opted_out_of_email"])
        if is_out and self.keep_unsubscribed:
            for part, columns in _CONSENTS.items():
                if isinstance(group := values.get(part), Mapping):
                    result[part] = {name: value for name, value in group.items() if name not in columns}
        for name in LISTS:
            if (given := values.get(name)) and given != UNSUBSCRIBE:
                known = {entry["name"]: entry["subscribed"] for entry in stored[name]}
                result[name] = list(self._entries(given, known, is_out=is_out))
        return result

    def apply_to_new(self, contact: Values) -> Values:
        """Return a new contact, with evidence of its subscriptions."""
        return {**contact, **{name: list(self._entries(contact[name], {}, is_out=False)) for name in LISTS}}

    def _entries(self, given: Sequence[Values], known: Mapping[str, bool], *, is_out: bool) -> Iterator[Values]:
        for entry in given:
            was = known.get(entry["name"])
            wanted = entry.get("subscribed", True if was is None else was)
            if self.keep_unsubscribed and (was is False or (was is None and is_out)):
                continue
            if was is not None and wanted == was:
                yield {name: value for name, value in entry.items() if name != "evidence"}
            elif wanted and self.source is not None:
                yield {**entry, "evidence": {**(entry.get("evidence") or {}), SOURCE: self.source}}
            else:
                yield entry
