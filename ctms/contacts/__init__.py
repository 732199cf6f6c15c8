"""The domain: contacts, their structure, queries, and their only writers."""
