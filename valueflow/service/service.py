"""Scores, comparisons, profiles and extraction for one request at a time, in asyncio, over a published VIDB.

Windows are planned as in the batch job (`evaluation.scoring.Scoring`), so that both give the same score. The function that
answers windows is an argument: Ray Serve passes one that merges those of many callers, `service.local` one of this process.
"""

import asyncio
import itertools
import logging
import sys
from collections import ChainMap
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from valueflow import api
from valueflow.callers import calling
from valueflow.errors import InputError, of_the_operator
from valueflow.evaluation.comparison import TextScore, probability_higher, to_api
from valueflow.evaluation.regression import IntensityRegression
from valueflow.evaluation.scoring import EvaluatorConfig, Scoring, check_anchors, estimate_sharpness, is_alone, totals
from valueflow.evaluation.sharpness import SharpnessFile, estimates_notice
from valueflow.hives.extract import Extractor
from valueflow.judging.configs import AnyJudge
from valueflow.judging.fingerprint import fingerprint
from valueflow.judging.kind import Ask
from valueflow.judging.kinds import kind_of
from valueflow.llm.configs import LlmModel
from valueflow.profiles.requested import profiles
from valueflow.records import ValueId, clean, text_id
from valueflow.service.catalog import Catalog
from valueflow.service.work import Plan, distinct, evaluator_config, flaw_of, in_order, run, set_nodes, windows_of
from valueflow.theories import resolve_theory
from valueflow.theories.taxonomy import THEORIES
from valueflow.vidb import validity
from valueflow.vidb.version import Vidb

log = logging.getLogger(__name__)
GROUP, GROUPS = 32, 2  # texts of a stream that are scored together; groups in progress at once
EXTRACTED = 64  # texts whose neighbors are looked up at once; in between a caller may leave
PROBES = 60  # anchors of a value whose order estimates a judge's sharpness
MIN_ANSWERED = 0.5  # share of windows with an answer from which an estimate is kept
ESTIMATE_SECONDS = 60.0  # until an estimate from fewer answers is made again
Embed = Callable[[list[str]], Awaitable[np.ndarray]]


class EmbeddingBackend(NamedTuple):
    """An encoder and the models on its embeddings.

    Attributes:
        model: name of the encoder.
        embed: texts -> unit vectors, shape (T, D).
        fast: regression of mode fast; None if the mode is not offered.
        extractor: None if extraction is not offered.
    """

    model: str
    embed: Embed
    fast: IntensityRegression | None = None
    extractor: Extractor | None = None


class Service(Catalog):
    """Scores texts with a judge against one version of the VIDB; all methods may run concurrently.

    Args:
        version: the VIDB.
        judge: its config, for the sharpness and the name in responses.
        ask_judge: answers windows.
        limits: reported by `vidb`; the HTTP layer enforces them.
        embedding: for mode fast and extraction; None if neither is offered.
        check_backends: raises an exception if the judge or the encoder does not answer; None if they run in this process.
    """

    def __init__(
        self,
        version: Vidb,
        judge: AnyJudge,
        ask_judge: Ask,
        limits: api.Limits,
        embedding: EmbeddingBackend | None = None,
        check_backends: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(version, validity.of_judge(version, fingerprint(judge)))
        self.judge, self.limits, self.embedding, self._relevance = judge, limits, embedding, kind_of(judge).relevance(judge)
        self._check_backends, self._loaded = check_backends, False
        self._ask_judge, self._judge_fingerprint = ask_judge, fingerprint(judge)
        self._max_chars = judge.max_chars if isinstance(judge, LlmModel) else None
        self._sharpness = SharpnessFile(version, self._judge_fingerprint)
        self._estimates: dict[ValueId, asyncio.Task[float]] = {}  # in progress, or of too few answers to be kept

    async def score(self, request: api.ScoreRequest, request_id: str, values: list[ValueId] | None = None) -> api.ScoreResponse:
        """Return the score of every text on every value.

        Args:
            request: texts and settings.
            request_id: repeated in the response.
            values: result of `resolve(request)` if the caller has it.

        Raises:
            InputError: see `resolve`.
        """
        values = values or self.resolve(request)
        scores = await self._scores(request, request.texts, values)
        provenance = self._provenance(request, request_id, values)
        return api.ScoreResponse(**provenance, scores=scores, agreement=self._agreement(request, values))

    async def stream(
        self, request: api.StreamRequest, request_id: str, values: list[ValueId] | None = None
    ) -> AsyncGenerator[api.StreamStart | api.StreamScore | api.StreamEnd, None]:
        """Yield the scores of `score` text by text, with few texts in memory."""
        values = values or self.resolve(request)
        num_scores = len(request.texts) * len(values)
        provenance = self._provenance(request, request_id, values)
        yield api.StreamStart(**provenance, num_scores=num_scores, agreement=self._agreement(request, values))

        def begin(start: int) -> asyncio.Task[list[api.Scored]]:
            return asyncio.ensure_future(self._scores(request, request.texts[start : start + GROUP], values, start))

        starts = iter(range(0, len(request.texts), GROUP))
        groups = [begin(start) for start in itertools.islice(starts, GROUPS)]
        try:
            while groups:
                scores = await groups.pop(0)
                groups += [begin(start) for start in itertools.islice(starts, 1)]
                for score in scores:
                    yield api.StreamScore(**score.model_dump())
        finally:
            for task in groups:
                task.cancel()
        yield api.StreamEnd(num_scores=num_scores)

    async def compare(
        self, request: api.CompareRequest, request_id: str, values: list[ValueId] | None = None
    ) -> api.CompareResponse:
        """Return for each value the probability that the first text has the higher intensity.

        Each text is ranked among anchors in windows of its own. The probability is computed from the two posteriors (mode
        ranked), or from normal errors as wide as the conformal intervals (mode fast), and the content errors.
        """
        values = values or self.resolve(request)
        by_value = await self._text_scores(request, [request.first, request.second], values)
        comparisons = [
            api.Compared(
                value=value,
                probability=probability_higher(first, second, self._content_errors[value], self._relevance),
                first=to_api(0, value, first),
                second=to_api(1, value, second),
            )
            for value, (first, second) in zip(values, by_value, strict=True)
        ]
        return api.CompareResponse(**self._provenance(request, request_id, values), comparisons=comparisons)

    async def profile(
        self, request: api.ProfileRequest, request_id: str, values: list[ValueId] | None = None
    ) -> api.ProfileResponse:
        """Return for each unit and value the mean intensity of the texts that concern it, and how units differ."""
        values = values or self.resolve(request)
        scores = await self._scores(request, request.texts, values)
        texts = {v: self._tables(v).rows["intensity"].to_numpy() for v in values}
        fast = self.embedding.fast if request.mode == "fast" and self.embedding else None
        radius = {v: fast.lines[v].radius for v in values} if fast else None
        fields = await run(len(scores), profiles, request, scores, values, self._content_errors, texts, radius)
        truncated = sum(score.truncated for score in scores[:: len(values)])
        return api.ProfileResponse(**self._provenance(request, request_id, values), **fields, truncated=truncated)

    async def extract(self, request: api.ExtractRequest, request_id: str) -> api.ExtractResponse:
        """Return the nodes that each text may express.

        Raises:
            InputError: extraction is not offered, or a theory is unknown.
        """
        if self.embedding is None or self.embedding.extractor is None:
            raise InputError("extraction is not offered by this server; start it with `extraction` set (labelled texts)")
        names = list(THEORIES) if request.theories is None else [resolve_theory(name) for name in request.theories]
        texts = [api.ExtractedText(index=i, nodes=[], error=flaw_of(text)) for i, text in enumerate(request.texts)]
        readable = [text for text in texts if not text.error]
        if readable:
            with of_the_operator():
                z_TD = await self.embedding.embed([clean(request.texts[text.index]) for text in readable])
                for start in range(0, len(readable), EXTRACTED):
                    part = slice(start, start + EXTRACTED)
                    await asyncio.to_thread(set_nodes, self.embedding.extractor, z_TD[part], readable[part], names, request.top)
        return api.ExtractResponse(request_id=request_id, model=self.embedding.model, texts=texts)

    async def check(self) -> None:
        """Check that requests can be answered: the version is in memory, the judge and the encoder answer.

        Raises:
            Exception: they cannot.
        """
        if not self._loaded:
            await asyncio.to_thread(self.load)
            self._loaded = True
        if self._check_backends:
            await self._check_backends()

    def vidb(self) -> api.VidbResponse:
        """Return the version in use and the capabilities and limits of this service."""
        manifest, details, embedding = self.version.manifest, self.version.details, self.embedding
        counts: dict[str, int] = {value: len(self._anchors(value).theta_A) for value in self.version.calibrations}
        return api.VidbResponse(
            version=self.version.build.build_id, judge=self.judge.name, values=counts, num_texts=manifest.num_rows,
            modes=["ranked", "fast"] if embedding and embedding.fast else ["ranked"],
            extract=bool(embedding and embedding.extractor),
            licenses=self._licenses(),
            lineage=[f"{table}/{build}" for table, build in details.builds.items()]
            or [source.url for source in manifest.inputs],
            created=manifest.created, valueflow=manifest.code_version, limits=self.limits, max_chars=self._max_chars,
            truncated=details.truncated, relevance=self._relevance != "none",
            sharpness={str(value): count for value, count in self._missing(list(self.version.calibrations)).items()},
        )  # fmt: skip

    def resolve(self, request: api.ScoringRequest) -> list[ValueId]:
        """Return the values that a request is scored on.

        In mode fast, `all` stands for the values that have a regression.

        Raises:
            InputError: a value is unknown or not in the version, the mode is not offered, or a value has too few anchors.
        """
        values = self.values(request.values)
        if request.mode == "fast":
            if self.embedding is None or self.embedding.fast is None:
                raise InputError("mode 'fast' is not offered by this server; use mode 'ranked', or start it with fast: true")
            fitted = self.embedding.fast.agreement
            if "all" not in request.values and (missing := [value for value in values if value not in fitted]):
                raise InputError(
                    f"{missing[0]} has too few anchors for mode 'fast'; use mode 'ranked', or values: {', '.join(fitted)}"
                )
            return [value for value in values if value in fitted]
        config = evaluator_config(request)
        for value in values:
            check_anchors(self._anchors(value), config)
            if config.k == 2 and self.version.sharpness(self._judge_fingerprint, value) is None:
                raise InputError(
                    f"k=2 shows one anchor per window, too few to estimate the sharpness of judge {self.judge.name}, which did "
                    "not build this VIDB; use k of 3 or more"
                )
        return values

    def plan(self, request: api.ScoringRequest, texts: list[str]) -> Plan:
        """Return what the judge will be asked to score the texts; nothing in mode fast.

        Raises:
            InputError: see `resolve`.
        """
        return self.questions(request, len({text_id(text) for text in texts if not flaw_of(text)}), self.resolve(request))

    def questions(self, request: api.ScoringRequest, num_texts: int, values: list[ValueId]) -> Plan:
        """Return what the judge will be asked to score so many distinct texts on `values`, the result of `resolve`."""
        if request.mode == "fast":
            return Plan(num_texts, values, 0, 0, {})
        num_scores = num_texts * len(values)
        relevance = 0 if self._relevance == "none" else num_scores
        return Plan(num_texts, values, num_scores * request.m, relevance, self._missing(values) if num_texts else {})

    async def _scores(
        self, request: api.ScoringRequest, texts: list[str], values: list[ValueId], first: int = 0
    ) -> list[api.Scored]:
        """Scores ordered by text, then value; `first` is the index of the first text in the request."""
        by_value = await self._text_scores(request, texts, values)
        return await run(
            len(texts) * len(values),
            lambda: [
                to_api(first + i, value, scores[i])
                for i in range(len(texts))
                for value, scores in zip(values, by_value, strict=True)
            ],
        )

    async def _text_scores(self, request: api.ScoringRequest, texts: list[str], values: list[ValueId]) -> list[list[TextScore]]:
        """By value, the score of each text; equal texts are scored once."""
        with calling():
            return await self._distinct_scores(request, texts, values)

    async def _distinct_scores(
        self, request: api.ScoringRequest, texts: list[str], values: list[ValueId]
    ) -> list[list[TextScore]]:
        ids, problems, chunks = await run(len(texts), distinct, texts)
        if request.mode == "fast":
            by_chunk = await asyncio.gather(*(self._regress(values, chunk) for chunk in chunks))
            parts = list(itertools.chain(*by_chunk))
        else:
            if chunks:
                self._begin_estimates(values)
            parts = await asyncio.gather(*(self._rank(request, value, chunk) for chunk in chunks for value in values))
        unscored = {problem: TextScore(None, 0, 0, problem) for problem in problems}
        by_value = (ChainMap(unscored, *parts[v :: len(values)]) for v in range(len(values)))
        return await run(len(ids) * len(values), lambda: [[scores[i] for i in ids] for scores in by_value])

    async def _rank(self, request: api.ScoringRequest, value: ValueId, texts: dict[str, str]) -> dict[str, TextScore]:
        """Score texts (by id) on one value: windows round by round, then the posterior of each text."""
        config, counts = evaluator_config(request), [[0, 0] for _ in texts]
        sharpness = await self._sharpness_of(value)
        ids = list(texts)
        scoring = await run(len(texts), Scoring, self._anchors(value), ids, sharpness, config, self._relevance)
        lookup = ChainMap(texts, self._texts(value))
        errors: list[str | None] = [None] * len(texts)
        for round_ in range(config.m):
            rows = await self._answer(await run(len(texts), windows_of, scoring, round_, lookup))
            answers = [(i % len(texts), row) for i, row in enumerate(rows)]  # the windows of single texts follow the others
            for unit, row in answers:
                counts[unit][row["order"] is None] += not is_alone(row)
                errors[unit] = row["error"] or errors[unit]
            await run(len(texts), scoring.take, answers)
        scores = await run(len(texts), scoring.scores)
        # Whole posteriors cost more time and memory than scores, and only a comparison uses them.
        p_UG = scoring.posterior.probabilities() if isinstance(request, api.CompareRequest) else [None] * len(texts)
        most = self._max_chars or sys.maxsize
        return {
            text: TextScore(
                scores[unit] if valid else None, valid, failed, errors[unit], p_UG[unit], len(scoring.used[unit]),
                len(texts[text]) > most,
            )
            for unit, (text, (valid, failed)) in enumerate(zip(texts, counts, strict=True))
        }  # fmt: skip

    async def _regress(self, values: list[ValueId], texts: dict[str, str]) -> list[dict[str, TextScore]]:
        """Score texts (by id) in mode fast; one dict per value."""
        assert self.embedding  # `resolve` refuses the mode otherwise
        assert self.embedding.fast
        with of_the_operator():
            z_TD = await self.embedding.embed(list(texts.values()))
            columns_by_value = [self.embedding.fast(z_TD, value) for value in values]
        by_value = [totals(self._content_errors[v], np.array(c)) for v, c in zip(values, columns_by_value, strict=True)]
        return [{i: TextScore(score, 0, 0, None) for i, score in zip(texts, scores, strict=True)} for scores in by_value]

    async def _answer(self, windows: pa.Table) -> list[dict]:
        """The judge's rows of `rankings` in the order of the windows, which have their texts."""
        with of_the_operator():
            answers = await self._ask_judge(windows)
        return await run(windows.num_rows, in_order, answers, windows)

    async def _sharpness_of(self, value: ValueId) -> float:
        """The judge's nats per unit of theta: of the version, of an earlier estimate, or of the one in progress."""
        if (known := self._known_sharpness(value)) is not None:
            return known
        self._begin_estimates([value])
        try:
            # Other callers wait for the same estimate: a caller that disconnects must not cancel it.
            return await asyncio.shield(self._estimates[value])
        except Exception:
            self._estimates.pop(value, None)
            raise

    def _known_sharpness(self, value: ValueId) -> float | None:
        stored = self.version.sharpness(self._judge_fingerprint, value)
        return self._sharpness.get(value) if stored is None else stored

    def _missing(self, values: list[ValueId]) -> dict[ValueId, int]:
        """By value, the windows that estimate the judge's sharpness where it is not known."""
        unknown = [value for value in values if self._known_sharpness(value) is None]
        return {value: min(PROBES, len(self._anchors(value).text_ids)) for value in unknown}

    def _begin_estimates(self, values: list[ValueId]) -> None:
        """Begin the estimates that are missing and say what they take."""
        missing = {value: count for value, count in self._missing(values).items() if value not in self._estimates}
        if missing:
            log.info("%s", estimates_notice(self.judge.name, self.version.build.build_id, missing))
        for value in missing:
            self._estimates[value] = asyncio.ensure_future(self._estimate_sharpness(value))

    async def _estimate_sharpness(self, value: ValueId) -> float:
        """Rank anchors as if they were responses, one window each, and fit to the order of the other anchors in it."""
        anchors = self._anchors(value)
        count = self._missing([value])[value]
        probes = anchors.text_ids[np.linspace(0, len(anchors.text_ids) - 1, count).astype(int)]
        scoring = Scoring(anchors, probes.tolist(), 1.0, EvaluatorConfig(sampling="bucket", m=1))
        answers = await self._answer(windows_of(scoring, 0, self._texts(value)))
        theta = dict(zip(anchors.text_ids, anchors.theta_A, strict=True))
        valid = [row for row in answers if row["order"] is not None]
        theta_of_windows = [np.array([theta[i] for i in row["text_ids"]]) for row in valid]
        sharpness = estimate_sharpness(theta_of_windows, [row["order"] for row in valid])
        if len(valid) >= MIN_ANSWERED * len(answers):
            await asyncio.to_thread(self._sharpness.put, value, sharpness)
            self._estimates.pop(value, None)
        else:
            log.warning(
                "judge %r answered %d of %d windows of anchors of %s: too few to know its sharpness, so it is estimated again "
                "by requests after %d s", self.judge.name, len(valid), len(answers), value, ESTIMATE_SECONDS,
            )  # fmt: skip
            asyncio.get_running_loop().call_later(ESTIMATE_SECONDS, self._estimates.pop, value, None)
        return sharpness

    def _agreement(self, request: api.ScoringRequest, values: list[ValueId]) -> list[api.Agreement] | None:
        if request.mode == "ranked" or self.embedding is None or self.embedding.fast is None:
            return None
        return [self.embedding.fast.agreement[value] for value in values]

    def _provenance(self, request: api.ScoringRequest, request_id: str, values: list[ValueId]) -> dict:
        """Fields of `api.Provenance`."""
        ranked = request.mode == "ranked"
        settings = {name: getattr(request, name) if ranked else None for name in ("k", "m", "sampling", "seed")}
        judge = self.judge.name if ranked or self.embedding is None else self.embedding.model
        version = self.version.build.build_id
        settings["max_chars"] = self._max_chars if ranked else None
        settings["rests_on"] = {value: self._content_errors[value].source for value in values}
        return settings | {"request_id": request_id, "vidb_version": version, "judge": judge, "mode": request.mode}
