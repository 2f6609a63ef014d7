"""Rating compared with ranking: the same judges rate texts from -10 to 10 and rank them in windows, each several times."""

import functools
import logging

import numpy as np
import pyarrow as pa
from pydantic import Field

from valueflow import __version__, store
from valueflow.config import Config
from valueflow.distributed.answer import AnswerStage, check_answers, check_lost_calls, collect_answers
from valueflow.distributed.audit import check_panel_admitted, measured_speed
from valueflow.distributed.cluster import ClusterConfig
from valueflow.distributed.panel.vote import PanelConfig, collect_votes, vote_builds
from valueflow.distributed.rank import in_folder, rankings_details, unanswered
from valueflow.distributed.texts import GivenTexts
from valueflow.errors import InputError
from valueflow.judging.audit.rated_texts import SAMPLE, rated_texts
from valueflow.judging.audit.rating import Comparison, Scores, compare
from valueflow.judging.configs import AnyJudge
from valueflow.judging.cost import estimate
from valueflow.judging.fingerprint import fingerprint
from valueflow.judging.tasks import RANK, VOTE
from valueflow.llm.cost import CostEstimate
from valueflow.ranking import calibration
from valueflow.ranking.likelihood import LikelihoodShard
from valueflow.ranking.orders import orders_of
from valueflow.ranking.plackett_luce import fit
from valueflow.ranking.windows import WindowsConfig, plan_table, with_texts
from valueflow.records import LIMIT, ValueId, digest
from valueflow.store import BallotsDetails, Build
from valueflow.theories import expand
from valueflow.voting.descend import Ballot, ballot_table

log = logging.getLogger(__name__)

SCALE = tuple(str(i) for i in range(-10, 11))
# A re-prompt adds one of these to the rating prompt, which changes the request, not the question.
PARAPHRASES = (
    "",
    "Read the text twice before you answer.",
    "Judge what the text says, not what you know about its topic.",
    "Think of how a careful reader would see it.",
)


class CompareRatingConfig(Config):
    """The comparison of rating with ranking."""

    root: str = Field(description="folder or URL under which all tables live")
    panel: PanelConfig
    anchors: str = Field(SAMPLE, description="reference: 'sample', or an official CSV or JSONL with intensities")
    values: list[str] = Field(min_length=1, description="values and theories by any spelling")
    repeats: int = Field(2, ge=2, le=len(PARAPHRASES), description="number of times that each judge rates and ranks all texts")
    windows: WindowsConfig = WindowsConfig()
    extreme_quantile: float = Field(0.99, gt=0.5, le=1, description="quantile of |theta - zero| that becomes intensity 10")
    seed: int = 0
    dry_run: bool = Field(False, description="print the estimated cost of ratings and rankings, make no calls")
    cluster: ClusterConfig = ClusterConfig()


def dry_run(config: CompareRatingConfig) -> list[CostEstimate]:
    """Return the estimated cost of the ratings and the rankings of each judge."""
    rows, value_T = _reference(config)
    texts = {row["text_id"]: row["text"] for row in rows}
    windows, ballots = _windows(config, rows, value_T), _ballots(config, rows)
    window_sample = windows.slice(0, 50).to_pylist()
    ballot_sample = [ballot._asdict() | {"text": texts[ballot.text_id]} for ballot in ballots[:50]]
    estimates = []
    for judge in config.panel.voters:
        speed = measured_speed(config.root, judge)
        rating = estimate(judge, VOTE, ballot_sample, len(ballots), speed)
        ranking = estimate(judge, RANK, window_sample, windows.num_rows, speed)
        estimates += [rating._replace(name=f"{judge.name}, rating"), ranking._replace(name=f"{judge.name}, ranking")]
    return estimates


def compare_rating(config: CompareRatingConfig) -> Comparison:
    """Let every judge rate and rank the texts, and return the comparison.

    Raises:
        InputError: a value has no rated texts or none of rating 0, a judge failed, or a budget is spent.
    """
    rows, value_T = _reference(config)
    check_panel_admitted(config.root, config.panel.voters, config.panel.audit)
    largest = max(abs(row["rating"]) for row in rows)
    scale = LIMIT / largest if config.anchors == SAMPLE else 1.0  # the largest strength of the sample is 3
    reference_T = np.array([row["rating"] * scale for row in rows])
    rating = np.stack([_rated(config, rows, votes) for votes in _rate(config, rows).values()])
    ranking = np.stack([_ranked(config, rows, value_T, judge) for judge in config.panel.voters])
    scores = [Scores("rating", rating, reference_T, value_T), Scores("ranking", ranking, reference_T, value_T)]
    return compare(scores, [judge.name for judge in config.panel.voters], config.seed)


def _reference(config: CompareRatingConfig) -> tuple[list[dict], np.ndarray]:
    """The rated texts and the value of each."""
    values = expand(config.values)
    rows = rated_texts(config.anchors, values).to_pylist()
    value_T = np.array([ValueId.of(row["theory"], row["value"]) for row in rows])
    for value in values:
        if not any(v == value and row["rating"] == 0 for v, row in zip(value_T, rows, strict=True)):
            raise InputError(f"the anchors {config.anchors!r} have no text of {value} with intensity 0, which defines the zero")
    return rows, value_T


def _ballots(config: CompareRatingConfig, rows: list[dict]) -> list[Ballot]:
    return [
        Ballot("rating", row["theory"], row["value"], row["text_id"], SCALE, repeat, PARAPHRASES[repeat])
        for repeat in range(config.repeats)
        for row in rows
    ]


def _rate(config: CompareRatingConfig, rows: list[dict]) -> dict[str, Build]:
    ballots = ballot_table(_ballots(config, rows))
    plan = Build(config.root, "ballots", f"r-{digest(__version__, ballots['ballot_id'].to_pylist())}")
    if not store.reusable(plan):
        store.write_part(plan, ballots, "0", "ratings=0")
        store.commit(plan, BallotsDetails())
    votes = vote_builds(config.root, config.panel, plan.build_id)
    collect_votes(config.panel, plan, GivenTexts({row["text_id"]: row["text"] for row in rows}), votes, 0, "rate")
    return votes


def _rated(config: CompareRatingConfig, rows: list[dict], votes: Build) -> np.ndarray:
    """Scores (repeats, texts) of one judge; nan for an invalid rating."""
    choices: dict[str, str | None] = {}
    for path in store.part_paths(votes):
        part = store.read_part(votes, path, ["ballot_id", "choice"])
        choices.update(zip(part["ballot_id"].to_pylist(), part["choice"].to_pylist(), strict=True))
    answers = [choices[ballot.ballot_id] for ballot in _ballots(config, rows)]
    return np.array([np.nan if a is None else float(a) for a in answers]).reshape(config.repeats, len(rows))


def _ranked(config: CompareRatingConfig, rows: list[dict], value_T: np.ndarray, judge: AnyJudge) -> np.ndarray:
    """Scores (repeats, texts) of one judge: windows of another seed in each repeat, fitted and calibrated by value."""
    table = _windows(config, rows, value_T)
    out = Build(config.root, "rankings", f"r-{digest(__version__, table['window_id'].to_pylist(), fingerprint(judge))}")
    if not store.reusable(out):
        what, share = f"rank, {judge.name}", config.panel.max_error_share
        stage = AnswerStage(out, RANK, share, table.num_rows, lost_setting="panel.max_error_share")
        collect_answers(judge, stage, functools.partial(unanswered, table), table.num_rows, what)
        totals = check_answers(stage, table.num_rows, 1.0, what)
        check_lost_calls(stage, what)
        store.commit(out, rankings_details(totals, judge=judge.public()), files=stage.finish())
    neutral_T = np.array([row["rating"] == 0 for row in rows])
    score_RT = np.full((config.repeats, len(rows)), np.nan)
    for repeat in range(config.repeats):
        folder = f"repeat={repeat}"
        rankings = pa.concat_tables([store.read_part(out, path) for path in store.part_paths(out, folder)])
        for value in np.unique(value_T):
            index_N = np.flatnonzero(value_T == value)
            orders = rankings.filter(pa.compute.equal(rankings["value"], ValueId(value).node))
            ids = [rows[i]["text_id"] for i in index_N]
            score_RT[repeat, index_N] = _intensity(config, ids, neutral_T[index_N], orders)
    return score_RT


def _windows(config: CompareRatingConfig, rows: list[dict], value_T: np.ndarray) -> pa.Table:
    """The windows of all repeats with their texts; each repeat has its own seed."""
    texts = {row["text_id"]: row["text"] for row in rows}
    plans = []
    for repeat in range(config.repeats):
        windows = config.windows.model_copy(update={"seed": config.windows.seed + repeat})
        for value in np.unique(value_T):
            value_id = ValueId(value)
            ids = [row["text_id"] for row, v in zip(rows, value_T, strict=True) if v == value]
            plans.append(_repeat(plan_table(value_id.theory, value_id.node, ids, windows), repeat))
    return with_texts(pa.concat_tables(plans), texts)


def _repeat(windows: pa.Table, repeat: int) -> pa.Table:
    """Windows of a repeat, with its own ids, rounds (the call cache distinguishes rounds) and folder."""
    ids = [digest(window_id, repeat) for window_id in windows["window_id"].to_pylist()]
    rounds = pa.array([1000 * repeat + r for r in windows["round"].to_pylist()], pa.int32())
    windows = windows.set_column(0, "window_id", pa.array(ids)).set_column(4, "round", rounds)
    return in_folder(windows, f"repeat={repeat}")


def _intensity(config: CompareRatingConfig, ids: list[str], neutral_N: np.ndarray, rankings: pa.Table) -> np.ndarray:
    """Intensities of one value's texts, in the order of `ids`; nan if no answer is valid."""
    orders = orders_of(rankings, sorted(ids))
    if not orders:
        return np.full(len(ids), np.nan)
    utilities = fit(LikelihoodShard(len(ids), orders))
    theta = dict(zip(sorted(ids), utilities.theta_N, strict=True))
    theta_N = np.array([theta[i] for i in ids])
    return calibration.neutral(theta_N, neutral_N, config.extreme_quantile).to_intensity(theta_N)
