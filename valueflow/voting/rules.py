"""The rule by which the votes of a panel decide one ballot."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from valueflow.config import Config


class VoteRule(Config):
    """Number of votes that decides a ballot; the default is 5 of 7 or a lead of 2, scaled to the valid votes."""

    accept: int | None = Field(None, ge=1, description="votes that accept an option; null: 5/7 of the valid votes, rounded up")
    lead: int | None = Field(None, ge=1, description="votes ahead of the next option; null: 2/7 of the valid votes, rounded up")
    quorum: float = Field(0.5, ge=0, lt=1, description="more than this share of the panel must give a valid vote")


class TallyResult(NamedTuple):
    """The decision of one ballot."""

    choice: str | None  # None: undecided
    decision: Literal["accepted", "lead", "undecided"]
    agreement: float  # share of the valid votes for the choice; 0 when undecided
    unanimous: bool  # all valid votes are for the choice
    counts: dict[str, int]  # valid votes by option, most votes first


def tally(choices: Sequence[str | None], rule: VoteRule, panel_size: int) -> TallyResult:
    """Return the decision of the votes on one ballot; None is a failed vote or an abstention.

    The rule of VALUEFLOW (arXiv 2602.03160): of seven voters, an option is accepted when at least 5 agree on it or
    when it is ahead of the next option by at least 2 votes; anything else, ties included, is undecided. For other
    numbers n of valid votes the thresholds are ceil(5n/7) and ceil(2n/7).

    Raises:
        ValueError: there are more choices than voters in the panel.
    """
    if len(choices) > panel_size:
        raise ValueError(f"{len(choices)} votes on one ballot, but the panel has {panel_size} voters")
    votes = Counter(choice for choice in choices if choice is not None)
    counts = dict(sorted(votes.items(), key=lambda item: (-item[1], item[0])))
    num_valid = votes.total()
    undecided = TallyResult(None, "undecided", 0.0, False, counts)
    if not num_valid or num_valid <= rule.quorum * panel_size:
        return undecided
    choice, top = next(iter(counts.items()))
    lead = top - max((n for option, n in counts.items() if option != choice), default=0)
    if not lead:
        return undecided
    if top >= (rule.accept or _sevenths(5, num_valid)):
        return TallyResult(choice, "accepted", top / num_valid, top == num_valid, counts)
    if lead >= (rule.lead or _sevenths(2, num_valid)):
        return TallyResult(choice, "lead", top / num_valid, top == num_valid, counts)
    return undecided


def _sevenths(share: int, num_valid: int) -> int:
    return -(-share * num_valid // 7)  # integers: a float could land above the integer and raise the threshold
