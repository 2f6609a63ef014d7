"""A trainable sentence encoder; training, embedding and the saved folder share prompt, pooling and normalization.

B texts of a batch, T tokens, D dimensions.
"""

import copy
import functools
import importlib.util
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig

from valueflow.config import Config
from valueflow.errors import InputError
from valueflow.hives.pieces import mean_over_pieces, own_max_length
from valueflow.models import check_self_contained, load_model, loading, locate

Pooling = Literal["mean", "last"]
POOLINGS: dict[Pooling, str] = {"mean": "mean", "last": "lasttoken"}  # our name -> the name in sentence-transformers
DENSE_FOLDER = "2_Dense"  # folder of the optional layer after the pooling
PART_CHARACTERS, CHARACTERS_PER_TOKEN = 2048, 4  # of a step on a CPU; a few hundred tokens are as fast as a whole batch
PROMPT_NAME = "text"  # key of the prompt in a saved folder


class LoraConfig(Config):
    """Low-rank adaptation: train additions to the weights instead of the weights (library peft)."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0, description="the additions are multiplied by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1)
    modules: list[str] = Field([], description="names of the adapted layers; default: peft's choice for the architecture")


class _Batch:
    """Texts that are padded to one length; tokenized where the first part is embedded."""

    def __init__(self, encoder: "Encoder", texts: list[str]) -> None:
        self._encoder, self.texts = encoder, texts

    @functools.cached_property
    def inputs(self) -> dict[str, Tensor]:
        return self._encoder.tokenize(self.texts)


class Part(NamedTuple):
    """Some texts of a batch.

    rows: their indices among all texts.
    batch: the batch.
    start: place of the first one in the batch.
    longest: characters to which they are padded, approximately.
    """

    rows: list[int]
    batch: _Batch
    start: int
    longest: int


class Encoder(nn.Module):
    """Maps texts to unit vectors; `tokenize` prepares its inputs, so every use has the same prompt and truncation.

    Attributes:
        in_bfloat16: whether `embed` multiplies matrices in bfloat16: half the time on processors that have it, and on GPUs.
    """

    in_bfloat16 = False

    def __init__(
        self, model: Any, tokenizer: Any, max_length: int, pooling: Pooling, prompt: str, dense: nn.Linear | None = None
    ) -> None:
        super().__init__()
        limit = getattr(model.config, "max_position_embeddings", max_length)
        if max_length > limit:
            raise InputError(f"max_length ({max_length}) must be at most {limit}, the model's positions")
        self.model, self.dense = model, dense
        self.tokenizer = tokenizer
        self.max_length, self.pooling, self.prompt = max_length, pooling, prompt
        tokenizer.model_max_length = max_length

    @classmethod
    def load(
        cls,
        model: str,
        revision: str = "",
        max_length: int | None = None,
        pooling: Pooling = "mean",
        prompt: str = "",
        lora: LoraConfig | None = None,
        dense: int = 0,
    ) -> Self:
        """Return an encoder with float32 weights.

        Args:
            model: hub name, folder or package://….
            revision: commit of a hub model.
            max_length: tokens, including the prompt's; None: as many as the model's files say.
            pooling: how token states become one vector.
            prompt: prefix of every text.
            lora: adapters to train; None: the weights themselves.
            dense: width of a layer (linear, then ReLU) after the pooling, 0: none. Weights are the folder's if it has a layer
                of this width, else random.

        Raises:
            InputError: the model cannot be loaded.
        """
        source: dict[str, Any] = {"pretrained_model_name_or_path": locate(model), "revision": revision or None}
        check_self_contained(locate(model))
        what = f"model {model!r}{f' at revision {revision!r}' if revision else ''} (a hub name, a folder or package://…)"
        tokenizer, weights = load_model(what, source, dtype=torch.float32)
        with loading(what):
            length = max_length or own_max_length(weights, tokenizer, locate(model), revision)
            dense_layer = _dense_layer(locate(model), weights.config.hidden_size, dense) if dense else None
        return cls(_with_lora(weights, lora) if lora else weights, tokenizer, length, pooling, prompt, dense_layer)

    @classmethod
    def from_folder(cls, folder: str) -> Self:
        """Return the encoder that `save` wrote, with the same prompt, pooling and truncation; InputError for other folders."""
        path = Path(locate(folder))
        with loading(f"{folder!r} is not a folder that an encoder was saved to, or is damaged: it"):
            modes = json.loads((path / "1_Pooling" / "config.json").read_text("utf-8"))["pooling_mode"]
            prompts = json.loads((path / "config_sentence_transformers.json").read_text("utf-8"))["prompts"]
            max_length = json.loads((path / "tokenizer_config.json").read_text("utf-8"))["model_max_length"]
            pooling = next(name for name, exported in POOLINGS.items() if exported == modes)
            width = (
                json.loads((path / DENSE_FOLDER / "config.json").read_text("utf-8"))["out_features"]
                if (path / DENSE_FOLDER).is_dir()
                else 0
            )
            return cls.load(str(path), max_length=max_length, pooling=pooling, prompt=prompts[PROMPT_NAME], dense=width)

    @property
    def dimension(self) -> int:
        """Dimension of a vector."""
        return int(self.dense.out_features if self.dense else self.model.config.hidden_size)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return input_ids (B, T) and attention_mask (B, T) of prompt + text, truncated at `max_length` tokens."""
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

    def embed(self, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """Return float32 unit vectors z_ND, computed without dropout; texts of similar length share a batch.

        That of a text that is longer than `max_length` is the mean over its pieces, see `hives.pieces`.
        """
        z_ND = np.empty((len(texts), self.dimension), np.float32)
        for part in self.parts(texts, batch_size):
            z_ND[part.rows] = self.embed_part(part)
        return z_ND

    def parts(self, texts: Sequence[str], batch_size: int = 64) -> list["Part"]:
        """Return the steps of `embed`: on a CPU a fraction of a second each, on a GPU a whole batch."""
        on_cpu = next(self.model.parameters()).device.type == "cpu"
        most = CHARACTERS_PER_TOKEN * self.max_length
        by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        parts: list[Part] = []
        first = 0
        while first < len(texts):
            # The beginnings of a batch's texts are tokenized together. So few long texts are one batch, and they are padded to
            # the same length as in a full one.
            before = np.cumsum([len(texts[i]) for i in by_length[first : first + batch_size]])
            rows = by_length[first : first + max(1, int(np.searchsorted(before, batch_size * most, "right")))]
            first += len(rows)
            batch = _Batch(self, [texts[i] for i in rows])
            longest = max(1, len(texts[rows[-1]]))  # a text above the maximum length is read whole, in pieces
            step = max(1, -(-PART_CHARACTERS // longest)) if on_cpu else len(rows)
            parts += [Part(rows[i : i + step], batch, i, longest) for i in range(0, len(rows), step)]
        return parts

    @torch.inference_mode()
    def embed_part(self, part: "Part") -> np.ndarray:
        """Return the rows of `embed` for one part, float32."""
        device = next(self.model.parameters()).device
        training = self.training
        self.eval()
        rows = slice(part.start, part.start + len(part.rows))
        inputs, texts = {name: tensor[rows] for name, tensor in part.batch.inputs.items()}, part.batch.texts[rows]

        def embed(**tokens: Tensor) -> np.ndarray:
            with torch.autocast(device.type, torch.bfloat16, enabled=self.in_bfloat16):
                z_BD: np.ndarray = self(**{name: tensor.to(device) for name, tensor in tokens.items()}).cpu().numpy()
            return z_BD

        z_BD, num_tokens = embed(**inputs), inputs["attention_mask"].sum(1).numpy()
        z_BD = mean_over_pieces(
            z_BD, texts, num_tokens, self.tokenizer, self.prompt, self.max_length, lambda p: embed(**self.tokenize(p)),
            device.type,
        )  # fmt: skip
        self.train(training)
        long_B = num_tokens >= self.max_length
        z_BD[long_B] /= np.linalg.norm(z_BD[long_B], axis=1, keepdims=True)
        return z_BD

    def save(self, folder: str | Path, card: str) -> None:
        """Write a folder for `SentenceTransformer(folder)`: equal vectors for texts that fit; `card` is its README."""
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer import modules

        with tempfile.TemporaryDirectory() as plain:
            _merged(self.model).save_pretrained(plain)
            self.tokenizer.save_pretrained(plain)
            # sentence-transformers loads Dense layers in single precision, and all modules must have one dtype.
            dtype = torch.float32 if self.dense else next(self.model.parameters()).dtype
            transformer = modules.Transformer(plain, max_seq_length=self.max_length, model_kwargs={"dtype": dtype})
        layers = [transformer, modules.Pooling(self.model.config.hidden_size, POOLINGS[self.pooling])]
        if self.dense:
            width = self.dense.in_features, self.dense.out_features
            # Copies: under ZeRO parameters are views of one buffer, which safetensors refuses.
            weight, bias = (parameter.detach().cpu().float().clone() for parameter in (self.dense.weight, self.dense.bias))
            layers.append(modules.Dense(*width, activation_function=nn.ReLU(), init_weight=weight, init_bias=bias))
        SentenceTransformer(
            modules=[*layers, modules.Normalize()],
            prompts={PROMPT_NAME: self.prompt},
            default_prompt_name=PROMPT_NAME if self.prompt else None,
            similarity_fn_name="cosine",
            device="cpu",
        ).save(str(folder), create_model_card=False)
        (Path(folder) / "README.md").write_text(card, "utf-8")


def check_model(where: str, name: str, revision: str, max_length: int | None) -> None:
    """Check an encoder on the driver, from its configuration alone, before workers load it.

    Args:
        where: hub name or folder that transformers loads.
        name: the model as configured, for messages.
        revision: commit of a hub model, or "".
        max_length: tokens; None: the model's own.

    Raises:
        InputError: the model cannot be loaded or has fewer positions than max_length.
    """
    check_self_contained(where)
    with loading(f"encoder.model {name!r} (a hub name, a folder or package://…)"):
        config = AutoConfig.from_pretrained(where, revision=revision or None, trust_remote_code=False)
    limit = getattr(config, "max_position_embeddings", None)
    if max_length and limit and max_length > limit:
        raise InputError(f"encoder.max_length ({max_length}) must be at most {limit}, the model's positions")


def _pool(states_BTD: Tensor, mask_BT: Tensor, pooling: Pooling) -> Tensor:
    if pooling == "mean":
        mask_BT1 = mask_BT[..., None].to(states_BTD.dtype)
        return (states_BTD * mask_BT1).sum(1) / mask_BT1.sum(1).clamp(min=1e-9)
    last_B = mask_BT.shape[1] - 1 - mask_BT.flip(1).argmax(1)  # whichever side the tokenizer pads
    return states_BTD[torch.arange(len(states_BTD), device=states_BTD.device), last_B]


def _dense_layer(folder: str, width: int, out: int) -> nn.Linear:
    """The layer after the pooling, with the folder's weights if they fit, else random weights."""
    dense = nn.Linear(width, out)
    saved = Path(folder) / DENSE_FOLDER / "model.safetensors"
    if saved.exists():
        activation = json.loads(saved.with_name("config.json").read_text("utf-8"))["activation_function"].rpartition(".")[2]
        if activation != nn.ReLU.__name__:
            raise InputError(f"the last layer of {folder} ends in {activation}; only ReLU is supported: train it again")
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
    """The model with low-rank additions merged into its weights; the argument is unchanged."""
    return copy.deepcopy(model).merge_and_unload() if hasattr(model, "merge_and_unload") else model
