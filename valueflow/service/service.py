"""The evaluator for one request at a time: scores, comparisons, profiles and extraction over a published VIDB, in asyncio.

The windows are those of the batch job (`evaluation.scoring.Scoring`), so a score is the same number wherever it is made. The
function that answers them is an argument: Ray Serve passes one that merges the windows of many callers,
`valueflow.service.local` one that runs in this process.
"""

import asyncio
import functools
import itertools
from collections import ChainMap
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from valueflow import api, store, vidb
from valueflow.errors import InputError, allowed
from valueflow.evaluation.comparison import TextScore, mean_profile, probability_higher, to_api
from valueflow.evaluation.regression import IntensityRegression
from valueflow.evaluation.scoring import EvaluatorConfig, Score, Scoring, check_anchors, estimate_sharpness
from valueflow.hives.extract import Extractor
from valueflow.judging.configs import AnyJudge
from valueflow.judging.fingerprint import fingerprint
from valueflow.judging.online import OnlineJudge
from valueflow.ranking.windows import with_texts
from valueflow.records import ValueId, clean, text_id
from valueflow.theories import operational, resolve, resolve_theory, theories
from valueflow.theories.taxonomy import THEORIES
from valueflow.vidb.version import Vidb

# Texts of one value that are planned and scored together.
CHUNK = 256
# Texts whose windows are planned without a thread: some milliseconds.
FEW = 32
# Texts of a stream that are scored together, and how many such groups are under way at once.
GROUP, GROUPS = 32, 2
# Anchors of a value that a judge orders first where its sharpness is not known.
PROBES = 60
EXAMPLES = 9
T = TypeVar("T")
Embed = Callable[[list[str]], Awaitable[np.ndarray]]


class Space(NamedTuple):
    """An encoder's embeddings and what is made of them; texts -> unit vectors (T, D)."""

    model: str
    embed: Embed
    fast: IntensityRegression | None = None
    extractor: Extractor | None = None


class Service:
    """Scores texts with a judge against one version of the VIDB; every method may run many times at once.

    Args:
        version: the VIDB.
        judge: who answers.
        ask: how the judge is asked.
        space: of mode fast and of extraction; None where neither is offered.
        limits: what a request may hold.
    """

    def __init__(
        self, version: Vidb, judge: AnyJudge, ask: OnlineJudge, space: Space | None = None, limits: api.Limits | None = None
    ) -> None:
        self.version, self.judge, self.ask, self.space = version, judge, ask, space
        self._judged_by = fingerprint(judge)
        self.limits = limits or api.Limits(
            max_texts=api.MAX_TEXTS, max_streamed=api.MAX_STREAMED, max_chars=20_000, max_units=10_000, max_body_bytes=2**26
        )
        self._anchors = functools.lru_cache(maxsize=None)(version.anchors)
        self._texts = functools.lru_cache(maxsize=None)(self._texts_of)
        self._rows = functools.lru_cache(maxsize=8)(self._rows_of)
        self._sharpness: dict[str, asyncio.Task[float]] = {}

    async def score(self, asked: api.ScoreRequest, request_id: str) -> api.ScoreResponse:
        """Return the score of every text on every value.

        Raises:
            InputError: a value is not known or not in the version, the mode is not offered, or the anchors are too few.
        """
        values = self._checked(asked)
        scores = await self._scored(asked, asked.texts, values)
        return api.ScoreResponse(**self._made(asked, request_id), scores=scores, agreement=self._agreement(asked, values))

    async def stream(
        self, asked: api.StreamRequest, request_id: str
    ) -> AsyncGenerator[api.StreamStart | api.StreamScore | api.StreamEnd, None]:
        """Yield what `score` returns, text by text, with few texts in memory."""
        values = self._checked(asked)
        number = len(asked.texts) * len(values)
        yield api.StreamStart(**self._made(asked, request_id), num_scores=number, agreement=self._agreement(asked, values))
        starts = iter(range(0, len(asked.texts), GROUP))
        waiting = [self._group(asked, values, start) for start in itertools.islice(starts, GROUPS)]
        try:
            while waiting:
                scores = await waiting.pop(0)
                waiting += [self._group(asked, values, start) for start in itertools.islice(starts, 1)]
                for to_api in scores:
                    yield api.StreamScore(**to_api.model_dump())
        finally:
            for task in waiting:
                task.cancel()
        yield api.StreamEnd(num_scores=number)

    async def compare(self, asked: api.CompareRequest, request_id: str) -> api.CompareResponse:
        """Return for each value the probability that the first text's intensity is higher than the second's.

        Both are placed among anchors by windows of their own; the probability is that of their posteriors (ranked), or of
        normal errors as wide as the conformal intervals (fast).
        """
        values = self._checked(asked)
        by_value, compared = await self._standings(asked, [asked.first, asked.second], values), []
        for value, (first, second) in zip(values, by_value, strict=True):
            one, two = to_api(0, value, first), to_api(1, value, second)
            compared.append(api.Compared(value=value, probability=probability_higher(first, second), first=one, second=two))
        return api.CompareResponse(**self._made(asked, request_id), comparisons=compared)

    async def profile(self, asked: api.ProfileRequest, request_id: str) -> api.ProfileResponse:
        """Return for each value the mean intensity of the texts, with the 95 % interval of that mean."""
        values = self._checked(asked)
        scores = await self._scored(asked, asked.texts, values)
        return api.ProfileResponse(**self._made(asked, request_id), profile=[mean_profile(value, scores) for value in values])

    async def extract(self, asked: api.ExtractRequest, request_id: str) -> api.ExtractResponse:
        """Return the nodes that each text may express.

        Raises:
            InputError: extraction is not offered, or a theory is not known.
        """
        if self.space is None or self.space.extractor is None:
            raise InputError("this server extracts nothing; start it with hives (a trained encoder) and labelled texts")
        wanted = list(THEORIES) if asked.theories is None else [resolve_theory(name) for name in asked.theories]
        z_TD = await self.space.embed([clean(text) for text in asked.texts])
        found = await asyncio.to_thread(self.space.extractor, z_TD, asked.top)
        texts = []
        for index, by_theory in enumerate(found):
            nodes = [node for theory in wanted for node in by_theory.get(theory, [])]
            extracted = [api.Extracted(**node._asdict() | {"path": list(node.path)}) for node in nodes]
            texts.append(api.ExtractedText(index=index, nodes=extracted))
        return api.ExtractResponse(request_id=request_id, model=self.space.model, texts=texts)

    def theories(self) -> api.TheoriesResponse:
        """Return all theories, and which of their nodes the version has anchors for."""
        found = []
        for theory in theories().values():
            nodes = [
                api.NodeInfo(
                    id=f"{theory.id}:{node.id}", name=node.name, definition=node.definition,
                    parents=[f"{theory.id}:{parent}" for parent in node.parents],
                    scored=f"{theory.id}:{node.id}" in self.version.calibrations,
                )
                for node in theory.nodes
            ]  # fmt: skip
            found.append(api.TheoryInfo(id=theory.id, name=theory.name, nodes=nodes))
        return api.TheoriesResponse(theories=found)

    def value(self, id: str) -> api.ValueResponse:  # noqa: A002
        """Return what a value means, where it stands, and anchors spread over its scale.

        Raises:
            InputError: there is no such value.
        """
        value = resolve(id)
        theory, _, name = value.partition(":")
        node = theories()[theory].node(name)
        examples: list[api.Anchor] = []
        if value in self.version.calibrations:
            rows = self._rows(value)
            intensity = rows["intensity"].to_numpy()
            spread = np.linspace(intensity[0], intensity[-1], EXAMPLES)
            nearest = sorted({int(np.abs(intensity - at).argmin()) for at in spread})
            examples = [api.Anchor(**row) for row in rows.take(nearest).to_pylist()]
        return api.ValueResponse(
            id=value, name=node.name, definition=node.definition, supports=node.supports, opposes=node.opposes,
            paths=[list(path) for path in theories()[theory].paths(name)],
            scored=value in self.version.calibrations, examples=examples,
        )  # fmt: skip

    def anchors(self, id: str, offset: int, limit: int) -> api.AnchorsResponse:  # noqa: A002
        """Return some of a value's anchors, weakest first.

        Raises:
            InputError: there is no such value, or the version has no anchors for it.
        """
        value = self._held(resolve(id))
        rows = self._rows(value)
        shown = [api.Anchor(**row) for row in rows.slice(offset, limit).to_pylist()]
        return api.AnchorsResponse(value=value, vidb_version=self.version.build.build_id, total=rows.num_rows, anchors=shown)

    def vidb(self) -> api.VidbResponse:
        """Return the version in use and what can be asked."""
        made, space = self.version.manifest, self.space
        counts = {value: len(self._anchors(value).theta_A) for value in self.version.calibrations}
        return api.VidbResponse(
            version=self.version.build.build_id, judge=self.judge.name, values=counts, num_texts=made.num_rows,
            modes=["ranked", "fast"] if space and space.fast else ["ranked"], extract=bool(space and space.extractor),
            licenses=self.version.details.licenses or vidb.licenses(self.version),
            lineage=[f"{table}/{build}" for table, build in self.version.details.builds.items()]
            or [source.url for source in made.inputs],
            created=made.created, valueflow=made.code_version, limits=self.limits,
        )  # fmt: skip

    def values(self, names: Sequence[str]) -> list[ValueId]:
        """Return the values that names, theories and `all` stand for, each once.

        Raises:
            InputError: a name is not known, or the version has no anchors for the value.
        """
        there = list(self.version.calibrations)
        found: list[ValueId] = []
        for name in names:
            if name == "all":
                found += there
            elif name.strip().lower() in _theory_names():
                theory = resolve_theory(name)
                of_theory = [value for value in there if value.startswith(f"{theory}:")]
                if not of_theory:
                    raise InputError(f"VIDB {self.version.build.build_id} has no value of {theory!r}; {allowed(name, there)}")
                found += of_theory
            else:
                found.append(self._held(resolve(name)))
        return list(dict.fromkeys(found))

    def warm(self, value: str) -> None:
        """Read what the first request on a value would read."""
        self._anchors(value)
        self._texts(value)

    def _held(self, value: ValueId) -> ValueId:
        if value not in self.version.calibrations:
            there = ", ".join(self.version.calibrations)
            kind = "is a node above the values that are scored" if value not in operational() else "has no anchors here"
            raise InputError(f"{value} {kind}; VIDB {self.version.build.build_id} holds: {there}")
        return value

    def _checked(self, asked: "Asked") -> list[ValueId]:
        """The values asked, for which everything that scoring needs is there."""
        values = self.values(asked.values)
        if asked.mode == "fast":
            if self.space is None or self.space.fast is None:
                raise InputError("this server has no mode 'fast'; use mode 'ranked', or start it with fast: true")
            fitted = self.space.fast.agreement
            if few := [value for value in values if value not in fitted and "all" not in asked.values]:
                raise InputError(
                    f"{few[0]} has too few anchors for mode 'fast'; use mode 'ranked', or values: {', '.join(fitted)}"
                )
            return [value for value in values if value in fitted]
        config = _evaluator(asked)
        for value in values:
            check_anchors(self._anchors(value), config)
            if config.k == 2 and self.version.sharpness(self._judged_by, value) is None:
                raise InputError(
                    f"k=2 shows one anchor a window, too few for a judge ({self.judge.name}) that did not build this VIDB; "
                    "use k of 3 or more"
                )
        return values

    async def _scored(self, asked: "Asked", texts: list[str], values: list[ValueId], first: int = 0) -> list[api.Scored]:
        by_text = zip(*await self._standings(asked, texts, values), strict=True)
        return [to_api(first + i, v, found) for i, row in enumerate(by_text) for v, found in zip(values, row, strict=True)]

    def _group(self, asked: api.StreamRequest, values: list[ValueId], start: int) -> asyncio.Task[list[api.Scored]]:
        return asyncio.ensure_future(self._scored(asked, asked.texts[start : start + GROUP], values, start))

    async def _standings(self, asked: "Asked", texts: list[str], values: list[ValueId]) -> list[list[TextScore]]:
        """The standing of each text on each value; texts that are the same are asked once."""
        cleaned = [clean(text) for text in texts]
        ids = [text_id(text) if text else "" for text in cleaned]
        # The order of the ids decides nothing, but a chunk is then the same for the same texts.
        distinct = sorted({i: text for i, text in zip(ids, cleaned, strict=True) if i}.items())
        chunks = [dict(distinct[start : start + CHUNK]) for start in range(0, len(distinct), CHUNK)]
        stand = self._fast if asked.mode == "fast" else self._ranked
        parts = await asyncio.gather(*(stand(asked, values, chunk) for chunk in chunks))
        empty = {"": TextScore(None, 0, 0, "the text is empty")}
        by_value = (ChainMap(empty, *(part[v] for part in parts)) for v in range(len(values)))
        return [[standings[i] for i in ids] for standings in by_value]

    async def _ranked(self, asked: "Asked", values: list[ValueId], texts: dict[str, str]) -> list[dict[str, TextScore]]:
        """By value, what the judge's windows tell."""
        return await asyncio.gather(*(self._placed(asked, value, texts) for value in values))

    async def _placed(self, asked: "Asked", value: str, texts: dict[str, str]) -> dict[str, TextScore]:
        """Windows, round by round, and the posterior of each text."""
        config, numbers = _evaluator(asked), [[0, 0] for _ in texts]
        scoring = Scoring(self._anchors(value), list(texts), await self._sharpness_of(value), config)
        shown = ChainMap(texts, self._texts(value))
        errors: list[str | None] = [None] * len(texts)
        for round_ in range(config.m):
            answers = await self._answers(await _aside(len(texts), scoring.plan, round_), shown)
            for unit, row in enumerate(answers):
                numbers[unit][row["order"] is None] += 1
                errors[unit] = row["error"] or errors[unit]
            await _aside(len(texts), scoring.take, enumerate(answers))
        scores = scoring.posterior.scores()
        # Only a comparison looks at whole posteriors, which take more time and memory than scores.
        p_UG = scoring.posterior.probabilities() if isinstance(asked, api.CompareRequest) else [None] * len(texts)
        return {
            text: TextScore(scores[unit] if answered else None, answered, failed, errors[unit], p_UG[unit])
            for unit, (text, (answered, failed)) in enumerate(zip(texts, numbers, strict=True))
        }

    async def _fast(self, asked: "Asked", values: list[ValueId], texts: dict[str, str]) -> list[dict[str, TextScore]]:
        """By value, what regression on the embedding tells."""
        del asked
        assert self.space  # _checked refuses the mode otherwise
        assert self.space.fast
        z_TD = await self.space.embed(list(texts.values()))
        scores = [map(Score, *(bound.tolist() for bound in self.space.fast(z_TD, value))) for value in values]
        return [{i: TextScore(score, 0, 0, None) for i, score in zip(texts, found, strict=True)} for found in scores]

    async def _answers(self, windows: pa.Table, texts: Mapping[str, str]) -> list[dict]:
        """The judge's rows, in the order of the windows."""
        rows = {row["window_id"]: row for row in (await self.ask(with_texts(windows, texts))).to_pylist()}
        return [rows[i] for i in windows["window_id"].to_pylist()]

    async def _sharpness_of(self, value: str) -> float:
        """The judge's nats per unit of theta: that of the version, or estimated once from how it orders anchors."""
        known = self.version.sharpness(self._judged_by, value)
        if known is not None:
            return known
        if value not in self._sharpness:
            self._sharpness[value] = asyncio.ensure_future(self._estimated(value))
        try:
            # A caller that goes away must not take the estimate from the others that wait for it.
            return await asyncio.shield(self._sharpness[value])
        except Exception:
            self._sharpness.pop(value, None)
            raise

    async def _estimated(self, value: str) -> float:
        """Anchors as if they were to be scored, one window each: the order of all but one of its texts tells."""
        anchors = self._anchors(value)
        probes = anchors.text_ids[np.linspace(0, len(anchors.text_ids) - 1, min(PROBES, len(anchors.text_ids))).astype(int)]
        scoring = Scoring(anchors, probes.tolist(), 1.0, EvaluatorConfig(sampling="bucket", m=1))
        answers = await self._answers(scoring.plan(0), self._texts(value))
        theta = dict(zip(anchors.text_ids, anchors.theta_A, strict=True))
        answered = [row for row in answers if row["order"] is not None]
        shown = [np.array([theta[i] for i in row["text_ids"]]) for row in answered]
        return estimate_sharpness(shown, [row["order"] for row in answered])

    def _texts_of(self, value: str) -> dict[str, str]:
        return dict(zip(*(self._rows(value)[name].to_pylist() for name in ("text_id", "text")), strict=True))

    def _rows_of(self, value: str) -> pa.Table:
        columns, folder = ["text_id", *api.Anchor.model_fields], store.value_folder(value)
        return store.read_table(self.version.build, columns, folder).sort_by("intensity")

    def _agreement(self, asked: "Asked", values: list[ValueId]) -> list[api.Agreement] | None:
        if asked.mode == "ranked" or self.space is None or self.space.fast is None:
            return None
        return [self.space.fast.agreement[value] for value in values]

    def _made(self, asked: "Asked", request_id: str) -> dict:
        ranked = asked.mode == "ranked"
        made = {name: getattr(asked, name) if ranked else None for name in ("k", "m", "sampling", "seed")}
        by = self.judge.name if ranked or self.space is None else self.space.model
        return made | {
            "request_id": request_id, "vidb_version": self.version.build.build_id, "judge": by, "mode": asked.mode,
        }  # fmt: skip


Asked = api.ScoreRequest | api.StreamRequest | api.CompareRequest | api.ProfileRequest


async def _aside(num_texts: int, work: Callable[..., T], given: object) -> T:
    """Return what the work returns, done in a thread where it would keep other requests waiting."""
    return work(given) if num_texts <= FEW else await asyncio.to_thread(work, given)


def _theory_names() -> set[str]:
    return {name.lower() for theory in theories().values() for name in (theory.id, theory.name, *theory.aliases)}


def _evaluator(asked: Asked) -> EvaluatorConfig:
    return EvaluatorConfig(k=asked.k, m=asked.m, sampling=asked.sampling, seed=asked.seed)
