"""Vectors, anchors and extraction as jobs on a local cluster: right vectors, resume, NPZ, files, an LLM's names, refusals."""

import csv
import json
import logging
import os
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml
from hives_folder import save_tiny
from roots import with_texts_of

from jobs import build_anchors, embed, extract, ingest
from valueflow import store
from valueflow.config import load
from valueflow.distributed.embed import EmbedderConfig, encoder_fingerprint, read_examples, read_vectors, resolve_labels
from valueflow.errors import InputError
from valueflow.hives.anchors import with_concept_anchors
from valueflow.hives.batches import BatchConfig, Sampler
from valueflow.hives.encoder import Encoder
from valueflow.records import text_id
from valueflow.store import Build
from valueflow.theories import theories
from valueflow.theories.taxonomy import THEORIES

pytestmark = pytest.mark.ray
RESPONSES = "valueflow/samples/responses.csv"


@pytest.fixture(scope="module")
def hives(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("hives"))


@pytest.fixture(scope="module")
def minilm(ingested, tmp_path_factory):
    """A root with the sample corpus as vectors of MiniLM."""
    root = with_texts_of(ingested, tmp_path_factory.mktemp("minilm"))
    embed.main(configured(embed, root))
    return root


@pytest.fixture(scope="module")
def embedded(ingested, hives, tmp_path_factory) -> Build:
    """The sample corpus as vectors of a tiny encoder, by two actors; its parts are not to be changed."""
    root = with_texts_of(ingested, tmp_path_factory.mktemp("embedded"))
    return embed.main(tiny(embed, root, hives, "npz=false", "encoder.num_actors=2", "encoder.rows_per_part=200"))


@pytest.fixture
def copied(embedded, root) -> Build:
    """The same vectors in a root of this test."""
    at = Build(str(root), embedded.table, embedded.build_id)
    shutil.copytree(embedded.url, at.url)
    return at


def configured(job, root: Path, *overrides: str):
    name = job.__name__.rpartition(".")[2]
    return load(job.SCHEMA, f"conf/{name}/tiny.yaml", [f"root={root}", *overrides])


def tiny(job, root: Path, hives: Path, *overrides: str):
    return configured(job, root, f"encoder.model={hives}", "encoder.num_cpus=1", *overrides)


def all_texts(root: Path) -> dict[str, str]:
    (build_id,) = store.finished(str(root), "texts")
    rows = store.read_table(Build(str(root), "texts", build_id), ["text_id", "text"])
    return dict(zip(rows["text_id"].to_pylist(), rows["text"].to_pylist(), strict=True))


def read_csv(path: str) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def times(build: Build) -> dict[str, int]:
    return {path: os.stat(f"{build.url}/{path}").st_mtime_ns for path in store.part_paths(build)}


def test_every_text_has_the_vector_that_its_encoder_gives(embedded, hives):
    at, root = embedded, Path(embedded.root)
    known = all_texts(root)
    assert sorted(store.read_table(at, ["text_id"])["text_id"].to_pylist()) == sorted(known)
    assert store.require_manifest(at).counts == {"texts": len(known), "dimension": 32}
    ids = list(known)[::-7]
    expected = Encoder.from_folder(str(hives)).embed([known[i] for i in ids])
    np.testing.assert_allclose(read_vectors(at, ids), expected, atol=1e-5)
    with pytest.raises(InputError, match=r"no vector of text nothing and 0 others"):
        read_vectors(at, [ids[0], "nothing"])
    before = times(at)
    assert len(before) >= 4
    assert embed.main(tiny(embed, root, hives, "npz=false", "encoder.rows_per_part=77")) == at
    assert times(at) == before


@pytest.mark.slow
def test_an_interrupted_job_goes_on_where_it_stopped(copied, root, hives):
    at = copied
    whole = store.read_table(at).sort_by("text_id")
    parts = sorted(store.part_paths(at))
    Path(at.url, "_manifest.json").unlink()
    Path(at.url, parts[0]).unlink()
    Path(at.url, parts[1]).write_bytes(Path(at.url, parts[1]).read_bytes()[:100])
    # A part that another attempt wrote as well.
    shutil.copy(Path(at.url, parts[2]), Path(at.url, "part-again.parquet"))
    before = {path: time for path, time in times(at).items() if path in parts[2:]}
    assert embed.main(tiny(embed, root, hives, "npz=false", "encoder.rows_per_part=200")) == at
    again = store.read_table(at).sort_by("text_id")
    assert again["text_id"] == whole["text_id"]
    np.testing.assert_allclose(np.stack(again["embedding"].to_pylist()), np.stack(whole["embedding"].to_pylist()), atol=1e-5)
    kept = times(at)
    assert sum(kept.get(path) == time for path, time in before.items()) >= len(before) - 1
    store.verify(at)


def test_the_official_npz_of_each_theory(embedded, hives, capsys):
    at = embed.main(tiny(embed, embedded.root, hives))
    assert at == embedded
    files = [line.removeprefix("npz: ") for line in capsys.readouterr().out.splitlines() if line.startswith("npz: ")]
    assert [Path(file).name for file in files] == [f"embedding_{theory}.npz" for theory in THEORIES]
    rows = read_csv("valueflow/samples/corpus.csv")
    for theory, file in zip(THEORIES, files, strict=True):
        arrays = np.load(file, allow_pickle=True)
        assert sorted(arrays) == ["embeddings", "texts"]
        assert set(arrays["texts"]) == {row["text"] for row in rows if row["theory"] == theory}
        ids = [text_id(text) for text in arrays["texts"]]
        np.testing.assert_array_equal(arrays["embeddings"], read_vectors(at, ids))


def test_texts_of_a_file_stay_apart_from_the_corpora(root, hives, tmp_path):
    path = tmp_path / "posts.jsonl"
    path.write_text("\n".join(json.dumps({"body": text}) for text in ["I helped her.", "I helped  her.", "", "No dogs."]))
    before = store.finished(str(root), "texts")
    at = embed.main(tiny(embed, root, hives, "npz=false", f"texts={path}", "column=body"))
    assert sorted(store.read_table(at)["text_id"].to_pylist()) == sorted(text_id(t) for t in ("I helped her.", "No dogs."))
    assert store.finished(str(root), "texts") == before
    assert at.root == str(root)


def test_a_model_is_its_files_wherever_they_lie(hives, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(hives, copy)
    (copy / "README.md").write_text("other words")
    mine = encoder_fingerprint(EmbedderConfig(model=str(hives)))
    assert encoder_fingerprint(EmbedderConfig(model=str(copy), batch_size=7, num_actors=3)) == mine
    assert encoder_fingerprint(EmbedderConfig(model=f"file://{copy}")) == mine
    assert encoder_fingerprint(EmbedderConfig(model=str(save_tiny(tmp_path / "other", seed=1)))) != mine
    plain = encoder_fingerprint(EmbedderConfig())
    assert encoder_fingerprint(EmbedderConfig(prompt="query: ")) != plain
    assert encoder_fingerprint(EmbedderConfig(precision="bfloat16")) != plain
    assert "precision" not in EmbedderConfig().model_dump()  # ids from before the setting hold


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("encoder.model=/nowhere", "model folder '/nowhere' does not exist"),
        ("encoder.model=conf", r"encoder.model 'conf' \(.*\) cannot be loaded"),
        ("encoder.max_length=600", r"encoder.max_length \(600\) must be at most 512"),
        ("encoder.num_gpus=1", r"needs 1 GPU \(the cluster has 0\)"),
        ("encoder.num_actors=99", r"needs 198 CPU \(the cluster has 8\)"),
        ("texts=nope", "no finished 'texts' build 'nope'"),
        ("texts=nope.csv", "file 'nope.csv' does not exist"),
        ("labels=latest", "no labels by a panel"),
    ],
)
def test_refusals(root, override, said):
    npz = "npz=true" if override.startswith("labels") else "npz=false"
    with pytest.raises(InputError, match=said):
        embed.main(configured(embed, root, npz, override))


def test_a_hives_folder_brings_its_own_settings(root, hives):
    with pytest.raises(InputError, match=r"encoder.prompt is set to 'query: ', but .* is a HiVES folder"):
        embed.main(tiny(embed, root, hives, "encoder.prompt='query: '"))


def test_npz_of_a_file_is_refused(root):
    with pytest.raises(InputError, match=r"npz=true needs texts with labels; texts=a.csv is a file"):
        configured(embed, root, "texts=a.csv")


def test_sixty_anchors_of_the_sample_corpus(minilm):
    at = build_anchors.main(configured(build_anchors, minilm))
    anchors, anchored = store.read_table(at.anchors), store.read_table(at.anchored)
    assert anchors.num_rows == 60
    assert len(set(anchors["anchor_id"].to_pylist())) == 60
    assert set(anchored["anchor_id"].to_pylist()) == set(anchors["anchor_id"].to_pylist())
    known = all_texts(minilm)
    for row in anchors.to_pylist():
        assert sum(row[theory] >= 2 for theory in THEORIES) >= 2
        assert known[row["medoids"][0]].startswith(row["name"].removesuffix("…"))
    details = store.details_of(at.anchors, store.AnchorsDetails)
    assert details.anchored == anchored.num_rows > 0.9 * details.texts
    rows = read_csv(f"{at.anchors.url}/balance.csv")
    assert [{k: str(v) for k, v in row.items()} for row in details.balance["levels"]] == rows
    assert {row["theory"] for row in rows} == set(THEORIES)
    examples = with_concept_anchors(read_examples(*resolve_labels(str(minilm), "latest", "")), anchors, anchored)
    batch = Sampler(examples, BatchConfig(hierarchy=0, concept=16), seed=0).batch(3)
    for label in np.unique(batch.anchor_id_B):
        assert len(np.unique(batch.theory_B[batch.anchor_id_B == label])) == 2
    before = times(at.anchors) | times(at.anchored)
    assert build_anchors.main(configured(build_anchors, minilm)) == at
    assert times(at.anchors) | times(at.anchored) == before


class Namer(BaseHTTPRequestHandler):
    """Answers a chat with a name: the number of the call, but the same for the first three, and prose for the fourth."""

    calls: list[str] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.calls.append(body["messages"][-1]["content"])
        nth = len(self.calls)
        name = (
            "Care for old people"
            if nth <= 3
            else "It is hard to say. " * 9
            if nth == 4
            else f"Concern {'abcdefgh'[nth % 8]} {'xy'[nth % 2] * (nth % 19 + 1)}"
        )
        message = {"role": "assistant", "content": json.dumps({"answer": name})}
        usage = {"prompt_tokens": 10, "completion_tokens": 3}
        answer = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server():
    Namer.calls = []
    running = ThreadingHTTPServer(("127.0.0.1", 0), Namer)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}/v1"
    running.shutdown()
    thread.join()
    running.server_close()


def test_an_llm_names_the_anchors_and_equal_names_are_one_anchor(minilm, server, tmp_path, caplog):
    namer = {"kind": "openai", "name": "llm", "url": server, "model": "m", "key_env": "", "concurrency": 1}
    settings = yaml.safe_load(Path("conf/build_anchors/tiny.yaml").read_text())
    settings |= {"root": str(minilm), "namer": namer, "anchors": {"target": 20}}
    path = tmp_path / "anchors.yaml"
    path.write_text(yaml.safe_dump(settings))
    build_anchors.main(load(build_anchors.SCHEMA, str(path), ["dry_run=true"]))
    assert not Namer.calls
    with pytest.raises(InputError, match=r"name: 1 of 20 questions \(5.0%\) have no valid answer.*longer than a name"):
        build_anchors.main(load(build_anchors.SCHEMA, str(path), ["max_error_share=0.01"]))
    assert len(Namer.calls) == 20
    with caplog.at_level(logging.WARNING):
        at = build_anchors.main(load(build_anchors.SCHEMA, str(path), []))
    assert "fewer than anchors.target (20); rejected clusters: {'named like another': 2}" in caplog.text
    assert len(Namer.calls) == 20  # what is answered is not asked again
    rows = store.read_table(at.anchors).to_pylist()
    assert len(rows) == 18
    assert sorted(row["named_by"] for row in rows) == ["llm"] * 17 + ["medoid"]
    details = store.details_of(at.anchors, store.AnchorsDetails)
    assert details.dropped["named like another"] == 2
    assert sum(row["num_texts"] for row in rows) == details.anchored == store.read_table(at.anchored).num_rows
    plain = build_anchors.main(configured(build_anchors, minilm, "anchors={target: 20, min_texts: 10, min_per_theory: 3}"))
    assert plain.anchors != at.anchors
    assert store.require_manifest(plain.anchors).num_rows == 20
    shown = store.read_table(plain.anchors, ["medoids"])["medoids"][0].as_py()
    assert any(all(all_texts(minilm)[i][:30] in call for i in shown) for call in Namer.calls)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("{text: text, theory: theory, value: value}", "all labels are of theory 'svt'"),
        ("{text: text}", "has no labels; label the texts with python -m jobs.categorize"),
    ],
)
def test_anchors_need_labels_of_two_theories(cluster, hives, tmp_path, columns, said):
    rows = [row for row in read_csv("valueflow/samples/corpus.csv") if row["theory"] == "svt"]
    path = tmp_path / "svt.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    corpus = f"{{format: generic, path: {path}, license: MIT, columns: {columns}}}"
    ingest.main(load(ingest.SCHEMA, "conf/ingest/tiny.yaml", [f"root={tmp_path}", f"corpora=[{corpus}]"]))
    with pytest.raises(InputError, match=said):
        build_anchors.main(tiny(build_anchors, tmp_path, hives))


def test_values_of_new_texts_end_to_end(minilm):
    at = extract.main(configured(extract, minilm))
    rows = store.read_table(at).to_pylist()
    responses = {text_id(row["response"]): row for row in read_csv(RESPONSES)}
    assert {row["text_id"] for row in rows} == set(responses)
    assert len(rows) == len(responses) * len(THEORIES) * 3
    right = []
    for row in rows:
        assert tuple(row["path"]) in theories()[row["theory"]].paths(row["path"][-1])
        assert 0 <= row["confidence"] <= 1
        assert 0 <= row["distance"] <= 2
        theory, _, node = responses[row["text_id"]]["about"].partition(":")
        if row["rank"] == 1 and row["theory"] == theory:
            right.append(node in row["path"])
    assert len(right) == len(responses)
    assert np.mean(right) > 0.5
    ranks = {}
    for row in rows:
        ranks.setdefault((row["text_id"], row["theory"]), []).append((row["rank"], row["confidence"]))
    for found in ranks.values():
        assert [rank for rank, _ in found] == [1, 2, 3]
        assert [sure for _, sure in found] == sorted((sure for _, sure in found), reverse=True)
    before = times(at)
    assert extract.main(configured(extract, minilm)) == at
    assert times(at) == before


@pytest.mark.slow
def test_an_interrupted_extraction_goes_on(copied, root, hives):
    config = tiny(extract, root, hives, "encoder.rows_per_part=10", "top=1")
    at = extract.main(config)
    whole = store.read_table(at).sort_by([("text_id", "ascending"), ("theory", "ascending")])
    parts = store.part_paths(at)
    assert len(parts) > 2
    Path(at.url, "_manifest.json").unlink()
    Path(at.url, parts[0]).unlink()
    before = times(at)
    assert extract.main(config) == at
    assert store.read_table(at).sort_by([("text_id", "ascending"), ("theory", "ascending")]) == whole
    assert {path: time for path, time in times(at).items() if path in before} == before
