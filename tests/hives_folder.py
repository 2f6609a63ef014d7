"""A small HiVES folder with random weights, for tests of what loads one."""

from pathlib import Path

PROMPT, MAX_LENGTH = "value: ", 16


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """Write a folder whose prompt and length are its own, so that vectors tell which settings were used."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    from valueflow.hives.encoder import Encoder
    from valueflow.models import MINILM, locate

    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(locate(MINILM))
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).eval()
    Encoder(model, tokenizer, MAX_LENGTH, "mean", PROMPT).save(folder, "# tiny")
    return folder
