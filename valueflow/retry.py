"""Delays before a retry: exponential backoff with jitter, and the Retry-After header."""

import email.utils
import math
import random
import time
from collections.abc import Mapping

# Upper bounds of the delay in seconds: before the first retry, and before any; each delay is uniform from 0 to its bound.
BACKOFF, LONGEST = 0.5, 30.0


def backoff(attempt: int) -> float:
    """Return the seconds to wait before retry `attempt` (from 0): exponential backoff with full jitter."""
    return random.uniform(0, min(LONGEST, BACKOFF * 2.0 ** min(attempt, 32)))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the delay in seconds of a Retry-After header (seconds or a date); None where it is absent or invalid."""
    header = headers.get("retry-after", "").strip()
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
