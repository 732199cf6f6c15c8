"""Client of CTMS, a contact management service.

`Client` and `AsyncClient` get and renew tokens, and repeat requests that failed for a moment. `models` are the types of
what the service receives and returns; they and `generated.api` are generated from its OpenAPI document.
"""

from ctms_client.async_client import AsyncClient
from ctms_client.client import Client
from ctms_client.errors import (
    AuthenticationError,
    ConflictError,
    CtmsError,
    ForbiddenError,
    GoneError,
    InvalidRequestError,
    InvalidResponseError,
    NotFoundError,
    PreconditionFailedError,
    ResponseError,
    ServerError,
    TooManyRequestsError,
    TransportError,
)
from ctms_client.generated import models
from ctms_client.operations import Contact
from ctms_client.retries import Retries

__all__ = [
    "AsyncClient",
    "AuthenticationError",
    "Client",
    "ConflictError",
    "Contact",
    "CtmsError",
    "ForbiddenError",
    "GoneError",
    "InvalidRequestError",
    "InvalidResponseError",
    "NotFoundError",
    "PreconditionFailedError",
    "ResponseError",
    "Retries",
    "ServerError",
    "TooManyRequestsError",
    "TransportError",
    "models",
]
