"""Numbers as the pages write them: a typographic minus, no sign on what rounds to zero, a dash where there is none."""

import math

DASH = "–"


def decimal(x: float | None, digits: int = 2) -> str:
    """Return a number with that many decimals; a dash for None and NaN."""
    if x is None or math.isnan(x):
        return DASH
    return f"{_rounded(x, digits):,.{digits}f}".replace("-", "−")


def signed(x: float | None, digits: int = 1) -> str:
    """Return a number with its sign."""
    if x is None or math.isnan(x):
        return DASH
    number = _rounded(x, digits)
    return f"{number:{'+' if number else ''},.{digits}f}".replace("-", "−")


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share in percent, with the percent sign."""
    return DASH if share is None or math.isnan(share) else f"{decimal(100 * share, digits)} %"


def interval(low: float | None, high: float | None, digits: int = 2, with_sign: bool = False) -> str:
    """Return the ends of an interval; the empty string where there is none."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return ""
    write = signed if with_sign else decimal
    return f"{write(low, digits)} to {write(high, digits)}"


def nats(x: float, with_sign: bool = False) -> str:
    """Return a log score in nats, or with its sign a difference of two."""
    return (signed if with_sign else decimal)(x, 4)


def _rounded(x: float, digits: int) -> float:
    return round(x, digits) + 0.0  # -0.0 becomes 0.0
