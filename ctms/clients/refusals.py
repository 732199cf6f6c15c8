"""The causes for which requests are refused: labels of metrics and fields of logs."""

from __future__ import annotations

from enum import StrEnum


class AuthFailure(StrEnum):
    """The cause of a failed authentication or authorization."""

    NO_TOKEN = "no_token"  # noqa: S105
    INVALID_TOKEN = "invalid_token"  # noqa: S105
    EXPIRED_TOKEN = "expired_token"  # noqa: S105
    UNKNOWN_CLIENT = "unknown_client"
    DISABLED_CLIENT = "disabled_client"
    MISSING_PERMISSION = "missing_permission"


class TokenFailure(StrEnum):
    """The cause of a failed token request."""

    UNKNOWN_CLIENT = "unknown_client"
    DISABLED_CLIENT = "disabled_client"
    WRONG_SECRET = "wrong_secret"  # noqa: S105
    LIMITED = "limited"
    INVALID_REQUEST = "invalid_request"
