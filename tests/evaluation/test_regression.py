"""Mode fast: coverage of intervals, stored fits are reproduced, and unusable input is refused."""

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from valueflow import store, vidb
from valueflow.errors import InputError
from valueflow.evaluation.regression import (
    MIN_TEXTS,
    NUM_FOLDS,
    IntensityRegression,
    RidgeLine,
    TrainingTexts,
    fit,
    load_or_fit,
    training_texts,
)
from valueflow.hives.near_duplicates import near_duplicates
from valueflow.records import ValueId, text_id
from valueflow.store import Build, RegressionDetails

D = 16
CARE, LOYALTY, POWER = "mft:care-harm", "svt:benevolence", "svt:power"


def unit_vectors(rng: np.random.Generator, count: int) -> np.ndarray:
    z_ND = rng.normal(size=(count, D))
    return z_ND / np.linalg.norm(z_ND, axis=1, keepdims=True)


def truth(z_ND: np.ndarray, weights_D: np.ndarray, noise: str, rng: np.random.Generator) -> np.ndarray:
    """Linear in the vector, with a spread of 2 or one that grows with the distance from zero."""
    x_N = z_ND @ weights_D
    spread_N = 0.5 + np.abs(x_N) if noise == "growing" else 2.0
    return np.clip(x_N + spread_N * rng.normal(size=len(z_ND)), -10, 10)


def simulated(size: int, noise: str, num_values: int, seed: int) -> tuple[float, float, float]:
    """Coverage on 1000 fresh texts a value, stated coverage, and the radius; values share a direction and the texts."""
    rng = np.random.default_rng(seed)
    weights_VD = 3 * (rng.normal(size=(num_values, D)) + rng.normal(size=D))
    z_ND, fresh_TD = unit_vectors(rng, size), unit_vectors(rng, 1000)
    training = {f"v{i}": TrainingTexts(np.arange(size), truth(z_ND, w, noise, rng)) for i, w in enumerate(weights_VD)}
    fits = fit(z_ND, np.arange(size), training, seed)
    fast = IntensityRegression("toy", "v", {v: line for v, (line, _) in fits.items()}, {v: a for v, (_, a) in fits.items()})
    covered = []
    for i, weights_D in enumerate(weights_VD):
        intensity_T, low_T, high_T = fast(fresh_TD, f"v{i}")
        assert (low_T <= intensity_T).all()
        assert (intensity_T <= high_T).all()
        assert low_T.min() >= -10
        assert high_T.max() <= 10
        y_T = truth(fresh_TD, weights_D, noise, rng)
        covered.append(((low_T <= y_T) & (y_T <= high_T)).mean())
    stated = np.mean([a.coverage for a in fast.agreement.values()])
    return float(np.mean(covered)), float(stated), float(np.mean([line.radius for line in fast.lines.values()]))


SIZES = [
    pytest.param(60, 1, 60, marks=pytest.mark.statistics),
    pytest.param(60, 4, 20, marks=pytest.mark.statistics),
    (300, 2, 12),
    (3000, 2, 4),
]


@pytest.mark.parametrize("noise", ["even", "growing"])
@pytest.mark.parametrize(("size", "num_values", "repeats"), SIZES)
def test_intervals_cover_95_percent_and_the_stated_coverage_is_honest(size, num_values, repeats, noise):
    covered, stated, _ = np.mean([simulated(size, noise, num_values, seed) for seed in range(repeats)], axis=0)
    assert 0.93 <= covered <= 0.97
    assert 0.93 <= stated <= 0.97


def test_intervals_are_as_wide_as_the_noise_requires():
    radius = np.mean([simulated(3000, "even", 1, seed)[2] for seed in range(4)])
    assert radius == pytest.approx(1.96 * 2.0, rel=0.05)


def test_a_value_with_few_texts_learns_from_the_others():
    rng = np.random.default_rng(0)
    z_ND, shared_D = unit_vectors(rng, 1200), 6 * rng.normal(size=D)
    y_N = truth(z_ND, shared_D, "even", rng)
    few, many = TrainingTexts(np.arange(45), y_N[:45]), TrainingTexts(np.arange(200, 1200), -y_N[200:])
    alone = fit(z_ND, np.arange(1200), {"few": few}, 0)["few"][1]
    together = fit(z_ND, np.arange(1200), {"few": few, "many": many}, 0)["few"][1]
    assert together.spearman > alone.spearman
    assert together.mean_absolute_error < 0.9 * alone.mean_absolute_error


def test_unused_dimensions_do_not_change_the_fit():
    rng = np.random.default_rng(0)
    z_ND = unit_vectors(rng, 60)
    training = {"v": TrainingTexts(np.arange(60), truth(z_ND, 3 * np.ones(D), "even", rng))}
    wide_ND = np.concatenate([z_ND, np.zeros((60, 100))], axis=1)
    narrow, wide = (fit(z, np.arange(60), training, 0)["v"] for z in (z_ND, wide_ND))
    np.testing.assert_allclose(wide[0].weights_D[:D], narrow[0].weights_D, rtol=1e-6)
    assert wide[0].radius == pytest.approx(narrow[0].radius)
    agreements = [fitted[1].model_dump(exclude={"value"}) for fitted in (wide, narrow)]
    assert agreements[0] == pytest.approx(agreements[1])


def test_identical_texts_and_near_duplicates_share_a_fold():
    """Each text occurs twice, and only its twin predicts its intensity: in different folds, errors would be small."""
    rng = np.random.default_rng(0)
    spelt = [f"The {rng.integers(10**9)} of {rng.integers(10**9)} was {rng.integers(10**9)} then." for _ in range(150)]
    texts = [*spelt, *(text.upper().replace(" ", "  ") for text in spelt)]
    z_D = np.eye(150)[np.arange(300) % 150]
    y_N = np.tile(rng.uniform(-10, 10, 150), 2)
    training = {"v": TrainingTexts(np.arange(300), y_N)}
    together = fit(z_D, near_duplicates(texts), training, 0)["v"][1]
    apart = fit(z_D, np.arange(300), training, 0)["v"][1]
    baseline = np.abs(y_N - y_N.mean()).mean()
    assert apart.mean_absolute_error < 0.6 * baseline
    assert together.mean_absolute_error > 0.95 * baseline
    assert together.coverage >= 0.9


def test_constant_intensities_have_no_rank_correlation():
    rng = np.random.default_rng(0)
    line, agreement = fit(unit_vectors(rng, 60), np.arange(60), {"v": TrainingTexts(np.arange(60), np.full(60, 4.0))}, 0)["v"]
    assert agreement.spearman is None
    assert agreement.mean_absolute_error == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(line.predict(unit_vectors(rng, 5)), 4.0)


class Toy:
    """An encoder whose vectors are a hash of the text; records its calls."""

    def __init__(self, salt: str = "") -> None:
        self.salt, self.calls = salt, []

    def __call__(self, texts: list[str]) -> np.ndarray:
        self.calls.append(list(texts))
        seeds = [int(text_id(self.salt + text), 16) for text in texts]
        return np.concatenate([unit_vectors(np.random.default_rng(seed), 1) for seed in seeds]).astype(np.float32)


@pytest.fixture
def version(tmp_path) -> vidb.Vidb:
    """80 texts of two values, half of them the same, and 10 of a third."""
    weights_D, noise = 20 * np.eye(D)[0], np.random.default_rng(0)

    def anchor(value: str, number: int) -> str:
        value_id = ValueId(value)
        text = f"Somebody did the thing that has number {number}."
        y = truth(Toy()([text]), weights_D, "even", noise)[0]
        return json.dumps({"theory": value_id.theory, "value": value_id.node, "text": text, "intensity": y})

    path = tmp_path / "anchors.jsonl"
    numbers_by_value = [(CARE, range(80)), (LOYALTY, range(40, 120)), (POWER, range(10))]
    path.write_text("\n".join(anchor(value, number) for value, numbers in numbers_by_value for number in numbers))
    build, _ = vidb.import_version([str(path)], "MIT", "here", str(tmp_path / "root"))
    return vidb.load(str(tmp_path / "root"), build.build_id)


def folder(version: vidb.Vidb) -> Path:
    (path,) = Path(version.build.root, "fast").iterdir()
    return path


def same(first: IntensityRegression, second: IntensityRegression, value: str) -> bool:
    z_TD = Toy()([f"Response {number}." for number in range(20)])
    return all(np.array_equal(a, b) for a, b in zip(first(z_TD, value), second(z_TD, value), strict=True))


def test_a_fit_is_stored_and_loaded_without_embedding_again(version):
    embed = Toy()
    first = load_or_fit(version, "toy", embed)
    probe, texts = embed.calls
    assert len(probe) == 1
    assert sorted(texts) == sorted({f"Somebody did the thing that has number {n}." for n in range(120)})  # each once
    second = load_or_fit(version, "toy", embed)
    assert embed.calls[2:] == [probe]
    assert (second.model, second.version, second.agreement) == ("toy", version.build.build_id, first.agreement)
    assert list(first.agreement) == [CARE, LOYALTY]
    assert all(same(first, second, value) for value in first.agreement)
    agreement = first.agreement[CARE]
    assert (agreement.value, agreement.texts) == (CARE, 80)
    assert agreement.spearman > 0.5
    assert store.finished(version.build.root, "fast") == [folder(version).name]


def test_the_training_texts_a_version_are_distinct_and_have_their_intensities(version):
    texts, training = training_texts(version)
    assert len(texts) == len(set(texts)) == 120
    for value, (text_m, intensity_m) in training.items():
        rows = store.read_table(version.build, ["text", "intensity"], store.value_folder(value))
        assert dict(zip([texts[i] for i in text_m], intensity_m, strict=True)) == dict(
            zip(rows["text"].to_pylist(), rows["intensity"].to_pylist(), strict=True)
        )


def test_a_half_written_fit_is_not_read(version):
    first = load_or_fit(version, "toy", Toy())
    written = folder(version)
    (written / "_manifest.json").unlink()
    (arrays,) = written.glob("fit-*.npz")
    arrays.write_bytes(arrays.read_bytes()[:100])
    embed = Toy()
    again = load_or_fit(version, "toy", embed)
    assert len(embed.calls) == 2
    assert same(first, again, CARE)
    assert len(list(written.glob("fit-*.npz"))) == 2


def test_a_damaged_fit_is_set_aside_and_made_again(version, caplog):
    first = load_or_fit(version, "toy", Toy())
    (arrays,) = folder(version).glob("fit-*.npz")
    content = bytearray(arrays.read_bytes())
    content[len(content) // 2] ^= 1
    arrays.write_bytes(content)
    embed = Toy()
    again = load_or_fit(version, "toy", embed)
    assert f"{arrays.name} differs from its manifest's hash" in caplog.text
    assert len(embed.calls) == 2  # the probe, and all texts
    assert same(first, again, CARE)
    assert arrays.with_name(f"{arrays.name}.bad").read_bytes() == content


def test_a_root_that_cannot_be_written_is_said_and_the_fit_is_the_same(version, caplog, monkeypatch):
    expected = load_or_fit(version, "toy", Toy())
    shutil.rmtree(folder(version))

    def refuse(self, path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    with monkeypatch.context() as patch:
        patch.setattr("valueflow.store.files._write_local", refuse)
        fitted = load_or_fit(version, "toy", Toy())
    assert "for this process alone" in caplog.text
    assert fitted.agreement == expected.agreement
    assert same(expected, fitted, CARE)
    assert store.finished(version.build.root, "fast") == []


def test_a_model_that_makes_other_vectors_under_its_old_name_is_fitted_again(version, caplog):
    load_or_fit(version, "toy", Toy())
    for other in (Toy(salt="retrained"), lambda texts: Toy()(texts)[:, :8]):
        caplog.clear()
        again = load_or_fit(version, "toy", other)
        warning = f"'toy' no longer returns the vectors that {folder(version)} was fitted on"
        assert caplog.text.count(warning) == caplog.text.count("fitted again") == 1
        shutil.rmtree(folder(version))
        fresh = load_or_fit(version, "toy", other)
        assert (again.agreement, again.lines.keys()) == (fresh.agreement, fresh.lines.keys())
        for value, line in fresh.lines.items():
            np.testing.assert_array_equal(again.lines[value].weights_D, line.weights_D)
    assert len(store.finished(version.build.root, "fast")) == 1


def edited(out: Build, **details: object) -> None:
    """Another content under a valid digest, as a program of another version may write it."""
    manifest = store.require_manifest(out)
    fields = manifest.details(RegressionDetails).model_dump() | details
    Path(out.manifest_url).unlink()
    store.commit(out, RegressionDetails(**fields), [], list(manifest.files))


def test_a_fit_whose_numbers_of_regressions_and_values_differ_is_made_again(version, caplog):
    first = load_or_fit(version, "toy", Toy())
    (build_id,) = store.finished(version.build.root, "fast")
    out = Build(version.build.root, "fast", build_id)
    agreement = store.require_manifest(out).details(RegressionDetails).agreement
    edited(out, agreement=agreement[1:])
    embed = Toy()
    again = load_or_fit(version, "toy", embed)
    assert f"has {len(agreement)} regressions of {len(agreement) - 1} values; it is set aside and fitted again" in caplog.text
    assert len(embed.calls) == 2  # the probe, and all texts
    assert same(first, again, CARE)
    assert again.agreement == first.agreement
    assert len(load_or_fit(version, "toy", Toy()).lines) == len(agreement)


def test_each_model_and_version_has_a_separate_fit(version, tmp_path):
    load_or_fit(version, "toy", Toy())
    other = load_or_fit(version, "other", Toy(salt="other"))
    assert other.model == "other"
    assert len(store.finished(version.build.root, "fast")) == 2
    for name in ("weights-a", "weights-b"):  # one folder name, two contents
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / "config.json").write_text(name)
        load_or_fit(version, str(tmp_path / "model"), Toy(salt=name))
    assert len(store.finished(version.build.root, "fast")) == 4


def test_a_value_that_cannot_be_scored_is_refused(version, caplog):
    fast = load_or_fit(version, "toy", Toy())
    assert f"mode fast leaves out {POWER}: fewer than {MIN_TEXTS} texts in VIDB {version.build.build_id}" in caplog.text
    z_TD = Toy()(["A response."])
    with pytest.raises(InputError, match=r"mode fast has no 'svt:power'; allowed: .* 40 texts per value.* mode ranked"):
        fast(z_TD, POWER)
    with pytest.raises(InputError, match="did you mean 'mft:care-harm'"):
        fast(z_TD, "mft:care-harn")


def test_a_version_without_enough_training_texts_any_value_loads_and_refuses(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"theory": "svt", "value": "power", "text": "I lead.", "intensity": 5}))
    build, _ = vidb.import_version([str(path)], "MIT", "here", str(tmp_path))
    fast = load_or_fit(vidb.load(str(tmp_path), build.build_id), "toy", Toy())
    assert fast.agreement == {}
    with pytest.raises(InputError, match="mode fast has no 'svt:power'; it has no values"):
        fast(Toy()(["A response."]), POWER)


def test_vectors_that_are_not_the_encoders_are_refused():
    fast = IntensityRegression("toy", "v", {CARE: RidgeLine(np.ones(D), 0.0, 1.0)}, {})
    with pytest.raises(InputError, match=rf"vectors have shape \(2, 8\); .* 'toy' .* {D} columns"):
        fast(np.ones((2, 8)), CARE)
    with pytest.raises(InputError, match=r"vectors have shape \(16,\)"):
        fast(np.ones(D), CARE)
    broken_TD = np.ones((3, D))
    broken_TD[1, 4] = np.nan
    with pytest.raises(InputError, match="vector 1 is not finite"):
        fast(broken_TD, CARE)
    assert [len(column) for column in fast(np.empty((0, D)), CARE)] == [0, 0, 0]


def test_an_encoder_that_makes_no_numbers_is_refused_and_nothing_is_stored(version):
    with pytest.raises(InputError, match="or some are not finite"):
        load_or_fit(version, "toy", lambda texts: np.full((len(texts), D), np.nan))
    with pytest.raises(InputError, match=r"vectors of shape \(16,\) for 1 texts"):
        load_or_fit(version, "toy", lambda texts: np.ones(D))
    assert store.manifest(Build(version.build.root, "fast", "any")) is None
    assert store.finished(version.build.root, "fast") == []


def test_predictions_and_intervals_end_where_the_scale_ends():
    fast = IntensityRegression("toy", "v", {CARE: RidgeLine(np.eye(D)[0], 0.0, 3.0)}, {})
    intensity_T, low_T, high_T = fast(np.outer([-50.0, 0.0, 8.0, 50.0], np.eye(D)[0]), CARE)
    assert intensity_T.tolist() == [-10, 0, 8, 10]
    assert low_T.tolist() == [-10, -3, 5, 7]
    assert high_T.tolist() == [-7, 3, 10, 10]


def test_too_few_independent_texts_give_no_regression():
    rng = np.random.default_rng(0)
    z_ND, y_N = unit_vectors(rng, 400), rng.uniform(-10, 10, 400)
    units = np.arange(400) % (MIN_TEXTS - 1)
    assert NUM_FOLDS < MIN_TEXTS
    assert fit(z_ND, units, {"v": TrainingTexts(np.arange(400), y_N)}, 0) == {}
