"""Access requests (GDPR, articles 15 and 20): everything that is stored about the person of an address."""
