"""The way of one text down a theory's DAG, as a function of the votes given so far."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import pyarrow as pa
from pydantic import Field

from valueflow.config import Config
from valueflow.records import SCHEMAS, digest
from valueflow.theories import Theory
from valueflow.voting.rules import VoteRule, tally

DIRECTIONS = ("supports", "opposes", "neither")
SIGNS = dict(zip(DIRECTIONS, (1, -1, 0), strict=True))
NEUTRAL = "neutral"

Decision = Literal["accepted", "lead", "neutral", "human"]
STRENGTHS: tuple[Decision, ...] = ("accepted", "lead", "neutral", "human")  # strongest first
Votes = Mapping[tuple[str, str, int], Sequence[str | None]]  # (kind, node, round) -> choices of all voters


class Ballot(NamedTuple):
    """One question to every voter of a panel."""

    kind: str  # child, direction, plausible or rating
    theory: str
    node: str  # "": the top of the theory
    text_id: str
    options: tuple[str, ...]
    round: int  # 0: first question, 1: re-prompt
    detail: str = ""

    @property
    def ballot_id(self) -> str:
        """The hash of everything that is asked."""
        return digest(*self)


def ballot_table(ballots: list[Ballot]) -> pa.Table:
    """Return ballots as rows of the table `ballots`."""
    rows = [ballot._asdict() | {"ballot_id": ballot.ballot_id, "options": list(ballot.options)} for ballot in ballots]
    return pa.Table.from_pylist(rows, SCHEMAS["ballots"])


class Label(NamedTuple):
    """The place of a text in one theory."""

    text_id: str
    theory: str
    path: tuple[str, ...]  # as descended, from the top level down; empty: the text does not concern the theory
    paths: list[tuple[str, ...]]  # all paths of the last node in the DAG
    direction: int  # 1, -1, 0; 0 for an empty path
    decision: Decision  # the weakest of the ballots that decided
    agreement: float  # mean over the ballots that decided
    unanimous: bool  # all ballots that decided


class Undecided(NamedTuple):
    """A question that the panel could not settle: a case for a human."""

    text_id: str
    theory: str
    path: tuple[str, ...]  # settled so far
    kind: str
    node: str
    options: tuple[str, ...]
    counts: dict[str, int]  # votes of the last round


class DescentConfig(Config):
    """How a panel takes texts down a theory."""

    rule: VoteRule = VoteRule()
    neutral: Literal["second", "always"] = Field(
        "second",
        description="offer Neutral in the re-prompt only (the paper), or at once: for corpora that often miss the theory",
    )
    max_level: int | None = Field(None, ge=1, description="levels to descend; null: down to the leaves")


class _Decided(NamedTuple):
    choice: str
    decision: Decision
    agreement: float
    unanimous: bool


def step(theory: Theory, text_id: str, votes: Votes, config: DescentConfig, panel_size: int) -> Ballot | Label | Undecided:
    """Return the next question about a text, or its label, or the question that is left to humans.

    Level by level the panel chooses among the children of the node reached; what stays undecided is asked once more,
    with Neutral. A node with one child is asked once, child or Neutral. Neutral or a leaf ends the way; then the
    direction towards the last node is asked, at most twice.

    Raises:
        ValueError: a choice that its ballot does not offer, or more choices than voters.
    """
    path: tuple[str, ...] = ()
    decided: list[_Decided] = []
    while ballots := _child_ballots(theory, text_id, path, config):
        asked = _ask(ballots, votes, path, config.rule, panel_size)
        if not isinstance(asked, _Decided):
            return asked
        decided.append(asked)
        if asked.choice == NEUTRAL:
            break
        path = (*path, asked.choice)
    direction = 0
    if path:
        ballots = [Ballot("direction", theory.id, path[-1], text_id, DIRECTIONS, n) for n in (0, 1)]
        asked = _ask(ballots, votes, path, config.rule, panel_size)
        if not isinstance(asked, _Decided):
            return asked
        decided.append(asked)
        direction = SIGNS[asked.choice]
    return Label(
        text_id=text_id,
        theory=theory.id,
        path=path,
        paths=theory.paths(path[-1]) if path else [],
        direction=direction,
        decision=max((ballot.decision for ballot in decided), key=STRENGTHS.index),
        agreement=sum(ballot.agreement for ballot in decided) / len(decided),
        unanimous=all(ballot.unanimous for ballot in decided),
    )


def _child_ballots(theory: Theory, text_id: str, path: tuple[str, ...], config: DescentConfig) -> list[Ballot]:
    """The questions below the end of the path, in the order they are asked; none where the way ends."""
    if len(path) == config.max_level:
        return []
    node = path[-1] if path else ""
    children = tuple(child.id for child in theory.children(node or None))
    if not children:
        return []
    with_neutral = (*children, NEUTRAL)
    rounds = [children if config.neutral == "second" else with_neutral, with_neutral]
    if len(children) == 1:
        rounds = [with_neutral]  # a single option without Neutral is no choice
    return [Ballot("child", theory.id, node, text_id, options, n) for n, options in enumerate(rounds)]


def _ask(
    ballots: list[Ballot], votes: Votes, path: tuple[str, ...], rule: VoteRule, panel_size: int
) -> Ballot | _Decided | Undecided:
    """The decision of the first ballot that decides, or the first ballot without votes, or what stays undecided."""
    for ballot in ballots:
        choices = votes.get((ballot.kind, ballot.node, ballot.round))
        if choices is None:
            return ballot
        foreign = [choice for choice in choices if choice is not None and choice not in ballot.options]
        if foreign:
            raise ValueError(f"choice {foreign[0]!r} on a ballot that offers {', '.join(ballot.options)}: {ballot}")
        verdict = tally(choices, rule, panel_size)
        if verdict.choice is not None and verdict.decision != "undecided":
            prompted = ballot.round > 0 and NEUTRAL in ballot.options
            decision: Decision = "neutral" if prompted else verdict.decision
            return _Decided(verdict.choice, decision, verdict.agreement, verdict.unanimous)
    return Undecided(ballot.text_id, ballot.theory, path, ballot.kind, ballot.node, ballot.options, verdict.counts)
