"""Training on two workers: recovery, refusals, what is saved, and that two ranks learn as one with twice the batch."""

import csv
import itertools
import json
import math
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from kills import run_and_kill
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
from sentence_transformers import SentenceTransformer
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from transformers import AutoTokenizer, BertConfig, BertModel

from jobs import train_hives
from valueflow import store
from valueflow.config import load
from valueflow.distributed.train.config import OptimizerConfig, TrainHivesConfig, learning_rate
from valueflow.distributed.train.export import CURVE_FILE, read_training_record
from valueflow.distributed.train.loop import Prefetcher, Trainer
from valueflow.errors import InputError
from valueflow.hives.batches import Batch, BatchConfig, Sampler
from valueflow.hives.encoder import Encoder
from valueflow.hives.examples import OFFICIAL_COLUMNS, read_official
from valueflow.models import MINILM, locate

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
TINY = """
root: {root}
stage: 1
encoder: {{model: {model}, max_length: 32, dense: 24}}
batch: {{hierarchy: 8, positives: 2}}
loss: {{closeness: 4.0, nodes: 2.0}}
optimizer: {{steps: 40, lr: 1.0e-3}}
workers: {{num_workers: 2, max_failures: 1}}
data: {{official: {official}, shares: [0.7, 0.3, 0.0]}}
validation: {{every: 15, texts: 100}}
checkpoint_every: 10
tracking: {{every: 1}}
cluster: {{num_cpus: 8}}
"""


def tiny_bert(folder: Path, dropout: float, seed: int = 0) -> str:
    """A randomly initialised BERT of two layers, with the tokenizer of MiniLM."""
    torch.manual_seed(seed)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    drop = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    BertModel(BertConfig(**size, **drop, max_position_embeddings=64)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(locate(MINILM)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> str:
    return tiny_bert(tmp_path_factory.mktemp("bert"), 0.1)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> str:
    """The sample corpus with the official columns; two concept anchors, each of all theories."""
    path = tmp_path_factory.mktemp("data") / "official.csv"
    with open("valueflow/samples/corpus.csv", encoding="utf-8") as read, path.open("w", encoding="utf-8") as write:
        rows = [row for row in csv.DictReader(read) if row["direction"] != "0"]
        writer = csv.DictWriter(write, OFFICIAL_COLUMNS, extrasaction="ignore")
        writer.writeheader()
        for row in rows[::2]:
            anchors = {"selected_individual": f"{row['value']} {row['direction']}", "selected_anchor": row["direction"]}
            writer.writerow(row | {"level_1": row["value"]} | anchors)
    return str(path)


def settings(root: Path, model: str, data: str, *overrides: str) -> TrainHivesConfig:
    root.mkdir(parents=True, exist_ok=True)
    path = root / "train.yaml"
    path.write_text(TINY.format(root=root, model=model, official=data))
    return load(train_hives.SCHEMA, str(path), list(overrides))


def curve(build: store.Build) -> list[dict[str, float]]:
    """Loss, rate and norm of every step, without what the clock says."""
    rows = [json.loads(line) for line in store.read_bytes(f"{build.url}/{CURVE_FILE}").splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "waited")} for row in rows]


@pytest.fixture(scope="module")
def unbroken(cluster, tmp_path_factory, bert, labelled):
    """A training from the first step to the last."""
    root = tmp_path_factory.mktemp("unbroken")
    return root, train_hives.main(settings(root, bert, labelled))


def shards(root: Path) -> list[Path]:
    return sorted(root.glob("checkpoints/*/step-*"))


def kept(root: Path) -> list[Path]:
    """What Ray writes once a checkpoint is whole."""
    return sorted(root.glob("checkpoints/*/checkpoint_manager_snapshot.json"))


def attempts(build: store.Build) -> list[int]:
    """After which step each attempt began (1: the first), by its TensorBoard file."""
    files = Path(f"{build.url}/tensorboard").glob("events.*")
    return sorted(min(event.step for event in EventFileLoader(str(file)).Load() if event.step) for file in files)


def assert_same_curve(found: store.Build, wanted: store.Build, tolerance: float = 1e-6) -> None:
    assert [row["step"] for row in curve(found)] == list(range(1, 41))
    for mine, theirs in zip(curve(found), curve(wanted), strict=True):
        assert mine == pytest.approx(theirs, abs=tolerance)


class TestUnbroken:
    def test_the_folder_loads_in_sentence_transformers_and_in_our_encoder_alike(self, unbroken):
        _, trained = unbroken
        texts = ["She gave her seat to an old man.", "He lied."]
        ours = Encoder.from_folder(trained.model).embed(texts)
        np.testing.assert_allclose(SentenceTransformer(trained.model, device="cpu").encode(texts), ours, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)

    def test_the_manifest_holds_every_file_and_what_it_was_learnt_from(self, unbroken, bert):
        root, trained = unbroken
        store.verify(trained.build)
        made = store.require_manifest(trained.build)
        assert {file.path for file in made.files} >= {
            CURVE_FILE,
            "metrics.json",
            "report.html",
            "model/README.md",
            "model/model.safetensors",
        }
        assert made.num_rows == 40
        assert made.config["resolved"]["encoder"]["model"] == bert
        assert made.counts["texts"] + made.counts["validation texts"] > 400
        assert list(Path(f"{trained.build.url}/tensorboard").glob("events.*"))
        assert not shards(root)
        assert set(trained.metrics) == {"hives", bert}
        assert "| hives |" in Path(f"{trained.model}/README.md").read_text()

    def test_it_learns_and_is_measured_on_the_way(self, unbroken):
        _, trained = unbroken
        rows = curve(trained.build)
        assert np.mean([row["loss"] for row in rows[-10:]]) < np.mean([row["loss"] for row in rows[:10]]) - 0.05
        assert [row["step"] for row in rows if "validation/pairwise" in row] == [15, 30]
        assert rows[3]["learning_rate"] == pytest.approx(1e-3)
        assert all(row["gradient_norm"] > 0 for row in rows)

    def test_a_finished_one_is_not_trained_again(self, unbroken, bert, labelled):
        root, trained = unbroken
        before = {path: path.stat().st_mtime_ns for path in Path(trained.build.url).rglob("*") if path.is_file()}
        again = train_hives.main(settings(root, bert, labelled, "checkpoint_every=7", "workers.max_failures=0"))
        assert again.build == trained.build
        assert again.metrics == trained.metrics or math.isnan(trained.metrics["hives"]["pairwise"].low)
        assert {path: path.stat().st_mtime_ns for path in Path(trained.build.url).rglob("*") if path.is_file()} == before

    def test_stage_2_starts_from_stage_1(self, unbroken, bert, labelled, tmp_path):
        root, first = unbroken
        two = ["stage=2", "batch.individual=4", "batch.concept=4", "optimizer.steps=2", "optimizer.lr=1e-12", "start=latest"]
        second = train_hives.main(settings(root, bert, labelled, *two))
        texts = ["She gave her seat to an old man.", "He lied."]
        np.testing.assert_allclose(
            Encoder.from_folder(second.model).embed(texts), Encoder.from_folder(first.model).embed(texts), atol=1e-5
        )
        assert store.details_of(second.build, store.HivesDetails).start == first.build.build_id
        assert all(row["individual"] > 0 and row["concept"] > 0 for row in curve(second.build))
        assert read_training_record(second.model).stage == 2
        other = tiny_bert(tmp_path / "other", 0.1, seed=1)
        with pytest.raises(InputError, match=rf"its model is '{bert}', encoder.model is '{other}'"):
            train_hives.main(settings(root, other, labelled, *two, f"start={first.model}"))
        with pytest.raises(InputError, match=r"its dense is 24, encoder\.dense is 0"):
            train_hives.main(settings(root, bert, labelled, *two, f"start={first.model}", "encoder.dense=0"))
        with pytest.raises(InputError, match="it is of stage 2, stage 2 starts from stage 1"):
            train_hives.main(settings(root, bert, labelled, *two, f"start={second.build.build_id}"))
        with pytest.raises(InputError, match=r"no finished encoder of stage 1 of .*there are no encoders"):
            train_hives.main(settings(tmp_path, bert, labelled, *two))
        with pytest.raises(InputError, match=r"has no training\.json"):
            train_hives.main(settings(root, bert, labelled, *two, f"start={bert}"))

    @pytest.mark.slow
    def test_zero_stage_3_learns_and_saves_the_same(self, unbroken, bert, labelled, tmp_path):
        trained = train_hives.main(settings(tmp_path, bert, labelled, "deepspeed.zero_optimization.stage=3"))
        assert_same_curve(trained.build, unbroken[1].build, 1e-3)
        texts = ["She gave her seat to an old man."]
        ours, theirs = (Encoder.from_folder(at.model).embed(texts) for at in (trained, unbroken[1]))
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


class TestBroken:
    @pytest.mark.chaos
    @pytest.mark.slow
    def test_a_killed_worker_is_survived_with_the_same_curve(self, unbroken, bert, labelled, tmp_path):
        killed = []

        def kill() -> None:
            deadline = time.monotonic() + 200
            while not killed and time.monotonic() < deadline:
                time.sleep(0.02)
                if kept(tmp_path):
                    mine = psutil.Process().children(recursive=True)
                    killed.extend(p for p in mine if "RayTrainWorker" in " ".join(p.cmdline()))
                    killed[-1].kill()

        thread = threading.Thread(target=kill)
        thread.start()
        trained = train_hives.main(settings(tmp_path, bert, labelled))
        thread.join()
        assert killed
        assert attempts(trained.build)[0] == 1
        assert attempts(trained.build)[1] in (10, 20, 30)
        assert_same_curve(trained.build, unbroken[1].build)

    @pytest.mark.chaos
    @pytest.mark.slow
    def test_a_killed_job_goes_on_with_the_same_command_and_workers(self, unbroken, bert, labelled, tmp_path):
        config = settings(tmp_path, bert, labelled)
        command = [sys.executable, "-m", "jobs.train_hives", str(tmp_path / "train.yaml")]
        run_and_kill(command, lambda: kept(tmp_path), 200)
        assert not store.finished(str(tmp_path), "hives")
        with pytest.raises(InputError, match=r"num_workers is 1, but .* started with 2, .*num_workers=2 to continue"):
            train_hives.main(settings(tmp_path, bert, labelled, "workers.num_workers=1"))
        trained = train_hives.main(config)
        assert attempts(trained.build)[1] in (10, 20, 30)
        assert_same_curve(trained.build, unbroken[1].build)
        texts = ["She gave her seat to an old man."]
        ours, theirs = (Encoder.from_folder(at.model).embed(texts) for at in (trained, unbroken[1]))
        np.testing.assert_allclose(ours, theirs, atol=1e-6)

    @pytest.mark.slow
    def test_a_loss_that_is_no_number_stops_at_once_and_keeps_the_checkpoint(self, cluster, bert, labelled, tmp_path):
        wild = ["optimizer.lr=1e30", "optimizer.warmup=0", "checkpoint_every=1"]
        said = r"step 2: the loss is nan \(hierarchy nan.*optimizer.lr \(1e\+30\).*checkpoint of step 1 is in .*checkpoints"
        with pytest.raises(InputError, match=said):
            train_hives.main(settings(tmp_path, bert, labelled, *wild))
        assert [path.name for path in shards(tmp_path)] == ["step-000000001"]
        assert not store.finished(str(tmp_path), "hives")


@pytest.mark.slow
def test_two_ranks_learn_as_one_with_twice_the_batch(cluster, labelled, tmp_path):
    model = tiny_bert(tmp_path / "bert", 0.0)
    # Plain gradient descent: Adam would make a step of the rounding of gradients that are zero.
    sgd = {"optimizer": {"type": "SGD"}, "zero_allow_untested_optimizer": True, "zero_optimization": {"stage": 2}}

    def step_once(given: dict) -> dict[str, np.ndarray]:
        import ray.train

        class Slices:
            """One batch, of which each rank gets its part."""

            def __init__(self, sampler: Sampler) -> None:
                self.sampler, self.examples = sampler, sampler.examples

            def batch(self, step: int, rank: int, world: int) -> Batch:
                whole = self.sampler.batch(step)
                size = len(whole.row_B) // world
                return Batch(*(column[rank * size : (rank + 1) * size] for column in whole))

        context = ray.train.get_context()
        config = TrainHivesConfig.model_validate(given["config"])
        sampler = Slices(Sampler(read_official(given["data"]), BatchConfig(hierarchy=16, positives=2), 0))
        torch.manual_seed(0)
        encoder = Encoder.load(given["model"], max_length=32, dense=24)
        rank, world = context.get_world_rank(), context.get_world_size()
        learner = Trainer(encoder, sampler, config, rank, world, torch.device("cpu"))
        row = learner.step(0)
        return {"loss": row["loss"]} | {n: p.detach().numpy() for n, p in learner.engine.module.named_parameters()}

    found = []
    for world in (1, 2):
        large = ["optimizer.lr=0.1", "optimizer.warmup=0", "optimizer.clip=0"]
        size = [f"batch.hierarchy={16 // world}", f"workers.num_workers={world}"]
        config = settings(tmp_path, model, labelled, *large, *size)
        given = {"config": config.model_dump() | {"deepspeed": sgd}, "data": labelled, "model": model}
        scaling = ScalingConfig(num_workers=world)
        found.append(TorchTrainer(step_once, train_loop_config=given, scaling_config=scaling).fit().return_value)
    one, two = found
    torch.manual_seed(0)
    start = dict(Encoder.load(model, max_length=32, dense=24).named_parameters())
    moved = {name: np.abs(one[f"encoder.{name}"] - parameter.detach().numpy()).max() for name, parameter in start.items()}
    assert max(moved.values()) > 0.01
    assert moved["dense.weight"] > 0
    assert {"nodes.read.weight", "nodes.read.bias"} <= set(one)
    for name in one:
        np.testing.assert_allclose(two[name], one[name], atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["stage=2"], "stage 2 starts from an encoder of stage 1"),
        (["start=latest"], "start .'latest'. is for stage 2"),
        (["batch.concept=4"], r"stage 1 trains within theories; .* batch.concept \(4\)"),
        (["deepspeed.bf16.enabled=true"], "deepspeed.bf16 is derived from precision"),
        (["deepspeed.optimizer.params.lr=0.1"], "deepspeed.optimizer.params.lr is derived from optimizer.lr"),
        (["deepspeed.scheduler.type=OneCycle"], "deepspeed.scheduler is derived from optimizer.schedule"),
        (["tracking.wandb.project=x"], "tracking.wandb needs the library wandb"),
        (["data.texts=abc"], "has its own texts"),
        (["data.shares=[1.0, 0.0, 0.0]"], "nothing for validation"),
        (["stage=2", "start=latest", "data={official: '', anchors: ''}", "batch.concept=4"], "needs concept anchors"),
        (["workers.num_workers=99"], r"99 CPU .the cluster has 8"),
        (["encoder.model=/no/such/folder"], "'/no/such/folder' does not exist"),
        (["encoder.max_length=65"], r"max_length \(65\) must be at most 64"),
        (["batch.hierarchy=400"], "none of .* rows can be a query"),
        (["data.exclude=[/no/such.csv]"], "/no/such.csv"),
    ],
)
def test_what_cannot_work_is_refused_before_workers_start(cluster, bert, labelled, tmp_path, overrides, said):
    with pytest.raises(InputError, match=said):
        train_hives.main(settings(tmp_path, bert, labelled, *overrides))
    assert not shards(tmp_path)


def test_the_rate_rises_to_its_peak_and_falls_to_nothing_after_the_last_step():
    for schedule, middle in (("linear", 0.5), ("cosine", 0.5)):
        config = OptimizerConfig(steps=110, lr=2.0, warmup=10 / 110, schedule=schedule)
        rates = [learning_rate(config, step) for step in range(111)]
        assert rates[0] == pytest.approx(0.2)
        assert max(rates) == rates[9] == rates[10] == 2.0
        assert rates[60] == pytest.approx(2.0 * middle)
        assert 0 < rates[109] < 0.03
        assert rates[110] == pytest.approx(0)
        assert all(a >= b for a, b in itertools.pairwise(rates[9:]))


def test_batches_made_ahead_are_those_of_their_number(bert, labelled):
    sampler = Sampler(read_official(labelled), BatchConfig(hierarchy=8, positives=2), 0)
    encoder = Encoder.load(bert, max_length=32)
    prefetcher = Prefetcher(sampler, encoder, 1, 2)
    for number in (5, 6, 7, 20):
        batch, tokens = prefetcher.take(number)
        np.testing.assert_array_equal(batch.row_B, sampler.batch(number, 1, 2).row_B)
        wanted = encoder.tokenize([sampler.examples.texts[i] for i in batch.text_B])
        assert torch.equal(tokens["input_ids"], wanted["input_ids"])
    assert prefetcher.run(sum, [1, 2]) == 3
