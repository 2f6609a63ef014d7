"""Fit the head of the encoder judge to labelled corpora, and measure it on texts that it has not learned from.

python -m benchmarks.train_encoder_head FOLDER [MODEL] [write]

FOLDER: ../shared/data. MODEL: another encoder than all-MiniLM-L6-v2, as `judge.model`. write: the weights that ship, for
all-MiniLM-L6-v2 without MODEL, else for all-mpnet-base-v2.

Figures: nested cross-validation in 3 outer folds, with arguments of one conclusion, variations of one scenario and equal
texts in one fold; within the training part of each, 2 inner folds choose among CANDIDATES. The head that ships is measured on
texts that it has not learned from: `vidb_anchors`, and the samples of the demo. `encoder_head_corpora` has what it learns from.
"""

import hashlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.encoder_head_corpora import COLUMNS, VALUES, CachedFeatures, Material, dev, material, sample
from valueflow.judging import value_head
from valueflow.judging.value_head import Basis, Inputs, Settings, ValueHead
from valueflow.models import MINILM
from valueflow.records import ValueId
from valueflow.theories import operational, theories


def trained(m: Material, use_N: np.ndarray, members: int = value_head.MEMBERS) -> ValueHead:
    """Return the head learned from some of the material."""
    weight_HN = value_head.bootstrap(m.group_N)[:members] * use_N
    return value_head.fit(m.examples, weight_HN, m.exemplar_features_ED, m.phrase_features_PVD, m.width)


def auc(supporting: np.ndarray, opposing: np.ndarray) -> float:
    """Return the probability that a supporting text has the larger score; ties count half."""
    return float(((supporting[:, None] > opposing).mean() + (supporting[:, None] >= opposing).mean()) / 2)


def aucs(score_NV: np.ndarray, column_N: np.ndarray, truth_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each value the AUC of its own column, and the mean AUC of the other columns for the same texts."""
    own, others = [], []
    for column in np.unique(column_N):
        supporting, opposing = (score_NV[(column_N == column) & (sign * truth_N > 0)] for sign in (1, -1))
        if len(supporting) and len(opposing):
            every = [auc(supporting[:, c], opposing[:, c]) for c in range(score_NV.shape[1])]
            own.append(every[column])
            others.append(np.mean(every[:column] + every[column + 1 :]))
    return np.array(own), np.array(others)


def interval(statistic: Callable[[np.ndarray], float], unit_N: np.ndarray, draws: int = 300) -> str:
    """Return a statistic of rows with its 95 % bootstrap interval over units (texts, or groups of them)."""
    units, unit_N = np.unique(unit_N, return_inverse=True)
    rows = np.split(np.argsort(unit_N, kind="stable"), np.cumsum(np.bincount(unit_N))[:-1])
    rng = np.random.default_rng(0)
    sampled = [statistic(np.concatenate([rows[u] for u in rng.integers(len(units), size=len(units))])) for _ in range(draws)]
    low, high = np.nanquantile(sampled, [0.025, 0.975])
    return f"{statistic(np.arange(len(unit_N))):.3f} [{low:.3f}, {high:.3f}]"


def accuracy(choice_N: np.ndarray, truth_NV: np.ndarray) -> float:
    """Return the share of texts whose choice is their value."""
    return float(truth_NV[np.arange(len(choice_N)), choice_N].mean())


def macro_f1(choice_N: np.ndarray, truth_NV: np.ndarray) -> float:
    """Return the mean F1 over the values that people used; each text has one choice and any number of true values."""
    scores = []
    for column in np.flatnonzero(truth_NV.any(0)):
        chosen_N = choice_N == column
        scores.append(2 * (chosen_N & truth_NV[:, column]).sum() / (chosen_N.sum() + truth_NV[:, column].sum()))
    return float(np.mean(scores))


class Candidate(NamedTuple):
    """A setting among which the inner folds choose: a factor on the weights of the corpora, and settings of the fit."""

    name: str
    corpora: float = 1.0
    settings: Settings = value_head.SHIPPED


CANDIDATES = (
    Candidate("as shipped"),
    Candidate("exemplars alone", corpora=0.0),
    Candidate("corpora times 3", corpora=3.0),
    Candidate("penalties / 3", settings=Settings(value_head.PENALTY_RELEVANCE / 3, value_head.PENALTY_DIRECTION / 3)),
    Candidate("penalties times 3", settings=Settings(value_head.PENALTY_RELEVANCE * 3, value_head.PENALTY_DIRECTION * 3)),
    Candidate("no ridge regression", settings=Settings(ridge_share=0.0)),
)


class Shared(NamedTuple):
    """What all fits of a material have in common."""

    basis: Basis
    inputs: Inputs


class Judged(NamedTuple):
    """Relevance and support of every text by a head that has not learned from its group; nan where none was asked."""

    relevance_NV: np.ndarray
    score_NV: np.ndarray


def out_of_fold(
    m: Material, shared: Shared, use_N: np.ndarray, fold_N: np.ndarray, choose: Callable[[np.ndarray], Candidate], members: int
) -> Judged:
    """Return what heads say about each fold of the texts in use, learned from the other folds.

    Args:
        m: the texts.
        shared: of all fits.
        use_N: the texts that are learned from and judged.
        fold_N: folds of the texts.
        choose: the candidate for a training part (N,).
        members: of a head.
    """
    judged = Judged(*(np.full((len(m.source_N), len(VALUES)), np.nan) for _ in range(2)))
    for fold in np.unique(fold_N):
        held_N, training_N = use_N & (fold_N == fold), use_N & (fold_N != fold)
        candidate = choose(training_N)
        head = _fitted(m, shared, training_N, candidate, members)
        relevance_HNV, direction_HNV = head(m.examples.features_ND[held_N])
        judged.relevance_NV[held_N] = relevance_HNV.mean(0)
        judged.score_NV[held_N] = value_head.support(relevance_HNV, direction_HNV).mean(0)
    return judged


def _fitted(m: Material, shared: Shared, training_N: np.ndarray, candidate: Candidate, members: int) -> ValueHead:
    factor_N = training_N * np.where(m.source_N == "exemplars", 1.0, candidate.corpora)
    of_members = np.ones((1, len(factor_N))) if members == 1 else value_head.bootstrap(m.group_N)[:members]
    concern, side = m.examples.concern, m.examples.side
    return value_head.fit_inputs(*shared, concern, side, of_members * factor_N, candidate.settings)


class Question(NamedTuple):
    """Texts of a corpus of which people said which of some values they concern."""

    rows: np.ndarray
    columns: list[int]
    truth_NV: np.ndarray
    name: str
    statistic: Callable[[np.ndarray, np.ndarray], float]


def questions(m: Material, use_N: np.ndarray) -> list[Question]:
    """Return the choice of a foundation and of Schwartz values, for the texts in use."""
    concerns_NV = (m.examples.concern.target_NK == 1) & (m.examples.concern.weight_NK > 0)
    result = []
    for source, columns, name, statistic in (
        ("mfrc", COLUMNS["mft"], "accuracy of the foundation of six, comments with one", accuracy),
        ("valueeval", COLUMNS["svt"], "macro-F1 over ValueEval's values", macro_f1),
    ):
        number_N = concerns_NV[:, columns].sum(1)
        rows = np.flatnonzero(use_N & (m.source_N == source) & ((number_N == 1) if source == "mfrc" else (number_N > 0)))
        result.append(Question(rows, columns, concerns_NV[np.ix_(rows, columns)], name, statistic))
    return result


class Sided(NamedTuple):
    """Texts of a source with the column of the value that they concern and their side."""

    rows: np.ndarray
    column_N: np.ndarray
    truth_N: np.ndarray


def sided(m: Material, source: str, use_N: np.ndarray) -> Sided:
    """Return the texts in use of a source that take a side."""
    concern, side = m.examples.concern, m.examples.side
    concerns_NV = (concern.target_NK == 1) & (concern.weight_NK > 0)
    row, column = np.nonzero((side.weight_NK[:, :-1] > 0) & concerns_NV & (use_N & (m.source_N == source))[:, None])
    return Sided(row, column, 2 * side.target_NK[row, column] - 1)


def merit(m: Material, judged: Judged, use_N: np.ndarray) -> float:
    """Return the mean of the three measures by which a candidate is chosen: which foundation, which value, which side."""
    of_choices = [
        q.statistic(judged.relevance_NV[np.ix_(q.rows, q.columns)].argmax(1), q.truth_NV) for q in questions(m, use_N)
    ]
    texts = sided(m, "exemplars", use_N)
    own, _ = aucs(judged.score_NV[texts.rows], texts.column_N, texts.truth_N)
    return float(np.mean([*of_choices, own.mean()]))


def nested(m: Material) -> None:
    """Print what heads of two members say about texts that took no part in their fit nor in the choice of its settings."""
    at = value_head.basis(m.exemplar_features_ED, m.phrase_features_PVD, m.width)
    shared = Shared(at, at.inputs(m.examples.features_ND))

    def choose(training_N: np.ndarray) -> Candidate:
        merits = []
        for candidate in CANDIDATES:
            judged = out_of_fold(m, shared, training_N, m.inner_N, lambda _, c=candidate: c, 1)
            merits.append(merit(m, judged, training_N))
        listed = ", ".join(f"{c.name} {value:.4f}" for c, value in zip(CANDIDATES, merits, strict=True))
        print(f"  inner folds: {listed}", flush=True)
        return CANDIDATES[int(np.argmax(merits))]

    print("\nnested cross-validation, 95 % intervals over groups", flush=True)
    everything_N = np.ones(len(m.source_N), bool)
    print_figures(m, shared, out_of_fold(m, shared, everything_N, m.fold_N, choose, 2))


def print_figures(m: Material, shared: Shared, judged: Judged) -> None:
    """Print figures of all texts beside the zero-shot baseline and controls."""
    everything_N = np.ones(len(m.source_N), bool)
    methods = {
        "head": judged.relevance_NV,
        "zero-shot, cosine to the definition": shared.inputs.cosine_PNV[0],
        "head, shuffled texts": np.random.default_rng(0).permutation(judged.relevance_NV),
    }
    for q in questions(m, everything_N):
        print(f"  {q.name} ({len(q.rows)})")
        for method, of_all in methods.items():
            chosen_N = of_all[np.ix_(q.rows, q.columns)].argmax(1)
            print(f"    {method:38}{choices(q.statistic, chosen_N, q.truth_NV, m.group_N[q.rows])}", flush=True)
    texts = sided(m, "exemplars", everything_N)
    score_NV = judged.score_NV[texts.rows]
    for theory in (*theories(), "all"):
        at = np.array([theory in ("all", operational()[c].theory) for c in texts.column_N])
        print_aucs(f"  AUC, exemplars, {theory}", score_NV[at], texts.column_N[at], texts.truth_N[at])
    texts = sided(m, "virtue", everything_N)
    print_aucs("  AUC, virtue", judged.score_NV[texts.rows], texts.column_N, texts.truth_N)


def choices(statistic: Callable[..., float], choice_N: np.ndarray, truth_NV: np.ndarray, group_N: np.ndarray) -> str:
    """Return a statistic of choices among values with its interval."""
    return interval(lambda rows: statistic(choice_N[rows], truth_NV[rows]), group_N)


def print_aucs(name: str, score_NV: np.ndarray, column_N: np.ndarray, truth_N: np.ndarray) -> None:
    """Print the AUC of the own and of the other values' columns, and of shuffled labels."""
    rows = np.arange(len(column_N))

    def mean(part: int, truth: np.ndarray) -> Callable[[np.ndarray], float]:
        return lambda r: float(np.mean(aucs(score_NV[r], column_N[r], truth[r])[part]))

    own, others = (interval(mean(part, truth_N), rows, 100) for part in (0, 1))
    shuffled = mean(0, np.random.default_rng(0).permutation(truth_N))(rows)
    print(f"{name} ({len(rows)}): own value {own}, other values' columns {others}, shuffled labels {shuffled:.3f}")


def reserved_figures(head: ValueHead, features: CachedFeatures, folder: str) -> None:
    """Print figures of the head on texts that it has not learned from.

    Settings were chosen on held-out folds. That an earlier choice judged these texts badly was known: so it was made again.
    """

    def scores(texts: list[str]) -> np.ndarray:
        return value_head.support(*head(features(texts))).mean(0)

    texts, column_N, intensity_N = dev(folder)
    score_NV = scores(texts)
    print("\ntexts that it has not learned from")
    for theory in (*theories(), "all"):
        rows = np.array([theory in ("all", operational()[c].theory) for c in column_N])
        print_aucs(f"  vidb_anchors, {theory}", score_NV[rows], column_N[rows], intensity_N[rows])
    corpus = sample("corpus.csv")
    own_N = np.array([VALUES[ValueId.of(*pair)] for pair in zip(corpus["theory"], corpus["value"], strict=True)])
    direction_N = np.array(corpus["direction"], float)
    corpus_NV = scores(corpus["text"])
    print_aucs("  sample corpus", corpus_NV, own_N, direction_N)
    spread = np.mean([corpus_NV[(own_N == v) & (direction_N != 0), v].std() for v in range(len(VALUES))])
    neutral_NV = scores(sample("neutral.csv")["text"])
    print(f"  spread of neutral texts / of the sample corpus for the own value: {neutral_NV.std(0).mean() / spread:.2f}")
    correlation_VV = np.corrcoef(np.concatenate([score_NV, corpus_NV, neutral_NV]).T)
    print(f"  mean correlation of two columns: {correlation_VV[np.triu_indices(len(VALUES), 1)].mean():.2f}")
    replies = sample("responses.csv")
    reply_NV, about_N = scores(replies["response"]), np.array([VALUES[ValueId(v)] for v in replies["about"]])
    stance_N, rows = np.array(replies["stance"], float), np.arange(len(about_N))
    on_N = reply_NV[rows, about_N]
    off = np.concatenate([reply_NV[about_N != v, v] for v in np.unique(about_N)])
    print(f"  sample responses ({len(rows)}): sign right {np.mean(np.sign(on_N) == np.sign(stance_N)):.2f}")
    ratio = np.abs(off).mean() / np.abs(on_N).mean()
    print(f"    about another value: exactly 0 {np.mean(off == 0):.2f}; mean size / that about the value {ratio:.2f}")


def speed(features: CachedFeatures, num_texts: int = 256) -> None:
    """Print texts per second of processor time by one thread, for statements of the samples."""
    texts = sample("corpus.csv")["text"][:num_texts]
    features.encoder(texts[:32])
    start = time.process_time()
    features.encoder(texts)
    print(f"{features.model}: {num_texts / (time.process_time() - start):.1f} texts per second of processor time")


def main() -> None:
    folder, *options = sys.argv[1:]
    models = [option for option in options if option != "write"]
    features = CachedFeatures(models[0] if models else MINILM)
    speed(features)
    m = material(folder, features)
    print({source: int((m.source_N == source).sum()) for source in dict.fromkeys(m.source_N.tolist())})
    head = trained(m, np.ones(len(m.source_N)))
    if "write" in options:
        path = Path(value_head.__file__).with_name(value_head.MPNET_WEIGHTS if models else value_head.WEIGHTS)
        path.write_bytes(value_head.dump(head, features([value_head.PROBE])[0]))
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        print(f"\n{path}: {path.stat().st_size:,} bytes; its SHA-256, for value_head.py: {sha256}")
    reserved_figures(head, features, folder)
    nested(m)


if __name__ == "__main__":
    main()
