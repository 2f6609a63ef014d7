"""Ask a panel the ballots of a plan: voters one after another or side by side, each with a build of its own."""

import functools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from pydantic import Field, model_validator
from ray.data import Dataset

from valueflow import __version__, store
from valueflow.config import Config
from valueflow.distributed.answer import collect_answers
from valueflow.distributed.audit import Policy
from valueflow.distributed.commit import pending_parts
from valueflow.distributed.judge import resources
from valueflow.distributed.texts import TextSource
from valueflow.errors import BudgetSpent, InputError
from valueflow.judging.answers import ABSTAINED_PREFIX
from valueflow.judging.answers import votes as vote_rows
from valueflow.judging.configs import AnyJudge, JudgeConfig
from valueflow.judging.fingerprint import voter_fingerprint
from valueflow.judging.tasks import VOTE
from valueflow.records import digest
from valueflow.store import Build

log = logging.getLogger(__name__)


class PanelConfig(Config):
    """Who votes, and what happens when a voter fails."""

    voters: list[JudgeConfig] = Field(min_length=1, description="the panel; seven in the paper")
    on_dead: Literal["stop", "continue"] = Field(
        "stop", description="a voter that cannot answer: stop the job, or go on with its ballots counted as abstentions"
    )
    max_error_share: float = Field(0.2, ge=0, le=1, description="share of broken votes in a step above which a voter is dead")
    audit: Policy = Field("refuse", description="refuse voters that failed their audit, require passed ones, or ignore")
    at_once: int | None = Field(None, ge=1, description="voters working side by side; null: as many as the cluster holds")

    @model_validator(mode="after")
    def _distinct(self) -> "PanelConfig":
        names = [voter.name for voter in self.voters]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"voters need names of their own; {doubled[0]!r} names {names.count(doubled[0])} of them")
        return self

    def fingerprint(self) -> str:
        """Return the hash of everything that can change the panel's votes."""
        return digest([[voter.name, voter_fingerprint(voter)] for voter in self.voters], self.on_dead, self.max_error_share)


def vote_builds(root: str, panel: PanelConfig, plan_id: str) -> dict[str, Build]:
    """Return each voter's build of votes on the ballots that `plan_id` names."""
    made_of = digest(__version__, plan_id, panel.fingerprint())
    return {voter.name: Build(root, "votes", digest(made_of, voter.name)) for voter in panel.voters}


def collect_votes(panel: PanelConfig, plan: Build, texts: TextSource, votes: dict[str, Build], before: int, what: str) -> None:
    """Bring every voter's build to one vote a ballot of the plan; an unfinished one is continued.

    Args:
        panel: the voters.
        plan: a finished build of ballots.
        texts: their texts by folder.
        votes: the voters' builds, which hold the votes on earlier plans.
        before: number of ballots of those.
        what: the name of the step in messages.

    Raises:
        InputError: a voter is dead and the panel does not go on without, or half of the panel is dead.
        BudgetSpent: a voter's budget is used up; what is answered is kept.
    """
    if all(store.manifest(build) for build in votes.values()):
        return
    ballots = store.require_manifest(plan).num_rows
    total = before + ballots

    def run(voter: AnyJudge) -> str:
        try:
            out = votes[voter.name]
            collect_answers(voter, VOTE, lambda done: _questions(plan, texts, voter, done), out, total, f"{what}, {voter.name}")
            _check_step(voter, out, plan, ballots, panel.max_error_share)
        except BudgetSpent:
            raise
        except (InputError, ray.exceptions.RayError, RuntimeError) as error:
            return _reason(error)
        return ""

    dead: dict[str, str] = {}
    with ThreadPoolExecutor(max_workers=panel.at_once or _fitting(panel.voters)) as pool:
        for voter, reason in zip(panel.voters, pool.map(run, panel.voters), strict=True):
            if reason:
                dead[voter.name] = reason
    for name, reason in dead.items():
        if panel.on_dead == "stop":
            raise InputError(
                f"{what}: voter {name!r} is dead: {reason}. Its votes so far are kept; mend it and rerun, or set "
                "panel.on_dead=continue to go on without it"
            )
        log.warning("%s: voter %r is dead, its open ballots count as abstentions: %s", what, name, reason)
    if 2 * len(dead) >= len(panel.voters) and dead:
        raise InputError(f"{what}: {len(dead)} of {len(panel.voters)} voters are dead ({', '.join(dead)}); mend them and rerun")
    for voter in panel.voters:
        if voter.name in dead:
            _abstain(voter, plan, votes[voter.name], dead[voter.name])


def _questions(plan: Build, texts: TextSource, voter: AnyJudge, done: "ray.ObjectRef") -> Dataset:
    """The plan's ballots that are not answered yet, as put to one voter."""
    read, transform = functools.partial(_read_ballots, plan=plan, voter=voter), functools.partial(_with_text, texts=texts)
    return pending_parts(store.require_manifest(plan).files, read, "vote_id", done, transform)


def _read_ballots(path: str, plan: Build, voter: AnyJudge) -> pa.Table:
    return as_shown_to(voter, store.read_part(plan, path), path.rpartition("/")[0])


def _with_text(ballots: pa.Table, folder: str, texts: TextSource) -> Iterator[pa.Table]:
    by_id = texts(folder)
    yield ballots.append_column("text", pa.array([by_id[i] for i in ballots["text_id"].to_pylist()], pa.string()))


def as_shown_to(voter: AnyJudge, ballots: pa.Table, folder: str) -> pa.Table:
    """Return ballots as one voter sees them: with a vote's id, and the options in an order of the voter's own."""
    mark = digest(voter.name, voter_fingerprint(voter))
    ids, shown = [], []
    for ballot_id, options in zip(ballots["ballot_id"].to_pylist(), ballots["options"].to_pylist(), strict=True):
        vote_id = digest(ballot_id, mark)
        order = np.random.default_rng(int(vote_id, 16)).permutation(len(options))
        ids.append(vote_id)
        shown.append([options[i] for i in order])
    at = ballots.schema.get_field_index("options")
    table = ballots.set_column(at, ballots.schema.field("options"), pa.array(shown, pa.list_(pa.string())))
    return table.append_column("vote_id", pa.array(ids, pa.string())).append_column("folder", pa.array([folder] * len(ids)))


def _check_step(voter: AnyJudge, out: Build, plan: Build, ballots: int, max_error_share: float) -> None:
    """Refuse a voter whose answers to this plan are too often broken; `out` may hold those to other plans too."""
    asked = store.committed_ids(plan, "ballot_id")
    answered: set[str] = set()
    broken: dict[str, str] = {}
    for path in store.part_paths(out):
        part = store.read_part(out, path, ["ballot_id", "error"])
        mine = part.filter(pc.invert(store.missing_from(part["ballot_id"], asked)))
        answered.update(mine["ballot_id"].to_pylist())
        failed = mine.filter(pc.is_valid(mine["error"]))
        broken.update(zip(failed["ballot_id"].to_pylist(), failed["error"].to_pylist(), strict=True))
    if len(answered) != ballots:
        raise RuntimeError(f"{len(answered):,} of {ballots:,} ballots answered; rerun the command to ask the rest")
    if len(broken) > max_error_share * ballots:
        example = next(iter(broken.values()))
        raise InputError(
            f"{len(broken):,} of {ballots:,} votes are broken, for example {example!r} (panel.max_error_share "
            f"{max_error_share:g})"
        )


def _abstain(voter: AnyJudge, plan: Build, out: Build, reason: str) -> None:
    """Write a dead voter's open ballots as broken votes, so that a rerun decides the same."""
    done = store.committed_ids(out, "vote_id")
    for file in store.require_manifest(plan).files:
        folder = file.path.rpartition("/")[0]
        table = as_shown_to(voter, store.read_part(plan, file.path), folder)
        table = table.filter(store.missing_from(table["vote_id"], done))
        if table.num_rows:
            rows = vote_rows(table, voter, [None] * table.num_rows, [f"{ABSTAINED_PREFIX}{reason}"[:500]] * table.num_rows)
            store.write_part(out, rows.drop_columns("folder"), digest(table["vote_id"].to_pylist()), folder)


def plausibility_flags(votes: Iterable[Build]) -> dict[tuple[str, str], int]:
    """Return how many voters of a plausibility panel flagged each (value, text id); those that nobody flagged are left out."""
    flags: Counter[tuple[str, str]] = Counter()
    for build in votes:
        for path in store.part_paths(build):
            part = store.read_part(build, path, ["theory", "node", "text_id", "choice"])
            part = part.filter(pc.equal(part["choice"], "weird"))
            columns = (part[name].to_pylist() for name in ("theory", "node", "text_id"))
            flags.update((f"{theory}:{node}", text_id) for theory, node, text_id in zip(*columns, strict=True))
    return dict(flags)


def _fitting(voters: list[AnyJudge]) -> int:
    """How many of the voters, the largest first, the cluster holds at once."""
    have, fits, cpus, gpus = ray.cluster_resources(), 0, 0.0, 0.0
    for need in sorted((resources(voter) for voter in voters), reverse=True):
        cpus, gpus = cpus + need.cpus, gpus + need.gpus
        # One CPU stays for the small tasks around the judges.
        if cpus > have.get("CPU", 0) - 1 or gpus > have.get("GPU", 0):
            break
        fits += 1
    return max(fits, 1)


def _reason(error: BaseException) -> str:
    cause: BaseException = error
    while True:
        inner = getattr(cause, "cause", None) or cause.__cause__
        if inner is None:
            break
        cause = inner
    return f"{type(cause).__name__}: {cause}".splitlines()[0][:300] if not isinstance(cause, InputError) else str(cause)
