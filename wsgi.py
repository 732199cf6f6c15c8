"""The WSGI entry point: what `flask` finds by itself and any WSGI server loads as `wsgi:app`."""

from ctms.app import create_app

app = create_app()
