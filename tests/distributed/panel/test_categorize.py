"""The panel on a real local cluster: simulated voters of known accuracy, kills, failed voters, human decisions, flags."""

import csv
from pathlib import Path

import pytest
import yaml
from kills import rewind

from jobs import audit_judge, build_vidb, categorize
from valueflow import store
from valueflow.config import load
from valueflow.errors import InputError
from valueflow.judging.simulated import true_choice
from valueflow.theories import theories
from valueflow.voting.descend import DIRECTIONS, SIGNS

pytestmark = pytest.mark.ray


def settings(root: Path, voters: list[dict], **more: object) -> categorize.SCHEMA:
    panel = {"voters": voters, **more.pop("panel", {})}
    path = root / "categorize.yaml"
    base = {"root": str(root), "theories": ["svt", "duty"], "max_texts": 60, "chunk": 25, "panel": panel}
    path.write_text(yaml.safe_dump(base | more | {"cluster": {"num_cpus": 8}}))
    return load(categorize.SCHEMA, str(path), [])


def voters(count: int, **more: object) -> list[dict]:
    return [{"kind": "simulated", "name": f"v{i}", "accuracy": 0.9, "batch_size": 40} | more for i in range(count)]


def rows(build: store.Build) -> list[tuple]:
    return sorted(repr(sorted(row.items())) for row in store.read_table(build).to_pylist())


def test_a_panel_finds_the_truth_of_simulated_voters(root):
    at = categorize.main(settings(root, voters(3, accuracy=0.97), theories=["svt"], max_texts=40))
    labels = store.read_table(at.labels).to_pylist()
    assert len({(row["text_id"], row["theory"]) for row in labels}) == len(labels)
    assert len(labels) + store.require_manifest(at.queue).num_rows == 40
    right = 0
    for row in labels:
        theory, path = theories()[row["theory"]], tuple(row["path"])
        assert path in theory.paths(path[-1])
        assert [tuple(p) for p in row["paths"]] == theory.paths(path[-1])
        nodes = ["", *path[:-1]]
        truth = [true_choice(theory.id, node, row["text_id"], [c.id for c in theory.children(node or None)]) for node in nodes]
        direction = SIGNS[true_choice(theory.id, path[-1], row["text_id"], list(DIRECTIONS))]
        right += truth == list(path) and row["direction"] == direction
    assert right / len(labels) > 0.9  # two of three voters of accuracy 0.97 are wrong in 3 of 1,000 ballots
    for name, build in at.votes.items():
        votes = store.read_table(build).to_pylist()
        assert {vote["voter"] for vote in votes} == {name}
        assert len({vote["vote_id"] for vote in votes}) == len(votes)
    shown = {
        tuple(vote["options"]) for b in at.votes.values() for vote in store.read_table(b).to_pylist() if vote["node"] == ""
    }
    assert shown == {
        ("growth", "self-protection"),
        ("self-protection", "growth"),
    }  # options are shuffled for every voter and text


@pytest.mark.usefixtures("small_parts")
@pytest.mark.slow
def test_cut_short_and_run_again_the_votes_are_the_same(root):
    config = settings(root, voters(3, batch_size=10), theories=["duty"])
    at = categorize.main(config)
    builds = [*at.votes.values(), at.labels]
    expected = [rows(build) for build in builds]
    for num_parts in (2,):
        rewind(next(iter(at.votes.values())), num_parts)
        assert not any(store.manifest(build) for build in builds)
        assert categorize.main(config) == at
        assert [rows(build) for build in builds] == expected


@pytest.mark.slow
def test_a_failed_voter_is_named_and_the_panel_stops_or_goes_on(root):
    failing = {"kind": "openai", "name": "gone", "url": "http://127.0.0.1:9/v1", "model": "m", "key_env": "", "retries": 0}
    panel = [*voters(4), failing]
    with pytest.raises(InputError, match="voter 'gone' failed"):
        categorize.main(settings(root, panel, theories=["duty"], max_texts=10))
    at = categorize.main(settings(root, panel, theories=["duty"], max_texts=10, panel={"on_dead": "continue"}))
    lost = store.read_table(at.votes["gone"]).to_pylist()
    assert lost
    assert all(vote["choice"] is None and vote["error"] for vote in lost)
    assert store.require_manifest(at.labels).num_rows + store.require_manifest(at.queue).num_rows == 10


@pytest.mark.slow
def test_what_the_panel_leaves_open_people_decide(root):
    config = settings(root, voters(4, accuracy=0.45), theories=["duty"])
    at = categorize.main(config)
    queue = Path(at.queue.url) / "human_queue.csv"
    lines = list(csv.DictReader(queue.open()))
    assert len(lines) == store.require_manifest(at.queue).num_rows > 0
    lines[0] |= {"node": "Fidelity", "direction": "-1"}
    filled = root / "filled.csv"

    def fill(line: dict) -> str:
        with filled.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(line))
            writer.writeheader()
            writer.writerow(line)
        return str(filled)

    decided = categorize.main(config.model_copy(update={"human": [fill(lines[0])]}))
    label = next(row for row in store.read_table(decided.labels).to_pylist() if row["text_id"] == lines[0]["text_id"])
    assert (label["path"], label["direction"], label["decision"]) == (["fidelity"], -1, "human")
    assert store.require_manifest(decided.queue).num_rows == len(lines) - 1
    for change, message in (
        ({"node": "fidelty"}, "did you mean"),
        ({"direction": "up"}, "direction is 'up'"),
        ({"text_id": "0" * 16}, "not in this job's human queue"),
    ):
        with pytest.raises(InputError, match=message):
            categorize.main(config.model_copy(update={"human": [fill(lines[0] | change)]}))


def test_flagged_texts_wait_for_people_and_both_releases_come_from_one_build(root):
    audited = {"kind": "simulated", "name": "sim", "sharpness": 0.0}
    text = yaml.safe_load(Path("conf/build_vidb/tiny.yaml").read_text())
    text |= {"root": str(root), "judge": audited | {"sharpness": 1.0}, "windows": {"m": 8}}
    text["candidates"] |= {"values": ["svt:benevolence"]}
    # A voter that answers at random flags every second text; three of them flag half of the texts twice.
    text["plausibility"] = {"panel": {"voters": voters(3, accuracy=0.5)}}
    path = root / "build.yaml"
    path.write_text(yaml.safe_dump(text))
    at = build_vidb.main(load(build_vidb.SCHEMA, str(path), []))
    made = store.read_table(at.vidb).to_pylist()
    flagged = [row for row in made if row["flags"] >= 2]
    assert 0.3 < len(flagged) / len(made) < 0.7
    assert not any(row["agreed"] for row in flagged)
    queue = list(csv.DictReader((Path(at.vidb.url) / "human_queue.csv").open()))
    assert {row["text_id"] for row in queue} == {row["text_id"] for row in flagged}
    with (root / "rated.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(queue[0]))
        writer.writeheader()
        writer.writerow(queue[0] | {"rating": float(queue[0]["intensity"]) * 0.9})
        writer.writerow(queue[1] | {"rating": 10 if float(queue[1]["intensity"]) < 0 else -10})
    again = build_vidb.main(load(build_vidb.SCHEMA, str(path), [f"human.ratings={root}/rated.csv", "human.weight=0.25"]))
    merged = {row["text_id"]: row for row in store.read_table(again.vidb).to_pylist()}
    one, two = merged[queue[0]["text_id"]], merged[queue[1]["text_id"]]
    assert one["agreed"]
    assert one["final_rating"] == pytest.approx(0.75 * one["intensity"] + 0.25 * one["human_mean"])
    assert not two["agreed"]
    filtered = list(csv.DictReader((Path(again.vidb.url) / "csv-filtered/benevolence_svt.csv").open()))
    assert len(filtered) == sum(row["agreed"] for row in merged.values())


def test_a_judge_that_fails_its_audit_is_refused_unless_asked_for(root):
    def audit(sharpness: float) -> bool:
        judge = f"judge={{kind: simulated, name: sim, sharpness: {sharpness}}}"
        (root / "audit.yaml").write_text("exam: {triples: 6}\ncluster: {num_cpus: 8}\n")
        overrides = [f"root={root}", judge, "values=[svt:power, duty:justice, mft:care-harm, svt:security]"]
        return audit_judge.main(load(audit_judge.SCHEMA, str(root / "audit.yaml"), overrides)).passed

    assert audit(1.0)
    assert not audit(0.0)
    text = yaml.safe_load(Path("conf/build_vidb/tiny.yaml").read_text())
    text |= {"root": str(root), "judge": {"kind": "simulated", "name": "sim", "sharpness": 0.0}, "windows": {"m": 4}}
    path = root / "build.yaml"
    path.write_text(yaml.safe_dump(text))
    with pytest.raises(InputError, match="failed its audit"):
        build_vidb.main(load(build_vidb.SCHEMA, str(path), []))
    at = build_vidb.main(load(build_vidb.SCHEMA, str(path), ["audit=ignore"]))
    assert "failed its audit" in store.details_of(at.vidb, store.VidbDetails).judge_audit
