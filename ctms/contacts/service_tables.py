"""Classification of the tables that are not parts of a contact: what they store, or could store, about a person.

By name, because the models belong to other packages. A test compares the names with those of all models.
"""

from __future__ import annotations

from collections.abc import Mapping

from ctms.contacts.classification import UNTIL_DELETED, Classification, Classified

INDEFINITELY = "indefinitely"
UNTIL_PUSHED = "until the backend has it, or an operator discards it"
UNTIL_GONE = "until the backend has deleted it"
UNTIL_ERASED = "until the deletion handler is done, and has verified the erasure if it can"
WHILE_REPORT = "for `CTMS_ACCESS_REPORT_DAYS`, at most until the contact is deleted"
WHILE_EXPORT = "for `CTMS_EXPORT_HOURS`"
UNTIL_STORED = "until the document is stored again, by a job that runs hourly"
WHILE_BACKEND = "until the plugin is removed"
WHILE_CLIENT = "until the API client is deleted"

FOR_A_DAY = "for 24 hours"
WHILE_LISTED = "for the days in `CTMS_TOMBSTONE_DAYS`"

_EVENT = Classification("consent", "prove when and how the person gave or withdrew consent", UNTIL_DELETED)
_EVENT_ID = Classification("identifier", "know whose consent it is", UNTIL_DELETED)
_EVENT_ORIGIN = Classification(
    "requester", "state which client or operator recorded the consent", UNTIL_DELETED, personal=False
)
_TOMBSTONE = Classification("identifier", "tell followers that the contact was deleted", WHILE_LISTED)
_RELEVANCE = Classification("time of a change", "list contacts that leave a filter of the feed", WHILE_LISTED)
_FEED = Classification("state of the feed", "know from when on deletions are recorded", INDEFINITELY, personal=False)
_LOST = Classification("fingerprint", "find the contact by an address that it lost in a merge", UNTIL_DELETED)
_LOST_ID = Classification("identifier", "find the contact by an address that it lost in a merge", UNTIL_DELETED)
_FINGERPRINT = Classification("fingerprint", "find the erasures of an address", INDEFINITELY)
_SUPPRESSED = Classification("fingerprint", "refuse an address that must not be stored", "until it is unsuppressed")
_ERASURE = Classification("record of an erasure", "prove that data was erased", INDEFINITELY, personal=False)
_ERASURE_KEY = Classification(
    "fingerprint", "recognize a repeated request for an erasure", INDEFINITELY, personal=False
)
_STAFF = Classification("requester", "state which client or operator requested it", INDEFINITELY, personal=False)
_ACCESS = Classification("record of an access request", "prove that data was disclosed", INDEFINITELY, personal=False)
_EXPORT = Classification("record of an export", "prove that data was disclosed", INDEFINITELY, personal=False)
_EXPORT_REQUEST = Classification("progress", "run an export", WHILE_EXPORT, personal=False)
_REPORT = Classification("report of an access request", "disclose the data to the person", WHILE_REPORT)
_TASK_IDENTITIES = Classification("identifier", "erase the person in another system", UNTIL_ERASED)
_TASK = Classification("progress", "retry and report an erasure", UNTIL_ERASED, personal=False)
_PENDING_ID = Classification("identifier", "push the contact to a backend", UNTIL_PUSHED)
_PENDING = Classification("progress", "retry and report a push", UNTIL_PUSHED, personal=False)
_MIRRORED_ID = Classification("identifier", "know which contacts a backend may have", UNTIL_GONE)
_MIRRORED = Classification("progress", "know which contacts a backend may have", UNTIL_GONE, personal=False)
_DELETION_ID = Classification("identifier", "delete the contact in a backend", UNTIL_GONE)
_DELETION = Classification("progress", "retry and report a deletion", UNTIL_GONE, personal=False)
_RECEIVER = Classification("state of a backend", "call a backend or deletion handler", WHILE_BACKEND, personal=False)
_CLIENT = Classification("API client", "authenticate and authorize a client", WHILE_CLIENT, personal=False)
_OWNER = Classification("contact of an API client", "reach the owner of an API client", WHILE_CLIENT, personal=False)
_ROLE = Classification("access control", "authorize a client", "until an operator deletes it", personal=False)

_REPEATED = Classification("identifier", "answer a repeated request as before", FOR_A_DAY)
_REPEATED_KEY = Classification("requester", "recognize a repeated request", FOR_A_DAY, personal=False)
_RETENTION = Classification(
    "record of a retention run", "prove that the rules were applied", INDEFINITELY, personal=False
)
_ANONYMOUS = Classification("number of contacts", "count contacts that were anonymised", INDEFINITELY, personal=False)

_ACT = Classification("record of an administrative act", "know who changed what", INDEFINITELY, personal=False)

_DOCUMENT = Classification("copy of the contact", "read the contact without rendering it", UNTIL_DELETED)
_OUTDATED = Classification("identifier", "know which stored documents are outdated", UNTIL_STORED)
_PROGRESS = Classification("progress", "store the documents that are missing", INDEFINITELY, personal=False)

SERVICE_TABLES: Mapping[str, Classified] = {
    "subscription_events": {
        _EVENT: ("kind", "name", "action", "subscribed", "source", "reason", "evidence", "recorded_at"),
        _EVENT_ID: ("email_id", "merged_from"),
        _EVENT_ORIGIN: ("event_id", "actor", "request_id"),
    },
    "contact_tombstones": {_TOMBSTONE: ("email_id", "deleted_at", "merged_into")},
    "merged_addresses": {_LOST: ("fingerprint",), _LOST_ID: ("email_id",)},
    "mofo_relevance_changes": {_RELEVANCE: ("email_id", "changed_at")},
    "contact_documents": {_DOCUMENT: ("email_id", "update_timestamp", "document", "format", "version")},
    "outdated_documents": {_OUTDATED: ("email_id",)},
    "document_progress": {_PROGRESS: ("one_row", "format", "moment", "email_id")},
    "deletion_feed": {_FEED: ("one_row", "recorded_since")},
    "suppressions": {_SUPPRESSED: ("fingerprint", "suppressed_at", "source")},
    "erasures": {
        _ERASURE: ("id", "requested_at", "origin", "forget", "contacts", "unknown", "also_known_in", "follows"),
        _STAFF: ("requested_by",),
        _ERASURE_KEY: ("request_key", "request_digest"),
    },
    "erasure_addresses": {_FINGERPRINT: ("fingerprint", "erasure_id")},
    "erasure_handlers": {
        _ERASURE: (
            "erasure_id",
            "handler",
            "pending",
            "done",
            "verified",
            "parked",
            "reason",
            "started_at",
            "changed_at",
        )
    },
    "erasure_backends": {
        _ERASURE: ("erasure_id", "backend", "pending", "done", "parked", "reason", "started_at", "changed_at")
    },
    "erasure_tasks": {
        _TASK_IDENTITIES: ("identities",),
        _TASK: (
            "id",
            "erasure_id",
            "handler",
            "step",
            "waiting_since",
            "due_at",
            "attempts",
            "failures",
            "parked_at",
            "reason",
        ),
    },
    "erasure_deletions": {
        _DELETION_ID: ("email_id", "merged_into"),
        _DELETION: ("id", "erasure_id", "backend", "parked"),
    },
    "idempotency_keys": {
        _REPEATED: ("response",),
        _REPEATED_KEY: ("client_id", "key", "digest", "created_at"),
    },
    "retention_runs": {
        _RETENTION: (
            "id",
            "started_at",
            "finished_at",
            "max_contacts",
            "found",
            "erased",
            "anonymised",
            "held",
            "changed",
            "failed",
            "outcome",
        ),
        _STAFF: ("started_by",),
    },
    "anonymous_counts": {
        _ANONYMOUS: (
            "month",
            "rule",
            "created_year",
            "country",
            "language",
            "kind",
            "name",
            "subscribed",
            "contacts",
        )
    },
    "access_requests": {
        _ACCESS: ("id", "requested_at", "origin", "contacts", "copies", "failed", "expires_at"),
        _STAFF: ("requested_by",),
        _REPORT: ("result",),
    },
    "access_request_contacts": {_REPORT: ("request_id", "email_id", "position", "content")},
    "access_request_copies": {_REPORT: ("request_id", "email_id", "backend", "content")},
    "exports": {
        _EXPORT: (
            "id",
            "requested_at",
            "format",
            "attempts",
            "started_at",
            "finished_at",
            "expires_at",
            "contacts",
            "problem",
        ),
        _EXPORT_REQUEST: ("request", "manifest"),
        _STAFF: ("requested_by",),
    },
    "outbox": {
        _PENDING_ID: ("email_id",),
        _PENDING: (
            "backend",
            "version",
            "priority",
            "waiting_since",
            "due_at",
            "attempts",
            "failures",
            "parked_at",
            "reason",
        ),
    },
    "outbox_mirrored": {_MIRRORED_ID: ("email_id",), _MIRRORED: ("backend",)},
    "receivers": {
        _RECEIVER: (
            "kind",
            "name",
            "paused_at",
            "paused_why",
            "failures",
            "open_until",
            "next_call_at",
            "last_error",
            "last_error_at",
            "last_success_at",
            "unlisted_at",
            "synchronised_at",
        )
    },
    "api_client": {
        _OWNER: ("email",),
        _CLIENT: (
            "client_id",
            "enabled",
            "hashed_secret",
            "previous_hashed_secret",
            "previous_secret_expires",
            "create_timestamp",
            "update_timestamp",
            "last_access",
            "rate_limit_requests",
            "rate_limit_seconds",
            "rate_limit_burst",
        ),
    },
    "rate_limit_buckets": {_CLIENT: ("client_id", "tokens", "granted", "refilled_at")},
    "audit_log": {_ACT: ("id", "recorded_at", "action", "target", "details"), _STAFF: ("actor",)},
    "api_client_roles": {_CLIENT: ("id", "api_client_id", "role_id")},
    "roles": {_ROLE: ("id", "name", "description")},
    "permissions": {_ROLE: ("id", "name", "description", "plugin")},
    "role_permissions": {_ROLE: ("id", "role_id", "permission_id")},
}
"""The other tables of the service, in the order of the reference."""
