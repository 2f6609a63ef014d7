"""Ways to build: several judges, plans in rounds, texts added to a version. Real cluster, simulated judges of known truth."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from kills import rewind
from roots import with_texts_of
from scipy.stats import spearmanr

from jobs import build_vidb, ingest
from valueflow import store, vidb
from valueflow.config import load
from valueflow.errors import InputError
from valueflow.judging.fingerprint import fingerprint
from valueflow.judging.simulated import true_theta

pytestmark = pytest.mark.ray
JUDGE = "judge={kind: simulated, name: sim, batch_size: 100}"
VALUE = "svt:benevolence"


def config(root: Path, *overrides: str):
    path = Path(root) / "build.yaml"
    path.write_text("candidates: {values: [svt:benevolence], num_neutral: 10}\ncluster: {num_cpus: 8}\n")
    return load(build_vidb.SCHEMA, str(path), [f"root={root}", JUDGE, *overrides])


def ingest_texts(root: Path, skip: int = 0) -> None:
    """The sample corpus without some of its rows."""
    lines = Path("valueflow/samples/corpus.csv").read_text().splitlines()
    mine = [line for line in lines[1:] if ",benevolence," in line]
    (root / "corpus.csv").write_text("\n".join([lines[0], *mine[skip:]]))
    settings = Path("conf/ingest/tiny.yaml").read_text().replace("valueflow/samples/corpus.csv", f"{root}/corpus.csv")
    (root / "ingest.yaml").write_text(settings)
    ingest.main(load(ingest.SCHEMA, str(root / "ingest.yaml"), [f"root={root}"]))


@pytest.fixture(scope="module")
def benevolent(cluster, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("benevolent")
    ingest_texts(root)
    return root


@pytest.fixture
def root(benevolent, tmp_path) -> Path:
    return with_texts_of(benevolent, tmp_path)


def rows(at):
    return store.read_table(at.vidb, folder=store.value_folder("svt:benevolence")).sort_by("text_id")


def truth(table) -> np.ndarray:
    return np.array([true_theta("benevolence", i, 3.0) for i in table["text_id"].to_pylist()])


def test_several_judges_share_a_scale_and_one_that_guesses_counts_for_nothing(root):
    panel = "[{kind: simulated, name: blunt, sharpness: 0.4, seed: 1, position_effect: [1.0]}, "
    panel += "{kind: simulated, name: guess, sharpness: 0, seed: 2}]"
    at = build_vidb.main(config(root, "windows.m=24", f"further_judges={panel}"))
    assert len(at.rankings) == 3
    effects = {judge.name: judge for judge in store.details_of(at.utilities, store.UtilitiesDetails).fits[VALUE].judges}
    sharp, blunt, guess = effects["sim"], effects["blunt"], effects["guess"]
    ratio = blunt.sharpness / sharp.sharpness
    assert ratio == pytest.approx(0.4, abs=3 * blunt.sharpness_error + 0.1)
    assert guess.uninformative
    assert guess.sharpness == 0.0
    first, second = blunt.places
    assert first - second == pytest.approx(1.0, abs=4 * blunt.places_error[0])
    found = rows(at)
    assert spearmanr(found["theta"], truth(found)).statistic > 0.95
    alone = build_vidb.main(config(root, "windows.m=24", "publish=false"))
    assert np.mean(found["standard_error"].to_numpy() / rows(alone)["standard_error"].to_numpy() * sharp.sharpness) < 1.0
    page = (root / "reports" / f"{at.vidb.build_id}.html").read_text()
    assert "guess is uninformative for svt:benevolence" in page
    version = vidb.load(str(root))
    judges = config(root, "windows.m=24", f"further_judges={panel}").judges
    assert version.sharpness(fingerprint(judges[1]), VALUE) == blunt.sharpness
    assert version.sharpness(fingerprint(judges[2]), VALUE) is None


def test_two_judges_of_one_name_and_rounds_with_two_judges_are_refused(root):
    with pytest.raises(InputError, match="share a name: sim, sim"):
        config(root, "further_judges=[{kind: simulated, name: sim, seed: 1}]")
    with pytest.raises(InputError, match=r"windows.mode adaptive .* further_judges names other"):
        config(root, "windows.mode=adaptive", "further_judges=[{kind: simulated, name: other, seed: 1}]")


@pytest.mark.parametrize("settings", [["mode=adaptive", "k=3"], ["mode=adaptive", "mirrored=true"], ["mode=swiss"]])
def test_plans_in_rounds_keep_to_the_budget_and_find_the_order(root, settings):
    at = build_vidb.main(config(root, "windows.m=12", *(f"windows.{setting}" for setting in settings)))
    asked = store.read_table(at.windows, ["text_ids", "round"])
    shown = sum(len(ids) for ids in asked["text_ids"].to_pylist())
    found = rows(at)
    k = len(asked["text_ids"][0])
    assert found.num_rows * 12 - 4 * k < shown <= found.num_rows * 12
    assert len(set(asked["round"].to_pylist())) >= 3
    assert spearmanr(found["theta"], truth(found)).statistic > 0.9


@pytest.mark.usefixtures("small_parts")
def test_a_build_in_rounds_cut_short_at_any_time_ends_with_the_same_version(root):
    config_ = config(root, "windows.mode=adaptive", "windows.m=10")
    at = build_vidb.main(config_)
    expected = rows(at)
    for num_parts in (1, 4):
        rewind(at.rankings[0], num_parts)
        assert not any(store.manifest(build) for build in (at.windows, at.rankings[0], at.vidb))
        assert build_vidb.main(config_) == at
        assert rows(at).equals(expected)
        asked = store.read_table(at.rankings[0], ["window_id"])["window_id"].to_pylist()
        assert Counter(asked) == Counter(store.read_table(at.windows, ["window_id"])["window_id"].to_pylist())


def test_texts_are_added_to_a_version_and_the_old_ones_stay(cluster, tmp_path):
    ingest_texts(tmp_path, skip=8)
    base = build_vidb.main(config(tmp_path, "windows.m=24"))
    before = {row["text_id"]: row for row in rows(base).to_pylist()}
    ingest_texts(tmp_path)
    settings = ["extend=current", "windows.m=16"]
    at = build_vidb.main(config(tmp_path, *settings))
    after = {row["text_id"]: row for row in rows(at).to_pylist()}
    new = sorted(after.keys() - before.keys())
    assert len(new) == 8
    assert before.keys() < after.keys()
    asked = store.read_table(at.rankings[0], ["text_ids"])["text_ids"].to_pylist()
    assert len(asked) == 16 * len(new)
    assert all(sum(i in new for i in ids) == 1 for ids in asked)
    met = {i for ids in asked for i in ids}
    assert all(after[i]["theta"] == before[i]["theta"] for i in before.keys() - met)
    assert all(before[i]["low"] <= after[i]["intensity"] <= before[i]["high"] for i in before)
    shift = np.mean([row["theta"] - true_theta("benevolence", i, 3.0) for i, row in before.items()])
    errors = [(after[i]["theta"] - shift - true_theta("benevolence", i, 3.0)) / after[i]["standard_error"] for i in new]
    assert np.mean(np.square(errors)) < 4
    fits = [store.details_of(b.utilities, store.UtilitiesDetails).fits[VALUE] for b in (base, at)]
    assert fits[1].num_windows == fits[0].num_windows + len(asked)
    assert fits[1].log_likelihood != fits[0].log_likelihood
    assert fits[1].prior_sd == fits[0].prior_sd
    old, made = vidb.load(str(tmp_path), base.vidb.build_id), vidb.load(str(tmp_path))
    assert made.build == at.vidb
    assert made.calibrations == old.calibrations
    # The same command again finds its own result, though the version it began from is no longer the current one.
    assert build_vidb.main(config(tmp_path, *settings)) == at
    with pytest.raises(InputError, match="was built by judge 'sim'"):
        build_vidb.main(config(tmp_path, *settings, "judge.seed=5"))
    with pytest.raises(InputError, match="already holds all candidates"):
        build_vidb.main(config(tmp_path, f"extend={base.vidb.build_id}", f"texts={base.texts.build_id}"))
