"""Weather: file systems whose operations fail some times, and retries without delays."""

from collections.abc import Callable, Iterator

import pytest
from fsspec.implementations.local import LocalFileSystem

from valueflow import retry


@pytest.fixture
def no_delay(monkeypatch):
    monkeypatch.setattr(retry, "BACKOFF", 0.0)


@pytest.fixture
def faults(monkeypatch, no_delay) -> Iterator[Callable[..., list[str]]]:
    """`faults(method, error, times)`: a method of a class, by default the local file system, fails so often.

    Returns the first arguments (paths) of all calls.
    """

    def inject(method: str, error: Exception, times: int = 1, of: type = LocalFileSystem) -> list[str]:
        real, calls = getattr(of, method), []

        def failing(self, *args, **kwargs):
            calls.append(str(args[0]) if args else "")
            if len(calls) <= times:
                raise error
            return real(self, *args, **kwargs)

        monkeypatch.setattr(of, method, failing)
        return calls

    return inject
