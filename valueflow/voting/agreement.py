"""Agreement of the voters of a panel: Krippendorff's alpha, pairwise agreement, failed votes.

Shapes: B ballots, V voters, O options.
"""

import math
from collections import defaultdict
from typing import NamedTuple

import krippendorff
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from valueflow.theories import theories

NO_VOTE, FAILED = -2, -1  # below every code of a choice; a failed vote replaces no vote


class Alpha(NamedTuple):
    """Krippendorff's nominal alpha over the ballots of vote round 0 of one theory, kind and level."""

    theory: str
    kind: str
    level: int  # depth of the ballot's node, 0 for the top
    alpha: float  # nan: no ballot has two valid votes, or all votes on a node are for one option
    num_ballots: int  # ballots with at least two valid votes
    num_votes: int  # valid votes on these ballots


class Pairwise(NamedTuple):
    """Agreement of every two voters over the ballots on which both gave a valid vote, in any vote round; V x V lists."""

    voters: list[str]
    agreement: list[list[float]]  # share of equal choices, 1 on the diagonal; nan: no common ballot
    num_ballots: list[list[int]]  # common ballots; on the diagonal the voter's valid votes


class FailedVotes(NamedTuple):
    """A voter's share of failed votes and abstentions, over all vote rounds."""

    voter: str
    num_votes: int  # ballots put to the voter
    share: float


class PanelAgreement(NamedTuple):
    """The agreement of a panel."""

    alphas: list[Alpha]
    pairwise: Pairwise
    failed: list[FailedVotes]


def agreement(votes: pa.Table) -> PanelAgreement:
    """Return the agreement of the voters in rows of `votes`.

    If a voter has several votes on one ballot, one counts, and a valid vote goes before a failed one.

    Alpha corrects for chance agreement, which for a node is that of two random votes on this node: ballots on different
    nodes have different options. The alpha of a level is 1 - (sum of observed) / (sum of expected disagreements) over its
    nodes: the mean of the nodes' alphas, weighted by expected disagreement.

    Raises:
        KeyError: a theory or node that the taxonomies do not have.
    """
    ballot, ballots = _codes(votes["ballot_id"])
    voter, voters = _codes(votes["voter"])
    choice, _ = _codes(votes["choice"])
    choices_BV = np.full((len(ballots), len(voters)), NO_VOTE)
    np.maximum.at(choices_BV, (ballot, voter), choice)  # rows of one vote may repeat after a crash, in any order
    first = np.unique(ballot, return_index=True)[1]
    ballot_rows = votes.select(["theory", "kind", "node", "round"]).take(first)
    return PanelAgreement(_alphas(ballot_rows, choices_BV), _pairwise(voters, choices_BV), _failed_votes(voters, choices_BV))


def _codes(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """Return each row's index among the sorted distinct values, with null as FAILED, and these values."""
    names = pc.unique(column).drop_null()
    names = names.take(pc.sort_indices(names))
    return pc.index_in(column, names).fill_null(FAILED).to_numpy(), names.to_pylist()


def _alphas(ballots: pa.Table, choices_BV: np.ndarray) -> list[Alpha]:
    rows = ballots.append_column("row", pa.array(np.arange(ballots.num_rows))).filter(pc.field("round") == 0)
    nodes = rows.group_by(["theory", "kind", "node"], use_threads=False).aggregate([("row", "list")])
    levels: dict[tuple[str, str, int], list[_NodeAlpha]] = defaultdict(list)
    for n in range(nodes.num_rows):
        theory, kind, node = (nodes[name][n].as_py() for name in ("theory", "kind", "node"))
        alpha = _node_alpha(choices_BV[nodes["row_list"][n].values.to_numpy()])
        levels[theory, kind, _level(theory, node)].append(alpha)
    return [Alpha(*key, *_pool(levels[key])) for key in sorted(levels)]


def _level(theory: str, node: str) -> int:
    return min(len(path) for path in theories()[theory].paths(node)) if node else 0


class _NodeAlpha(NamedTuple):
    alpha: float
    expected: float  # votes times expected disagreement: its weight in the level
    num_ballots: int
    num_votes: int


def _node_alpha(choices_BV: np.ndarray) -> _NodeAlpha:
    comparable_BV = choices_BV[(choices_BV > FAILED).sum(axis=1) > 1]
    ballot, voter = np.nonzero(comparable_BV > FAILED)
    options, option = np.unique(comparable_BV[ballot, voter], return_inverse=True)
    num_ballots, num_votes, num_options = len(comparable_BV), len(ballot), len(options)
    if num_options < 2:
        return _NodeAlpha(0.0, 0.0, num_ballots, num_votes)  # disagreement is impossible: weight 0 in its level
    counts_BO = np.bincount(ballot * num_options + option, minlength=num_ballots * num_options).reshape(num_ballots, -1)
    expected = (num_votes**2 - (counts_BO.sum(axis=0) ** 2).sum()) / (num_votes - 1)
    alpha = krippendorff.alpha(value_counts=counts_BO, level_of_measurement="nominal")
    return _NodeAlpha(float(alpha), float(expected), num_ballots, num_votes)


def _pool(nodes: list[_NodeAlpha]) -> tuple[float, int, int]:
    expected = sum(node.expected for node in nodes)
    alpha = sum(node.alpha * node.expected for node in nodes) / expected if expected else math.nan
    return alpha, sum(node.num_ballots for node in nodes), sum(node.num_votes for node in nodes)


def _pairwise(voters: list[str], choices_BV: np.ndarray) -> Pairwise:
    valid_BV = choices_BV > FAILED
    shares, nums = [], []
    for v in range(len(voters)):
        both_BV = valid_BV & valid_BV[:, [v]]
        num_V = both_BV.sum(axis=0)
        equal_V = (both_BV & (choices_BV == choices_BV[:, [v]])).sum(axis=0)
        shares.append(np.divide(equal_V, num_V, out=np.full(len(voters), np.nan), where=num_V > 0).tolist())
        nums.append(num_V.tolist())
    return Pairwise(voters, shares, nums)


def _failed_votes(voters: list[str], choices_BV: np.ndarray) -> list[FailedVotes]:
    num_V = (choices_BV > NO_VOTE).sum(axis=0).tolist()
    failed_V = (choices_BV == FAILED).sum(axis=0).tolist()
    return [FailedVotes(voter, num, failed / num) for voter, num, failed in zip(voters, num_V, failed_V, strict=True)]
