"""Numbers that may be missing: NaN in arrays, None in tables and JSON."""

import math
from typing import SupportsFloat


def finite_or_none(x: SupportsFloat) -> float | None:
    """Return a number as a Python float, None where it is NaN or infinite."""
    number = float(x)
    return number if math.isfinite(number) else None
