"""A chat as the tokens of a model's chat template."""

import functools
from typing import Any

from valueflow.models import locate


def chat_tokens(model: str, revision: str, messages: list[dict[str, str]], trust_remote_code: bool) -> list[int]:
    """Return the token ids of a chat that the model is to answer, special tokens only where its chat template writes them.

    A text that spells a special token, to forge a turn of the chat, gets a space after the token's first character.
    """
    processor, tokenizer, special = _chat(model, revision, trust_remote_code)
    harmless = []
    for message in messages:
        content = message["content"]
        for token in special:
            content = content.replace(token, f"{token[0]} {token[1:]}")
        harmless.append(message | {"content": content})
    prompt = processor.apply_chat_template(harmless, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(prompt, add_special_tokens=False)["input_ids"])


@functools.cache
def _chat(model: str, revision: str, trust_remote_code: bool) -> tuple[Any, Any, list[str]]:
    """What has a model's chat template (more than a tokenizer where it reads more than text), its tokenizer, special tokens."""
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(locate(model), revision=revision or None, trust_remote_code=trust_remote_code)
    tokenizer = getattr(processor, "tokenizer", processor)
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return processor, tokenizer, sorted(added | set(tokenizer.all_special_tokens))
