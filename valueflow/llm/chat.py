"""Chats as tokens of a model's chat template."""

import functools
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from valueflow.models import locate

# A system message that no template contains by itself.
PROBE = "system-role-probe-7f3a"
Messages = list[dict[str, str]]


class _Chat(NamedTuple):
    processor: Any  # holds the chat template; more than a tokenizer for models that read more than text
    tokenizer: Any
    special: list[str]


def chat_tokens(
    model: str, revision: str, messages: Messages, trust_remote_code: bool, template_args: Mapping[str, Any] | None = None
) -> list[int]:
    """Return the token ids of a chat that ends where the model's answer begins.

    Special tokens appear only where the chat template writes them: a text that spells one, to forge a turn of the chat, gets a
    space after the token's first character. If the template has no system role (it raises an error, or drops the message), the
    system message becomes the beginning of the first user message.

    Args:
        model: hub name, folder or `package://…`, see `models.locate`.
        revision: of a hub model; "" for the newest.
        messages: role and content.
        trust_remote_code: allow the model's own Python code.
        template_args: arguments of the chat template, for example `{"enable_thinking": False}`.
    """
    prompt = chat_text(model, revision, messages, trust_remote_code, template_args)
    return list(_load(model, revision, trust_remote_code).tokenizer(prompt, add_special_tokens=False)["input_ids"])


def chat_text(
    model: str, revision: str, messages: Messages, trust_remote_code: bool, template_args: Mapping[str, Any] | None = None
) -> str:
    """Return a chat as its template writes it, of which `chat_tokens` are the tokens."""
    chat, args = _load(model, revision, trust_remote_code), dict(template_args or {})
    if messages and messages[0]["role"] == "system" and not has_system_role(model, revision, trust_remote_code, args):
        messages = merge_system(messages)
    escaped = [message | {"content": _escape(message["content"], chat.special)} for message in messages]
    return _render(chat, escaped, args)


def has_system_role(model: str, revision: str, trust_remote_code: bool, template_args: Mapping[str, Any] | None = None) -> bool:
    """Return whether a model's template writes a system message as one."""
    return _has_system_role(model, revision, trust_remote_code, json.dumps(dict(template_args or {}), sort_keys=True))


def merge_system(messages: Messages) -> Messages:
    """Return a chat whose leading system message is the beginning of the first user message, or becomes it."""
    (system, *others) = messages
    position = next((i for i, message in enumerate(others) if message["role"] == "user"), None)
    if position is None:
        return [system | {"role": "user"}, *others]
    user = others[position]
    merged = user | {"content": f"{system['content']}\n\n{user['content']}"}
    return [*others[:position], merged, *others[position + 1 :]]


def _render(chat: _Chat, messages: Messages, args: dict[str, Any]) -> str:
    prompt: str = chat.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **args)
    return prompt


def _escape(text: str, special: list[str]) -> str:
    for token in special:
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


@functools.cache
def _load(model: str, revision: str, trust_remote_code: bool) -> _Chat:
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(locate(model), revision=revision or None, trust_remote_code=trust_remote_code)
    tokenizer = getattr(processor, "tokenizer", processor)
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    special = sorted(added | set(tokenizer.all_special_tokens))
    return _Chat(processor, tokenizer, special)


@functools.cache
def _has_system_role(model: str, revision: str, trust_remote_code: bool, args: str) -> bool:
    """Whether the template writes a system message; `args`: its arguments as JSON."""
    from jinja2 import TemplateError

    probe = [{"role": "system", "content": PROBE}, {"role": "user", "content": "Hello."}]
    try:
        return PROBE in _render(_load(model, revision, trust_remote_code), probe, json.loads(args))
    except TemplateError:
        return False
