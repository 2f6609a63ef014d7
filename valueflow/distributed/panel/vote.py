"""Collect the votes of a panel on planned ballots: voters work in parallel as far as they fit, and each has its own build."""

import contextlib
import functools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from pydantic import Field, model_validator
from ray.data import Dataset

from valueflow import __version__, store
from valueflow.config import Config
from valueflow.distributed.answer import AnswerStage, collect_answers
from valueflow.distributed.audit import Policy
from valueflow.distributed.cluster import user_error
from valueflow.distributed.commit import Done, pending_parts
from valueflow.distributed.side_by_side import most_at_once, side_by_side
from valueflow.distributed.texts import TextSource
from valueflow.errors import BudgetSpent, InputError, StorageError, TooManyErrors
from valueflow.judging.answers import ABSTAINED_PREFIX
from valueflow.judging.answers import votes as vote_rows
from valueflow.judging.configs import AnyJudge, JudgeConfig
from valueflow.judging.fingerprint import voter_fingerprint
from valueflow.judging.tasks import VOTE
from valueflow.records import ValueId, digest
from valueflow.store import Build

log = logging.getLogger(__name__)


class PanelConfig(Config):
    """The voters, and the policy for a voter that fails."""

    voters: list[JudgeConfig] = Field(min_length=1, description="the panel; seven in the paper")
    on_dead: Literal["stop", "continue"] = Field(
        "stop", description="when a voter fails: stop the job, or count its open ballots as abstentions and continue"
    )
    max_error_share: float = Field(0.2, ge=0, le=1, description="a voter fails if more of its votes in a step failed")
    audit: Policy = Field("refuse", description="refuse voters that failed an audit, require a passed audit, or ignore audits")
    at_once: int | None = Field(None, ge=1, description="voters working in parallel; null: as many as fit in the cluster")

    @model_validator(mode="after")
    def _distinct(self) -> "PanelConfig":
        names = [voter.name for voter in self.voters]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates:
            raise ValueError(f"panel.voters: names must differ; {duplicates[0]!r} names {names.count(duplicates[0])} voters")
        return self

    def fingerprint(self) -> str:
        """Return the hash of all settings that can change the panel's votes."""
        return digest([[voter.name, voter_fingerprint(voter)] for voter in self.voters], self.on_dead, self.max_error_share)


def vote_builds(root: str, panel: PanelConfig, plan_id: str) -> dict[str, Build]:
    """Return each voter's build of votes by voter name.

    Args:
        root: folder or URL of all tables.
        panel: the voters.
        plan_id: identifies the questions.
    """
    recipe = digest(__version__, plan_id, panel.fingerprint())
    return {voter.name: Build(root, "votes", digest(recipe, voter.name)) for voter in panel.voters}


def collect_votes(
    panel: PanelConfig, plan: Build, texts: TextSource, votes: dict[str, Build], earlier_ballots: int, step_name: str
) -> None:
    """Collect one vote per voter and ballot of the plan in the voters' builds; unfinished builds are resumed.

    Args:
        panel: the voters.
        plan: a finished build of ballots.
        texts: their texts by folder.
        votes: the voters' builds, with their votes on earlier plans.
        earlier_ballots: number of ballots in those plans.
        step_name: name of the step in messages.

    Raises:
        InputError: a voter failed and `on_dead` is stop, or half of the panel failed.
        BudgetSpent: a voter's budget is spent; its answers so far are stored.
    """
    if all(store.reusable(build) for build in votes.values()):
        return
    ballots = store.require_manifest(plan).num_rows
    total = earlier_ballots + ballots

    def run(voter: AnyJudge) -> str:
        try:
            out = votes[voter.name]
            stage = AnswerStage(out, VOTE, panel.max_error_share, ballots, lambda: len(_step_answers(out, plan).errors))
            what = f"{step_name}, {voter.name}"
            with contextlib.suppress(TooManyErrors):  # which counts earlier steps too
                questions = functools.partial(_questions, plan, texts, voter)
                is_open = functools.partial(_is_step_open, out, plan, ballots)
                collect_answers(voter, stage, questions, total, what, is_open)
            _check_step(out, plan, ballots, panel.max_error_share)
        except BudgetSpent:
            raise
        except (InputError, ray.exceptions.RayError, RuntimeError) as error:
            # A disk that fails is no voter that fails: its ballots stay open.
            if isinstance(cause := user_error(error), StorageError):
                raise cause from None
            return _reason(error)
        return ""

    failures: dict[str, str] = {}
    reasons = side_by_side(panel.voters, run, panel.at_once or most_at_once(panel.voters))
    for voter, reason in zip(panel.voters, reasons, strict=True):
        if reason:
            failures[voter.name] = reason
    for name, reason in failures.items():
        if panel.on_dead == "stop":
            raise InputError(
                f"{step_name}: voter {name!r} failed: {reason}. Its votes so far are stored; fix it and rerun, or set "
                "panel.on_dead=continue to go on without it"
            )
        log.warning("%s: voter %r failed, its open ballots count as abstentions: %s", step_name, name, reason)
    if 2 * len(failures) >= len(panel.voters) and failures:
        names = ", ".join(failures)
        raise InputError(f"{step_name}: {len(failures)} of {len(panel.voters)} voters failed ({names}); fix them and rerun")
    for voter in panel.voters:
        if voter.name in failures:
            _abstain(voter, plan, votes[voter.name], failures[voter.name])
        # The next step follows from these votes: one that came later would leave texts without a ballot.
        store.settle_unanswered(votes[voter.name])


def _questions(plan: Build, texts: TextSource, voter: AnyJudge, done: Done) -> Dataset:
    """Return the plan's ballots without an answer, as one voter sees them."""
    read, transform = functools.partial(_read_ballots, plan=plan, voter=voter), functools.partial(_with_text, texts=texts)
    return pending_parts(store.require_manifest(plan).files, read, "vote_id", done, transform)


def _read_ballots(part: store.File, plan: Build, voter: AnyJudge) -> pa.Table:
    return ballots_for_voter(voter, store.read_part(plan, part), part.path.rpartition("/")[0])


def _with_text(ballots: pa.Table, folder: str, texts: TextSource) -> Iterator[pa.Table]:
    by_id = texts(folder)
    yield ballots.append_column("text", pa.array([by_id[i] for i in ballots["text_id"].to_pylist()], pa.string()))


def ballots_for_voter(voter: AnyJudge, ballots: pa.Table, folder: str) -> pa.Table:
    """Return ballots as one voter sees them: with vote ids, and with the options in a random order of this voter."""
    voter_id = digest(voter.name, voter_fingerprint(voter))
    ids, shuffled = [], []
    for ballot_id, options in zip(ballots["ballot_id"].to_pylist(), ballots["options"].to_pylist(), strict=True):
        vote_id = digest(ballot_id, voter_id)
        order = np.random.default_rng(int(vote_id, 16)).permutation(len(options))
        ids.append(vote_id)
        shuffled.append([options[i] for i in order])
    column = ballots.schema.get_field_index("options")
    table = ballots.set_column(column, ballots.schema.field("options"), pa.array(shuffled, pa.list_(pa.string())))
    return table.append_column("vote_id", pa.array(ids, pa.string())).append_column("folder", pa.array([folder] * len(ids)))


class _StepAnswers(NamedTuple):
    """The ballots of a plan that a voter has answered, and the errors by ballot."""

    ballots: set[str]
    errors: dict[str, str]


def _step_answers(out: Build, plan: Build) -> _StepAnswers:
    """A voter's answers to this plan; `out` may also hold answers to other plans."""
    planned = store.committed_ids(plan, "ballot_id")
    answered: set[str] = set()
    errors: dict[str, str] = {}
    for path in store.part_paths(out):
        part = store.read_part(out, path, ["ballot_id", "error"])
        rows = part.filter(pc.invert(store.missing_from(part["ballot_id"], planned)))
        answered.update(rows["ballot_id"].to_pylist())
        failed = rows.filter(pc.is_valid(rows["error"]))
        errors.update(zip(failed["ballot_id"].to_pylist(), failed["error"].to_pylist(), strict=True))
    return _StepAnswers(answered, errors)


def _is_step_open(out: Build, plan: Build, ballots: int) -> bool:
    return len(_step_answers(out, plan).ballots) < ballots


def _check_step(out: Build, plan: Build, ballots: int, max_error_share: float) -> None:
    """Check a voter's answers to this plan.

    Raises:
        RuntimeError: ballots without an answer.
        TooManyErrors: too many failed votes.
    """
    answered, errors = _step_answers(out, plan)
    if len(errors) > max_error_share * ballots:
        example = next(iter(errors.values()))
        after = f" after {len(answered):,} of {ballots:,}" if len(answered) < ballots else ""
        raise TooManyErrors(
            f"{len(errors):,} of {len(answered):,} votes failed{after}, for example {example!r} (panel.max_error_share "
            f"{max_error_share:g})"
        )
    if len(answered) != ballots:
        raise RuntimeError(f"{len(answered):,} of {ballots:,} ballots answered; rerun the command to ask the rest")


def _abstain(voter: AnyJudge, plan: Build, out: Build, reason: str) -> None:
    """Write abstentions on a failed voter's open ballots, so that a rerun decides the same."""
    done = store.committed_ids(out, "vote_id")
    for file in store.require_manifest(plan).files:
        folder = file.path.rpartition("/")[0]
        table = ballots_for_voter(voter, store.read_part(plan, file), folder)
        table = table.filter(store.missing_from(table["vote_id"], done))
        if table.num_rows:
            rows = vote_rows(table, voter.name, [None] * table.num_rows, [f"{ABSTAINED_PREFIX}{reason}"[:500]] * table.num_rows)
            store.write_part(out, rows.drop_columns("folder"), digest(table["vote_id"].to_pylist()), folder)


def plausibility_flags(votes: Iterable[Build]) -> dict[tuple[ValueId, str], int]:
    """Return how many voters of a plausibility panel flagged each (value, text id); texts without a flag are left out."""
    flags: Counter[tuple[ValueId, str]] = Counter()
    for build in votes:
        for path in store.part_paths(build):
            part = store.read_part(build, path, ["theory", "node", "text_id", "choice"])
            part = part.filter(pc.equal(part["choice"], "weird"))
            columns = (part[name].to_pylist() for name in ("theory", "node", "text_id"))
            flags.update((ValueId.of(theory, node), text_id) for theory, node, text_id in zip(*columns, strict=True))
    return dict(flags)


def _reason(error: BaseException) -> str:
    """Return the root cause of an error in one line."""
    cause: BaseException = error
    while True:
        inner = getattr(cause, "cause", None) or cause.__cause__
        if inner is None:
            break
        cause = inner
    return f"{type(cause).__name__}: {cause}".splitlines()[0][:300] if not isinstance(cause, InputError) else str(cause)
