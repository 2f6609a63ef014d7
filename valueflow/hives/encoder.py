"""A sentence encoder that can be trained: one prompt, pooling and normalisation in training, embedding and the saved folder.

B texts of a batch, T tokens, D dimensions.
"""

import copy
import importlib.util
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, AutoTokenizer

from valueflow.config import Config
from valueflow.errors import InputError
from valueflow.models import locate

Pooling = Literal["mean", "last"]
POOLINGS: dict[Pooling, str] = {"mean": "mean", "last": "lasttoken"}  # ours -> the name in sentence-transformers
DENSE_FOLDER = "2_Dense"  # the folder of the layer after the pooling, where there is one
PROMPT_NAME = "text"  # the name under which a saved folder keeps the prompt


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
            width = (
                json.loads((at / DENSE_FOLDER / "config.json").read_text("utf-8"))["out_features"]
                if (at / DENSE_FOLDER).is_dir()
                else 0
            )
            return cls.load(str(at), max_length=max_length, pooling=pooling, prompt=prompts[PROMPT_NAME], dense=width)
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
            prompts={PROMPT_NAME: self.prompt},
            default_prompt_name=PROMPT_NAME if self.prompt else None,
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
    saved = Path(folder) / DENSE_FOLDER / "model.safetensors"
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
