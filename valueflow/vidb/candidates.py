"""Choose the texts of each value's pool: labelled ones first, supporting and opposing in balance, neutral ones for the zero."""

import functools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from valueflow import store
from valueflow.config import Config
from valueflow.errors import InputError
from valueflow.records import ValueId, conform, digest
from valueflow.store import Build
from valueflow.theories import operational, resolve, theories

ALL = ["all"]


class CandidatesConfig(Config):
    """Which texts are ranked for which values."""

    values: list[str] = Field(ALL, description="values by any spelling, or ['all'] for the 32")
    max_texts: int = Field(10_000, ge=2, description="labelled texts per value")
    num_other: int = Field(0, ge=0, description="further texts of the corpus without a label of the value")
    num_neutral: int = Field(20, ge=0, description="texts of the neutral sources added to every pool: the zero of the scale")
    neutral_sources: list[str] = Field(["neutral"], description="names of the corpora (`source`) that express no value")
    license_filter: list[str] = Field([], description="keep only texts of these licences; empty keeps all")
    seed: int = 0


def chosen_values(config: CandidatesConfig) -> list[str]:
    """Return the ids of the values asked for.

    Raises:
        InputError: a value is unknown, or is not one of the 32 operational ones.
    """
    if config.values == ALL:
        return list(operational())
    values = [resolve(name) for name in config.values]
    for value, name in zip(values, config.values, strict=True):
        if value not in operational():
            raise InputError(f"{name!r} ({value}) is not one of the 32 operational values: {', '.join(operational())}")
    return list(dict.fromkeys(values))


@functools.cache
def operational_values(theory: str, node: str) -> tuple[str, ...]:
    """Return the operational values a label speaks for: the node itself or the operational ones above it."""
    paths = theories()[theory].paths(node)
    return tuple(sorted({step for path in paths for step in path if theories()[theory].node(step).operational}))


def select_candidates(texts: Build, config: CandidatesConfig, out: Build, kept: Build | None = None) -> dict[str, int]:
    """Write the `candidates` parts, one a value, and return their sizes by value.

    Args:
        texts: what was ingested.
        config: which of it is ranked for which values.
        out: where the pools go.
        kept: pools whose texts and values all stay; texts that may express the value are added to them, no neutral ones.

    Raises:
        InputError: a value has fewer than two texts, or is not among those kept.
    """
    labels = store.read_table(Build(texts.root, "source_labels", texts.build_id), ["text_id", "theory", "node", "direction"])
    catalogue = store.read_table(texts, ["text_id", "source", "license"])
    if config.license_filter:
        known = pc.unique(catalogue["license"]).to_pylist()
        unknown = [name for name in config.license_filter if name not in known]
        if unknown:
            raise InputError(f"license_filter names {unknown[0]!r}; the corpus has {', '.join(map(str, known))}")
        catalogue = catalogue.filter(pc.is_in(catalogue["license"], pa.array(config.license_filter, pa.string())))
    is_neutral = pc.is_in(catalogue["source"], pa.array(config.neutral_sources, pa.string()))
    neutral_ids = sorted(catalogue.filter(is_neutral)["text_id"].to_pylist())
    usable = set(catalogue["text_id"].to_pylist())
    directions = _directions(labels, usable)
    chosen: dict[str, dict[str, int | None]] = {}
    old = _kept(kept)
    values = chosen_values(config)
    lost = [value for value in values if kept and value not in old]
    if lost and config.values != ALL:
        raise InputError(f"candidates.values names {lost[0]}, which the version to extend lacks; it has {', '.join(old)}")
    for value in [value for value in values if value not in lost]:
        rng = np.random.default_rng(int(digest(config.seed, value), 16))
        picked = _balanced(directions.get(value, {}), config.max_texts, rng)
        others = sorted(usable - set(picked) - set(directions.get(value, {})) - set(neutral_ids)) if config.num_other else []
        for pool, count in ((others, config.num_other), (neutral_ids, 0 if kept else config.num_neutral)):
            picked |= {pool[i]: None if pool is others else 0 for i in rng.permutation(len(pool))[:count]}
        if len(picked) + len(old.get(value, ())) < 2:
            raise InputError(f"{value} has {len(picked)} texts; ingest a corpus with labels for it or set candidates.num_other")
        chosen[value] = picked
    return _write(texts, {value: {} for value in old} | chosen, set(neutral_ids), old, out)


def _kept(kept: Build | None) -> dict[str, pa.Table]:
    """The pools that stay, by value."""
    if kept is None:
        return {}
    pools = [store.read_part(kept, file.path) for file in store.require_manifest(kept).files]
    return {f"{pool['theory'][0].as_py()}:{pool['value'][0].as_py()}": pool for pool in pools}


def _directions(labels: pa.Table, usable: set[str]) -> dict[str, dict[str, int | None]]:
    """Value -> text -> direction; a known direction wins over an unknown one, disagreement counts as unknown."""
    found: dict[str, dict[str, set[int | None]]] = {}
    columns = (labels[name].to_pylist() for name in ("text_id", "theory", "node", "direction"))
    for text_id, theory, node, direction in zip(*columns, strict=True):
        if text_id not in usable:
            continue
        for value in operational_values(theory, node):
            found.setdefault(f"{theory}:{value}", {}).setdefault(text_id, set()).add(direction)
    return {value: {i: _agreed(said - {None}) for i, said in texts.items()} for value, texts in found.items()}


def _agreed(said: set[int | None]) -> int | None:
    return next(iter(said)) if len(said) == 1 else None


def _balanced(directions: dict[str, int | None], limit: int, rng: np.random.Generator) -> dict[str, int | None]:
    """At most `limit` texts, as many supporting as opposing as there are; the rest of unknown or neutral direction."""
    ids = sorted(directions)
    shuffled = [ids[i] for i in rng.permutation(len(ids))]
    supporting = [i for i in shuffled if directions[i] == 1]
    opposing = [i for i in shuffled if directions[i] == -1]
    others = [i for i in shuffled if directions[i] not in (1, -1)]
    paired = [i for pair in zip(supporting, opposing, strict=False) for i in pair]
    surplus = supporting[len(opposing) :] + opposing[len(supporting) :]
    return {i: directions[i] for i in (paired + others + surplus)[:limit]}


def _write(
    texts: Build, chosen: dict[str, dict[str, int | None]], neutral: set[str], old: dict[str, pa.Table], out: Build
) -> dict[str, int]:
    wanted = pa.array(sorted({i for picked in chosen.values() for i in picked}), pa.string())
    parts = []
    for file in store.require_manifest(texts).files:
        part = store.read_part(texts, file.path, ["text_id", "text", "source", "license"])
        parts.append(part.filter(pc.is_in(part["text_id"], wanted)))
    rows = pa.concat_tables(parts)
    sizes = {}
    for value, picked in chosen.items():
        theory, _, node = value.partition(":")
        pool = rows.filter(pc.is_in(rows["text_id"], pa.array(list(picked), pa.string()))).sort_by("text_id")
        ids = pool["text_id"].to_pylist()
        pool = pool.append_column("theory", pa.array([theory] * len(ids)))
        pool = pool.append_column("value", pa.array([node] * len(ids)))
        pool = pool.append_column("direction", pa.array([picked[i] for i in ids], pa.int8()))
        pool = pool.append_column("neutral", pa.array([i in neutral for i in ids]))
        pool = conform(pool, "candidates")
        if value in old:
            fresh = pc.invert(pc.is_in(pool["text_id"], old[value]["text_id"].combine_chunks()))
            pool = pa.concat_tables([old[value], pool.filter(fresh)]).sort_by("text_id")
        store.write_part(out, pool, "0", store.value_folder(ValueId.of(theory, node)))
        sizes[value] = pool.num_rows
    return sizes
