"""The domain: contacts, what they look like, how they are found, and the only writers of them."""
