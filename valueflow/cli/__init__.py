"""The command `valueflow`."""
