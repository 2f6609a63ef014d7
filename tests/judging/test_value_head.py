"""The head of the encoder judge: fitted on planted truth, stored, refused when damaged."""

from importlib import resources

import numpy as np
import pytest

from valueflow.errors import InputError
from valueflow.judging import value_head
from valueflow.judging.value_head import Examples, Labels, bootstrap, exemplars, fit, phrases, support
from valueflow.records import ValueId
from valueflow.theories import operational

pytestmark = pytest.mark.component

NUM_VALUES, WIDTH = len(operational()), 48


def planted(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, the column of each text's value (-1: none) and its direction: topic in the first half, side in the second."""
    topic_VW, side_W = np.random.default_rng(1).normal(size=(NUM_VALUES, WIDTH)), np.random.default_rng(2).normal(size=WIDTH)
    value_N, direction_N = rng.integers(-1, NUM_VALUES, size), rng.choice([-1, 1], size)
    topic_NW = np.where(value_N[:, None] >= 0, topic_VW[value_N], 0) + 0.5 * rng.normal(size=(size, WIDTH))
    side_NW = direction_N[:, None] * side_W + 0.5 * rng.normal(size=(size, WIDTH))
    return np.hstack([side_NW, topic_NW]), value_N, direction_N


@pytest.fixture(scope="module")
def fitted():
    features_ND, value_N, direction_N = planted(np.random.default_rng(0), 2000)
    own_NV = np.arange(NUM_VALUES) == value_N[:, None]
    side_NK = np.column_stack([np.where(own_NV, (1 + direction_N[:, None]) / 2, 0.5), np.zeros(len(own_NV))])
    known_NK = np.column_stack([own_NV, np.zeros(len(own_NV))]).astype(float)
    examples = Examples(features_ND, Labels(own_NV.astype(float), np.ones(own_NV.shape)), Labels(side_NK, known_NK))
    phrases_PVD = np.random.default_rng(3).normal(size=(3, NUM_VALUES, features_ND.shape[1]))
    return fit(examples, bootstrap(np.arange(2000)), features_ND, phrases_PVD, WIDTH)


def test_a_head_learns_which_value_and_which_side(fitted):
    features_ND, value_N, direction_N = planted(np.random.default_rng(9), 500)
    relevance_NV, direction_NV = (part.mean(0) for part in fitted(features_ND))
    about = value_N >= 0
    assert (relevance_NV.argmax(1) == value_N)[about].mean() > 0.95
    assert relevance_NV[about, value_N[about]].mean() > 0.7
    assert relevance_NV[~about].max(1).mean() < 0.3
    assert (np.sign(direction_NV[about, value_N[about]]) == direction_N[about]).mean() > 0.95


def test_support_is_exactly_zero_for_texts_about_something_else(fitted):
    features_ND, value_N, _ = planted(np.random.default_rng(9), 500)
    support_NV = support(*fitted(features_ND)).mean(0)
    own_NV = np.arange(NUM_VALUES) == value_N[:, None]
    assert (support_NV[~own_NV] == 0).mean() > 0.9
    assert (support_NV[own_NV] != 0).mean() > 0.95
    assert np.abs(support_NV).max() <= 1


def test_a_mild_text_about_a_value_is_told_from_a_text_about_something_else():
    relevance, direction = np.array([0.9, 0.9, 0.2, 0.04]), np.array([0.02, -0.02, -0.1, 1.0])
    of_texts = support(relevance, direction)
    assert of_texts[0] > 0
    assert (of_texts[1:3] < 0).all()
    assert of_texts[3] == 0
    np.testing.assert_array_equal(support(np.ones(3), np.array([-1.0, 0.5, 1.0])), [-1.0, 0.5, 1.0])


def test_members_differ_and_agree_mostly(fitted):
    features_ND, *_ = planted(np.random.default_rng(9), 200)
    relevance_HNV, _ = fitted(features_ND)
    assert len(relevance_HNV) == value_head.MEMBERS
    assert 0 < relevance_HNV.std(0).mean() < 0.1


def test_a_head_survives_its_file(fitted):
    features_ND, *_ = planted(np.random.default_rng(9), 20)
    probe_D = np.arange(5.0, dtype=np.float32)
    restored, of_file_D, _ = value_head.parse(value_head.dump(fitted, probe_D))
    np.testing.assert_array_equal(of_file_D, probe_D)
    for mine, theirs in zip(restored(features_ND), fitted(features_ND), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=0.01)


def test_the_weights_of_the_larger_encoder_are_recognized_by_its_features():
    content = resources.files("valueflow.judging").joinpath(value_head.MPNET_WEIGHTS).read_bytes()
    head, probe_D, _ = value_head.parse(content)
    at = value_head.shipped(probe_D)
    np.testing.assert_array_equal(at.relevance.bias_HV, head.relevance.bias_HV)
    assert at.relevance.weights_HDV.shape == (value_head.MEMBERS, len(probe_D), NUM_VALUES)
    relevance_HNV, _ = at(probe_D[None])  # a seat for an old man
    benevolence = operational().index(ValueId("svt:benevolence"))
    assert relevance_HNV[:, 0, benevolence].mean() > 0.3
    assert value_head.shipped(-probe_D) is None


def test_damaged_weights_are_refused(monkeypatch):
    monkeypatch.setattr(value_head, "SHA256", "0" * 64)
    with pytest.raises(InputError, match=r"value_head.safetensors is damaged: its SHA-256 is [0-9a-f]{64}, not 0{64}"):
        value_head.shipped(np.ones(3))


def test_exemplars_are_no_examples_of_other_values_with_the_same_description():
    vectors_PVD = np.random.default_rng(0).normal(size=(3, NUM_VALUES, 64))
    vectors_PVD[:, 1] = vectors_PVD[:, 0]
    concern, side = value_head.exemplar_labels(vectors_PVD, exemplars())
    of_first = np.array([row["value"] == operational()[0] and row["direction"] != 0 for row in exemplars()])
    assert (concern.weight_NK[of_first][:, 1] == 0).all()
    assert (concern.weight_NK[of_first][:, 2:] > 0).mean() > 0.9
    assert (side.weight_NK[of_first][:, 1:] == 0).all()
    assert len(phrases()) == 3 * NUM_VALUES
