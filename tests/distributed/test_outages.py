"""A judge's server that is down, and mended: the same command asks what failed at no cost, and nothing that was paid for."""

import json
import re
from collections import Counter
from pathlib import Path

import fault_server
import pytest
import yaml
from configs import SIMULATED, job_config
from kills import rewind
from roots import with_texts_of, with_version_of

from jobs import audit_judge, build_vidb, categorize, compare_rating, evaluate
from valueflow import store
from valueflow.config import load
from valueflow.distributed.evaluation.validity import measure_validity
from valueflow.errors import InputError
from valueflow.store import Build

pytestmark = pytest.mark.ray
DOWN = {"faults": {"500": 1.0}, "times": 10**6}  # a complete 5xx is not paid for
WINDOWS = {"mode": "balanced", "k": 2, "m": 12, "seed": 0}
ONE_VALUE = ["candidates.values=[svt:benevolence]", "candidates.num_neutral=12"]


@pytest.fixture(scope="module")
def server():
    with fault_server.start() as handle:
        yield handle


def openai(server, **more: object) -> dict:
    judge = {"kind": "openai", "name": "faulty", "url": server.url, "model": "m", "key_env": "", "timeout": 10.0, "retries": 0}
    return judge | {"concurrency": 16, "batch_size": 16} | more


def build(root: Path, server, *overrides: str, windows: dict = WINDOWS, **judge: object):
    return build_vidb.main(job_config(build_vidb, root, *ONE_VALUE, *overrides, judge=openai(server, **judge), windows=windows))


@pytest.fixture(scope="module")
def answered(ingested, server, tmp_path_factory) -> Path:
    """A root with a version that the server's judge built; not to be changed."""
    root = with_texts_of(ingested, tmp_path_factory.mktemp("answered"))
    mended(server)
    build(root, server)
    return root


def down(server, **more: object) -> None:
    server.reset(key="", **DOWN | more)


def mended(server, **more: object) -> None:
    server.reset(key="", **more)


def requests(server, only: str = "") -> int:
    return sum(count for prompt, count in server.seen()["seen"].items() if only in prompt)


def answers(build: Build) -> list[dict]:
    rows = [row for path in store.part_paths(build) for row in store.read_part(build, path).to_pylist()]
    id_column = next(iter(rows[0])) if build.table != "votes" else "vote_id"
    assert max(Counter(row[id_column] for row in rows).values()) == 1
    return rows


def only(root: Path, table: str) -> Build:
    (folder,) = (path for path in (Path(root) / table).iterdir() if path.is_dir())
    return Build(str(root), table, folder.name)


@pytest.mark.parametrize("mode", ["balanced", "adaptive", pytest.param("swiss", marks=pytest.mark.slow)])
def test_a_build_asks_again_what_a_server_that_was_down_did_not_answer(root, server, mode):
    windows = WINDOWS | {"mode": mode, "m": 8}
    down(server)
    with pytest.raises(InputError, match="status 500"):
        build(root, server, windows=windows)
    assert requests(server) > 0
    mended(server)
    at = build(root, server, windows=windows)
    rows = answers(at.rankings[0])
    assert len(rows) == store.require_manifest(at.windows).num_rows == requests(server)
    assert not any(row["error"] for row in rows)
    assert store.details_of(at.rankings[0], store.RankingsDetails).errors == 0
    before = {path: path.stat().st_mtime_ns for path in Path(at.rankings[0].url).rglob("*")}
    assert build(root, server, windows=windows) == at
    assert requests(server) == len(rows)
    assert {path: path.stat().st_mtime_ns for path in Path(at.rankings[0].url).rglob("*")} == before


@pytest.mark.slow
def test_a_round_that_was_planned_stays_when_lost_answers_of_the_round_before_come(root, server):
    """A tenth of the calls fail at no cost and the rounds go on; then the job is killed, and the server mended."""
    windows = WINDOWS | {"mode": "adaptive", "m": 8}
    mended(server, faults={"500": 0.1}, times=10**6)
    first = build(root, server, "max_error_share=0.3", windows=windows)
    asked = {row["window_id"] for row in store.read_table(first.windows, ["window_id"]).to_pylist()}
    lost = [row for row in answers(first.rankings[0]) if row["error"]]
    early = {row["window_id"] for row in lost if row["round"] < max(r["round"] for r in lost)}
    assert early
    for stage in (first.windows, first.rankings[0], first.utilities, first.vidb):
        Path(stage.manifest_url).unlink()
    mended(server)
    again = build(root, server, "max_error_share=0.3", windows=windows)
    assert again.rankings == first.rankings
    assert requests(server) == len(lost)
    rows = answers(again.rankings[0])
    assert {row["window_id"] for row in rows} == asked
    assert not any(row["error"] for row in rows)


def test_what_was_paid_for_is_not_asked_again_though_it_is_no_order(root, server):
    mended(server, faults={"prose": 0.1, "500": 0.2}, times=10**6)
    with pytest.raises(InputError, match="have no valid answer"):
        build(root, server)
    before = server.seen()
    out = only(root, "rankings")
    paid = {row["window_id"]: row for row in answers(out) if row["tokens_in"]}
    assert any(row["error"] for row in paid.values())
    mended(server)
    at = build(root, server, "max_error_share=0.3")
    rows = {row["window_id"]: row for row in answers(at.rankings[0])}
    assert all(rows[window_id] == row for window_id, row in paid.items())
    assert len(rows) == store.require_manifest(at.windows).num_rows
    assert {row["error"] for row in rows.values()} == {row["error"] for row in paid.values()}
    assert requests(server) == len(rows) - len(paid)
    assert sum(before["paid"].values()) == len(paid)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.slow
def test_killed_while_it_asks_again_nothing_is_lost_or_twice(root, server):
    mended(server, faults={"500": 0.5}, times=10**6)
    with pytest.raises(InputError):
        build(root, server)
    mended(server)
    at = build(root, server)
    expected = sorted(answers(at.rankings[0]), key=lambda row: row["window_id"])
    parts = len(store.part_paths(at.rankings[0]))
    for num_parts in (parts - 1, parts // 2, 1):
        rewind(at.rankings[0], num_parts)
        assert not store.manifest(at.rankings[0])
        assert build(root, server) == at
        assert sorted(answers(at.rankings[0]), key=lambda row: row["window_id"]) == expected


def test_an_error_of_a_judge_without_tokens_is_its_answer(root):
    """A simulated judge costs no tokens; what it answers wrongly it answers wrongly again."""
    judge = SIMULATED | {"broken_share": 0.3}
    windows = {"judge": judge, "windows": WINDOWS | {"m": 8}}
    config = job_config(build_vidb, root, *ONE_VALUE, **windows)
    with pytest.raises(InputError, match="not an order of letters"):
        build_vidb.main(config)
    out = only(root, "rankings")
    before = {path: (Path(out.url) / path).stat().st_mtime_ns for path in store.part_paths(out)}
    with pytest.raises(InputError, match="not an order of letters"):
        build_vidb.main(config)
    assert {path: (Path(out.url) / path).stat().st_mtime_ns for path in before} == before


def test_an_evaluation_asks_again(answered, tmp_path, server):
    root = with_version_of(answered, tmp_path)
    responses = root / "responses.csv"
    responses.write_text("query,dataset,response\nq,d,I walked the blind man across the road.\nq,d,I sold the spoiled milk.\n")
    settings = {"judge": openai(server), "responses": str(responses), "values": ["svt:benevolence"]}
    config = job_config(evaluate, root, "evaluator.m=4", "evaluator.k=3", **settings)
    down(server)
    with pytest.raises(InputError, match="status 500"):
        evaluate.main(config)
    mended(server)
    result = evaluate.main(config)
    assert requests(server) == 2 * 4 == result.details.windows
    assert result.details.errors == 0
    evaluate.main(config)
    assert requests(server) == 2 * 4


@pytest.mark.slow
def test_an_evaluation_asks_again_what_was_lost_in_rounds_that_later_ones_followed(answered, tmp_path, server):
    root = with_version_of(answered, tmp_path)
    settings = {"judge": openai(server), "values": ["svt:benevolence"], "max_error_share": 0.9}
    config = job_config(evaluate, root, "evaluator.m=4", "evaluator.k=3", **settings)
    mended(server, faults={"500": 0.3}, times=10**6)
    first = evaluate.main(config)
    (rankings,) = (Build(str(root), "rankings", i) for i in store.finished(str(root), "rankings") if i.startswith("e-"))
    lost = [row for row in answers(rankings) if row["error"]]
    assert {row["round"] for row in lost} > {0}
    for finished in (rankings, first.build):  # the job was killed before its end
        Path(finished.manifest_url).unlink()
    mended(server)
    assert evaluate.main(config).details.errors == 0
    assert requests(server) == len(lost)


def panel(root: Path, voters: list[dict], **more: object):
    path = root / "panel.yaml"
    settings = {"root": str(root), "panel": {"voters": voters, "audit": "ignore"} | more.pop("panel", {})}
    path.write_text(yaml.safe_dump(settings | more | {"cluster": {"num_cpus": 8}}))
    return path


def test_a_panel_asks_again_the_voter_whose_server_was_down(root, server):
    voters = [SIMULATED | {"name": "sim"}, openai(server), SIMULATED | {"name": "other"}]
    path = panel(root, voters, theories=["duty"], max_texts=12, descent={"max_level": 1})
    config = load(categorize.SCHEMA, str(path), [])
    down(server)
    with pytest.raises(InputError, match="voter 'faulty' failed"):
        categorize.main(config)
    mended(server)
    at = categorize.main(config)
    rows = answers(at.votes["faulty"])
    assert not any(row["error"] for row in rows)
    assert len(rows) == requests(server)
    assert store.require_manifest(at.labels).num_rows + store.require_manifest(at.queue).num_rows == 12


@pytest.mark.slow
def test_votes_lost_in_a_step_that_is_decided_stay_lost(root, server):
    """The next step was planned from them: another vote now would leave texts without a ballot."""
    voters = [SIMULATED | {"name": f"sim{i}", "accuracy": 0.9} for i in range(3)] + [openai(server)]
    path = panel(root, voters, theories=["duty"], max_texts=40, descent={"max_level": 2}, panel={"max_error_share": 0.5})
    config = load(categorize.SCHEMA, str(path), [])
    mended(server, faults={"500": 0.15}, times=10**6)
    at = categorize.main(config)
    expected = {row["vote_id"]: row for row in answers(at.votes["faulty"])}
    assert any(row["error"] for row in expected.values())
    for finished in (at.labels, at.queue, *at.votes.values()):
        Path(finished.manifest_url).unlink()
    mended(server)
    assert categorize.main(config) == at
    assert requests(server) == 0
    assert {row["vote_id"]: row for row in answers(at.votes["faulty"])} == expected


def assert_stopped_early(server, stop: pytest.ExceptionInfo, what: str, setting: str, only: str = "") -> None:
    """The message says after how many questions, less than half of which were put."""
    message = rf"{what}: \d+ of (\d+) questions got no answer, {setting} is \d+\.0%, after (\d+) of (\d+)\. .* status 500"
    answered, after, total = map(int, re.search(message, str(stop.value)).groups())
    assert 0 < answered == after == requests(server, only) < total / 2


def test_an_audit_that_got_no_answers_is_none(root, server):
    exam = {"triples": 4, "repeats": 2}
    path = root / "audit.yaml"
    judge = openai(server, concurrency=4, batch_size=4)
    settings = {"root": str(root), "judge": judge, "values": ["svt:benevolence"], "exam": exam}
    path.write_text(yaml.safe_dump(settings | {"cluster": {"num_cpus": 8}}))
    config = load(audit_judge.SCHEMA, str(path), [])
    down(server)
    with pytest.raises(InputError) as stop:
        audit_judge.main(config)
    assert_stopped_early(server, stop, "audit", "exam.max_broken")
    assert not list(root.glob("audits/**/*.json"))
    mended(server)
    result = audit_judge.main(config)
    assert result.metric("broken").estimate == 0
    assert requests(server) == result.num_windows


def test_a_validity_record_that_got_no_answers_is_none(built, tmp_path, server):
    root = with_version_of(built.root, tmp_path)
    lines = [{"theory": "svt", "value": "benevolence", "text": f"I helped {i} times.", "intensity": i / 5} for i in range(25)]
    (root / "rated.jsonl").write_text("\n".join(map(json.dumps, lines)))
    settings = {"judge": openai(server), "anchors": f"{root}/rated.jsonl", "values": ["svt:benevolence"]}
    config = job_config(audit_judge, root, "vidb=current", **settings)
    down(server)
    with pytest.raises(InputError) as stop:
        measure_validity(config)
    assert_stopped_early(server, stop, r"validity round 1/\d+", "exam.max_broken")
    assert not store.finished(str(root), "rankings")[1:]  # those of the version alone
    assert not list(root.glob("validity/*"))


@pytest.mark.slow
def test_a_comparison_of_ratings_that_got_no_answers_is_none(root, server):
    judge = openai(server, concurrency=4, batch_size=4)
    path = panel(root, [judge], values=["svt:benevolence"], repeats=2, windows={"k": 2, "m": 4})
    config = load(compare_rating.SCHEMA, str(path), [])
    down(server)
    with pytest.raises(InputError, match="status 500"):
        compare_rating.main(config)
    down(server, only="Which text supports")  # the ratings are given, the rankings are not
    with pytest.raises(InputError) as stop:
        compare_rating.main(config)
    assert_stopped_early(server, stop, "rank, faulty", "panel.max_error_share", "Which text supports")
    mended(server)
    compare_rating.main(config)
    (out,) = (Build(str(root), "rankings", build_id) for build_id in store.finished(str(root), "rankings"))
    assert not any(row["error"] for row in answers(out))
    assert requests(server) == len(answers(out))


def test_an_endpoint_is_asked_no_more_when_errors_exceed_the_limit_and_every_answer_is_kept(root, server):
    mended(server, faults={"prose": 1.0}, times=10**6)  # each call is paid for
    concurrency, batch = 16, 16
    with pytest.raises(
        InputError,
        match=r"rank: \d+ of \d+ questions \(100.0%\) have no valid answer, max_error_share is 5.0%, after \d+ of \d+\.",
    ) as stop:
        build(root, server)
    total = int(re.search(r"after \d+ of (\d+)", str(stop.value))[1])
    out = only(root, "rankings")
    asked = requests(server)
    assert 0.05 * total < asked <= 0.05 * total + 2 * concurrency + 3 * batch < total / 2
    assert len(answers(out)) == asked
    with pytest.raises(InputError, match=f"after {asked} of {total}"):
        build(root, server)
    assert requests(server) == asked
    mended(server)
    at = build(root, server, "max_error_share=0.5")
    assert len(answers(at.rankings[0])) == total == asked + requests(server)


@pytest.mark.parametrize("mode", ["balanced", "adaptive"])
def test_actors_stop_together_when_errors_exceed_the_limit(root, mode):
    """Adaptive rounds put batches to warm actors, a balanced plan to those of its dataset."""
    judge = SIMULATED | {"broken_share": 1.0, "batch_size": 10, "num_actors": 2, "seconds_per_batch": 0.2}
    with pytest.raises(InputError, match=r"have no valid answer, max_error_share is 5.0%, after \d+ of \d+"):
        build_vidb.main(job_config(build_vidb, root, *ONE_VALUE, judge=judge, windows=WINDOWS | {"mode": mode}))
    total = int(store.read_part(*plan_part(root)).num_rows)
    assert 0.05 * total < len(answers(only(root, "rankings"))) < 0.05 * total + 8 * 10


def plan_part(root: Path) -> tuple[Build, str]:
    plan = only(root, "windows")
    (path,) = store.part_paths(plan)
    return plan, path


def test_the_rounds_of_an_evaluation_share_one_limit(built, tmp_path):
    root = with_version_of(built.root, tmp_path)
    judge = SIMULATED | {"broken_share": 1.0, "batch_size": 4}
    settings = {"judge": judge, "values": ["svt:benevolence"], "max_error_share": 0.4}
    with pytest.raises(InputError, match=r"evaluate round 2/4: .* after \d+ of \d+"):
        evaluate.main(job_config(evaluate, root, "evaluator.m=4", "evaluator.sharpness=1", **settings))


def test_a_voter_stops_when_its_errors_exceed_the_limit_of_the_step(root):
    voters = [SIMULATED | {"name": f"v{i}"} for i in range(2)]
    broken = SIMULATED | {"name": "broken", "broken_share": 1.0, "batch_size": 5}
    path = panel(root, [*voters, broken], theories=["duty"], max_texts=100)
    with pytest.raises(InputError, match=r"voter 'broken' failed: \d+ of \d+ votes failed after \d+ of 100, .*0.2"):
        categorize.main(load(categorize.SCHEMA, str(path), []))
