"""Calls without a valid answer, told as they happen."""

import time
from collections.abc import Callable

# Seconds between two lines about one LLM.
EVERY = 10.0


class Troubles:
    """Tells of calls without a valid answer: of the first at once, then in at most one line every 10 seconds.

    Args:
        name: of the LLM.
        tell: receives a line for the user.
    """

    def __init__(self, name: str, tell: Callable[[str], None]) -> None:
        self.name, self.tell = name, tell
        self.count = 0
        self._last_line_at = -EVERY
        self._hints: set[str] = set()

    def add(self, error: str, note: str = "") -> None:
        """Count a call that has no valid answer; `error` is the reason, `note` what is done about it."""
        self.count += 1
        if time.monotonic() - self._last_line_at >= EVERY:
            self._last_line_at = time.monotonic()
            calls = "1 call has" if self.count == 1 else f"{self.count:,} calls have"
            self.tell(f"LLM {self.name!r}: {calls} no valid answer so far; the last: {error}{note}")

    def hint(self, topic: str, text: str) -> None:
        """Tell something once."""
        if topic not in self._hints:
            self._hints.add(topic)
            self.tell(f"LLM {self.name!r}: {text}")
