"""What a training reads: ids that follow from contents, texts kept out, anchors of the tables, where texts come from."""

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from valueflow import store
from valueflow.distributed.train.config import TrainHivesConfig
from valueflow.distributed.train.data import TrainingData, prepare_data, resolve_sources
from valueflow.errors import InputError
from valueflow.hives.batches import Sampler
from valueflow.hives.examples import OFFICIAL_COLUMNS
from valueflow.records import SCHEMAS, text_id
from valueflow.report.model_card import Corpus
from valueflow.store import Build

pytestmark = pytest.mark.ray  # which it imports
NODES = (("svt", "benevolence"), ("svt", "power"), ("mft", "care-harm"), ("duty", "fidelity"))
WORDS = "amber basalt cedar delta ember fjord grove heron islet jetty kelp lagoon mesa north otter prism quartz reef slate"


def texts_of(num: int) -> list[str]:
    """Texts of which no two are near-duplicates."""
    rng = np.random.default_rng(0)
    return [f"{' '.join(rng.choice(WORDS.split(), 8))} {i}" for i in range(num)]


def write(root: Path, table: str, rows: list[dict], build_id: str = "b", inputs: tuple[str, ...] = ()) -> None:
    build = Build(str(root), table, build_id)
    counts = dict.fromkeys(("num_texts", "svt", "mft", "duty", "right"), 1) | {"medoids": [], "cohesion": 0.9}
    blank = dict.fromkeys(SCHEMAS[table].names) | ({"similarity": 0.9} if table == "individuals" else {})
    columns = [blank | (counts if table == "anchors" else {}) | row for row in rows]
    store.write_part(build, pa.Table.from_pylist(columns, SCHEMAS[table]), "0")
    store.commit(build, store.Details(), list(inputs))


@pytest.fixture
def root(tmp_path) -> Path:
    """Two corpora, 160 texts, each at one of four nodes; two concept anchors and two individual ones."""
    texts = texts_of(160)
    ids = [text_id(text) for text in texts]
    rows = [
        {"text_id": i, "text": text, "group_id": i, "source": f"corpus-{n % 2}", "license": "MIT"}
        for n, (i, text) in enumerate(zip(ids, texts, strict=True))
    ]
    write(tmp_path, "texts", rows)
    at = {i: NODES[n % 4] for n, i in enumerate(ids)}
    labels = [{"text_id": i, "theory": t, "node": node, "direction": 1} for i, (t, node) in at.items()]
    write(tmp_path, "source_labels", labels)
    anchors = [{"anchor_id": name, "name": f"about {name}"} for name in ("one", "two")]
    write(tmp_path, "anchors", anchors)
    write(
        tmp_path,
        "anchored",
        [{"text_id": i, "anchor_id": "one" if n < 80 else "two", "similarity": 0.9} for n, i in enumerate(ids[:120])],
    )
    near = [{"text_id": i, "theory": at[i][0], "individual": f"{n % 2}"} for n, i in enumerate(ids[:40])]
    write(tmp_path, "individuals", near)
    return tmp_path


def config(root: Path, data: dict | None = None, **settings: object) -> TrainHivesConfig:
    given = {"root": str(root), "stage": 1, "encoder": {"model": "m"}, "optimizer": {"steps": 1}, "batch": {"hierarchy": 8}}
    return TrainHivesConfig.model_validate(given | {"data": {"shares": (0.8, 0.2, 0.0)} | (data or {})} | settings)


def prepared(settings: TrainHivesConfig) -> TrainingData:
    return prepare_data(settings, resolve_sources(settings.root, settings.data))


def test_texts_come_with_their_corpora_and_are_split(root):
    made = prepared(config(root))
    assert made.corpora == [Corpus(f"corpus-{n}", "MIT", *[made.corpora[n].num_texts] * 2) for n in range(2)]
    assert sum(corpus.num_texts for corpus in made.corpora) == made.counts["texts"] == len(made.train.texts)
    assert not set(made.train.texts) & set(made.validation.texts)
    assert len(made.train.texts) + len(made.validation.texts) == 160


def test_excluded_texts_and_what_is_nearly_them_are_not_seen(root):
    hidden = root / "hidden.csv"
    first, second = texts_of(160)[:2]
    with hidden.open("w") as file:
        csv.writer(file).writerows([["text"], [first.upper() + "!"], [second]])
    found = resolve_sources(str(root), config(root, {"exclude": [str(hidden)]}).data)
    made = prepare_data(config(root, {"exclude": [str(hidden)]}), found)
    assert made.counts["excluded"] == 2
    assert not {first, second} & {*made.train.texts, *made.validation.texts}
    assert str(hidden) in found.inputs
    hidden.write_text("words\nx\n")
    with pytest.raises(InputError, match=r"hidden.csv lacks column\(s\) \['text'\]"):
        prepared(config(root, {"exclude": [str(hidden)]}))


def test_the_id_follows_from_what_is_read(root):
    def data_id(**data: object) -> str:
        return resolve_sources(str(root), config(root, data).data).data_id

    hidden = root / "hidden.csv"
    hidden.write_text("text\na\n")
    ids = [data_id(), data_id(seed=1), data_id(anchors="latest"), data_id(individuals="b"), data_id(exclude=[str(hidden)])]
    hidden.write_text("text\nb\n")
    ids += [data_id(exclude=[str(hidden)])]
    assert len(set(ids)) == len(ids)
    assert data_id(texts="b") == ids[0]


def test_anchors_of_the_tables_are_learnt_and_narrow_ones_left_out(root):
    two = {"stage": 2, "start": "latest", "batch": {"hierarchy": 8, "concept": 4, "individual": 4}}
    made = prepared(config(root, {"anchors": "latest", "individuals": "latest"}, **two))
    assert made.train.concepts == ["about one", "about two"]
    where = {i: n for n, i in enumerate(map(text_id, texts_of(160)))}
    for text, concept in zip(made.train.text_N, made.train.concept_N, strict=True):
        n = where[made.train.text_ids[text]]
        assert concept == (0 if n < 80 else 1 if n < 120 else -1)
    assert set(made.train.individual_N) == {-1, 0, 1}
    assert made.counts["concepts of one theory after the split"] == 0
    Sampler(made.train, config(root, {"anchors": "b", "individuals": "b"}, **two).batch, 0).batch(0)


def test_an_anchor_that_the_split_leaves_with_one_theory_is_left_out(root):
    ids = list(map(text_id, texts_of(160)))
    learnt = set(prepared(config(root)).train.text_ids)
    bridges = range(82, 160, 4)  # care-harm; the other texts of anchor two are of benevolence
    inside, outside = (next(n for n in bridges if (ids[n] in learnt) == there) for there in (True, False))
    for bridge, narrow in ((inside, 0), (outside, 1)):
        write(root, "anchors", [{"anchor_id": name, "name": name} for name in ("one", "two", "wide")], f"c{bridge}")
        at = dict.fromkeys(range(40), "one") | dict.fromkeys(range(40, 80), "wide")
        at |= dict.fromkeys((bridge, *range(80, 160, 4)), "two")
        write(
            root,
            "anchored",
            [{"text_id": ids[n], "anchor_id": name, "similarity": 0.9} for n, name in at.items()],
            f"c{bridge}",
        )
        two = {"stage": 2, "start": "latest", "batch": {"hierarchy": 8, "concept": 4}}
        made = prepared(config(root, {"anchors": f"c{bridge}"}, **two))
        assert made.counts["concepts of one theory after the split"] == narrow
        assert set(made.train.concept_N) == ({-1, 0, 2} if narrow else {-1, 0, 1, 2})


def test_anchors_of_one_theory_are_refused_by_name(root):
    path = root / "official.csv"
    rows = [
        {"text": text, "theory": theory, "level_1": node, "direction": 1, "selected_anchor": theory}
        for text, (theory, node) in zip(texts_of(80), NODES * 20, strict=True)
    ]
    with path.open("w") as file:
        writer = csv.DictWriter(file, OFFICIAL_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    two = {"stage": 2, "start": "latest", "batch": {"hierarchy": 8, "concept": 4}}
    with pytest.raises(InputError, match=r"3 concept anchors have texts of one theory only, .*'duty', 'mft', 'svt'"):
        prepared(config(root, {"official": str(path)}, **two))


def test_what_is_not_there_is_said(root, tmp_path_factory):
    with pytest.raises(InputError, match="no ingested texts"):
        resolve_sources(str(tmp_path_factory.mktemp("empty")), config(root).data)
    (root / "anchored" / "b" / "_manifest.json").unlink()
    with pytest.raises(InputError, match=r"no finished anchors \(anchored\) .* run python -m jobs.build_anchors"):
        resolve_sources(str(root), config(root, {"anchors": "latest"}).data)
    write(root, "anchored", [{"text_id": "0" * 16, "anchor_id": "one", "similarity": 0.9}])
    with pytest.raises(InputError, match="none of 160 texts has an anchor"):
        prepared(config(root, {"anchors": "latest"}))
