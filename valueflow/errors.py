"""The one exception for a user's mistake, and the wording of suggestions."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """What the user gave is wrong; jobs print the message and exit with 2, without a traceback."""


def allowed(word: object, choices: Iterable[str]) -> str:
    """Return "did you mean 'x'?" where one choice is near, else the list of choices."""
    choices = list(choices)
    near = difflib.get_close_matches(str(word).lower(), [c.lower() for c in choices], n=1, cutoff=0.6)
    if near:
        return f"did you mean {next(c for c in choices if c.lower() == near[0])!r}?"
    return "allowed: " + ", ".join(map(str, choices))


class BudgetSpent(InputError):
    """A judge has used up what it may spend; everything answered is kept and a rerun with a larger budget continues."""
