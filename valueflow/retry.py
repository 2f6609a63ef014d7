"""Waiting before a retry: exponential backoff with jitter, and the Retry-After header."""

import email.utils
import math
import random
import time
from collections.abc import Mapping

# Seconds before the first retry, and at most before a later one; each wait is drawn between 0 and its bound.
BACKOFF, LONGEST = 0.5, 30.0


def backoff(attempt: int) -> float:
    """Return seconds to wait before retry `attempt` (from 0): exponential, full jitter."""
    return random.uniform(0, min(LONGEST, BACKOFF * 2.0 ** min(attempt, 32)))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header, given as seconds or as a date; None where it is absent or unreadable."""
    given = headers.get("retry-after", "").strip()
    try:
        seconds = float(given)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(given).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
