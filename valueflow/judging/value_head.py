"""The encoder judge's head: does a text concern a value (relevance, 0 to 1), and on which side is it (direction, -1 to 1).

Both are logistic regressions on hidden states of a sentence encoder, for all values at once, and on the cosines between a text
and the phrases that describe the value. The support of a text for a value is relevance times direction. The weights for
all-MiniLM-L6-v2 and all-mpnet-base-v2 ship with the project: they know more texts than the exemplars. For any other encoder the
same fit uses the exemplars alone.

Shapes: N texts, E exemplars, D features, C components of them, W width of the encoder's last layer, V values, P phrases that
describe a value (definition, supports, opposes), H members of the ensemble, K columns: the values and, for directions, right or
wrong without a value.
"""

import functools
import hashlib
import json
from collections.abc import Callable
from importlib import resources
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load, save
from scipy.special import expit

from valueflow.errors import InputError
from valueflow.records import clean, digest
from valueflow.theories import operational, theories

# Made by benchmarks/train_encoder_head.py, which says from which texts: for all-MiniLM-L6-v2 and for all-mpnet-base-v2.
WEIGHTS, MPNET_WEIGHTS = "value_head.safetensors", "value_head_mpnet.safetensors"
SHA256 = "5f6e67e03bd3c6673f5eacad96fc8e573e2d79d70e1f637040f4bf16d9c991e9"
MPNET_SHA256 = "11f59ab1a790952f53ce43179ae653a17cc4ed151a84c9ef2c97e6106b98ccac"
PROBE = "I gave my seat on the bus to an old man."
MIN_PROBE_COSINE = 0.999  # between features of one text by one model; other hardware changes it by less than 1e-4

MEMBERS = 4
COMPONENTS = 400  # principal components of the exemplars' features in which the weights lie
SAMPLE = 1300  # exemplars, about, that determine the components
SCALE = 8.0  # of features of length 1, so that the penalties are of the order of 1
PENALTY_RELEVANCE, PENALTY_DIRECTION = 12.0, 40.0
# Prior covariance of the weights of two values: a part shared by all, one for similar descriptions, one of the value itself.
RELEVANCE_PRIOR, DIRECTION_PRIOR = (0.3, 1.0, 1.0), (2.0, 1.0, 1.0)
# Of the ridge regression on the exemplars' sides: penalty, prior covariance, factor to a logit, share in the direction.
RIDGE, RIDGE_PRIOR, RIDGE_SCALE, RIDGE_SHARE = 2.0, (4.0, 1.0, 0.5), 2.0, 0.5
OTHER_VALUE = 0.2  # weight of a statement about one value as an example of a text that does not concern another
STRENGTH = {0: 0.0, 1: 0.5, 2: 0.75, 3: 1.0}  # |direction| of a statement
POLE_WEIGHT = 3.0  # of the phrases `supports` and `opposes` as examples
UNDECIDED = 0.03  # weight of a text without direction, in each column
ITERATIONS = 40
BIAS = 0.01  # penalty of a bias, in those of weights
SEED = 0
# Of a text of less relevance the support is 0. The direction has none: a mild text is no text about something else.
THRESHOLD = 0.05


@functools.cache
def exemplars() -> list[dict]:
    """Return the statements that every head learns from: value, direction, strength, kind, text."""
    lines = resources.files("valueflow.theories").joinpath("exemplars.jsonl").read_text("utf-8").splitlines()
    poles = []
    for value in operational():
        node = theories()[value.theory].node(value.node)
        poles += [
            {"value": value, "direction": d, "strength": 3, "kind": "pole", "text": clean(text)}
            for d, text in ((1, node.supports), (-1, node.opposes))
        ]
    return [json.loads(line) for line in lines] + poles


def phrases() -> list[str]:
    """Return definition, supports and opposes of the values: all definitions first."""
    nodes = [theories()[value.theory].node(value.node) for value in operational()]
    return [clean(text) for field in ("definition", "supports", "opposes") for text in (getattr(n, field) for n in nodes)]


class Labels(NamedTuple):
    """Targets from 0 to 1 and their weights, both (N, K); weight 0: the label is unknown."""

    target_NK: np.ndarray
    weight_NK: np.ndarray


class Examples(NamedTuple):
    """Texts to learn from. `concern` has a column per value; `side` (0 opposes, 1 supports) has one more, right or wrong."""

    features_ND: np.ndarray
    concern: Labels
    side: Labels


class Line(NamedTuple):
    """Logits of all members, linear in the features and in the cosines to the phrases."""

    weights_HDV: np.ndarray
    phrases_HP: np.ndarray
    bias_HV: np.ndarray

    def __call__(self, z_ND: np.ndarray, cosine_PNV: np.ndarray) -> np.ndarray:
        """Return logits (H, N, V)."""
        return z_ND @ self.weights_HDV + np.tensordot(self.phrases_HP, cosine_PNV, 1) + self.bias_HV[:, None]


class ValueHead(NamedTuple):
    """A fitted head, and the vectors of the phrases that describe the values."""

    mean_D: np.ndarray
    scale_D: np.ndarray
    vector_PVW: np.ndarray
    relevance: Line
    direction: Line

    def unit(self, features_ND: np.ndarray) -> np.ndarray:
        """Return standardized features of length 1."""
        return unit((features_ND - self.mean_D) / self.scale_D)

    def __call__(self, features_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return relevance (0 to 1) and direction (-1 to 1) by every member, each of shape (H, N, V)."""
        z_ND = SCALE * self.unit(features_ND)
        last_NW = unit((features_ND - self.mean_D)[:, -self.vector_PVW.shape[2] :])
        cosine_PNV = last_NW @ self.vector_PVW.transpose(0, 2, 1)
        return expit(self.relevance(z_ND, cosine_PNV)), 2 * expit(self.direction(z_ND, cosine_PNV)) - 1


def support(relevance: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Return direction times what relevance exceeds THRESHOLD by, so that texts about something else have exactly 0."""
    return direction * np.maximum(relevance - THRESHOLD, 0) / (1 - THRESHOLD)


def unit(x: np.ndarray) -> np.ndarray:
    """Return rows of length 1."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def exemplar_labels(phrase_features_PVD: np.ndarray, rows: list[dict]) -> tuple[Labels, Labels]:
    """Return what exemplars say about relevance and direction.

    A statement about one value is a weak example of a text that does not concern another, the weaker the more alike their
    descriptions are. One without direction concerns no value.
    """
    alike_VV = _centered_cosine(phrase_features_PVD[0] + phrase_features_PVD[1])
    columns = {value: i for i, value in enumerate(operational())}
    value_N = np.array([columns[row["value"]] for row in rows])
    direction_N = np.array([row["direction"] * STRENGTH[row["strength"]] for row in rows])
    own_NV = (np.arange(len(columns)) == value_N[:, None]) & (direction_N != 0)[:, None]
    weight_N = np.where([row["kind"] == "pole" for row in rows], POLE_WEIGHT, 1.0)[:, None]
    other_NV = np.where((direction_N != 0)[:, None], np.clip(1.2 - 2 * alike_VV, 0, 1)[value_N], 2.0)
    concern = Labels(own_NV.astype(float), weight_N * np.where(own_NV, 1.0, OTHER_VALUE * other_NV))
    side_NK, side_weight_NK = np.full((len(rows), len(columns) + 1), 0.5), np.zeros((len(rows), len(columns) + 1))
    side_NK[:, :-1] = np.where(own_NV, (1 + direction_N[:, None]) / 2, 0.5)
    side_weight_NK[:, :-1] = weight_N * np.where(own_NV, 1.0, np.where(direction_N[:, None] == 0, UNDECIDED, 0.0))
    return concern, Labels(side_NK, side_weight_NK)


class Settings(NamedTuple):
    """What cross-validation may choose; by default that of the weights that ship."""

    penalty_relevance: float = PENALTY_RELEVANCE
    penalty_direction: float = PENALTY_DIRECTION
    ridge_share: float = RIDGE_SHARE


SHIPPED = Settings()


class Basis(NamedTuple):
    """What a head reads of features: standardization, principal components (D, C), vectors of the phrases; no labels."""

    mean_D: np.ndarray
    scale_D: np.ndarray
    axes_DC: np.ndarray
    vector_PVW: np.ndarray
    z_ED: np.ndarray
    z_PVD: np.ndarray

    def inputs(self, features_ND: np.ndarray) -> "Inputs":
        """Return what the regressions read of texts."""
        x_NC = SCALE * unit((features_ND - self.mean_D) / self.scale_D) @ self.axes_DC
        last_NW = unit((features_ND - self.mean_D)[:, -self.vector_PVW.shape[2] :])
        return Inputs(x_NC, last_NW @ self.vector_PVW.transpose(0, 2, 1))


class Inputs(NamedTuple):
    """Components of texts, and their cosines to the phrases."""

    x_NC: np.ndarray
    cosine_PNV: np.ndarray


def basis(exemplar_features_ED: np.ndarray, phrase_features_PVD: np.ndarray, width: int) -> Basis:
    """Return the basis of a head.

    Args:
        exemplar_features_ED: what sets mean, scale and principal components.
        phrase_features_PVD: features of `phrases()`.
        width: of the encoder's last layer, the end of the features.
    """
    mean_D, scale_D = exemplar_features_ED.mean(0), exemplar_features_ED.std(0) + 1e-6
    z_ED = unit((exemplar_features_ED - mean_D) / scale_D)
    axes_DC = _principal_axes(z_ED[:: max(len(z_ED) // SAMPLE, 1)])
    vector_PVW = unit((phrase_features_PVD - mean_D)[..., -width:])
    return Basis(mean_D, scale_D, axes_DC, vector_PVW, z_ED, unit((phrase_features_PVD - mean_D) / scale_D))


def fit(
    examples: Examples, weight_HN: np.ndarray, exemplar_features_ED: np.ndarray, phrase_features_PVD: np.ndarray, width: int
) -> ValueHead:
    """Return the head with one member for each row of `weight_HN`, such as the counts of a bootstrap over groups of texts.

    Args:
        examples: all texts to learn from, the exemplars first.
        weight_HN: how often each member sees an example.
        exemplar_features_ED: as in `basis`, with the next two.
        phrase_features_PVD: features of `phrases()`.
        width: of the encoder's last layer.
    """
    at = basis(exemplar_features_ED, phrase_features_PVD, width)
    return fit_inputs(at, at.inputs(examples.features_ND), examples.concern, examples.side, weight_HN)


def fit_inputs(
    at: Basis, inputs: Inputs, concern: Labels, side: Labels, weight_HN: np.ndarray, settings: Settings = SHIPPED
) -> ValueHead:
    """Return the head for inputs that several fits share; else as `fit`."""
    alike_VV, pole_VV = _centered_cosine(at.z_PVD[0] + at.z_PVD[1]), at.z_PVD[1] @ at.z_PVD[1].T
    shared, alike, same = DIRECTION_PRIOR
    covariance_KK = np.full((len(pole_VV) + 1,) * 2, shared)
    covariance_KK[:-1, :-1] += alike * pole_VV + same * np.eye(len(pole_VV))
    lines = []
    for labels, covariance, penalty in (
        (concern, RELEVANCE_PRIOR[0] + RELEVANCE_PRIOR[1] * alike_VV + RELEVANCE_PRIOR[2] * np.eye(len(alike_VV)),
         settings.penalty_relevance),
        (side, covariance_KK, settings.penalty_direction),
    ):  # fmt: skip
        members = [
            _logistic(*inputs, labels._replace(weight_NK=labels.weight_NK * w_N[:, None]), covariance, penalty)
            for w_N in weight_HN
        ]
        weights_HCV, phrases_HP, bias_HV = (np.stack(column) for column in zip(*members, strict=True))
        lines.append(Line((at.axes_DC @ weights_HCV).astype(np.float32), phrases_HP, bias_HV))
    relevance, direction = lines
    num_exemplars = len(at.z_ED)
    of_exemplars = Labels(*(array_NK[:num_exemplars, :-1] for array_NK in side))
    covariance_VV = RIDGE_PRIOR[0] + RIDGE_PRIOR[1] * pole_VV + RIDGE_PRIOR[2] * np.eye(len(pole_VV))
    weights_HDV, bias_HV = (
        np.stack(part)
        for part in zip(*(_ridge(at.z_ED, of_exemplars, w_N[:num_exemplars], covariance_VV) for w_N in weight_HN), strict=True)
    )
    own, ridge = 1 - settings.ridge_share, settings.ridge_share * RIDGE_SCALE
    mixed = Line(
        (own * direction.weights_HDV + ridge * weights_HDV / SCALE).astype(np.float32),
        own * direction.phrases_HP,
        own * direction.bias_HV + ridge * bias_HV,
    )
    return ValueHead(at.mean_D, at.scale_D, at.vector_PVW, relevance, mixed)


def _ridge(z_ED: np.ndarray, side: Labels, weight_E: np.ndarray, covariance_VV: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (D, V) and biases (V) of the ridge regression of the exemplars' sides, 1 or -1, on all their features."""
    sign_EV, weight_EV = np.sign(2 * side.target_NK - 1), side.weight_NK * weight_E[:, None]
    row, column = np.nonzero(sign_EV * (weight_EV > 0))
    kernel = (1 + z_ED[row] @ z_ED[row].T) * covariance_VV[np.ix_(column, column)]
    alpha = np.linalg.solve(kernel + RIDGE * np.diag(1 / weight_EV[row, column]), sign_EV[row, column])
    dual = alpha[:, None] * covariance_VV[column]
    return z_ED[row].T @ dual, dual.sum(0)


def _principal_axes(z_ED: np.ndarray) -> np.ndarray:
    """Return the directions in which the rows differ most, as orthonormal columns (D, C)."""
    eigenvalues, axes = np.linalg.eigh((z_ED @ z_ED.T).astype(float))
    chosen = [i for i in range(len(eigenvalues))[::-1][:COMPONENTS] if eigenvalues[i] > 1e-6 * eigenvalues[-1]]
    return (z_ED.T @ axes[:, chosen] / np.sqrt(eigenvalues[chosen])).astype(np.float32)


def _logistic(
    x_NC: np.ndarray, cosine_PNV: np.ndarray, labels: Labels, covariance_KK: np.ndarray, penalty: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return weights (C, V), coefficients of the phrases (P) and biases (V) of the penalized logistic regression."""
    used = labels.weight_NK.any(1)
    x, cosine, y, w = x_NC[used], cosine_PNV[:, used], labels.target_NK[used], labels.weight_NK[used]
    eigenvalues, axes = np.linalg.eigh(covariance_KK)
    root_KK = axes * np.sqrt(np.maximum(eigenvalues, 0))
    num_values, shape = cosine.shape[2], (x.shape[1], len(root_KK))
    cut = [shape[0] * shape[1], shape[0] * shape[1] + len(cosine)]

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        flat, phrases_P, bias_K = np.split(parameters, cut)
        m = flat.reshape(shape)
        logit = x @ (m @ root_KK.T) + bias_K
        logit[:, :num_values] += np.tensordot(phrases_P, cosine, 1)
        error = w * (expit(logit) - y)
        value = (w * (np.logaddexp(0, logit) - y * logit)).sum() + penalty / 2 * ((m**2).sum() + BIAS * (bias_K**2).sum())
        gradient = (
            ((x.T @ error) @ root_KK + penalty * m).ravel(),
            np.tensordot(cosine, error[:, :num_values], 2),
            error.sum(0) + penalty * BIAS * bias_K,
        )
        return float(value), np.concatenate(gradient)

    start = np.zeros(cut[1] + len(root_KK))
    from scipy.optimize import minimize  # here, since its import takes each worker half a second of a core

    solution = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS}).x
    flat, phrases_P, bias_K = np.split(solution, cut)
    return (flat.reshape(shape) @ root_KK.T)[:, :num_values], phrases_P, bias_K[:num_values]


def exemplar_features(encode: Callable[[list[str]], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the features of `exemplars()` (E, D) and of `phrases()` (P, V, D)."""
    texts = [row["text"] for row in exemplars()]
    features = encode([*texts, *phrases()])
    return features[: len(texts)], features[len(texts) :].reshape(-1, len(operational()), features.shape[1])


def fit_exemplars(encode: Callable[[list[str]], np.ndarray], width: int) -> ValueHead:
    """Return a head that knows nothing but the exemplars, for an encoder without shipped weights."""
    features_ED, features_PVD = exemplar_features(encode)
    concern, side = exemplar_labels(features_PVD, exemplars())
    return fit(Examples(features_ED, concern, side), bootstrap(np.arange(len(features_ED))), features_ED, features_PVD, width)


def bootstrap(group_N: np.ndarray) -> np.ndarray:
    """Return how often each member sees each example (H, N): Bayesian bootstrap weights of its group, of mean 1."""
    _, group_N = np.unique(group_N, return_inverse=True)
    return np.random.default_rng(SEED).exponential(size=(MEMBERS, group_N.max() + 1))[:, group_N]


def knowledge() -> str:
    """Return the hash of what a head that is fitted to the exemplars depends on."""
    constants = [
        [MEMBERS, COMPONENTS, SAMPLE, SCALE, PENALTY_RELEVANCE, PENALTY_DIRECTION, RELEVANCE_PRIOR, DIRECTION_PRIOR],
        [RIDGE, RIDGE_PRIOR, RIDGE_SCALE],
        [OTHER_VALUE, POLE_WEIGHT, UNDECIDED, ITERATIONS, BIAS, SEED, THRESHOLD, sorted(STRENGTH.items())],
    ]
    return digest(constants, [list(row.values()) for row in exemplars()], phrases())


def _centered_cosine(x: np.ndarray) -> np.ndarray:
    z = unit(x - x.mean(0))
    return z @ z.T


def dump(head: ValueHead, probe_D: np.ndarray) -> bytes:
    """Return the file of a head; `probe_D`: features of PROBE, by which its encoder is recognized."""
    arrays = {"probe": probe_D, "mean": head.mean_D, "scale": head.scale_D, "vector": head.vector_PVW}
    for name in ("relevance", "direction"):
        line = getattr(head, name)
        arrays |= {f"{name}.weights": line.weights_HDV, f"{name}.phrases": line.phrases_HP, f"{name}.bias": line.bias_HV}
    halves = {"vector", "relevance.weights", "direction.weights"}
    types = {name: np.float16 if name in halves else np.float32 for name in arrays}
    of_values = {"values": np.frombuffer(_values().encode(), np.uint8)}
    return save({n: np.ascontiguousarray(array, types[n]) for n, array in arrays.items()} | of_values)


def _values() -> str:
    """Return the hash of the values and their descriptions, in order."""
    return digest(list(operational()), phrases())


def parse(content: bytes) -> tuple[ValueHead, np.ndarray, str]:
    """Return the head, the probe's features and the hash of the values."""
    arrays = load(content)
    values = arrays.pop("values").tobytes().decode()
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    parts = ("weights", "phrases", "bias")
    lines = [Line(*(arrays[f"{name}.{part}"] for part in parts)) for name in ("relevance", "direction")]
    return ValueHead(arrays["mean"], arrays["scale"], arrays["vector"], *lines), arrays["probe"], values


def shipped(probe_D: np.ndarray) -> ValueHead | None:
    """Return the head that ships for an encoder; None if there is none, or it is for other values or descriptions.

    Args:
        probe_D: the encoder's features of PROBE.

    Raises:
        InputError: a file is not the one that this code was released with.
    """
    for weights, expected in ((WEIGHTS, SHA256), (MPNET_WEIGHTS, MPNET_SHA256)):
        content = resources.files("valueflow.judging").joinpath(weights).read_bytes()
        if (actual := hashlib.sha256(content).hexdigest()) != expected:
            raise InputError(
                f"valueflow/judging/{weights} is damaged: its SHA-256 is {actual}, not {expected}; install ValueFlow again"
            )
        head, own_D, values = parse(content)
        if own_D.shape == probe_D.shape and unit(own_D) @ unit(probe_D) >= MIN_PROBE_COSINE and values == _values():
            return head
    return None
