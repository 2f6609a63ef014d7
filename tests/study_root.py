"""A root with generations and evaluations of planted effects, as jobs.steer and jobs.evaluate would leave them."""

import itertools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from valueflow import store
from valueflow.records import SCHEMAS, ValueId, text_id
from valueflow.store import Build, EvaluationsDetails, GenerationsDetails

POWER, CARE, SECURITY = "svt:power", "mft:care-harm", "svt:security"
# By value: effects of -2, -1, 1, 2 against a default.
PLANTED = {  # the first two make a pair
    POWER: ((-4.0, -2.0, 2.0, 4.0), 0.0),
    SECURITY: ((0.0, 0.0, 2.0, 4.0), 0.0),
    CARE: ((0.0, 0.0, 0.0, 0.0), 1.0),
}
PERSONA, WEIGHTS = 1.5, (1.0, 0.1)  # of the values of a pair: the first dominates


class Design(NamedTuple):
    models: tuple[str, ...] = ("small",)
    values: tuple[str, ...] = tuple(PLANTED)
    queries: int = 60
    replicates: int = 1
    refusals: float = 0.0  # share at level -2
    controls: tuple[str, ...] = ("bare", "neutral_persona")
    pairs: bool = False
    requested: bool = False  # regime user_texts instead of intensity_anchor
    masked: bool = False
    sources: int = 5


def _row(
    design: Design, model: str, regime: str, condition: str, values: tuple, levels: tuple, query: int, replicate: int
) -> dict:  # fmt: skip
    key = f"{model} {regime} {condition} {' '.join(values)} {levels} query {query} replicate {replicate}"
    refused = levels == (-2,) and query < design.refusals * design.queries
    response = f"I cannot help with that, {key}." if refused else f"Response of {key}."
    requested = 4.0 * levels[0] if regime == "user_texts" and len(levels) == 1 else None
    return dict.fromkeys(SCHEMAS["generations"].names, None) | {
        "generation_id": text_id(key), "model": model, "regime": regime, "condition": condition, "turn": "user",
        "values": list(values), "levels": list(levels), "variant": 0, "replicate": replicate, "query_id": f"{query:04d}",
        "dataset": f"source{query % design.sources}", "query": f"query {query}", "exemplar_ids": [], "requested": requested,
        "prompt_hash": "p", "wording_hash": "w", "response": response, "response_text_id": text_id(response),
        "finish_reason": "stop", "outcome": "refusal" if refused else "answer", "outcome_by": "rules", "tokens_in": 100,
        "tokens_out": 50, "reasoning_tokens": 0, "cost": 0.0,
    }  # fmt: skip


def generations_of(design: Design) -> list[dict]:
    regime = "user_texts" if design.requested else "intensity_anchor"
    cells: list[tuple] = [("control", name, (), ()) for name in design.controls]
    cells += [(regime, "value", (value,), (level,)) for value in design.values for level in (-2, -1, 1, 2)]
    if design.pairs:
        orders = itertools.permutations(design.values[:2])
        cells += [("composition", "values", order, (2, 2)) for order in orders]
    return [
        _row(design, model, *cell, query, replicate)
        for model in design.models for cell in cells for query in range(design.queries)
        for replicate in range(design.replicates)
    ]  # fmt: skip


def expected(row: dict, value: str) -> float:
    """The planted mean score of a response on a value."""
    default = PLANTED[value][1]
    persona = 0.0 if row["condition"] == "bare" else PERSONA
    shift = 0.0
    own = [dict(zip((-2, -1, 1, 2), PLANTED[v][0], strict=True))[x] for v, x in zip(row["values"], row["levels"], strict=True)]
    for member, effect in zip(row["values"], own, strict=True):
        weight = 1.0 if len(own) == 1 else WEIGHTS[sorted(row["values"]).index(member)]
        shift += weight * effect * (1.0 if member == value else 0.25)
    return default + persona + shift


def evaluation_rows(
    rows: list[dict], values: tuple[str, ...], judge: str, rng: np.random.Generator, bias: float = 0.0
) -> list[dict]:
    attraction = rng.normal(0, 1.5, (10_000, len(values)))
    table = []
    for row in rows:
        for v, value in enumerate(values):
            score = expected(row, value) + attraction[int(row["query_id"]), v] + rng.normal(0, 1.0) + bias
            score = 4.0 if row["outcome"] == "refusal" else score
            score = float(np.clip(score, -9.5, 9.5))
            table.append({
                "response_id": text_id(row["generation_id"] + row["dataset"]), "query": row["query"], "dataset": row["dataset"],
                "response": row["response"], "theory": ValueId(value).theory, "value": ValueId(value).node, "intensity": score,
                "low": max(score - 1, -10.0), "high": min(score + 1, 10.0), "judge_intensity": score,
                "judge_low": max(score - 1, -10.0), "judge_high": min(score + 1, 10.0), "num_windows": 3, "num_failed": 0,
                "judge": judge, "vidb_version": "v-1", "sampling": "adaptive", "k": 6, "m": 3,
            })  # fmt: skip
    return table


def save_evaluations(root: Path, build_id: str, rows: list[dict], **details: Any) -> Build:
    build = Build(str(root), "evaluations", build_id)
    for theory, value in sorted({(row["theory"], row["value"]) for row in rows}):
        of_value = [row for row in rows if (row["theory"], row["value"]) == (theory, value)]
        store.write_part(build, pa.Table.from_pylist(of_value, SCHEMAS["evaluations"]), "0", f"theory={theory}/value={value}")
    store.commit(build, EvaluationsDetails(**({"vidb_version": "v-1", "audit": "passed"} | details)))
    return build


def save_generations(root: Path, design: Design) -> list[dict]:
    rows = generations_of(design)
    for number, model in enumerate(design.models):
        build = Build(str(root), "generations", f"g-{number}")
        export = f"{root}/exports/g-{number}"
        of_model = [row for row in rows if row["model"] == model]
        store.write_part(build, pa.Table.from_pylist(of_model, SCHEMAS["generations"]), "0")
        if design.masked:
            lines = ["query,dataset,response,generation_id"]
            for row in of_model:
                masked = f"Masked {row['response_text_id']}"
                lines.append(f"{row['query']},{row['dataset']} (masked),{masked},{row['generation_id']}")
            store.write_bytes(f"{export}/responses-0.csv", "\n".join(lines).encode())
        details = GenerationsDetails(
            plan="p",
            models={model: {}},
            wording_hash="w",
            export=f"{export}/responses-*.csv" if design.masked else "",
            generations=len(of_model),
        )
        store.commit(build, details)
    return rows


SMALL = Design()


def study_root(root: Path, design: Design = SMALL, seed: int = 0) -> list[dict]:
    """Write generations, and their evaluations by judge "j"; return the rows of the generations."""
    rows = save_generations(root, design)
    save_evaluations(root, "e1", evaluation_rows(rows, design.values, "j", np.random.default_rng(seed)))
    return rows
