"""The page of a panel's labels: how they were decided, how well the voters agree, what is left for people."""

import itertools
import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import yaml
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from valueflow import store
from valueflow.judging.answers import ABSTAINED_PREFIX
from valueflow.numerics.intervals import wilson_interval
from valueflow.prompts.render import truncation
from valueflow.records import SCHEMAS
from valueflow.report.formatting import DASH, decimal, percent
from valueflow.report.plots import FIRST, GRID, Plot, svg
from valueflow.report.templates import render
from valueflow.store import Build, LabelsDetails, Manifest, VotesDetails
from valueflow.theories import resolve_theory, theories
from valueflow.voting.agreement import Alpha, PanelAgreement, agreement
from valueflow.voting.descend import DescentConfig

NUM_LABELS, NUM_ERRORS, NUM_QUEUED = 10, 3, 2
RELIABLE, TENTATIVE = 0.8, 0.667  # Krippendorff's thresholds for alpha
FAILED_SHARE = 0.05  # of a voter's votes, above which the page has a warning
AGREEMENT_COLUMNS = ["ballot_id", "voter", "choice", "theory", "kind", "node", "round"]
SUM_COLUMNS = ["tokens_in", "tokens_out", "cost"]


class ErrorCount(NamedTuple):
    """How many votes failed with an error; `message` is without the quoted reply, `example` is the first full error."""

    message: str
    num: int
    example: str


@dataclass(frozen=True)
class VoterReport:
    """The votes of one voter; `failed` calls gave no valid vote, `abstained` ballots were not sent to it at all."""

    name: str
    settings: dict[str, Any]  # public settings
    audit: str
    num_votes: int
    failed: int
    abstained: int
    errors: list[ErrorCount]  # most common first
    tokens_in: int
    tokens_out: int
    cost: float
    truncated: int = 0  # texts of which it read the beginning


@dataclass(frozen=True)
class TheoryReport:
    """The labels and open decisions of one theory."""

    id: str
    labels: dict[tuple[str, int, str], int]  # (last node of the path or "", direction, decision) -> labels
    queued: int
    examples: list[dict[str, Any]]  # a few rows of the queue

    @property
    def name(self) -> str:
        """The theory's name."""
        return theories()[self.id].name

    @property
    def num_labels(self) -> int:
        """Texts with a label."""
        return sum(self.labels.values())

    @property
    def num_texts(self) -> int:
        """Texts sent to the panel: each has a label or is in the human queue."""
        return self.num_labels + self.queued

    def decided(self, decision: str) -> int:
        """Return the number of labels with a decision: accepted, lead, neutral or human."""
        return sum(n for (_, _, d), n in self.labels.items() if d == decision)

    def nodes(self) -> list[tuple[str, int, Counter[int]]]:
        """Return the last nodes of the paths, most frequent first: id, number of labels, labels by direction."""
        nodes: dict[str, Counter[int]] = {}
        for (node, direction, _), n in self.labels.items():
            if node:
                nodes.setdefault(node, Counter())[direction] += n
        return sorted(((node, by.total(), by) for node, by in nodes.items()), key=lambda row: (-row[1], row[0]))


@dataclass(frozen=True)
class PanelReport:
    """Contents of the page."""

    manifest: Manifest  # of the labels
    queue: Build
    theories: list[TheoryReport]
    voters: list[VoterReport]  # in the panel's order
    agreement: PanelAgreement


class Share(NamedTuple):
    """A count as a share of a total, with its 95 % interval; None if the total is 0."""

    num: int
    estimate: float | None
    low: float | None
    high: float | None


def panel_report(labels: Build, votes: dict[str, Build], queue: Build) -> str:
    """Write the page of finished labels; return its URL. `votes` has a build per voter, in the panel's order.

    Raises:
        InputError: a build is not finished.
    """
    manifest = store.require_manifest(labels)
    theory_ids = list(dict.fromkeys(resolve_theory(name) for name in manifest.details(LabelsDetails).resolved["theories"]))
    voters, choices = zip(*(_voter(name, build) for name, build in votes.items()), strict=True)
    panel_agreement = agreement(pa.concat_tables(choices))
    report = PanelReport(manifest, queue, _theories(theory_ids, labels, queue), list(voters), panel_agreement)
    url = store.report_url(labels.root, f"labels-{labels.build_id}")
    store.write_bytes(url, panel_page(report).encode())
    return url


def panel_page(report: PanelReport) -> str:
    """Return the page of a panel's labels as one self-contained HTML file."""
    details = report.manifest.details(LabelsDetails)
    return render(
        "panel.html",
        report=report,
        details=details,
        descent=DescentConfig.model_validate(details.resolved["descent"]),
        num_texts=max(theory.num_texts for theory in report.theories),
        by_people=any(theory.decided("human") for theory in report.theories),
        num_votes=sum(voter.num_votes for voter in report.voters),
        warnings=_warnings(report),
        heat=_heat(report),
        queued=[row | {"counts": json.loads(row["counts"])} for theory in report.theories for row in theory.examples],
        share=share,
        truncation=truncation,
        reading=reading,
        money=_money,
        finite=math.isfinite,
        taxonomy=theories().__getitem__,
        thresholds=(TENTATIVE, RELIABLE),
        num_labels=NUM_LABELS,
        lineage=[*(source.url for source in report.manifest.inputs), report.queue.url],
        config_yaml=yaml.safe_dump(details.resolved, sort_keys=False, allow_unicode=True),
    )


def _voter(name: str, votes: Build) -> tuple[VoterReport, pa.Table]:
    """The report of a voter, and the columns of its votes that `agreement` needs."""
    manifest = store.require_manifest(votes)
    details = manifest.details(VotesDetails)
    choices = [SCHEMAS["votes"].empty_table().select(AGREEMENT_COLUMNS)]
    sums = dict.fromkeys(SUM_COLUMNS, 0.0)
    errors: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for file in manifest.files:
        part = store.read_part(votes, file, [*AGREEMENT_COLUMNS, "error", *SUM_COLUMNS])
        choices.append(part.select(AGREEMENT_COLUMNS))
        for column in SUM_COLUMNS:
            sums[column] += pc.sum(part[column]).as_py() or 0
        for error in part["error"].drop_null().to_pylist():
            # Errors end with the quoted reply, which would make almost every error unique.
            message = (
                ABSTAINED_PREFIX if error.startswith(ABSTAINED_PREFIX) else re.sub(r": [\"'].*", "", error, flags=re.DOTALL)
            )
            errors[message] += 1
            examples.setdefault(message, error)
    abstained = errors.pop(ABSTAINED_PREFIX, 0)
    common = [ErrorCount(message, n, examples[message]) for message, n in errors.most_common(NUM_ERRORS)]
    tokens_in, tokens_out, cost = sums.values()
    report = VoterReport(
        name,
        details.voter,
        details.audit,
        manifest.num_rows,
        errors.total(),
        abstained,
        common,
        int(tokens_in),
        int(tokens_out),
        cost,
        details.truncated,
    )
    return report, pa.concat_tables(choices)


def _theories(theory_ids: list[str], labels: Build, queue: Build) -> list[TheoryReport]:
    counts: dict[str, Counter[tuple[str, int, str]]] = {theory: Counter() for theory in theory_ids}
    for file in store.require_manifest(labels).files:
        part = store.read_part(labels, file, ["theory", "path", "direction", "decision"])
        for theory, path, direction, decision in zip(*(column.to_pylist() for column in part.columns), strict=True):
            counts[theory][path[-1] if path else "", direction, decision] += 1
    queued: Counter[str] = Counter()
    examples: dict[str, list[dict[str, Any]]] = {theory: [] for theory in theory_ids}
    for file in store.require_manifest(queue).files:
        part = store.read_part(queue, file, ["theory", "text", "kind", "asked", "counts"])
        for theory in theory_ids:
            rows = part.filter(pc.equal(part["theory"], theory))
            queued[theory] += rows.num_rows
            examples[theory] += rows.slice(0, NUM_QUEUED - len(examples[theory])).to_pylist()
    return [TheoryReport(theory, counts[theory], queued[theory], examples[theory]) for theory in theory_ids]


def _money(voter: VoterReport) -> str:
    """Cost of the tokens; engines with an hourly price are not part of a vote's cost."""
    price = voter.settings.get("price")
    if not price:
        return DASH
    if not (price["tokens_in"] or price["tokens_out"] or price["hour"]):
        return "no price set"
    return f"{voter.cost:,.2f} {price['currency']}{' and engine hours' if price['hour'] else ''}"


def share(count: int, total: int) -> Share:
    """Return a share with its Wilson score interval."""
    if not total:
        return Share(count, None, None, None)
    low, high = wilson_interval(count / total, total)
    return Share(count, count / total, max(low, 0.0), min(high, 1.0))


def reading(alpha: Alpha, num_voters: int) -> str:
    """Return the interpretation of an alpha, or why it is undefined."""
    if not math.isnan(alpha.alpha):
        return "reliable" if alpha.alpha >= RELIABLE else "tentative" if alpha.alpha >= TENTATIVE else "not reliable"
    if num_voters == 1:
        return "undefined: a single voter"
    if not alpha.num_ballots:
        return "undefined: no ballot has two valid votes"
    return "undefined: all votes are for one option"


def _warnings(report: PanelReport) -> list[str]:
    warnings = []
    if len(report.voters) == 1:
        warnings.append("The panel has one voter: its votes alone decide every label, and agreement cannot be measured.")
    tops = {alpha.theory: alpha.alpha for alpha in report.agreement.alphas if alpha.kind == "child" and alpha.level == 0}
    low = [f"{t.name} ({decimal(tops[t.id], 3)})" for t in report.theories if tops.get(t.id, math.nan) < TENTATIVE]
    if low:
        warnings.append(
            f"On the top level the voters agree too little beyond chance (alpha below {TENTATIVE}): {', '.join(low)}. "
            "These labels depend on the choice of voters; use better voters."
        )
    for voter in report.voters:
        num_votes = voter.num_votes
        called = num_votes - voter.abstained
        if voter.failed > FAILED_SHARE * called:
            failed = f"{voter.failed:,} of {called:,} votes failed ({percent(voter.failed / called)})"
            warnings.append(f"Voter {voter.name}: {failed}, most often with: {voter.errors[0].message}.")
        if voter.abstained:
            warnings.append(
                f"Voter {voter.name} was stopped and abstained on {voter.abstained:,} of {num_votes:,} ballots; the other "
                "voters decided these."
            )
        if voter.audit.startswith("failed"):
            warnings.append(f"Voter {voter.name} {voter.audit}.")
    return warnings


def _heat(report: PanelReport) -> Plot | None:
    """Share of equal choices of each pair of voters; no plot if no pair has a ballot in common."""
    pairwise = report.agreement.pairwise
    names = [voter.name for voter in report.voters if voter.name in pairwise.voters]
    order = [pairwise.voters.index(name) for name in names]
    share_VV = [[pairwise.agreement[a][b] for b in order] for a in order]
    pairs = [(share_VV[a][b], f"{names[a]} and {names[b]}") for a, b in itertools.combinations(range(len(names)), 2)]
    pairs = sorted(pair for pair in pairs if not math.isnan(pair[0]))
    if not pairs:
        return None

    def draw(axes: Axes) -> None:
        axes.set_position((0.31, 0.1, 0.68, 0.89))
        size = min(9.0, 110 / len(names))
        for row, column in itertools.product(range(len(names)), repeat=2):
            equal = share_VV[row][column]
            # At most half opaque, so that the number stays readable on light and dark pages.
            color, alpha = (GRID, 0.4) if row == column else (FIRST, 0.0 if math.isnan(equal) else 0.5 * equal)
            axes.add_patch(Rectangle((column - 0.48, row - 0.46), 0.96, 0.92, facecolor=color, alpha=alpha, linewidth=0))
            text = "" if row == column else decimal(equal)
            axes.text(column, row, text, ha="center", va="center", fontsize=size)
        axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5))
        labels = [f"{n}. {name if len(name) < 18 else name[:16] + '…'}" for n, name in enumerate(names, 1)]
        axes.set_yticks(range(len(names)), labels, fontsize=size, parse_math=False)
        axes.set_xticks(range(len(names)), [str(n) for n in range(1, len(names) + 1)], fontsize=size)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)

    alt = f"Share of equal choices: {'; '.join(f'{pair} {decimal(equal)}' for equal, pair in pairs)}"
    caption = (
        "Share of equal choices on the ballots that both voters answered, not corrected for chance. "
        f"Lowest: {pairs[0][1]} ({decimal(pairs[0][0])}); highest: {pairs[-1][1]} ({decimal(pairs[-1][0])})."
    )
    return Plot(svg(draw, alt, "panel agreement"), caption)
