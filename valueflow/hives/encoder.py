"""A sentence encoder that can be trained: one prompt, pooling and normalisation in training, embedding and the saved folder.

B texts of a batch, T tokens, D dimensions.
"""

import copy
import importlib.util
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
import yaml
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, AutoTokenizer

from valueflow.config import Config
from valueflow.errors import InputError
from valueflow.hives.metrics import Metric
from valueflow.judging.weights import locate
from valueflow.report.card import license_field, markdown_table

Pooling = Literal["mean", "last"]
POOLINGS: dict[Pooling, str] = {"mean": "mean", "last": "lasttoken"}  # ours -> the name in sentence-transformers
DENSE = "2_Dense"  # the folder of the layer after the pooling, where there is one
PROMPT = "text"  # the name under which a saved folder keeps the prompt


METRICS = {
    "pairwise": "hierarchical ranking accuracy, pairs",
    "strict": "hierarchical ranking accuracy, whole order",
    "correlation": "correlation of cosine with shared levels and direction",
    "orthogonality": "orthogonality of value vectors",
    "label_accuracy": "value from the nearest texts",
    "direction_accuracy": "direction from the nearest texts",
}


class Corpus(NamedTuple):
    """What an encoder was trained on, one source."""

    name: str
    license: str
    num_texts: int
    num_labels: int


class LoraConfig(Config):
    """Train low-rank additions to the weights instead of the weights (library peft)."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0, description="the additions are multiplied by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1)
    modules: list[str] = Field([], description="names of the layers to add to; default: peft's choice for the architecture")


class Encoder(nn.Module):
    """Texts -> unit vectors; what it is called with comes from `tokenize`, so every use has the same prompt and truncation."""

    def __init__(
        self, model: Any, tokenizer: Any, max_length: int, pooling: Pooling, prompt: str, dense: nn.Linear | None = None
    ) -> None:
        super().__init__()
        limit = getattr(model.config, "max_position_embeddings", max_length)
        if max_length > limit:
            raise InputError(f"max_length ({max_length}) must be at most {limit}, the positions that the model knows")
        self.model, self.dense = model, dense
        self.tokenizer = tokenizer
        self.max_length, self.pooling, self.prompt = max_length, pooling, prompt
        tokenizer.model_max_length = max_length

    @classmethod
    def load(
        cls,
        model: str,
        revision: str = "",
        max_length: int = 256,
        pooling: Pooling = "mean",
        prompt: str = "",
        lora: LoraConfig | None = None,
        dense: int = 0,
    ) -> Self:
        """Return an encoder with float32 weights of a hub name, folder or package://…; InputError where there are none.

        With `dense` a layer of that width (linear, then ReLU) follows the pooling: that of the folder where it has one of
        this width, else a new one with random weights.
        """
        where: dict[str, Any] = {"pretrained_model_name_or_path": locate(model), "revision": revision or None}
        try:
            tokenizer = AutoTokenizer.from_pretrained(**where)
            weights = AutoModel.from_pretrained(**where, dtype=torch.float32)
        except (OSError, ValueError) as error:
            at = f" at revision {revision!r}" if revision else ""
            raise InputError(
                f"model {model!r}{at} cannot be loaded; give a hub name, a folder or package://…: {error}"
            ) from error
        last = _dense(locate(model), weights.config.hidden_size, dense) if dense else None
        return cls(_with_lora(weights, lora) if lora else weights, tokenizer, max_length, pooling, prompt, last)

    @classmethod
    def saved(cls, folder: str) -> Self:
        """Return the encoder that `save` wrote, with the same prompt, pooling and truncation; InputError for another folder."""
        at = Path(locate(folder))
        try:
            modes = json.loads((at / "1_Pooling" / "config.json").read_text("utf-8"))["pooling_mode"]
            prompts = json.loads((at / "config_sentence_transformers.json").read_text("utf-8"))["prompts"]
            max_length = json.loads((at / "tokenizer_config.json").read_text("utf-8"))["model_max_length"]
            pooling = next(ours for ours, theirs in POOLINGS.items() if theirs == modes)
            width = json.loads((at / DENSE / "config.json").read_text("utf-8"))["out_features"] if (at / DENSE).is_dir() else 0
            return cls.load(str(at), max_length=max_length, pooling=pooling, prompt=prompts[PROMPT], dense=width)
        except (OSError, KeyError, StopIteration) as error:
            raise InputError(f"{folder!r} is not a folder that an encoder was saved to: {error!r}") from error

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self.dense.out_features if self.dense else self.model.config.hidden_size)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return input_ids_BT and attention_mask_BT of the texts behind the prompt, cut at `max_length` tokens."""
        prompted = [self.prompt + text for text in texts]
        batch = self.tokenizer(prompted, padding=True, truncation=True, return_tensors="pt")
        return {name: batch[name] for name in ("input_ids", "attention_mask")}

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return z_BD, unit vectors in float32."""
        states_BTD = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        pooled_BD = _pool(states_BTD, attention_mask, self.pooling)
        if self.dense:
            pooled_BD = functional.relu(self.dense(pooled_BD))
        return functional.normalize(pooled_BD.float(), dim=-1)

    @torch.inference_mode()
    def embed(self, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """Return float32 unit vectors z_ND, made without dropout; texts of like length share a batch."""
        device = next(self.model.parameters()).device
        by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        z_ND = np.empty((len(texts), self.dimension), np.float32)
        training = self.training
        self.eval()
        for start in range(0, len(texts), batch_size):
            chosen = by_length[start : start + batch_size]
            batch = self.tokenize([texts[i] for i in chosen])
            z_ND[chosen] = self(**{name: tensor.to(device) for name, tensor in batch.items()}).cpu().numpy()
        self.train(training)
        return z_ND

    def save(self, folder: str | Path, card: str) -> None:
        """Write what `SentenceTransformer(folder)` loads and what then gives the vectors of `embed`; `card` is its README."""
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer import modules

        with tempfile.TemporaryDirectory() as plain:
            _merged(self.model).save_pretrained(plain)
            self.tokenizer.save_pretrained(plain)
            # sentence-transformers loads a Dense in single precision whatever its file holds, and both must be of one kind.
            dtype = torch.float32 if self.dense else next(self.model.parameters()).dtype
            transformer = modules.Transformer(plain, max_seq_length=self.max_length, model_kwargs={"dtype": dtype})
        layers = [transformer, modules.Pooling(self.model.config.hidden_size, POOLINGS[self.pooling])]
        if self.dense:
            width = self.dense.in_features, self.dense.out_features
            # Copies: ZeRO keeps parameters as parts of one buffer, which safetensors refuses.
            weight, bias = (parameter.detach().cpu().float().clone() for parameter in (self.dense.weight, self.dense.bias))
            layers.append(modules.Dense(*width, activation_function=nn.ReLU(), init_weight=weight, init_bias=bias))
        SentenceTransformer(
            modules=[*layers, modules.Normalize()],
            prompts={PROMPT: self.prompt},
            default_prompt_name=PROMPT if self.prompt else None,
            similarity_fn_name="cosine",
            device="cpu",
        ).save(str(folder), create_model_card=False)
        (Path(folder) / "README.md").write_text(card, "utf-8")


def check_model(where: str, name: str, revision: str, max_length: int) -> None:
    """Refuse an encoder by its configuration alone, on the driver: what a worker would refuse as it dies.

    Args:
        where: what transformers loads, a hub name or a folder.
        name: what the user calls it.
        revision: commit of a hub model, or "".
        max_length: tokens.

    Raises:
        InputError: it cannot be loaded, or knows fewer positions.
    """
    try:
        there = AutoConfig.from_pretrained(where, revision=revision or None)
    except (OSError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise InputError(f"encoder.model {name!r} cannot be loaded; give a hub name, a folder or package://…: {why}") from error
    limit = getattr(there, "max_position_embeddings", max_length)
    if max_length > limit:
        raise InputError(f"encoder.max_length ({max_length}) must be at most {limit}, the positions that the model knows")


def _pool(states_BTD: Tensor, mask_BT: Tensor, pooling: Pooling) -> Tensor:
    if pooling == "mean":
        mask_BT1 = mask_BT[..., None].to(states_BTD.dtype)
        return (states_BTD * mask_BT1).sum(1) / mask_BT1.sum(1).clamp(min=1e-9)
    last_B = mask_BT.shape[1] - 1 - mask_BT.flip(1).argmax(1)  # whichever side the tokenizer pads
    return states_BTD[torch.arange(len(states_BTD), device=states_BTD.device), last_B]


def _dense(folder: str, width: int, out: int) -> nn.Linear:
    """The layer after the pooling, with the weights that a folder has for it, if any."""
    dense = nn.Linear(width, out)
    saved = Path(folder) / DENSE / "model.safetensors"
    if saved.exists():
        activation = json.loads(saved.with_name("config.json").read_text("utf-8"))["activation_function"].rpartition(".")[2]
        if activation != nn.ReLU.__name__:
            raise InputError(f"the last layer of {folder} ends in {activation}; only ReLU is known here: train it anew")
        weights = {name.removeprefix("linear."): weight for name, weight in load_file(saved).items()}
        if weights["weight"].shape == dense.weight.shape:
            dense.load_state_dict(weights)
    return dense


def _with_lora(model: Any, lora: LoraConfig) -> Any:
    if importlib.util.find_spec("peft") is None:
        raise InputError("lora needs the library peft, which is not installed: pip install 'valueflow[lora]'")
    import peft

    settings = {"r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    return peft.get_peft_model(model, peft.LoraConfig(**settings, target_modules=lora.modules or None))


def _merged(model: Any) -> Any:
    """The plain model, of which low-rank additions have become part; the model given stays as it is."""
    return copy.deepcopy(model).merge_and_unload() if hasattr(model, "merge_and_unload") else model


def model_card(
    name: str,
    base: str,
    license_: str,
    corpora: Sequence[Corpus],
    settings: Mapping[str, object],
    encoders: Mapping[str, Mapping[str, Metric]],
    measured_on: str,
) -> str:
    """Return the README of a trained encoder.

    `settings` says how it was trained (steps, rates, seeds; max_length, pooling and prompt among them), `encoders` holds the
    metrics of this encoder and of those it is compared with, by name, and `measured_on` names their texts.
    """
    front = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "feature-extraction",
        "base_model": base,
        **license_field([license_]),
        "tags": ["sentence-transformers", "sentence-similarity", "human-values", "hives", "valueflow"],
    }
    trained = [[c.name, c.license, f"{c.num_texts:,}", f"{c.num_labels:,}"] for c in corpora]
    sections = [
        f"# {name}",
        f"A sentence encoder, trained from `{base}`, in whose space texts lie by the human values they express: texts of one "
        "node of a value theory, or of nodes near it, and of one direction (supporting, opposing) are near one another.",
        "## Training data\n\nLicences are those of the sources; check what they mean for your use of the weights.\n\n"
        + markdown_table(["source", "licence", "texts", "labels"], trained),
        "## Training\n\n" + markdown_table(["setting", "value"], [[key, str(value)] for key, value in settings.items()]),
        f"## Metrics\n\nMeasured on {measured_on}. In brackets: 95 % intervals of a bootstrap over groups of texts. Random: "
        "what random vectors reach on the same texts; it is high for orthogonality, which alone says nothing.\n\n"
        + metrics_table(encoders),
        CARD_LIMITS,
        f"""## How to load

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{name}")
vectors = model.encode(["She gave her seat to an old man."])
```

The prompt, if there is one, the pooling and the normalisation are part of the folder: `encode` needs no arguments. With
ValueFlow: `valueflow.hives.encoder.Encoder.saved("FOLDER").embed(texts)`.""",
    ]
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n" + "\n\n".join(sections) + "\n"


def metrics_table(encoders: Mapping[str, Mapping[str, Metric]]) -> str:
    """Return the metrics of encoders by name as a Markdown table, with intervals, what random vectors reach, and counts."""
    names = list(dict.fromkeys(name for metrics in encoders.values() for name in metrics))
    rows = []
    for name in names:
        kind, _, theory = name.partition("/")
        found = [metrics[name] for metrics in encoders.values() if name in metrics]
        numbers = [
            f"{m.value:.3f} [{m.low:.3f}, {m.high:.3f}]" if (m := metrics.get(name)) else "" for metrics in encoders.values()
        ]
        rows.append([METRICS.get(kind, kind), theory or "mean", *numbers, f"{found[0].floor:.3f}", f"{found[0].count:,}"])
    return markdown_table(["metric", "theory", *encoders, "random", "count"], rows)


CARD_LIMITS = """## Intended use and limits

Meant for finding texts that express like values, for placing texts in a value theory by their labelled neighbours, and for
research on values in language models. Not meant for judging people, or for deciding anything about them.

- A place in this space is a guess from the training labels, with their cultures, languages, periods and errors.
- The direction of a text is harder to tell than its value: check the accuracy of direction above before relying on it.
- Similarities are comparable within one theory; across theories they say what texts have in common, not that values are equal.
- Texts longer than the limit above are cut; several values in one text blur into one vector."""
