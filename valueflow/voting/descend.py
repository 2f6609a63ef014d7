"""The descent of one text through a theory's DAG, as a function of the votes so far."""

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

DecisionStrength = Literal["accepted", "lead", "neutral", "human"]
STRENGTHS: tuple[DecisionStrength, ...] = ("accepted", "lead", "neutral", "human")  # strongest first
Votes = Mapping[tuple[str, str, int], Sequence[str | None]]  # (kind, node, vote round) -> choices of all voters


class Ballot(NamedTuple):
    """One question to every voter of a panel."""

    kind: str  # child, direction, plausible or rating
    theory: str
    node: str  # "": the top of the theory
    text_id: str
    options: tuple[str, ...]
    round: int  # vote round; 0: first question, 1: re-prompt
    detail: str = ""

    @property
    def ballot_id(self) -> str:
        """Hash of all fields."""
        return digest(*self)


def ballot_table(ballots: list[Ballot]) -> pa.Table:
    """Return ballots as rows of the table `ballots`."""
    rows = [ballot._asdict() | {"ballot_id": ballot.ballot_id, "options": list(ballot.options)} for ballot in ballots]
    return pa.Table.from_pylist(rows, SCHEMAS["ballots"])


class Label(NamedTuple):
    """The label of a text in one theory."""

    text_id: str
    theory: str
    path: tuple[str, ...]  # nodes chosen, from the top level down; empty: the theory does not apply to the text
    paths: list[tuple[str, ...]]  # all paths of the last node in the DAG
    direction: int  # 1, -1, 0; 0 for an empty path
    decision: DecisionStrength  # the weakest decision on the path
    agreement: float  # mean over the deciding ballots
    unanimous: bool  # whether every deciding ballot was unanimous


class OpenQuestion(NamedTuple):
    """A question that the panel did not decide; it goes to the human queue."""

    text_id: str
    theory: str
    path: tuple[str, ...]  # decided so far
    kind: str
    node: str
    options: tuple[str, ...]
    counts: dict[str, int]  # votes of the last vote round


class DescentConfig(Config):
    """How a panel descends through a theory."""

    rule: VoteRule = VoteRule()
    neutral: Literal["second", "always"] = Field(
        "second",
        description="offer Neutral in the re-prompt only (the paper), or always: for corpora outside the theory's scope",
    )
    max_level: int | None = Field(None, ge=1, description="number of levels to descend; null: down to the leaves")


class _PanelDecision(NamedTuple):
    choice: str
    decision: DecisionStrength
    agreement: float
    unanimous: bool


def step(theory: Theory, text_id: str, votes: Votes, config: DescentConfig, panel_size: int) -> Ballot | Label | OpenQuestion:
    """Return the next ballot about a text, or its label, or the question that is left to humans.

    Level by level the panel chooses among the children of the current node. An undecided ballot is repeated once, with
    Neutral among the options. A node with one child has one ballot: child or Neutral. The descent ends at a leaf or with
    Neutral; then the panel votes on the direction towards the last node, in at most two vote rounds.

    Raises:
        ValueError: a choice that is not an option of its ballot, or more choices than voters.
    """
    path: tuple[str, ...] = ()
    decisions: list[_PanelDecision] = []
    while ballots := _child_ballots(theory, text_id, path, config):
        outcome = _decide(ballots, votes, path, config.rule, panel_size)
        if not isinstance(outcome, _PanelDecision):
            return outcome
        decisions.append(outcome)
        if outcome.choice == NEUTRAL:
            break
        path = (*path, outcome.choice)
    direction = 0
    if path:
        ballots = [Ballot("direction", theory.id, path[-1], text_id, DIRECTIONS, n) for n in (0, 1)]
        outcome = _decide(ballots, votes, path, config.rule, panel_size)
        if not isinstance(outcome, _PanelDecision):
            return outcome
        decisions.append(outcome)
        direction = SIGNS[outcome.choice]
    return Label(
        text_id=text_id,
        theory=theory.id,
        path=path,
        paths=theory.paths(path[-1]) if path else [],
        direction=direction,
        decision=max((d.decision for d in decisions), key=STRENGTHS.index),
        agreement=sum(d.agreement for d in decisions) / len(decisions),
        unanimous=all(d.unanimous for d in decisions),
    )


def _child_ballots(theory: Theory, text_id: str, path: tuple[str, ...], config: DescentConfig) -> list[Ballot]:
    """Return the ballots on the children of the path's end, by vote round; none where the descent ends."""
    if len(path) == config.max_level:
        return []
    node = path[-1] if path else ""
    children = tuple(child.id for child in theory.children(node or None))
    if not children:
        return []
    with_neutral = (*children, NEUTRAL)
    rounds = [children if config.neutral == "second" else with_neutral, with_neutral]
    if len(children) == 1:
        rounds = [with_neutral]  # a single option without Neutral is not a choice
    return [Ballot("child", theory.id, node, text_id, options, n) for n, options in enumerate(rounds)]


def _decide(
    ballots: list[Ballot], votes: Votes, path: tuple[str, ...], rule: VoteRule, panel_size: int
) -> Ballot | _PanelDecision | OpenQuestion:
    """Return the decision of the first decisive ballot, or the first ballot without votes, or else the open question."""
    for ballot in ballots:
        choices = votes.get((ballot.kind, ballot.node, ballot.round))
        if choices is None:
            return ballot
        invalid = [choice for choice in choices if choice is not None and choice not in ballot.options]
        if invalid:
            raise ValueError(f"choice {invalid[0]!r} is not an option of its ballot ({', '.join(ballot.options)}): {ballot}")
        result = tally(choices, rule, panel_size)
        if result.choice is not None and result.decision != "undecided":
            reprompt_with_neutral = ballot.round > 0 and NEUTRAL in ballot.options
            decision: DecisionStrength = "neutral" if reprompt_with_neutral else result.decision
            return _PanelDecision(result.choice, decision, result.agreement, result.unanimous)
    return OpenQuestion(ballot.text_id, ballot.theory, path, ballot.kind, ballot.node, ballot.options, result.counts)
