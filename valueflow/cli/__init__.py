"""The command `valueflow`."""

from valueflow.cli.main import main

__all__ = ["main"]
