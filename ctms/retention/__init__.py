"""Retention: rules that erase or anonymise contacts, legal holds, and the runs that apply them."""
