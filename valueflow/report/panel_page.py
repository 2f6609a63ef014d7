"""The page of a panel's labels: how they were decided, how far the voters agree, what waits for people."""

import functools
import itertools
import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import jinja2
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from valueflow import store
from valueflow.judging.answers import ABSTAINED_PREFIX
from valueflow.numerics.intervals import wilson_interval
from valueflow.records import SCHEMAS
from valueflow.report.audit_page import _decimal
from valueflow.report.vidb_page import FIRST, GRID, Plot, _svg, templates
from valueflow.store import Build, LabelsDetails, Manifest, VotesDetails
from valueflow.theories import resolve_theory, theories
from valueflow.voting.agreement import Alpha, PanelAgreement, agreement
from valueflow.voting.descend import DescentConfig

NUM_LABELS, NUM_REASONS, NUM_WAITING = 10, 3, 2
RELIABLE, TENTATIVE = 0.8, 0.667  # Krippendorff's marks for alpha
BROKEN_SHARE = 0.05
COMPARED = ["ballot_id", "voter", "choice", "theory", "kind", "node", "round"]
SUMMED = ["tokens_in", "tokens_out", "cost"]


class Reason(NamedTuple):
    """Why votes are broken, without what the errors quote."""

    what: str
    num: int
    example: str  # the first such error as it is


@dataclass(frozen=True)
class VoterReport:
    """What one voter did; `broken` votes were asked, `abstained` ones were not, because the voter was dead."""

    name: str
    made: Manifest  # of its votes; the config has its settings and what is to be said of its audit
    broken: int
    abstained: int
    reasons: list[Reason]  # most common first
    tokens_in: int
    tokens_out: int
    cost: float


@dataclass(frozen=True)
class TheoryReport:
    """What became of the texts in one theory."""

    id: str
    labels: dict[tuple[str, int, str], int]  # (last node of the path or "", direction, decision) -> labels
    queued: int
    waiting: list[dict[str, Any]]  # a few rows of the queue

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
        """Texts asked: each has a label or waits in the queue."""
        return self.num_labels + self.queued

    def decided(self, decision: str) -> int:
        """Return how many labels were decided so."""
        return sum(n for (_, _, how), n in self.labels.items() if how == decision)

    def nodes(self) -> list[tuple[str, int, Counter[int]]]:
        """Return the last nodes of the paths, the most frequent first: id, labels, labels by direction."""
        found: dict[str, Counter[int]] = {}
        for (node, direction, _), n in self.labels.items():
            if node:
                found.setdefault(node, Counter())[direction] += n
        return sorted(((node, by.total(), by) for node, by in found.items()), key=lambda row: (-row[1], row[0]))


@dataclass(frozen=True)
class PanelReport:
    """Everything the page of a panel's labels shows."""

    made: Manifest  # of the labels
    queue: Build
    theories: list[TheoryReport]
    voters: list[VoterReport]  # in the panel's order
    agreement: PanelAgreement


class Share(NamedTuple):
    """A share with its 95 % interval; None where there is nothing to share."""

    num: int
    estimate: float | None
    low: float | None
    high: float | None


def panel_report(labels: Build, votes: dict[str, Build], queue: Build) -> str:
    """Write the page of finished labels; return its URL.

    Raises:
        InputError: a build is not finished.
    """
    made = store.require_manifest(labels)
    chosen = list(dict.fromkeys(resolve_theory(name) for name in made.details(LabelsDetails).resolved["theories"]))
    found = [_voter(name, build) for name, build in votes.items()]
    agreed = agreement(pa.concat_tables(compared for _, compared in found))
    report = PanelReport(made, queue, _theories(chosen, labels, queue), [voter for voter, _ in found], agreed)
    url = store.report_url(labels.root, f"labels-{labels.build_id}")
    store.write_bytes(url, panel_page(report).encode())
    return url


def panel_page(report: PanelReport) -> str:
    """Return the page of a panel's labels as one self-contained HTML file."""
    config = report.made.details(LabelsDetails).resolved
    return _template().render(
        report=report,
        descent=DescentConfig.model_validate(config["descent"]),
        num_texts=max(theory.num_texts for theory in report.theories),
        by_people=any(theory.decided("human") for theory in report.theories),
        num_votes=sum(voter.made.num_rows for voter in report.voters),
        warnings=_warnings(report),
        heat=_heat(report),
        waiting=[row | {"counts": json.loads(row["counts"])} for theory in report.theories for row in theory.waiting],
        config_yaml=yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
    )


def _voter(name: str, votes: Build) -> tuple[VoterReport, pa.Table]:
    """What a voter did, and of its votes the columns that agreement compares."""
    made = store.require_manifest(votes)
    compared = [SCHEMAS["votes"].empty_table().select(COMPARED)]
    sums = dict.fromkeys(SUMMED, 0.0)
    reasons: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for file in made.files:
        part = store.read_part(votes, file.path, [*COMPARED, "error", *SUMMED])
        compared.append(part.select(COMPARED))
        for column in SUMMED:
            sums[column] += pc.sum(part[column]).as_py() or 0
        for error in part["error"].drop_null().to_pylist():
            # With the reply that an error quotes at its end hardly two errors are the same.
            what = ABSTAINED_PREFIX if error.startswith(ABSTAINED_PREFIX) else re.sub(r": [\"'].*", "", error, flags=re.DOTALL)
            reasons[what] += 1
            examples.setdefault(what, error)
    abstained = reasons.pop(ABSTAINED_PREFIX, 0)
    common = [Reason(what, n, examples[what]) for what, n in reasons.most_common(NUM_REASONS)]
    tokens_in, tokens_out, cost = sums.values()
    report = VoterReport(name, made, reasons.total(), abstained, common, int(tokens_in), int(tokens_out), cost)
    return report, pa.concat_tables(compared)


def _theories(chosen: list[str], labels: Build, queue: Build) -> list[TheoryReport]:
    found: dict[str, Counter[tuple[str, int, str]]] = {theory: Counter() for theory in chosen}
    for file in store.require_manifest(labels).files:
        part = store.read_part(labels, file.path, ["theory", "path", "direction", "decision"])
        for theory, path, direction, decision in zip(*(column.to_pylist() for column in part.columns), strict=True):
            found[theory][path[-1] if path else "", direction, decision] += 1
    queued: Counter[str] = Counter()
    waiting: dict[str, list[dict[str, Any]]] = {theory: [] for theory in chosen}
    for file in store.require_manifest(queue).files:
        part = store.read_part(queue, file.path, ["theory", "text", "kind", "asked", "counts"])
        for theory in chosen:
            rows = part.filter(pc.equal(part["theory"], theory))
            queued[theory] += rows.num_rows
            waiting[theory] += rows.slice(0, NUM_WAITING - len(waiting[theory])).to_pylist()
    return [TheoryReport(theory, found[theory], queued[theory], waiting[theory]) for theory in chosen]


@functools.cache
def _template() -> jinja2.Template:
    environment = templates()
    environment.filters |= {"decimal": _decimal, "percent": _percent, "money": _money}
    environment.globals |= {
        "share": _share, "reading": _reading, "finite": math.isfinite, "theory": theories().__getitem__,
        "marks": (TENTATIVE, RELIABLE), "num_labels": NUM_LABELS,
    }  # fmt: skip
    return environment.get_template("panel.html")


def _percent(x: float | None) -> str:
    return "–" if x is None else f"{100 * x:.1f}"


def _money(voter: VoterReport) -> str:
    """What the tokens cost; engines rented by the hour are not in a vote's cost."""
    price = voter.made.details(VotesDetails).voter.get("price")
    if not price:
        return "–"
    if not (price["tokens_in"] or price["tokens_out"] or price["hour"]):
        return "no price set"
    return f"{voter.cost:,.2f} {price['currency']}{' and engine hours' if price['hour'] else ''}"


def _share(count: int, of: int) -> Share:
    """Wilson's interval, which keeps its width where all or none are counted."""
    if not of:
        return Share(count, None, None, None)
    low, high = wilson_interval(count / of, of)
    return Share(count, count / of, max(low, 0.0), min(high, 1.0))


def _reading(found: Alpha, num_voters: int) -> str:
    """How to read an alpha, or why there is none."""
    if not math.isnan(found.alpha):
        return "reliable" if found.alpha >= RELIABLE else "tentative" if found.alpha >= TENTATIVE else "not reliable"
    if num_voters == 1:
        return "one voter has nobody to agree with"
    if not found.num_ballots:
        return "no ballot has two valid votes"
    return "all votes are for one option, so chance would agree as well"


def _warnings(report: PanelReport) -> list[str]:
    found = []
    if len(report.voters) == 1:
        found.append("The panel has one voter: every label is that voter's word, and nothing can be said about agreement.")
    tops = {alpha.theory: alpha.alpha for alpha in report.agreement.alphas if alpha.kind == "child" and alpha.level == 0}
    low = [f"{of.name} ({_decimal(tops[of.id], 3)})" for of in report.theories if tops.get(of.id, math.nan) < TENTATIVE]
    if low:
        found.append(
            f"On the top level the voters agree too little beyond chance (alpha below {TENTATIVE}): {', '.join(low)}. "
            "These labels depend on who votes; use better voters."
        )
    for voter in report.voters:
        votes = voter.made.num_rows
        if voter.broken > BROKEN_SHARE * (votes - voter.abstained):
            found.append(
                f"Voter {voter.name}: {voter.broken:,} of {votes - voter.abstained:,} votes asked are broken "
                f"({_percent(voter.broken / (votes - voter.abstained))} %), most often: {voter.reasons[0].what}."
            )
        if voter.abstained:
            found.append(f"Voter {voter.name} was dead on {voter.abstained:,} of {votes:,} ballots; the others decided these.")
        audit = voter.made.details(VotesDetails).audit
        if audit.startswith("failed"):
            found.append(f"Voter {voter.name} {audit}.")
    return found


def _heat(report: PanelReport) -> Plot | None:
    """How often every two voters chose the same; no plot where no two have a ballot in common."""
    pairwise = report.agreement.pairwise
    names = [voter.name for voter in report.voters if voter.name in pairwise.voters]
    order = [pairwise.voters.index(name) for name in names]
    share_VV = [[pairwise.agreement[a][b] for b in order] for a in order]
    every = [(share_VV[a][b], f"{names[a]} and {names[b]}") for a, b in itertools.combinations(range(len(names)), 2)]
    pairs = sorted(pair for pair in every if not math.isnan(pair[0]))
    if not pairs:
        return None

    def draw(axes: Axes) -> None:
        axes.set_position((0.31, 0.1, 0.68, 0.89))
        size = min(9.0, 110 / len(names))
        for row, column in itertools.product(range(len(names)), repeat=2):
            share = share_VV[row][column]
            # At most half opaque, so that the number stays readable on light and dark pages.
            colour, alpha = (GRID, 0.4) if row == column else (FIRST, 0.0 if math.isnan(share) else 0.5 * share)
            axes.add_patch(Rectangle((column - 0.48, row - 0.46), 0.96, 0.92, facecolor=colour, alpha=alpha, linewidth=0))
            text = "" if row == column else "–" if math.isnan(share) else f"{share:.2f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=size)
        axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5))
        shown = [f"{n}. {name if len(name) < 18 else name[:16] + '…'}" for n, name in enumerate(names, 1)]
        axes.set_yticks(range(len(names)), shown, fontsize=size, parse_math=False)
        axes.set_xticks(range(len(names)), [str(n) for n in range(1, len(names) + 1)], fontsize=size)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)

    alt = f"Share of equal choices: {'; '.join(f'{pair} {_decimal(share)}' for share, pair in pairs)}"
    caption = (
        "Share of equal choices on the ballots that two voters both answered. "
        f"Furthest apart: {pairs[0][1]} ({_decimal(pairs[0][0])}); closest: {pairs[-1][1]} ({_decimal(pairs[-1][0])}). "
        "What chance alone would give is not taken out here, as it is in alpha."
    )
    return Plot(_svg(draw, alt, "panel agreement"), caption)
