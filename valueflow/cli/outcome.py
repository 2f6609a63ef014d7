"""What a command could not score or read whole: named on standard error, and an error if nothing was scored at all."""

import sys

from valueflow import api
from valueflow.console import one_line, say
from valueflow.errors import InputError
from valueflow.prompts.render import truncation

FIRST = 64  # scores for which the judge is asked; if it answers nothing about them, it is asked no more


class Outcome:
    """Counts the scores of a command."""

    def __init__(self) -> None:
        self._num_scores = self._num_missing = self._num_failed = self._num_windows = self._num_unanswered = 0
        self._reason = ""  # of the first failure
        self._truncated: set[int] = set()  # indices of texts
        self._made: api.Provenance | None = None

    def add(self, place: str, is_scored: bool, *scores: api.Scored, reason: str | None = None) -> None:
        """Count one number of the output.

        Args:
            place: the text or value, for messages.
            is_scored: whether there is a number.
            scores: of the texts that it rests on.
            reason: for a missing number that has no scores.

        Raises:
            InputError: the judge was asked for `FIRST` scores of a stream and answered none, and there is no other score.
        """
        self._truncated.update(score.index for score in scores if score.truncated)
        num_failed = sum(score.num_failed for score in scores)
        self._num_scores += 1
        self._num_missing += not is_scored
        self._num_failed += num_failed
        self._num_unanswered += bool(num_failed and not is_scored)
        self._num_windows += sum(score.num_windows for score in scores) + num_failed
        if (num_failed or not is_scored) and not self._reason:
            errors = [reason, *(score.error for score in scores if score.num_failed or score.intensity is None)]
            self._reason = f"{place}: {one_line(next(filter(None, errors), 'no window has a valid answer'))}"
        if isinstance(self._made, api.StreamStart) and self._num_unanswered == FIRST and self._num_missing == self._num_scores:
            self.report()

    def begin(self, made: api.Provenance) -> None:
        """Keep the provenance of the scores, which says how much of a text the judge reads."""
        self._made = made

    def report(self) -> None:
        """Name on standard error what failed, and what was not read.

        Raises:
            InputError: nothing was scored.
        """
        made = self._made
        windows = f"{self._num_failed:,} of {self._num_windows:,} windows failed" if self._num_failed else ""
        if self._num_missing == self._num_scores > 0:
            planned = made.num_scores if isinstance(made, api.StreamStart) else 0
            after = f", after {self._num_scores:,} of {planned:,} scores" if planned > self._num_scores else ""
            raise InputError(f"nothing was scored{'; ' if windows else ''}{windows}{after} (first: {self._reason})")
        missing = f"{self._num_missing:,} of {self._num_scores:,} scores are missing" if self._num_missing else ""
        if missing or windows:
            say(f"{'; '.join(filter(None, (missing, windows)))} (first: {self._reason})", sys.stderr)
        num_truncated = made.truncated if isinstance(made, api.ProfileResponse) else len(self._truncated)
        if made and num_truncated:
            first = f" (first: text {min(self._truncated) + 1})" if self._truncated else ""
            say(truncation(num_truncated, made.judge, made.max_chars) + first, sys.stderr)
