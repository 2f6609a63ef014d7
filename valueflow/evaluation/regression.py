"""Mode fast: the intensity of a value read off a text's embedding, by regressions fitted on a published VIDB version.

Each value has a ridge regression from vectors to intensity. Its weights are shrunk towards a multiple, fitted as well, of the
direction that the other values share (roughly from wrong to right), without which 60 texts say little. Penalties are chosen
by cross-validation. Intervals are conformal: as wide as 95 % of the errors of weights fitted without the fold of the text,
with the correction for a finite sample. The agreement comes from a further round of folds around all that, on texts that took
no part in weights, penalties or intervals. Near-duplicates share a fold.

The target is the intensity that the version publishes. An interval says where it would lie for a text of the kind that the
version holds, so it includes the doubt of the VIDB about its own texts, but not how far its judge is from people; of texts
unlike those (another language, whole essays) it promises nothing.

Shapes: N distinct texts, M texts of a value, T texts to score, D dimensions, V values, B folds, L pairs of penalties.
"""

import io
import logging
import math
import uuid
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
from scipy.linalg import solve
from scipy.stats import spearmanr

from valueflow import __version__, store
from valueflow.api import Agreement
from valueflow.errors import InputError, allowed
from valueflow.hives.near_duplicates import near_duplicates
from valueflow.models import content_hash, fetch
from valueflow.records import LIMIT, digest
from valueflow.store import Build, RegressionDetails
from valueflow.vidb.version import Vidb

log = logging.getLogger(__name__)
NUM_FOLDS = 10
COVERAGE = 0.95
MIN_TEXTS = 40  # of one value, near-duplicates counted once; with fewer an interval would rest on the largest error alone
# In mean squared lengths of the centred vectors: of the shared direction, and of how a value departs from it.
SHARED_PENALTIES, OWN_PENALTIES = np.geomspace(0.1, 1000.0, 5), np.geomspace(0.03, 3000.0, 11)
PROBE = "I gave my seat on the bus to an old man."
SAME = 0.999  # least cosine of two vectors of one text by one model; other hardware costs less than 1e-4

Embed = Callable[[list[str]], np.ndarray]


class Published(NamedTuple):
    """The texts of a value, into the distinct texts, and their intensities."""

    text_M: np.ndarray
    intensity_M: np.ndarray


class RidgeLine(NamedTuple):
    """A fitted regression and the reach of its interval to either side."""

    weights_D: np.ndarray
    intercept: float
    radius: float

    def predict(self, z_TD: np.ndarray) -> np.ndarray:
        """Return intensities in [-10, 10]."""
        return np.clip(z_TD @ self.weights_D + self.intercept, -LIMIT, LIMIT)


class IntensityRegression:
    """Intensities and intervals from vectors of the encoder `model`; `agreement` has the values it can score."""

    def __init__(self, model: str, version: str, lines: dict[str, RidgeLine], agreement: dict[str, Agreement]) -> None:
        self.model, self.version, self.lines, self.agreement = model, version, lines, agreement

    def __call__(self, z_TD: np.ndarray, value: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return intensity_T, low_T and high_T.

        Raises:
            InputError: the value was not fitted (the version lacks it, or holds too few of its texts), or the vectors are not
                such as the encoder makes.
        """
        if value not in self.lines:
            raise InputError(
                f"mode fast has no {value!r}; {allowed(value, self.lines) if self.lines else 'it has none'}. It needs "
                f"{MIN_TEXTS} texts of a value, near-duplicates counted once, in VIDB {self.version}: use mode ranked, or "
                "build a larger VIDB"
            )
        line, z_TD = self.lines[value], np.asarray(z_TD)
        if z_TD.ndim != 2 or z_TD.shape[1] != len(line.weights_D):
            raise InputError(
                f"vectors have shape {z_TD.shape}; mode fast was fitted on {self.model!r}, whose vectors make a matrix of "
                f"{len(line.weights_D)} columns, one row a text"
            )
        if not np.isfinite(z_TD).all():
            raise InputError(f"vector {int(np.argmin(np.isfinite(z_TD).all(1)))} is not finite; is the encoder damaged?")
        intensity_T = line.predict(z_TD)
        return intensity_T, np.maximum(intensity_T - line.radius, -LIMIT), np.minimum(intensity_T + line.radius, LIMIT)


def load_or_fit(version: Vidb, model: str, embed: Embed) -> IntensityRegression:
    """Return the regressions of a version: stored ones, else fitted now on all its texts and stored under its root.

    Values of fewer than MIN_TEXTS texts are left out. All vectors are in memory while it fits: 1.5 GB for a million texts and
    384 dimensions.

    Args:
        version: the VIDB version.
        model: the encoder, as `weights.fetch` takes it.
        embed: its vectors, a row a text; called once with one text, and where nothing is stored with all texts.

    Raises:
        InputError: what is stored was fitted on other vectors than `embed` makes, or is damaged, or a vector is not finite.
    """
    source = version.build
    out = Build(source.root, "fast", digest(__version__, source.build_id, content_hash(fetch(model))))
    probe_D = _embedded([PROBE], embed)[0]
    if not store.manifest(out):
        texts, published = texts_of(version)
        log.info("mode fast: embedding %s texts of VIDB %s with %s", f"{len(texts):,}", source.build_id, model)
        found = fit(_embedded(texts, embed), near_duplicates(texts), published, int(digest(source.build_id), 16))
        few = ", ".join(value for value in published if value not in found)
        if few:
            log.warning("mode fast leaves out %s: fewer than %d texts in VIDB %s", few, MIN_TEXTS, source.build_id)
        _save(out, version, model, probe_D, found)
    return _load(out, version, model, probe_D)


def texts_of(version: Vidb) -> tuple[list[str], dict[str, Published]]:
    """Return the distinct texts of a version, and which of them each value has."""
    rows = store.read_table(version.build, ["theory", "value", "text_id", "text", "intensity"])
    text_R = rows["text_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    first_N = np.unique(text_R, return_index=True)[1]
    value_R = pc.binary_join_element_wise(rows["theory"], rows["value"], ":").to_numpy()
    intensity_R = rows["intensity"].to_numpy()
    published: dict[str, Published] = {
        v: Published(text_R[value_R == v], intensity_R[value_R == v]) for v in version.calibrations
    }
    return rows["text"].take(first_N).to_pylist(), published


def fit(
    z_ND: np.ndarray, unit_N: np.ndarray, published: dict[str, Published], seed: int
) -> dict[str, tuple[RidgeLine, Agreement]]:
    """Return the regression of each value that has texts enough, and how it agrees with texts that it has not seen.

    Args:
        z_ND: vectors of the distinct texts.
        unit_N: equal for texts that must share a fold.
        published: the texts of each value.
        seed: of the folds.
    """
    unit_N = np.unique(unit_N, return_inverse=True)[1]
    fold_N = (np.random.default_rng(seed).permutation(int(unit_N.max()) + 1) % NUM_FOLDS)[unit_N]
    axes_RD = None
    if len(z_ND) < z_ND.shape[1]:  # ridge weights lie in the span of the vectors: fewer dimensions say the same
        axes_RD = np.linalg.svd(z_ND, full_matrices=False)[2]
        z_ND = z_ND @ axes_RD.T
    pool = _pool(_moments(z_ND[text_M], y_M, fold_N[text_M]) for text_M, y_M in published.values())
    found = {}
    for value, (text_M, y_M) in published.items():
        if len(np.unique(unit_N[text_M])) >= MIN_TEXTS:
            regression = _Regression(z_ND[text_M], y_M, fold_N[text_M], unit_N[text_M], pool)
            line = regression.line(np.ones(NUM_FOLDS, bool))
            if axes_RD is not None:
                line = line._replace(weights_D=line.weights_D @ axes_RD)
            found[value] = line, regression.agreement(value)
    return found


class _Moments(NamedTuple):
    """Sums over the texts of each fold: all that a ridge regression needs to know of them."""

    count_B: np.ndarray
    y_B: np.ndarray
    z_BD: np.ndarray
    zy_BD: np.ndarray
    zz_BDD: np.ndarray


class _Pool(NamedTuple):
    """The moments of all values: first ones of each, products summed over the values."""

    count_VB: np.ndarray
    y_VB: np.ndarray
    z_VBD: np.ndarray
    zy_BD: np.ndarray
    zz_BDD: np.ndarray


class _Products(NamedTuple):
    """Products of vectors with each other and with intensities, each value's means taken off."""

    num_texts: float
    zz_DD: np.ndarray
    zy_D: np.ndarray

    def penalties(self, lengths: np.ndarray) -> np.ndarray:
        """Return penalties that are given in mean squared lengths of the vectors."""
        return lengths * max(float(np.trace(self.zz_DD)) / max(self.num_texts, 1.0), 1e-12)


def _moments(z_MD: np.ndarray, y_M: np.ndarray, fold_M: np.ndarray) -> _Moments:
    parts = []
    for fold in range(NUM_FOLDS):
        z, y = z_MD[fold_M == fold].astype(float), y_M[fold_M == fold]
        parts.append((len(y), y.sum(), z.sum(0), z.T @ y, z.T @ z))
    return _Moments(*(np.stack(column) for column in zip(*parts, strict=True)))


def _pool(all_: Iterable[_Moments]) -> _Pool:
    """Take values one at a time: their second moments are the bulk of the memory."""
    first: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    zy_BD, zz_BDD = np.zeros(()), np.zeros(())
    for moments in all_:
        first.append(moments[:3])
        zy_BD, zz_BDD = zy_BD + moments.zy_BD, zz_BDD + moments.zz_BDD
    count_VB, y_VB, z_VBD = (np.stack(column) for column in zip(*first, strict=True))
    return _Pool(count_VB, y_VB, z_VBD, zy_BD, zz_BDD)


def _weights(own: _Products, others: _Products) -> np.ndarray:
    """Return weights W_DL for every pair of penalties.

    With u the ridge weights of the other values, W = b u + d minimises the squared error plus the own penalty times |d|²; b is
    free. In the eigenbasis of the own products b and d have a closed form.
    """
    ridges = (others.zz_DD + penalty * np.eye(len(others.zy_D)) for penalty in others.penalties(SHARED_PENALTIES))
    u_DS = np.stack([solve(ridge_DD, others.zy_D, assume_a="pos") for ridge_DD in ridges], axis=1)
    size_D, axes_DD = np.linalg.eigh(own.zz_DD)
    size_D = np.maximum(size_D, 0.0)
    u_DS, zy_D = axes_DD.T @ u_DS, axes_DD.T @ own.zy_D
    found = []
    for penalty in own.penalties(OWN_PENALTIES):
        kept_D = penalty / (size_D + penalty)
        spread_S = (kept_D * size_D) @ u_DS**2
        b_S = np.divide((kept_D * zy_D) @ u_DS, spread_S, out=np.zeros_like(spread_S), where=spread_S > 1e-12)
        found.append(b_S * u_DS + (zy_D[:, None] - size_D[:, None] * b_S * u_DS) / (size_D[:, None] + penalty))
    return axes_DD @ np.concatenate(found, axis=1)


class _Regression:
    """The regression of one value, fitted on any set of folds."""

    def __init__(self, z_MD: np.ndarray, y_M: np.ndarray, fold_M: np.ndarray, unit_M: np.ndarray, pool: _Pool) -> None:
        self.z_MD, self.y_M, self.fold_M, self.unit_M, self.pool = z_MD, y_M, fold_M, unit_M, pool
        self.moments = _moments(z_MD, y_M, fold_M)
        self._paths: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}

    def line(self, folds_B: np.ndarray) -> RidgeLine:
        """Return the mean of the weights fitted without each of these folds, and how far 95 % of their errors reach."""
        error_ML = np.empty((len(self.y_M), len(SHARED_PENALTIES) * len(OWN_PENALTIES)))
        paths = []
        for fold in np.flatnonzero(folds_B):
            held_M = self.fold_M == fold
            W_DL, intercept_L = self._path(np.where(np.arange(NUM_FOLDS) == fold, False, folds_B))
            predicted_ML = self.z_MD[held_M] @ W_DL.astype(self.z_MD.dtype) + intercept_L
            error_ML[held_M] = np.abs(self.y_M[held_M, None] - np.clip(predicted_ML, -LIMIT, LIMIT))
            paths.append((W_DL, intercept_L))
        used_M = folds_B[self.fold_M]
        best = int(np.argmin((error_ML[used_M] ** 2).mean(0)))
        weights_D = np.mean([W_DL[:, best] for W_DL, _ in paths], axis=0)
        intercept = float(np.mean([intercept_L[best] for _, intercept_L in paths]))
        return RidgeLine(weights_D, intercept, _radius(error_ML[used_M, best], len(np.unique(self.unit_M[used_M]))))

    def agreement(self, value: str) -> Agreement:
        """Return the agreement on each fold of what was fitted, chosen and calibrated on the others."""
        predicted_M, radius_M = np.empty((2, len(self.y_M)))
        for fold in np.unique(self.fold_M):
            held_M = self.fold_M == fold
            line = self.line(np.arange(NUM_FOLDS) != fold)
            predicted_M[held_M], radius_M[held_M] = line.predict(self.z_MD[held_M]), line.radius
        error_M = np.abs(predicted_M - self.y_M)
        told = np.ptp(predicted_M) > 0 and np.ptp(self.y_M) > 0
        return Agreement(
            value=value,
            texts=len(self.y_M),
            spearman=float(spearmanr(predicted_M, self.y_M).statistic) if told else None,
            mean_absolute_error=float(error_M.mean()),
            coverage=float((error_M <= radius_M).mean()),
            width=float(np.mean(np.minimum(predicted_M + radius_M, LIMIT) - np.maximum(predicted_M - radius_M, -LIMIT))),
        )

    def _path(self, folds_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """W_DL and intercept_L of all pairs of penalties, fitted on these folds."""
        if folds_B.tobytes() not in self._paths:
            count, y, z_D, zy_D, zz_DD = (column[folds_B].sum(0) for column in self.moments)
            own = _Products(count, zz_DD - np.outer(z_D, z_D) / count, zy_D - z_D * y / count)
            W_DL = _weights(own, self._others(folds_B, own))
            self._paths[folds_B.tobytes()] = W_DL, (y - z_D @ W_DL) / count
        return self._paths[folds_B.tobytes()]

    def _others(self, folds_B: np.ndarray, own: _Products) -> _Products:
        count_V, y_V, z_VD = (column[:, folds_B].sum(1) for column in self.pool[:3])
        mean_VD = z_VD / np.maximum(count_V, 1)[:, None]
        zz_DD = self.pool.zz_BDD[folds_B].sum(0) - z_VD.T @ mean_VD - own.zz_DD
        zy_D = self.pool.zy_BD[folds_B].sum(0) - y_V @ mean_VD - own.zy_D
        if np.trace(zz_DD) < 1e-9 * np.trace(own.zz_DD):  # there are no others: what is left is rounding
            zz_DD, zy_D = np.zeros_like(zz_DD), np.zeros_like(zy_D)
        return _Products(count_V.sum() - own.num_texts, zz_DD, zy_D)


def _radius(error_M: np.ndarray, num_units: int) -> float:
    """The error that a new text stays within with probability 0.95 or more: the next rank up, counted in independent texts."""
    rank = math.ceil(COVERAGE * (num_units + 1))
    if rank > num_units:
        return 2 * LIMIT
    return float(np.sort(error_M)[math.ceil(rank / num_units * len(error_M)) - 1])


def _embedded(texts: list[str], embed: Embed) -> np.ndarray:
    z_ND = np.asarray(embed(texts))
    if z_ND.ndim != 2 or len(z_ND) != len(texts) or not np.isfinite(z_ND).all():
        raise InputError(f"the encoder made vectors of shape {z_ND.shape} for {len(texts):,} texts, or some are not finite")
    return z_ND


def _save(out: Build, version: Vidb, model: str, probe_D: np.ndarray, found: dict[str, tuple[RidgeLine, Agreement]]) -> None:
    lines, agreement = zip(*found.values(), strict=True) if found else ((), ())
    file = io.BytesIO()
    np.savez(
        file,
        weights_VD=np.array([line.weights_D for line in lines]),
        intercept_V=np.array([line.intercept for line in lines]),
        radius_V=np.array([line.radius for line in lines]),
        probe_D=probe_D,
    )
    # A name of its own: of two processes that fit at once, each lists the file it wrote.
    listed = store.write_file(out, f"fit-{uuid.uuid4().hex}.npz", file.getvalue(), len(lines))
    agreements = [a.model_dump() for a in agreement]
    details = RegressionDetails(model=model, probe=PROBE, agreement=agreements, values=len(lines))
    store.commit(out, details, [version.build], [listed])


def _load(out: Build, version: Vidb, model: str, probe_D: np.ndarray) -> IntensityRegression:
    store.verify(out)
    manifest = store.require_manifest(out)
    with np.load(io.BytesIO(store.read_bytes(f"{out.url}/{manifest.files[0].path}"))) as arrays:
        weights_VD, intercept_V, radius_V, known_D = (arrays[n] for n in ("weights_VD", "intercept_V", "radius_V", "probe_D"))
    same = probe_D.shape == known_D.shape and probe_D @ known_D >= SAME * np.linalg.norm(probe_D) * np.linalg.norm(known_D)
    if not same:
        raise InputError(
            f"{model!r} no longer makes the vectors that {out.url} was fitted on: its weights at the hub, its prompt or its "
            "pooling have changed. Put them back, or delete that folder to fit again"
        )
    agreement = {a["value"]: Agreement.model_validate(a) for a in manifest.details(RegressionDetails).agreement}
    lines = map(RidgeLine, weights_VD, intercept_V.tolist(), radius_V.tolist())
    return IntensityRegression(model, version.build.build_id, dict(zip(agreement, lines, strict=True)), agreement)
