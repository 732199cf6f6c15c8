"""The WSGI entry point: what `flask` finds by itself and any WSGI server loads as `wsgi:app`."""

from ctms.errors import OperatorError
from ctms.startup import quick_imports

try:
    with quick_imports():
        from ctms.app import create_app

        app = create_app()
except OperatorError as error:  # `flask` shows it as one line, like its own errors
    from ctms.cli.exits import click_exception

    raise click_exception(error) from None
