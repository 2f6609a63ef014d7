"""Select each value's candidates: labelled texts, supporting and opposing in balance, and neutral texts for the zero."""

import functools
from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from valueflow import store
from valueflow.config import Config
from valueflow.errors import InputError
from valueflow.records import SCHEMAS, ValueId, conform, digest
from valueflow.store import Build
from valueflow.theories import expand, operational, theories

ALL = ["all"]
VALUES_AT_ONCE = 4  # in one pass over the texts
Directions = dict[str, int | None]  # by text id: 1 supports, -1 opposes, 0 neutral, None unknown

Over = Callable[[Callable[[list[ValueId]], dict[ValueId, int]], list[list[ValueId]]], Iterable[dict[ValueId, int]]]


class CandidatesConfig(Config):
    """Which texts become candidates of which values."""

    values: list[str] = Field(ALL, description="values and theories by any spelling, or ['all'] for the 32")
    max_texts: int = Field(10_000, ge=2, description="labelled texts per value")
    num_other: int = Field(0, ge=0, description="texts per value that have no label of the value")
    num_neutral: int = Field(20, ge=0, description="neutral texts added to every pool; they fix the zero of the scale")
    neutral_sources: list[str] = Field(["neutral"], description="names (`source`) of the corpora whose texts are neutral")
    license_filter: list[str] = Field([], description="use only texts with these licenses; empty uses all")
    seed: int = 0


def chosen_values(config: CandidatesConfig) -> list[ValueId]:
    """Return the ids of the values that the config selects.

    Raises:
        InputError: a value is unknown, or is not one of the 32 operational ones.
    """
    if config.values == ALL:
        return list(operational())
    values = [(name, value) for name in config.values for value in expand([name])]
    for name, value in values:
        if value not in operational():
            raise InputError(f"{name!r} ({value}) is not one of the 32 operational values: {', '.join(operational())}")
    return list(dict.fromkeys(value for _, value in values))


@functools.cache
def operational_values(label: ValueId) -> tuple[ValueId, ...]:
    """Return the operational values to which a label applies: those on the paths to its node, the node included."""
    theory = theories()[label.theory]
    nodes = {step for path in theory.paths(label.node) for step in path if theory.node(step).operational}
    return tuple(ValueId.of(theory.id, node) for node in sorted(nodes))


def select_candidates(
    texts: Build, config: CandidatesConfig, out: Build, existing: Build | None = None, over: Over = map
) -> dict[ValueId, int]:
    """Write the `candidates` parts, one per value, and return the number of candidates by value.

    Args:
        texts: the ingested texts.
        config: which texts become candidates of which values.
        out: the build to write into.
        existing: candidates of the version to extend. All its rows stay; other texts are added to them, no neutral ones.
        over: runs a function on each of some groups of values, here or in tasks; each reads the texts once.

    Raises:
        InputError: a value has fewer than two candidates, or is not a value of `existing`.
    """
    old = [_value_of(file.path) for file in store.require_manifest(existing).files] if existing else []
    values = chosen_values(config)
    missing = [value for value in values if existing and value not in old]
    if missing and config.values != ALL:
        raise InputError(f"candidates.values names {missing[0]}, which the version to extend lacks; it has {', '.join(old)}")
    order = list(dict.fromkeys([*old, *(value for value in values if value not in missing)]))
    groups = [order[start : start + VALUES_AT_ONCE] for start in range(0, len(order), VALUES_AT_ONCE)]
    sizes: dict[ValueId, int] = {}
    for of_group in over(functools.partial(_write_group, texts, config, out, existing), groups):
        sizes |= of_group
    for value in order:
        if value in values and sizes[value] < 2:
            raise InputError(
                f"{value} has {sizes[value]} texts; ingest a corpus with labels for it or set candidates.num_other"
            )
    return {value: sizes[value] for value in order}


def _value_of(path: str) -> ValueId:
    theory, node = path.split("/")[:2]
    return ValueId.of(theory.removeprefix("theory="), node.removeprefix("value="))


def _write_group(
    texts: Build, config: CandidatesConfig, out: Build, existing: Build | None, values: list[ValueId]
) -> dict[ValueId, int]:
    """Write the candidates of some values and return their numbers; a value with fewer than two has no file."""
    catalogue = store.read_table(texts, ["text_id", "source", "license"])
    if config.license_filter:
        licenses = pc.unique(catalogue["license"]).to_pylist()
        unknown = [name for name in config.license_filter if name not in licenses]
        if unknown:
            raise InputError(f"license_filter names {unknown[0]!r}; the corpus has {', '.join(map(str, licenses))}")
        catalogue = catalogue.filter(pc.is_in(catalogue["license"], pa.array(config.license_filter, pa.string())))
    is_neutral = pc.is_in(catalogue["source"], pa.array(config.neutral_sources, pa.string()))
    neutral_ids = sorted(catalogue.filter(is_neutral)["text_id"].to_pylist())
    usable = set(catalogue["text_id"].to_pylist())
    directions = _directions(_labels(texts, {value.theory for value in values}), usable)
    old = _existing_pools(existing, values)
    chosen: dict[ValueId, Directions] = {}
    for value in values:
        if value not in chosen_values(config):  # of the version to extend
            chosen[value] = {}
            continue
        rng = np.random.default_rng(int(digest(config.seed, value), 16))
        picked = _balanced(directions.get(value, {}), config.max_texts, rng)
        others = sorted(usable - set(picked) - set(directions.get(value, {})) - set(neutral_ids)) if config.num_other else []
        for pool, count in ((others, config.num_other), (neutral_ids, 0 if existing else config.num_neutral)):
            picked |= {pool[i]: None if pool is others else 0 for i in rng.permutation(len(pool))[:count]}
        chosen[value] = picked
    too_few = {value: len(chosen[value]) for value in values if len(chosen[value]) + len(old.get(value, ())) < 2}
    written = {value: picked for value, picked in chosen.items() if value not in too_few}
    return too_few | _write(texts, written, set(neutral_ids), old, out)


def _labels(texts: Build, names: set[str]) -> pa.Table:
    """The labels of the texts in some theories."""
    labels, columns = Build(texts.root, "source_labels", texts.build_id), ["text_id", "theory", "node", "direction"]
    parts = [SCHEMAS["source_labels"].empty_table().select(columns)]
    for file in store.require_manifest(labels).files:
        part = store.read_part(labels, file, columns)
        parts.append(part.filter(pc.is_in(part["theory"], pa.array(sorted(names), pa.string()))))
    return pa.concat_tables(parts)


def _existing_pools(candidates: Build | None, values: list[ValueId]) -> dict[ValueId, pa.Table]:
    if candidates is None:
        return {}
    files = {_value_of(file.path): file for file in store.require_manifest(candidates).files}
    return {value: store.read_part(candidates, files[value]) for value in values if value in files}


def _directions(labels: pa.Table, usable: set[str]) -> dict[ValueId, Directions]:
    """Directions of the usable texts by value; None where no label has one, or where two labels disagree."""
    by_value: dict[ValueId, dict[str, set[int | None]]] = {}
    columns = (labels[name].to_pylist() for name in ("text_id", "theory", "node", "direction"))
    for text_id, theory, node, direction in zip(*columns, strict=True):
        if text_id not in usable:
            continue
        for value in operational_values(ValueId.of(theory, node)):
            by_value.setdefault(value, {}).setdefault(text_id, set()).add(direction)
    return {value: {i: _agreed(signs - {None}) for i, signs in texts.items()} for value, texts in by_value.items()}


def _agreed(directions: set[int | None]) -> int | None:
    return next(iter(directions)) if len(directions) == 1 else None


def _balanced(directions: Directions, limit: int, rng: np.random.Generator) -> Directions:
    """At most `limit` texts: pairs of a supporting and an opposing one, then unknown or neutral ones, then the surplus."""
    ids = sorted(directions)
    shuffled = [ids[i] for i in rng.permutation(len(ids))]
    supporting = [i for i in shuffled if directions[i] == 1]
    opposing = [i for i in shuffled if directions[i] == -1]
    others = [i for i in shuffled if directions[i] not in (1, -1)]
    paired = [i for pair in zip(supporting, opposing, strict=False) for i in pair]
    surplus = supporting[len(opposing) :] + opposing[len(supporting) :]
    return {i: directions[i] for i in (paired + others + surplus)[:limit]}


def _write(
    texts: Build, chosen: dict[ValueId, Directions], neutral: set[str], old: dict[ValueId, pa.Table], out: Build
) -> dict[ValueId, int]:
    wanted = pa.array(sorted({i for picked in chosen.values() for i in picked}), pa.string())
    columns = ["text_id", "text", "source", "license"]
    parts = [SCHEMAS["texts"].empty_table().select(columns)]
    for file in store.require_manifest(texts).files:
        part = store.read_part(texts, file, columns)
        parts.append(part.filter(pc.is_in(part["text_id"], wanted)))
    rows = pa.concat_tables(parts)
    sizes = {}
    for value, picked in chosen.items():
        pool = rows.filter(pc.is_in(rows["text_id"], pa.array(list(picked), pa.string()))).sort_by("text_id")
        ids = pool["text_id"].to_pylist()
        pool = pool.append_column("theory", pa.array([value.theory] * len(ids)))
        pool = pool.append_column("value", pa.array([value.node] * len(ids)))
        pool = pool.append_column("direction", pa.array([picked[i] for i in ids], pa.int8()))
        pool = pool.append_column("neutral", pa.array([i in neutral for i in ids]))
        pool = conform(pool, "candidates")
        if value in old:
            fresh = pc.invert(pc.is_in(pool["text_id"], old[value]["text_id"].combine_chunks()))
            pool = pa.concat_tables([old[value], pool.filter(fresh)]).sort_by("text_id")
        store.write_part(out, pool, "0", store.value_folder(value))
        sizes[value] = pool.num_rows
    return sizes
