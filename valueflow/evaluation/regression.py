"""Mode fast: intensities from the embedding of a text, by ridge regressions fitted on a published VIDB version.

Model. Each value has a ridge regression from vectors to published intensities. Its weights are shrunk towards a fitted multiple
of the direction shared with the other values (roughly from wrong to right): 60 texts of one value alone say little. Both
penalties are chosen by cross-validation.

Intervals. They are conformal: symmetric around the prediction, with half-width at the ceil(0.95 (n + 1))-th smallest of the
absolute errors that weights fitted without the text's fold make (cross-conformal prediction, Vovk 2015,
doi:10.1007/s10472-013-9368-4; finite-sample rank as in Lei et al. 2018, doi:10.1080/01621459.2017.1307116). n counts
independent texts: near-duplicates share a fold and count once. With n < 19 no rank exists and the half-width is the whole
scale; MIN_TEXTS is higher, since with few texts the half-width is the largest error alone.

Agreement. A further round of folds around all of this predicts texts that took no part in weights, penalties or intervals; its
coverage, Spearman correlation and mean absolute error are reported.

Scope. The target is the judge's published intensity. An interval covers where the version's judge would place a text of the
kind it holds: it includes the VIDB's own uncertainty, and promises nothing for other kinds of text (another language, whole
essays). The caller adds the distance of the judge from people (`scoring.totals`).

Shapes: N distinct texts, M texts of a value, T texts to score, D dimensions, V values, B folds, L pairs of penalties.
"""

import contextlib
import io
import logging
import math
import uuid
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
from scipy.linalg import solve

from valueflow import __version__, store
from valueflow.api import Agreement
from valueflow.errors import DamageError, InputError, StorageError, allowed
from valueflow.hives.near_duplicates import near_duplicates
from valueflow.models import content_hash, fetch
from valueflow.records import LIMIT, digest
from valueflow.store import Build, RegressionDetails
from valueflow.vidb.version import Vidb

log = logging.getLogger(__name__)
NUM_FOLDS = 10
COVERAGE = 0.95
MIN_TEXTS = 40  # per value, near-duplicates counted once; with fewer, the half-width would be the largest error
# In units of the mean squared length of the centered vectors: for the shared direction, and for a value's deviation from it.
SHARED_PENALTIES, DEVIATION_PENALTIES = np.geomspace(0.1, 1000.0, 5), np.geomspace(0.03, 3000.0, 11)
PROBE = "I gave my seat on the bus to an old man."
MIN_PROBE_COSINE = 0.999  # of one text embedded twice by one model; other hardware changes it by less than 1e-4

Embed = Callable[[list[str]], np.ndarray]


class TrainingTexts(NamedTuple):
    """The texts of one value, as indices into the distinct texts, and their published intensities."""

    text_M: np.ndarray
    intensity_M: np.ndarray


class RidgeLine(NamedTuple):
    """A fitted regression and the half-width of its intervals."""

    weights_D: np.ndarray
    intercept: float
    radius: float

    def predict(self, z_TD: np.ndarray) -> np.ndarray:
        """Return intensities in [-10, 10]."""
        return np.clip(z_TD @ self.weights_D + self.intercept, -LIMIT, LIMIT)


class IntensityRegression:
    """Intensities and intervals from vectors of the encoder `model`; `agreement` has an entry per value that it scores."""

    def __init__(self, model: str, version: str, lines: dict[str, RidgeLine], agreement: dict[str, Agreement]) -> None:
        self.model, self.version, self.lines, self.agreement = model, version, lines, agreement

    def __call__(self, z_TD: np.ndarray, value: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return intensity_T, low_T and high_T.

        Raises:
            InputError: the value was not fitted (it is not in the version, or has too few texts), or the vectors do not have
                the shape of the encoder's, or are not finite.
        """
        if value not in self.lines:
            raise InputError(
                f"mode fast has no {value!r}; {allowed(value, self.lines) if self.lines else 'it has no values'}. It needs "
                f"{MIN_TEXTS} texts per value, near-duplicates counted once, in VIDB {self.version}: use mode ranked, or "
                "build a larger VIDB"
            )
        line, z_TD = self.lines[value], np.asarray(z_TD)
        if z_TD.ndim != 2 or z_TD.shape[1] != len(line.weights_D):
            raise InputError(
                f"vectors have shape {z_TD.shape}; mode fast was fitted on {self.model!r} and needs a matrix with one row per "
                f"text and {len(line.weights_D)} columns"
            )
        if not np.isfinite(z_TD).all():
            raise InputError(f"vector {int(np.argmin(np.isfinite(z_TD).all(1)))} is not finite; is the encoder damaged?")
        intensity_T = line.predict(z_TD)
        return intensity_T, np.maximum(intensity_T - line.radius, -LIMIT), np.minimum(intensity_T + line.radius, LIMIT)


def load_or_fit(version: Vidb, model: str, embed: Embed) -> IntensityRegression:
    """Return the stored regressions of a version; if there are none, fit them on all its texts and store them under its root.

    Values with fewer than MIN_TEXTS texts are left out. Fitting holds all vectors in memory: 1.5 GB for a million texts and 384
    dimensions.

    Args:
        version: the VIDB version.
        model: the encoder, as in `models.fetch`.
        embed: texts -> vectors, one row per text; called with one text, and with all texts if nothing is stored.

    Raises:
        InputError: a vector is not finite.
        StorageError: the stored fit, or a text, cannot be read.
    """
    source = version.build
    out = Build(source.root, "fast", digest(__version__, source.build_id, content_hash(fetch(model))))
    probe_D = _embedded([PROBE], embed)[0]
    manifest = store.reusable(out)
    if manifest:
        try:
            return _load(out, manifest, version, model, probe_D)
        except InputError as error:
            if isinstance(error, StorageError) and not isinstance(error, DamageError):
                raise
            # The texts and the encoder are there.
            log.warning("%s; it is set aside and fitted again", error)
            with contextlib.suppress(StorageError):  # said below
                store.withdraw(out, manifest.files[0].path)
    texts, training = training_texts(version)
    log.info("mode fast: embedding %s texts of VIDB %s with %s", f"{len(texts):,}", source.build_id, model)
    fits = fit(_embedded(texts, embed), near_duplicates(texts), training, int(digest(source.build_id), 16))
    too_few = ", ".join(value for value in training if value not in fits)
    if too_few:
        log.warning("mode fast leaves out %s: fewer than %d texts in VIDB %s", too_few, MIN_TEXTS, source.build_id)
    try:
        _save(out, version, model, probe_D, fits)
    except StorageError as error:
        log.warning("%s. Mode fast is fitted for this process alone", error)
    lines, agreement = {v: line for v, (line, _) in fits.items()}, {v: a for v, (_, a) in fits.items()}
    return IntensityRegression(model, source.build_id, lines, agreement)


def training_texts(version: Vidb) -> tuple[list[str], dict[str, TrainingTexts]]:
    """Return the distinct texts of a version and, by value id, its training texts."""
    rows = store.read_table(version.build, ["theory", "value", "text_id", "text", "intensity", "judge_intensity"])
    text_R = rows["text_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    first_N = np.unique(text_R, return_index=True)[1]
    value_R = pc.binary_join_element_wise(rows["theory"], rows["value"], ":").to_numpy()
    # The judge's own: people's intensity is estimated from what this regression predicts, like from what the judge says.
    intensity_R = pc.coalesce(rows["judge_intensity"], rows["intensity"]).to_numpy()
    training: dict[str, TrainingTexts] = {
        v: TrainingTexts(text_R[value_R == v], intensity_R[value_R == v]) for v in version.calibrations
    }
    return rows["text"].take(first_N).to_pylist(), training


def fit(
    z_ND: np.ndarray, unit_N: np.ndarray, training: dict[str, TrainingTexts], seed: int
) -> dict[str, tuple[RidgeLine, Agreement]]:
    """Return the regression and the held-out agreement of each value with at least MIN_TEXTS texts.

    Args:
        z_ND: vectors of the distinct texts.
        unit_N: label of the group of near-duplicates; texts with equal labels share a fold.
        training: the texts of each value.
        seed: of the assignment to folds.
    """
    unit_N = np.unique(unit_N, return_inverse=True)[1]
    fold_N = (np.random.default_rng(seed).permutation(int(unit_N.max()) + 1) % NUM_FOLDS)[unit_N]
    axes_RD = None
    if len(z_ND) < z_ND.shape[1]:  # ridge weights lie in the span of the vectors: rotate into it
        axes_RD = np.linalg.svd(z_ND, full_matrices=False)[2]
        z_ND = z_ND @ axes_RD.T
    pooled = _pool(_moments(z_ND[text_M], y_M, fold_N[text_M]) for text_M, y_M in training.values())
    fits = {}
    for value, (text_M, y_M) in training.items():
        if len(np.unique(unit_N[text_M])) >= MIN_TEXTS:
            regression = _ValueRegression(z_ND[text_M], y_M, fold_N[text_M], unit_N[text_M], pooled)
            line = regression.fit(np.ones(NUM_FOLDS, bool))
            if axes_RD is not None:
                line = line._replace(weights_D=line.weights_D @ axes_RD)
            fits[value] = line, regression.agreement(value)
    return fits


class _Moments(NamedTuple):
    """Sums over the texts of each fold: sufficient statistics of a ridge regression."""

    count_B: np.ndarray
    y_B: np.ndarray
    z_BD: np.ndarray
    zy_BD: np.ndarray
    zz_BDD: np.ndarray


class _PooledMoments(NamedTuple):
    """Moments of all values: counts and sums by value, products summed over values."""

    count_VB: np.ndarray
    y_VB: np.ndarray
    z_VBD: np.ndarray
    zy_BD: np.ndarray
    zz_BDD: np.ndarray


class _CenteredProducts(NamedTuple):
    """Products of vectors with each other and with intensities, centered by value."""

    num_texts: float
    zz_DD: np.ndarray
    zy_D: np.ndarray

    def penalties(self, multiples: np.ndarray) -> np.ndarray:
        """Return penalties from multiples of the mean squared length of the vectors."""
        return multiples * max(float(np.trace(self.zz_DD)) / max(self.num_texts, 1.0), 1e-12)


def _moments(z_MD: np.ndarray, y_M: np.ndarray, fold_M: np.ndarray) -> _Moments:
    parts = []
    for fold in range(NUM_FOLDS):
        z, y = z_MD[fold_M == fold].astype(float), y_M[fold_M == fold]
        parts.append((len(y), y.sum(), z.sum(0), z.T @ y, z.T @ z))
    return _Moments(*(np.stack(column) for column in zip(*parts, strict=True)))


def _pool(by_value: Iterable[_Moments]) -> _PooledMoments:
    """Pool the moments; values are taken one at a time, since their second moments need the most memory."""
    first: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    zy_BD, zz_BDD = np.zeros(()), np.zeros(())
    for moments in by_value:
        first.append(moments[:3])
        zy_BD, zz_BDD = zy_BD + moments.zy_BD, zz_BDD + moments.zz_BDD
    count_VB, y_VB, z_VBD = (np.stack(column) for column in zip(*first, strict=True))
    return _PooledMoments(count_VB, y_VB, z_VBD, zy_BD, zz_BDD)


def _weights(value: _CenteredProducts, others: _CenteredProducts) -> np.ndarray:
    """Return weights W_DL of a value for every pair of penalties.

    With u the ridge weights of the other values, W = b u + d minimizes the squared error plus the deviation penalty times |d|²;
    b is not penalized. In the eigenbasis of the value's products, b and d have a closed form.
    """
    ridges = (others.zz_DD + penalty * np.eye(len(others.zy_D)) for penalty in others.penalties(SHARED_PENALTIES))
    u_DS = np.stack([solve(ridge_DD, others.zy_D, assume_a="pos") for ridge_DD in ridges], axis=1)
    size_D, axes_DD = np.linalg.eigh(value.zz_DD)
    size_D = np.maximum(size_D, 0.0)
    u_DS, zy_D = axes_DD.T @ u_DS, axes_DD.T @ value.zy_D
    weights = []
    for penalty in value.penalties(DEVIATION_PENALTIES):
        shrunk_D = penalty / (size_D + penalty)
        spread_S = (shrunk_D * size_D) @ u_DS**2
        b_S = np.divide((shrunk_D * zy_D) @ u_DS, spread_S, out=np.zeros_like(spread_S), where=spread_S > 1e-12)
        weights.append(b_S * u_DS + (zy_D[:, None] - size_D[:, None] * b_S * u_DS) / (size_D[:, None] + penalty))
    return axes_DD @ np.concatenate(weights, axis=1)


class _ValueRegression:
    """The regression of one value, fitted on any subset of the folds."""

    def __init__(
        self, z_MD: np.ndarray, y_M: np.ndarray, fold_M: np.ndarray, unit_M: np.ndarray, pooled: _PooledMoments
    ) -> None:
        self.z_MD, self.y_M, self.fold_M, self.unit_M, self.pooled = z_MD, y_M, fold_M, unit_M, pooled
        self.moments = _moments(z_MD, y_M, fold_M)
        self._paths: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}

    def fit(self, folds_B: np.ndarray) -> RidgeLine:
        """Return the mean of the weights fitted without each of these folds, with their conformal half-width."""
        error_ML = np.empty((len(self.y_M), len(SHARED_PENALTIES) * len(DEVIATION_PENALTIES)))
        paths = []
        for fold in np.flatnonzero(folds_B):
            out_M = self.fold_M == fold
            W_DL, intercept_L = self._path(np.where(np.arange(NUM_FOLDS) == fold, False, folds_B))
            predicted_ML = self.z_MD[out_M] @ W_DL.astype(self.z_MD.dtype) + intercept_L
            error_ML[out_M] = np.abs(self.y_M[out_M, None] - np.clip(predicted_ML, -LIMIT, LIMIT))
            paths.append((W_DL, intercept_L))
        used_M = folds_B[self.fold_M]
        best = int(np.argmin((error_ML[used_M] ** 2).mean(0)))
        weights_D = np.mean([W_DL[:, best] for W_DL, _ in paths], axis=0)
        intercept = float(np.mean([intercept_L[best] for _, intercept_L in paths]))
        return RidgeLine(weights_D, intercept, _radius(error_ML[used_M, best], len(np.unique(self.unit_M[used_M]))))

    def agreement(self, value: str) -> Agreement:
        """Return the agreement on each fold of a regression fitted, tuned and calibrated on the other folds."""
        from scipy.stats import spearmanr  # here, since its import takes each worker half a second of a core

        predicted_M, radius_M = np.empty((2, len(self.y_M)))
        for fold in np.unique(self.fold_M):
            out_M = self.fold_M == fold
            line = self.fit(np.arange(NUM_FOLDS) != fold)
            predicted_M[out_M], radius_M[out_M] = line.predict(self.z_MD[out_M]), line.radius
        error_M = np.abs(predicted_M - self.y_M)
        varies = np.ptp(predicted_M) > 0 and np.ptp(self.y_M) > 0
        return Agreement(
            value=value,
            texts=len(self.y_M),
            spearman=float(spearmanr(predicted_M, self.y_M).statistic) if varies else None,
            mean_absolute_error=float(error_M.mean()),
            coverage=float((error_M <= radius_M).mean()),
            width=float(np.mean(np.minimum(predicted_M + radius_M, LIMIT) - np.maximum(predicted_M - radius_M, -LIMIT))),
        )

    def _path(self, folds_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """W_DL and intercept_L for all pairs of penalties, fitted on these folds."""
        if folds_B.tobytes() not in self._paths:
            count, y, z_D, zy_D, zz_DD = (column[folds_B].sum(0) for column in self.moments)
            value = _CenteredProducts(count, zz_DD - np.outer(z_D, z_D) / count, zy_D - z_D * y / count)
            W_DL = _weights(value, self._others(folds_B, value))
            self._paths[folds_B.tobytes()] = W_DL, (y - z_D @ W_DL) / count
        return self._paths[folds_B.tobytes()]

    def _others(self, folds_B: np.ndarray, value: _CenteredProducts) -> _CenteredProducts:
        count_V, y_V, z_VD = (column[:, folds_B].sum(1) for column in self.pooled[:3])
        mean_VD = z_VD / np.maximum(count_V, 1)[:, None]
        zz_DD = self.pooled.zz_BDD[folds_B].sum(0) - z_VD.T @ mean_VD - value.zz_DD
        zy_D = self.pooled.zy_BD[folds_B].sum(0) - y_V @ mean_VD - value.zy_D
        if np.trace(zz_DD) < 1e-9 * np.trace(value.zz_DD):  # no other values: the remainder is rounding
            zz_DD, zy_D = np.zeros_like(zz_DD), np.zeros_like(zy_D)
        return _CenteredProducts(count_V.sum() - value.num_texts, zz_DD, zy_D)


def _radius(error_M: np.ndarray, num_units: int) -> float:
    """The conformal half-width: rank ceil(0.95 (n + 1)) of the errors, n counted in independent texts."""
    rank = math.ceil(COVERAGE * (num_units + 1))
    if rank > num_units:
        return 2 * LIMIT
    return float(np.sort(error_M)[math.ceil(rank / num_units * len(error_M)) - 1])


def _embedded(texts: list[str], embed: Embed) -> np.ndarray:
    z_ND = np.asarray(embed(texts))
    if z_ND.ndim != 2 or len(z_ND) != len(texts) or not np.isfinite(z_ND).all():
        raise InputError(f"the encoder returned vectors of shape {z_ND.shape} for {len(texts):,} texts, or some are not finite")
    return z_ND


def _save(out: Build, version: Vidb, model: str, probe_D: np.ndarray, fits: dict[str, tuple[RidgeLine, Agreement]]) -> None:
    lines, agreement = zip(*fits.values(), strict=True) if fits else ((), ())
    file = io.BytesIO()
    np.savez(
        file,
        weights_VD=np.array([line.weights_D for line in lines]),
        intercept_V=np.array([line.intercept for line in lines]),
        radius_V=np.array([line.radius for line in lines]),
        probe_D=probe_D,
    )
    # A unique name: if two processes fit at once, each manifest lists the file that its process wrote.
    part = store.write_file(out, f"fit-{uuid.uuid4().hex}.npz", file.getvalue(), len(lines))
    agreements = [a.model_dump() for a in agreement]
    details = RegressionDetails(model=model, probe=PROBE, agreement=agreements, values=len(lines))
    store.commit(out, details, [version.build], [part])


def _arrays(content: bytes) -> tuple[np.ndarray, ...]:
    with np.load(io.BytesIO(content)) as saved:
        arrays = tuple(saved[name] for name in ("weights_VD", "intercept_V", "radius_V", "probe_D"))
    weights_VD, intercept_V, radius_V, probe_D = arrays
    if weights_VD.shape not in ((len(intercept_V), *probe_D.shape), (0,)) or intercept_V.shape != radius_V.shape:
        raise ValueError(f"its arrays have the shapes {[array.shape for array in arrays]}")
    if not all(array.dtype.kind == "f" and np.isfinite(array).all() for array in arrays) or (radius_V < 0).any():
        raise ValueError("its arrays hold something else than finite numbers, or a negative radius")
    return arrays


def _load(out: Build, manifest: store.Manifest, version: Vidb, model: str, probe_D: np.ndarray) -> IntensityRegression:
    """The stored regressions; InputError if they are none, or none of this encoder."""
    errors = (*store.ARCHIVE_ERRORS, TypeError)
    weights_VD, intercept_V, radius_V, stored_D = store.read_listed(out, manifest.files[0].path, _arrays, errors, "a fit")
    norms = np.linalg.norm(probe_D) * np.linalg.norm(stored_D)
    same = probe_D.shape == stored_D.shape and probe_D @ stored_D >= MIN_PROBE_COSINE * norms
    if not same:
        raise DamageError(
            f"{model!r} no longer returns the vectors that {out.url} was fitted on: its weights, prompt or pooling have changed"
        )
    entries = manifest.details(RegressionDetails).agreement
    agreement = {a.value: a for a in (manifest.nested(Agreement, entry, "agreement") for entry in entries)}
    if len(agreement) != len(weights_VD):
        raise DamageError(f"{out.url} has {len(weights_VD)} regressions of {len(agreement)} values")
    lines = map(RidgeLine, weights_VD, intercept_V.tolist(), radius_V.tolist())
    return IntensityRegression(model, version.build.build_id, dict(zip(agreement, lines, strict=True)), agreement)
