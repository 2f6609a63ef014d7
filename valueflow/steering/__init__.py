"""Steering of models towards and away from values: how it is worded, and what follows from the replies."""

from valueflow.steering.wording import (
    LEVELS,
    Wording,
    check_level,
    irrelevant_persona,
    neutral_personas,
    wording_hash,
    wordings,
)

__all__ = [
    "LEVELS",
    "Wording",
    "check_level",
    "irrelevant_persona",
    "neutral_personas",
    "wording_hash",
    "wordings",
]
