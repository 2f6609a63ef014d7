"""Scores, comparisons and profiles of a service in this process, against a simulated judge whose truth is known."""

import asyncio
import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from fakes.judge import SlowJudge

from valueflow import api, vidb
from valueflow.errors import InputError
from valueflow.hives.extract import NodePrediction
from valueflow.judging.configs import SimulatedJudge
from valueflow.judging.online import MicroBatcher, ThreadJudge, online_judge
from valueflow.judging.simulated import true_theta
from valueflow.llm.configs import EndpointModel, VllmModel
from valueflow.records import ValueId, text_id
from valueflow.service.local import LOCAL_LIMITS, local_service
from valueflow.service.service import PROBES, EmbeddingBackend, Service
from valueflow.store import current, publish

VALUES = [ValueId("svt:power"), ValueId("mft:care-harm")]
JUDGE = SimulatedJudge(spread=3.0)
TEXTS = [f"a text to score, number {i}" for i in range(40)]


def truth(value: ValueId, text: str) -> float:
    return float(np.clip(true_theta(value.node, text_id(text), JUDGE.spread), -10, 10))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> str:
    """A published version whose intensities are the simulated judge's truth, in nats."""
    folder = tmp_path_factory.mktemp("root")
    rows = [
        {"theory": value.theory, "value": value.node, "text": text, "intensity": truth(value, text)}
        for value in VALUES
        for text in (f"anchor {i}" for i in range(150))
    ]
    (folder / "anchors.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    version, _ = vidb.import_version([str(folder / "anchors.jsonl")], "MIT", "simulated", str(folder))
    publish(str(folder), version.build_id, current(str(folder)))
    return str(folder)


@pytest.fixture(scope="module")
def service(root) -> Service:
    return local_service(root, judge=JUDGE)


def scores(service: Service, texts: list[str], **settings) -> list[api.Scored]:
    return asyncio.run(service.score(api.ScoreRequest(texts=texts, **settings), "r")).scores


def test_intervals_hold_the_truth_and_the_order_is_that_of_the_request(service):
    results = scores(service, TEXTS, values=["all"], m=4)
    assert [(s.index, s.value) for s in results] == [(i, value) for i in range(len(TEXTS)) for value in VALUES]
    covered = [s.low <= truth(ValueId(s.value), TEXTS[s.index]) <= s.high for s in results]
    assert np.mean(covered) > 0.85
    error = [abs(s.intensity - truth(ValueId(s.value), TEXTS[s.index])) for s in results]
    assert np.mean(error) < 1.2
    assert all((s.num_windows, s.num_failed, s.error) == (4, 0, None) for s in results)


def test_a_score_depends_on_the_seed_and_on_nothing_else_in_the_request(service):
    alone = scores(service, TEXTS[3:4], values=VALUES[:1], seed=5)[0]
    among = scores(service, [*TEXTS, TEXTS[3]], values=["svt:power", "mft"], seed=5)
    same = [s for s in among if s.index in (3, len(TEXTS)) and s.value == VALUES[0]]
    assert [s.model_dump(exclude={"index"}) for s in same] == [alone.model_dump(exclude={"index"})] * 2
    assert scores(service, TEXTS[3:4], values=VALUES[:1], seed=6)[0].intensity != alone.intensity


def test_a_stream_is_the_scores_line_by_line(service):
    async def streamed() -> list:
        request = api.StreamRequest(texts=TEXTS * 2, values=VALUES)
        return [line async for line in service.stream(request, "r")]

    start, *lines, end = asyncio.run(streamed())
    assert (start.num_scores, end.num_scores, end.problem) == (160, 160, None)
    whole = scores(service, TEXTS * 2, values=VALUES)
    assert [line.model_dump(exclude={"type"}) for line in lines] == [s.model_dump() for s in whole]


def test_an_answer_says_which_texts_an_llm_reads_in_part(root):
    """Each score says so, and a profile counts them; texts that are not judged, and judges that read all, have none."""
    simulated = online_judge(JUDGE)
    judge = EndpointModel(name="llm", model="m", max_chars=60)
    service = Service(vidb.load(root), judge, simulated, LOCAL_LIMITS)
    texts = ["x" * 60, "y" * 61, " " * 61, "z" * 61 + "\0", *TEXTS, "x" + " " * 60 + "y", "w" * 99]

    about = {"texts": texts, "values": VALUES, "m": 2}
    longer = [(i, value) for i in (1, len(texts) - 1) for value in VALUES]

    def flagged(scores: list[api.Scored]) -> list[tuple[int, str]]:
        return [(score.index, score.value) for score in scores if score.truncated]

    async def answers() -> None:
        scored = await service.score(api.ScoreRequest(**about), "r")
        start, *lines, _ = [line async for line in service.stream(api.StreamRequest(**about), "r")]
        profile = await service.profile(api.ProfileRequest(**about), "r")
        compared = await service.compare(api.CompareRequest(first="x", second="y" * 61, values=VALUES[:1], m=2), "r")
        assert flagged(scored.scores) == flagged(lines) == longer
        assert profile.truncated == 2
        assert (compared.comparisons[0].first.truncated, compared.comparisons[0].second.truncated) == (False, True)
        assert {answer.max_chars for answer in (scored, start, profile, compared)} == {60}
        assert (service.vidb().max_chars, service.vidb().truncated) == (60, 0)
        whole = await local_service(root, judge=JUDGE).score(api.ScoreRequest(**about), "r")
        assert (flagged(whole.scores), whole.max_chars) == ([], None)

    asyncio.run(answers())


def test_windows_of_many_callers_go_to_the_judge_together(root):
    sizes = []

    class Slow:
        def __init__(self) -> None:
            self.judge = online_judge(JUDGE)

        def __call__(self, windows: pa.Table) -> pa.Table:
            sizes.append(windows.num_rows)
            return self.judge.worker(windows)

    merged = online_judge(JUDGE)
    merged.worker = Slow()
    service = Service(vidb.load(root), JUDGE, merged, LOCAL_LIMITS)

    async def many() -> list[api.ScoreResponse]:
        requests = (api.ScoreRequest(texts=[text], values=VALUES) for text in TEXTS)
        return await asyncio.gather(*(service.score(one, "r") for one in requests))

    together = [one.scores for one in asyncio.run(many())]
    assert max(sizes) > 20
    apart = scores(local_service(root, judge=JUDGE), TEXTS, values=VALUES)
    assert [(s.value, s.intensity, s.low) for one in together for s in one] == [(s.value, s.intensity, s.low) for s in apart]


def test_a_round_of_all_values_is_one_call(root):
    calls = []

    async def ask(windows: pa.Table) -> pa.Table:
        calls.append(windows.num_rows)
        return await online_judge(JUDGE)(windows)

    service = Service(vidb.load(root), JUDGE, MicroBatcher(ask), LOCAL_LIMITS)
    request = api.ScoreRequest(texts=TEXTS[:3], values=VALUES, m=4)
    asyncio.run(service.score(request, "r"))
    calls.clear()
    results = asyncio.run(service.score(request, "r")).scores
    assert calls == [6, 6, 6, 6]
    assert results == scores(local_service(root, judge=JUDGE), TEXTS[:3], values=VALUES, m=4)


def test_a_judge_call_is_cancelled_once_all_its_callers_have_cancelled():
    judge = SlowJudge(60)

    async def run() -> None:
        batcher, windows = MicroBatcher(judge), pa.table({"window_id": ["a"]})
        callers = [asyncio.ensure_future(batcher(windows)) for _ in range(2)]
        await asyncio.sleep(0.05)
        callers[0].cancel()
        await asyncio.sleep(0.05)
        assert not judge.cancelled
        callers[1].cancel()
        await asyncio.sleep(0.05)

    asyncio.run(run())
    assert judge.cancelled == [2]


def test_the_text_with_the_higher_intensity_is_the_more_probable_one(service):
    async def compared(first: str, second: str) -> list[api.Compared]:
        request = api.CompareRequest(first=first, second=second, values=VALUES, m=4)
        return (await service.compare(request, "r")).comparisons

    right = []
    for first, second in zip(TEXTS[::2], TEXTS[1::2], strict=True):
        for one, other in zip(asyncio.run(compared(first, second)), asyncio.run(compared(second, first)), strict=True):
            assert one.probability + other.probability == pytest.approx(1)
            likely = truth(ValueId(one.value), first) > truth(ValueId(one.value), second)
            right.append(one.probability if likely else 1 - one.probability)
    assert np.mean(right) > 0.8
    same = asyncio.run(compared(TEXTS[0], TEXTS[0]))
    assert [c.probability for c in same] == [pytest.approx(0.5, abs=1e-9)] * 2


def test_a_profile_is_the_mean_with_an_interval_that_holds_it(service):
    request = api.ProfileRequest(texts=TEXTS, values=VALUES)
    for one in asyncio.run(service.profile(request, "r")).profile:
        mean = np.mean([truth(ValueId(one.value), text) for text in TEXTS])
        assert one.low < mean < one.high
        assert one.num_texts == len(TEXTS)
        assert one.band == "neutral"
    alone = asyncio.run(service.profile(api.ProfileRequest(texts=TEXTS[:1], values=VALUES), "r")).profile[0]
    score = scores(service, TEXTS[:1], values=VALUES)[0]
    assert (alone.intensity, alone.low, alone.high) == (score.intensity, score.low, score.high)


def test_failed_windows_are_counted_and_their_error_is_reported(root):
    broken = local_service(root, judge=JUDGE.model_copy(update={"broken_share": 1.0}))
    # All windows fail, those that estimate its sharpness too: only the prior is left.
    failed = scores(broken, ["a text"], values=VALUES[:1])[0]
    assert (failed.intensity, failed.low, failed.high, failed.num_windows, failed.num_failed) == (None, None, None, 0, 3)
    assert failed.error
    empty = scores(local_service(root, judge=JUDGE), ["a text", " \n "], values=VALUES[:1])[1]
    assert (empty.intensity, empty.error) == (None, "the text is empty")


def test_a_text_with_control_characters_is_answered_without_a_score_and_the_others_are_scored(service):
    texts = ["a text", "\x00a\x00 \x00t\x00e\x00x\x00t", " \n ", "a \x1b[2Jtext", "a \x85 text\x0b"]
    results = scores(service, texts, values=VALUES[:1])
    assert [score.intensity is None for score in results] == [False, True, True, True, False]
    assert [(score.num_windows, score.num_failed) for score in results[1:4]] == [(0, 0)] * 3
    assert "U+0000" in results[1].error
    assert "U+001B" in results[3].error
    assert results[0].intensity == results[4].intensity == scores(service, ["a text"], values=VALUES[:1])[0].intensity
    compared = asyncio.run(service.compare(api.CompareRequest(first="a", second="b\x9bc", values=VALUES[:1]), "r"))
    assert compared.comparisons[0].probability is None
    assert "U+009B" in compared.comparisons[0].second.error
    profiled = asyncio.run(service.profile(api.ProfileRequest(texts=["a text", "b\x00c"], values=VALUES[:1]), "r"))
    assert profiled.profile[0].num_texts == 1


def test_nodes_are_extracted_of_readable_texts_only(service):
    embedded: list[str] = []

    async def embed(texts: list[str]) -> np.ndarray:
        embedded.extend(texts)
        return np.zeros((len(texts), 2))

    def extractor(z_TD: np.ndarray, top: int) -> list[dict]:
        return [{"svt": [NodePrediction("svt", "power", ("power",), 0.1, 1, 0.9)] * top} for _ in z_TD]

    offered = Service(service.version, JUDGE, None, LOCAL_LIMITS, EmbeddingBackend("encoder", embed, extractor=extractor))
    texts = ["one", "t\x00w\x00o\x00", " ", "three\n"]
    answer = asyncio.run(offered.extract(api.ExtractRequest(texts=texts, top=1), "r"))
    assert [(text.index, len(text.nodes)) for text in answer.texts] == [(0, 1), (1, 0), (2, 0), (3, 1)]
    assert [text.error and ("U+0000" in text.error or "empty" in text.error) for text in answer.texts] == [
        None,
        True,
        True,
        None,
    ]
    assert embedded == ["one", "three"]
    assert not any(text.nodes for text in asyncio.run(offered.extract(api.ExtractRequest(texts=texts[1:3]), "r")).texts)


def test_anchors_of_a_value_are_paged_in_order_and_examples_span_the_scale(service):
    first, second = service.anchors("svt:power", 0, 100), service.anchors("power", 100, 100)
    assert (first.total, len(first.anchors), len(second.anchors)) == (150, 100, 50)
    intensity = [a.intensity for a in first.anchors + second.anchors]
    assert intensity == sorted(intensity)
    about = service.value("svt:power")
    assert about.scored
    assert about.examples[0].intensity == intensity[0]
    assert about.examples[-1].intensity == intensity[-1]
    assert about.paths[0][-1] == "power"
    scored = [node.id for theory in service.theories().theories for node in theory.nodes if node.scored]
    assert sorted(scored) == sorted(VALUES)
    assert service.vidb().values == dict.fromkeys(VALUES, 150)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"values": ["svt:powr"]}, "did you mean 'power'|svt:power"),
        ({"values": ["svt:benevolence"]}, "has no anchors here; VIDB .* holds: svt:power, mft:care-harm"),
        ({"values": ["duty"]}, "there is no value of 'duty' here"),
        ({"values": ["svt:growth"]}, "above the values that are scored"),
        ({"k": 10, "m": 50}, "k=10, m=50"),
        ({"k": 2}, "k=2"),
        ({"mode": "fast"}, "use mode 'ranked'"),
    ],
)
def test_what_cannot_be_scored_is_refused(service, settings, message):
    with pytest.raises(InputError, match=message):
        scores(service, ["a text"], **{"values": VALUES} | settings)


def test_an_engine_needs_a_server():
    with pytest.raises(InputError, match=r"python -m serve\.local root="):
        online_judge(VllmModel(name="llm", model="somewhere"))


def test_a_failing_judge_fails_the_request_and_not_the_next(root):
    class Fails:
        fail = True

        def __call__(self, windows: pa.Table) -> pa.Table:
            if self.fail:
                raise RuntimeError("out of memory")
            return online_judge(JUDGE).worker(windows)

    failing, judge = Fails(), online_judge(JUDGE)
    judge.worker = failing
    service = Service(vidb.load(root), JUDGE, judge, LOCAL_LIMITS)
    with pytest.raises(RuntimeError, match="out of memory"):
        scores(service, ["a text"], values=VALUES)
    failing.fail = False
    assert scores(service, ["a text"], values=VALUES)[0].intensity is not None


def test_windows_of_a_cancelled_request_do_not_reach_the_judge(root):
    window_ids: list[str] = []

    class Counts:
        def __call__(self, windows: pa.Table) -> pa.Table:
            window_ids.extend(windows["window_id"].to_pylist())
            return online_judge(JUDGE).worker(windows)

    async def run() -> None:
        judge = online_judge(JUDGE)
        judge.worker = Counts()
        service = Service(vidb.load(root), JUDGE, judge, LOCAL_LIMITS)
        await service.score(api.ScoreRequest(texts=["warm up"], values=VALUES), "r")
        before = len(window_ids)
        going = [asyncio.ensure_future(service.score(api.ScoreRequest(texts=[t], values=VALUES, m=5), "r")) for t in TEXTS]
        await asyncio.sleep(0)
        for task in going[1:]:
            task.cancel()
        await going[0]
        assert len(window_ids) - before < 5 * 2 * len(TEXTS) / 2

    asyncio.run(run())


class Recorded:
    """A judge of this process in small pieces, with the number of windows of every piece."""

    def __init__(self, capacity: int) -> None:
        self.sizes: list[int] = []
        judge = online_judge(JUDGE)
        self.judge = ThreadJudge(self.work, capacity)
        self.worker = judge.worker

    def work(self, windows: pa.Table) -> pa.Table:
        self.sizes.append(windows.num_rows)
        return self.worker(windows)


def heavy_and_light(root: str, leave: bool) -> tuple[list[api.Scored], list[api.Scored], list[int]]:
    """Scores of 40 texts and of one text that is sent after the first piece of the others; pieces until the one is scored."""

    async def run() -> tuple:
        recorded = Recorded(capacity=300)
        service = Service(vidb.load(root), JUDGE, recorded.judge, LOCAL_LIMITS)
        await service.score(api.ScoreRequest(texts=["warm up"], values=VALUES), "r")
        recorded.sizes.clear()
        heavy = asyncio.ensure_future(service.score(api.ScoreRequest(texts=TEXTS, values=VALUES), "r"))
        while not recorded.sizes:
            await asyncio.sleep(0)
        if leave:
            heavy.cancel()
        light = await service.score(api.ScoreRequest(texts=TEXTS[:1], values=VALUES), "r")
        pieces = list(recorded.sizes)
        return (await heavy).scores if not leave else [], light.scores, pieces

    return asyncio.run(run())


def test_a_light_request_waits_for_a_piece_a_round_of_a_heavy_one_and_scores_do_not_depend_on_pieces(root):
    heavy, light, pieces = heavy_and_light(root, leave=False)
    assert len(pieces) <= 3 * (
        2 * 2 + 2
    )  # in each of three rounds: two pieces of its own, and a turn of the other's beside each
    whole = local_service(root, judge=JUDGE)
    assert heavy == scores(whole, TEXTS, values=VALUES)
    assert light == scores(whole, TEXTS[:1], values=VALUES)


def test_a_caller_that_has_gone_costs_one_piece(root):
    _, light, pieces = heavy_and_light(root, leave=True)
    assert light == scores(local_service(root, judge=JUDGE), TEXTS[:1], values=VALUES)
    assert len(pieces) <= 1 + 3 * 2


ASKED = SimulatedJudge(spread=3.0, concern_share=0.5, relevance_accuracy=1.0)


def concerned(text: str, value: ValueId) -> bool:
    return true_theta(value.node, text_id(text), 3.0, 0.5) != 0


@pytest.fixture(scope="module")
def asked(root) -> Service:
    return local_service(root, judge=ASKED)


def test_each_score_says_how_far_the_text_concerns_the_value(asked, service):
    results = scores(asked, TEXTS)
    for score in results:
        is_about = concerned(TEXTS[score.index], ValueId(score.value))
        assert score.relevance == float(is_about)
        assert score.num_windows == 3
        if not is_about:
            assert score.low <= 0 <= score.high
    assert {score.relevance for score in scores(service, TEXTS[:2])} == {None}


def test_questions_about_relevance_are_counted(asked, service):
    request = api.StreamRequest(texts=[*TEXTS, TEXTS[0]], m=2)
    assert asked.plan(request, request.texts)[2:4] == (2 * 2 * len(TEXTS), 2 * len(TEXTS))
    assert service.plan(request, request.texts).relevance == 0


def test_the_version_tells_what_the_first_request_on_a_value_takes_beyond_its_windows(root, asked, tmp_path):
    shutil.copytree(root, tmp_path / "root")
    service = local_service(str(tmp_path / "root"), judge=SimulatedJudge(spread=3.0, seed=77))
    told = service.vidb()
    assert (told.sharpness, told.relevance) == (dict.fromkeys(VALUES, PROBES), False)
    calls = service.questions(api.ScoreRequest(texts=TEXTS, m=2), len(TEXTS), VALUES)
    assert (calls.windows, calls.relevance, calls.sharpness) == (2 * 2 * len(TEXTS), 0, told.sharpness)
    scores(service, TEXTS[:1], values=VALUES[:1])
    assert service.vidb().sharpness == {VALUES[1]: PROBES}
    assert asked.vidb().relevance


@pytest.mark.parametrize("least", [0.0, 0.5])
def test_a_profile_counts_the_texts_that_concern_the_value(asked, least):
    request = api.ProfileRequest(texts=TEXTS, min_relevance=least)
    for profiled in asyncio.run(asked.profile(request, "r")).profile:
        about = sum(concerned(text, ValueId(profiled.value)) for text in TEXTS)
        expected = (len(TEXTS), 0) if least == 0 else (about, len(TEXTS) - about)
        assert (profiled.num_texts, profiled.num_left_out) == expected


def test_a_profile_of_texts_that_do_not_concern_a_value_has_no_mean_and_says_why(asked):
    texts = [text for text in TEXTS if not concerned(text, VALUES[0])]
    profiled = asyncio.run(asked.profile(api.ProfileRequest(texts=texts, values=[VALUES[0]]), "r")).profile[0]
    assert (profiled.intensity, profiled.num_texts, profiled.num_left_out) == (None, 0, len(texts))
    assert "min_relevance" in profiled.error


def test_two_texts_that_do_not_concern_the_value_are_hardly_told_apart(asked):
    first, second = [text for text in TEXTS if not concerned(text, VALUES[0])][:2]
    request = api.CompareRequest(first=first, second=second, values=[VALUES[0]])
    probability = asyncio.run(asked.compare(request, "r")).comparisons[0].probability
    assert abs(probability - 0.5) < 0.1
