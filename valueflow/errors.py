"""The exceptions for errors of the user, and suggestions of near spellings."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """An error in the user's input; jobs print the message without a traceback and exit with code 2."""


def allowed(word: object, choices: Iterable[str]) -> str:
    """Return "did you mean 'x'?" if a choice has a near spelling, else the list of choices."""
    choices = list(choices)
    near = difflib.get_close_matches(str(word).lower(), [c.lower() for c in choices], n=1, cutoff=0.6)
    if near:
        return f"did you mean {next(c for c in choices if c.lower() == near[0])!r}?"
    return "allowed: " + ", ".join(map(str, choices))


class BudgetSpent(InputError):
    """An LLM has spent its budget; all answers are stored, and a rerun with a larger budget resumes."""
