"""An audit on rated texts writes a validity record, and builds, evaluations and the service use it without new calls."""

import asyncio
import csv
import json
from pathlib import Path

import pytest
import torch
from configs import SIMULATED, job_config
from transformers import AutoModel, AutoTokenizer

from jobs import audit_judge, build_vidb, evaluate
from valueflow import store, vidb
from valueflow.api import ScoreRequest
from valueflow.errors import InputError
from valueflow.judging.configs import EncoderJudge
from valueflow.judging.fingerprint import fingerprint
from valueflow.models import locate
from valueflow.service.local import local_service
from valueflow.store import UtilitiesDetails
from valueflow.vidb import validity

pytestmark = pytest.mark.ray
VALUES = ["svt:benevolence", "mft:fairness-cheating", "duty:fidelity"]
ENCODER = {"kind": "encoder", "name": "minilm-encoder"}


def rated_file(folder: Path) -> str:
    """Statements of the sample with their direction times strength in points."""
    with open("valueflow/samples/corpus.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if f"{row['theory']}:{row['value']}" in VALUES]
    lines = [
        {"theory": row["theory"], "value": row["value"], "text": row["text"]}
        | {"intensity": 3.0 * int(row["direction"]) * int(row["strength"])}
        for row in rows
    ]
    path = folder / "rated.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    return str(path)


def test_a_record_of_rated_texts_calibrates_everything_that_the_judge_scores(root, tmp_path):
    first = build_vidb.main(job_config(build_vidb, root, judge=ENCODER))
    version = vidb.load(str(root))
    assert {version.content_error(value).basis for value in version.calibrations} == {"neutral"}
    rows = store.read_table(version.build).to_pylist()
    assert max(abs(row["intensity"]) for row in rows) < max(abs(row["judge_intensity"]) for row in rows)

    settings = {"judge": ENCODER, "values": VALUES}
    before = evaluate.main(job_config(evaluate, root, **settings))
    judge = job_config(evaluate, root, **settings).judge
    assert validity.load(str(root), fingerprint(judge)) is None

    audit_judge.main(job_config(audit_judge, root, "vidb=current", judge=ENCODER, anchors=rated_file(tmp_path), values=VALUES))
    record = validity.load(str(root), fingerprint(judge))
    assert (record.num_values, record.vidb_version) == (3, version.build.build_id)
    assert record.num_texts > 90
    assert set(record.content_errors) == set(version.calibrations)

    # On these few values the judge fails the audit; how weak it is, the record says.
    after = evaluate.main(job_config(evaluate, root, "audit=ignore", **settings))
    assert after.build != before.build
    assert {error["basis"] for error in after.details.content_errors.values()} == {"record"}
    columns = ["response_id", "value", "judge_intensity", "judge_low", "judge_high"]
    order = [("value", "ascending"), ("response_id", "ascending")]
    own = [store.read_table(result.build).select(columns).sort_by(order) for result in (before, after)]
    assert own[0].equals(own[1])

    again = build_vidb.main(job_config(build_vidb, root, "audit=ignore", judge=ENCODER))
    assert again.utilities == first.utilities
    assert again.vidb != first.vidb
    assert vidb.load(str(root)).content_error("right:economic-rights") == record.content_errors["right:economic-rights"]

    answer = asyncio.run(local_service(str(root), judge=judge).score(ScoreRequest(texts=["I helped."], values=VALUES), "r"))
    assert all("validity record" in source for source in answer.rests_on.values())
    assert answer.scores[0].low < answer.scores[0].judge_low


def test_a_simulated_judge_has_no_record(root, tmp_path):
    with pytest.raises(InputError, match="vidb"):
        job_config(audit_judge, root, "vidb=current", judge=SIMULATED, anchors=rated_file(tmp_path))


@pytest.mark.slow
def test_texts_of_known_direction_are_better_than_neutral_ones_and_worse_than_ratings(root, tmp_path):
    build_vidb.main(job_config(build_vidb, root, judge=ENCODER))
    version = vidb.load(str(root))
    audit_judge.main(job_config(audit_judge, root, "vidb=current", judge=ENCODER, anchors="sample", values=VALUES))
    judge = job_config(evaluate, root, judge=ENCODER).judge
    record = validity.load(str(root), fingerprint(judge))
    assert {error.basis for error in record.content_errors.values()} == {"direction"}
    assert set(record.content_errors) == set(version.calibrations)
    assert record.num_texts == 90  # every text that takes a side on these values, and not the neutral ones
    assert all("known direction" in error.source for error in record.content_errors.values())
    assert validity.of_judge(version, fingerprint(judge)) == record.by_value

    audit_judge.main(job_config(audit_judge, root, "vidb=current", judge=ENCODER, anchors=rated_file(tmp_path), values=VALUES))
    rated = validity.load(str(root), fingerprint(judge))
    assert {error.basis for error in rated.content_errors.values()} == {"record"}
    audit_judge.main(job_config(audit_judge, root, "vidb=current", judge=ENCODER, anchors="sample", values=VALUES))
    assert validity.load(str(root), fingerprint(judge)) == rated


@pytest.mark.slow
def test_several_judges_show_their_content_error_by_disagreement(root, tmp_path):
    """Two bags of one encoder agree; an encoder whose weights were disturbed reads the texts otherwise."""
    bags = [ENCODER | {"name": f"bag {seed}", "bag": seed} for seed in (1, 2)]
    disturbed = ENCODER | {"name": "disturbed", "model": disturbed_encoder(tmp_path / "disturbed")}
    shares = []
    for further in (bags[1], disturbed):
        at = build_vidb.main(
            job_config(build_vidb, root, "candidates.values=[svt:benevolence]", judge=bags[0], further_judges=[further])
        )
        shares.append(store.details_of(at.utilities, UtilitiesDetails).fits["svt:benevolence"].content_share)
        error = vidb.load(str(root)).content_error("svt:benevolence")
        assert error.basis == "judges"
        assert "disagreement of the judges" in error.source
    assert 0 <= shares[0] < 0.2 < shares[1] < 0.95


def disturbed_encoder(folder: Path) -> str:
    """Two of the encoder's six layers, which cost a third: its head is fitted to all exemplars."""
    model, tokenizer = (kind.from_pretrained(locate(EncoderJudge().model)) for kind in (AutoModel, AutoTokenizer))
    del model.encoder.layer[2:]
    model.config.num_hidden_layers = len(model.encoder.layer)
    torch.manual_seed(0)
    with torch.no_grad():
        for weights in model.encoder.parameters():
            weights += weights.std() * torch.randn_like(weights) if weights.dim() > 1 else 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
