"""Contract suites: what the service expects of a plugin, as tests. Subclass one and configure it."""

from ctms.testing.contracts.backends import BackendContract
from ctms.testing.contracts.deletion_handlers import DeletionHandlerContract
from ctms.testing.contracts.newsletters import NewsletterContract
from ctms.testing.contracts.waitlists import WaitlistContract

__all__ = ["BackendContract", "DeletionHandlerContract", "NewsletterContract", "WaitlistContract"]
