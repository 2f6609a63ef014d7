"""The Value Intensity DataBase: calibrate and publish a version, load one, its anchors, import and export."""

import csv
import io
import json
import logging
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from valueflow import store
from valueflow.config import Config
from valueflow.errors import InputError, allowed
from valueflow.evaluator import Anchors
from valueflow.ranking import calibrate
from valueflow.ranking.calibrate import LIMIT, CalibrateConfig, Calibration
from valueflow.ranking.plackett_luce import Z95
from valueflow.records import clean, conform, digest, text_id
from valueflow.store import Build
from valueflow.theories import operational, resolve
from valueflow.voting.descend import Ballot, ballot_table

log = logging.getLogger(__name__)
PLAUSIBLE = ("plausible", "weird")
# What people see of a flagged text; they fill in a rating, and the file can be given back as it is.
QUEUE = ["theory", "value", "text_id", "text", "intensity", "low", "high", "flags"]


class Vidb(NamedTuple):
    """A finished version."""

    build: Build
    manifest: store.Manifest
    calibrations: dict[str, Calibration]

    @property
    def judge_fingerprint(self) -> str:
        """The judge whose scale theta is on; empty for an imported version."""
        return self.manifest.config.get("judge_fingerprint", "")

    def sharpness(self, judged_by: str, value: str) -> float | None:
        """Return a judge's nats per unit of theta: 1 for the only one that built the version; None for one that did not."""
        several = self.manifest.config.get("judges", {})
        if judged_by in several:
            return several[judged_by]["sharpness"].get(value) or None
        return 1.0 if not several and self.judge_fingerprint == judged_by else None

    def anchors(self, value: str) -> Anchors:
        """Return a value's texts as anchors, sorted by theta.

        Raises:
            InputError: the version does not hold the value.
        """
        if value not in self.calibrations:
            raise InputError(f"VIDB {self.build.build_id} has no {value!r}; {allowed(value, self.calibrations)}")
        theory, _, node = value.partition(":")
        rows = store.read_table(self.build, ["text_id", "theta"], store.partition(theory, node)).sort_by("theta")
        return Anchors(theory, node, rows["text_id"].to_numpy(), rows["theta"].to_numpy(), self.calibrations[value])


def load(root: str, version: str = "current") -> Vidb:
    """Return a version by id, or the published one.

    Raises:
        InputError: there is no such version, or it is damaged.
    """
    chosen = store.current(root).version if version == "current" else version
    if chosen is None:
        raise InputError(f"nothing is published under {root}; run python -m jobs.build_vidb or jobs.import_vidb first")
    build = Build(root, "vidb", chosen)
    manifest = store.need(build)
    calibrations = {v: Calibration.model_validate(c) for v, c in manifest.config["calibrations"].items()}
    return Vidb(build, manifest, calibrations)


class HumanConfig(Config):
    """What people say of single texts, and how much it counts (VALUEFLOW, step 5 of VIDB)."""

    ratings: str = Field("", description="CSV: theory, value, text, rating in [-10, 10]; one row a rater")
    weight: float = Field(0.5, ge=0, le=1, description="lambda: final rating = (1 - lambda) * intensity + lambda * human mean")
    agreement: float = Field(
        4.0, ge=0, le=20, description="filtered release: judges and humans agree when they are no further apart than this"
    )


class Review(NamedTuple):
    """What the plausibility panel and people said: flags by (value, text id), None without a panel; human means likewise."""

    flags: dict[tuple[str, str], int] | None = None
    human: dict[str, dict[str, float]] = {}
    config: HumanConfig = HumanConfig()
    max_flags: int = 1


class Calibrated(NamedTuple):
    """The rows of one value in the order of text ids, with what makes their intensity."""

    value: str
    folder: str
    theta: pa.Table
    pool: pa.Table
    calibration: Calibration


def calibrated(candidates: Build, utilities: Build, config: CalibrateConfig, base: Vidb | None = None) -> Iterator[Calibrated]:
    """Yield every value of a build with its calibration, that of `base` where it is given; one value is in memory at a time."""
    ratings = read_ratings(config.ratings) if config.ratings else {}
    for file in store.need(utilities).files:
        folder = file.path.rpartition("/")[0]
        theta = store.read_part(utilities, file.path).sort_by("text_id")
        pool = store.read_table(candidates, folder=folder).sort_by("text_id")
        value = f"{pool['theory'][0].as_py()}:{pool['value'][0].as_py()}"
        made = base.calibrations[value] if base else _calibrate(value, theta, pool, ratings.get(value, {}), config)
        yield Calibrated(value, folder, theta, pool, made)


def reviewed(base: Vidb) -> Review:
    """Return what was said of a version's texts: their flags and human means."""
    rows = store.read_table(base.build, ["theory", "value", "text_id", "flags", "human_mean"]).to_pylist()
    flags = {(f"{r['theory']}:{r['value']}", r["text_id"]): r["flags"] for r in rows if r["flags"] is not None}
    human: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["human_mean"] is not None:
            human.setdefault(f"{row['theory']}:{row['value']}", {})[row["text_id"]] = row["human_mean"]
    settings = base.manifest.config["resolved"].get("plausibility") or {"max_flags": 1}
    return Review(flags or None, human, max_flags=settings["max_flags"])


def plausibility_ballots(values: Iterator[Calibrated], out: Build) -> None:
    """Write one ballot a text and value, which asks whether the intensity is plausible or weird."""
    for at in values:
        theory, _, node = at.value.partition(":")
        intensities = at.calibration.to_intensity(at.theta["theta"].to_numpy())
        ballots = [
            Ballot("plausible", theory, node, i, PLAUSIBLE, 0, f"{intensity:+.1f}")
            for i, intensity in zip(at.theta["text_id"].to_pylist(), intensities, strict=True)
        ]
        store.write_part(out, ballot_table(ballots), "0", at.folder)


def write(
    candidates: Build, utilities: Build, config: CalibrateConfig, review: Review, lineage: dict, out: Build,
    base: Vidb | None = None,
) -> store.Manifest:  # fmt: skip
    """Calibrate every value, merge what people said, and write a version.

    Parquet; `csv/{value}_{theory}.csv` in the official columns (the full release), `csv-filtered/` (the texts on which judges
    and humans agree); `human_queue.csv` with the texts that the panel flagged; the manifest last.

    Args:
        candidates: texts with their sources and licences.
        utilities: theta of each.
        config: where zero and the unit come from.
        review: flags and human ratings; ratings that the calibration uses count among these.
        lineage: what the manifest's config shall say of how the version was made.
        out: the version.
        base: the version that this one extends; its calibration is kept.
    """
    finished = store.manifest(out)
    if finished:
        log.info("publish: version %s, done before", out.build_id)
        return finished
    calibrations: dict[str, Calibration] = {}
    licenses: Counter[str] = Counter()
    counts = Counter({"flagged": 0, "rated by humans": 0, "filtered release": 0})
    if config.ratings:
        rated = read_ratings(config.ratings)
        review = review._replace(human={v: rated.get(v, {}) | review.human.get(v, {}) for v in rated | review.human})
    queue = io.StringIO()
    csv.writer(queue).writerow([*QUEUE, "rating"])
    for at in calibrated(candidates, utilities, config, base):
        calibrations[at.value] = at.calibration
        rows = _rows(at, review)
        store.write_part(out, rows, "0", at.folder)
        _write_csv(rows, at.value, out, "csv")
        _write_csv(rows.filter(rows["agreed"]), at.value, out, "csv-filtered")
        licenses.update(rows["license"].to_pylist())
        flagged = pc.greater_equal(pc.fill_null(rows["flags"], 0), review.max_flags)
        waiting = rows.filter(pc.and_(flagged, pc.is_null(rows["human_mean"])))
        csv.writer(queue).writerows([*row.values(), ""] for row in waiting.select(QUEUE).to_pylist())
        counts["flagged"] += pc.sum(flagged).as_py() or 0
        counts["rated by humans"] += rows.num_rows - rows["human_mean"].null_count
        counts["filtered release"] += pc.sum(rows["agreed"]).as_py() or 0
    store.write_bytes(f"{out.url}/human_queue.csv", queue.getvalue().encode())
    described = lineage | {"calibrations": {v: c.model_dump() for v, c in calibrations.items()}}
    return store.commit(out, described, [candidates.url, utilities.url], {"licenses": dict(licenses)} | dict(counts))


def _calibrate(value: str, theta: pa.Table, pool: pa.Table, ratings: dict[str, float], config: CalibrateConfig) -> Calibration:
    theta_N = theta["theta"].to_numpy()
    try:
        if config.mode == "neutral":
            return calibrate.neutral(theta_N, pool["neutral"].to_numpy(), config.extreme_quantile)
        rated = [(t, ratings[i]) for i, t in zip(theta["text_id"].to_pylist(), theta_N, strict=True) if i in ratings]
        if len(rated) < 3:
            raise InputError(f"{config.ratings} rates {len(rated)} of its texts; at least 3 are needed")
        theta_R, rating_R = np.array(rated).T
        return calibrate.isotonic(theta_R, rating_R, config.mode)
    except InputError as error:
        raise InputError(f"{value}: {error}") from None


def _rows(at: Calibrated, review: Review) -> pa.Table:
    theta_N, error_N = at.theta["theta"].to_numpy(), at.theta["standard_error"].to_numpy()
    intensity_N = at.calibration.to_intensity(theta_N)
    ids = at.theta["text_id"].to_pylist()
    human_N = np.array([review.human.get(at.value, {}).get(i, np.nan) for i in ids])
    flags = None if review.flags is None else [review.flags.get((at.value, i), 0) for i in ids]
    rated_N, weight = np.isfinite(human_N), review.config.weight
    apart_N = np.abs(human_N - intensity_N) > review.config.agreement
    flagged_N = np.array(flags or [0] * len(ids)) >= review.max_flags
    columns = {name: at.theta[name] for name in at.theta.column_names}
    columns |= {name: at.pool[name] for name in ("text", "direction", "source", "license")}
    columns |= {
        "intensity": intensity_N,
        "low": at.calibration.to_intensity(theta_N - Z95 * error_N),
        "high": at.calibration.to_intensity(theta_N + Z95 * error_N),
        "flags": pa.array(flags, pa.int32()) if flags else pa.nulls(len(ids), pa.int32()),
        "human_mean": pa.array(human_N, from_pandas=True),
        "final_rating": np.where(rated_N, (1 - weight) * intensity_N + weight * np.nan_to_num(human_N), intensity_N),
        # A flag stands until a person has looked; a person's rating far from the judges' takes the text out.
        "agreed": np.where(rated_N, ~apart_N, ~flagged_N),
    }
    return conform(pa.table(columns), "vidb")


def _write_csv(rows: pa.Table, value: str, out: Build, folder: str) -> None:
    """`{folder}/{value}_{theory}.csv` with the official evaluator's columns."""
    theory, _, node = value.partition(":")
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["text", "final_rating"])
    writer.writerows(zip(rows["text"].to_pylist(), rows["final_rating"].to_pylist(), strict=True))
    store.write_bytes(f"{out.url}/{folder}/{node}_{theory}.csv", text.getvalue().encode())


def read_ratings(url: str) -> dict[str, dict[str, float]]:
    """Return value -> text id -> mean rating of a CSV with columns theory, value, text, rating; empty ratings are left out."""
    found: dict[str, dict[str, list[float]]] = {}
    for line, row in read_csv(url, ["theory", "value", "text", "rating"]):
        if row["rating"].strip():
            value = resolve(row["value"], row["theory"])
            rating = intensity_of(row["rating"], f"{url}:{line} rating")
            found.setdefault(value, {}).setdefault(text_id(row["text"]), []).append(rating)
    return {value: {i: sum(said) / len(said) for i, said in texts.items()} for value, texts in found.items()}


def read_csv(url: str, columns: list[str]) -> list[tuple[int, dict[str, str]]]:
    """Return (line, row) of a small CSV; InputError where it is missing, not UTF-8 or lacks a column."""
    try:
        reader = csv.DictReader(io.StringIO(store.read_input(url).decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        raise InputError(f"{url} is not UTF-8 text: {error}") from None
    try:
        names = reader.fieldnames or []
        found = [(reader.line_num, row) for row in reader]  # the last line of a row whose cells hold line breaks
    except csv.Error as error:
        raise InputError(f"{url}:{reader.line_num} is not CSV: {error}") from None
    missing = [c for c in columns if c not in names]
    if missing:
        raise InputError(f"{url} lacks column {missing[0]!r}; it has {', '.join(names) or 'none'}")
    for number, row in found:
        if any(row[column] is None for column in columns):
            raise InputError(f"{url}:{number} has fewer fields than the header")
    return found


def intensity_of(raw: object, what: str) -> float:
    """Return an intensity read from a file; InputError beginning with `what` where it is no number in [-10, 10]."""
    try:
        number = float(raw)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InputError(f"{what} is {raw!r}, not a number") from None
    if not -LIMIT <= number <= LIMIT:
        raise InputError(f"{what} is {number:g}; intensities lie in [-10, 10]")
    return number


def import_version(paths: list[str], license_: str, source: str, root: str) -> tuple[Build, dict[str, int]]:
    """Write a version from official CSVs (`{value}_{theory}.csv`: text, final_rating) or JSONL (theory, value, text,
    intensity).

    Theta is set to the intensity: its scale in nats is unknown, so the evaluator estimates the judge's sharpness on it.

    Returns:
        The version and counts of rows, duplicates and empty texts.
    """
    counts = {"texts": 0, "duplicates": 0, "empty": 0}
    pools: dict[str, dict[str, tuple[str, float]]] = {}
    for path in paths:
        for value, text, intensity in read_anchors(path):
            if value not in operational():
                raise InputError(f"{path}: {value} is not one of the 32 operational values: {', '.join(operational())}")
            text = clean(text)
            pool = pools.setdefault(value, {})
            counts["empty" if not text else "duplicates" if text_id(text) in pool else "texts"] += 1
            if text:
                pool.setdefault(text_id(text), (text, intensity))
    if not counts["texts"]:
        raise InputError(f"no text in {', '.join(paths)}")
    content = {v: sorted((i, r) for i, (_, r) in pool.items()) for v, pool in pools.items()}
    out = Build(root, "vidb", f"import-{digest(content, license_, source)}")
    if store.manifest(out):
        return out, counts
    for value, pool in pools.items():
        theory, _, node = value.partition(":")
        ids = sorted(pool)
        rating = np.array([pool[i][1] for i in ids])
        size = len(ids)
        columns = {
            "theory": [theory] * size, "value": [node] * size, "text_id": ids, "text": [pool[i][0] for i in ids],
            "theta": rating, "standard_error": [None] * size, "num_windows": [None] * size, "wins": [None] * size,
            "component": [None] * size, "intensity": rating, "low": [None] * size, "high": [None] * size,
            "flags": [None] * size, "human_mean": [None] * size, "final_rating": rating, "agreed": [True] * size,
            "direction": np.sign(rating).astype(np.int8), "source": [source] * size, "license": [license_] * size,
        }  # fmt: skip
        store.write_part(out, pa.table(columns), "0", store.partition(theory, node))
    identity = Calibration(mode="imported", theta=[-LIMIT, LIMIT], intensity=[-LIMIT, LIMIT]).model_dump()
    store.commit(out, {"imported": paths, "calibrations": dict.fromkeys(pools, identity)}, paths, counts)
    return out, counts


def read_anchors(path: str) -> list[tuple[str, str, float]]:
    """Return (value id, text, intensity) of an official CSV (`{value}_{theory}.csv`) or a JSONL file.

    Raises:
        InputError: the file is missing, a column or field is missing, or an intensity is no number in [-10, 10].
    """
    return (_jsonl if path.endswith((".jsonl", ".json")) else _official)(path)


def _official(path: str) -> list[tuple[str, str, float]]:
    stem = path.rsplit("/", 1)[-1].removesuffix(".csv")
    node, _, theory = stem.rpartition("_")
    if not node:
        raise InputError(f"{path}: the name must be {{value}}_{{theory}}.csv, for example benevolence_svt.csv")
    value = resolve(node, theory)
    rows = read_csv(path, ["text", "final_rating"])
    return [(value, row["text"], intensity_of(row["final_rating"], f"{path}:{n} final_rating")) for n, row in rows]


def _jsonl(path: str) -> list[tuple[str, str, float]]:
    try:
        lines = store.read_input(path).decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}") from None
    read = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            value, text = resolve(row["value"], row["theory"]), row["text"]
        except json.JSONDecodeError as error:
            raise InputError(f"{path}:{number} is not JSON: {error}") from None
        except (KeyError, TypeError) as error:
            raise InputError(f"{path}:{number} lacks {error}; a line needs theory, value, text, intensity") from None
        except InputError as error:
            raise InputError(f"{path}:{number}: {error}") from None
        if not isinstance(text, str):
            raise InputError(f"{path}:{number}: text is {text!r}, not a string")
        read.append((value, text, intensity_of(row.get("intensity"), f"{path}:{number} intensity")))
    return read


def licenses(vidb: Vidb) -> dict[str, int]:
    """Return the number of rows under each licence."""
    column = store.read_table(vidb.build, ["license"])["license"]
    return {str(row["values"]): row["counts"] for row in pc.value_counts(column).to_pylist()}
