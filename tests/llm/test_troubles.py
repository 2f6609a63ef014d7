"""Calls without an answer are told of as they happen, in few lines."""

import pytest

from valueflow.llm import troubles
from valueflow.llm.troubles import Troubles


def test_the_first_is_told_at_once_and_the_others_in_one_line_later(monkeypatch: pytest.MonkeyPatch) -> None:
    now, lines = [100.0], []
    monkeypatch.setattr(troubles.time, "monotonic", lambda: now[0])
    told = Troubles("j", lines.append)
    told.add("HTTP 400", "; slower now")
    assert lines == ["LLM 'j': 1 call has no valid answer so far; the last: HTTP 400; slower now"]
    for _ in range(1233):
        told.add("HTTP 500")
    assert len(lines) == 1
    now[0] += troubles.EVERY
    told.add("empty answer")
    assert lines[1:] == ["LLM 'j': 1,235 calls have no valid answer so far; the last: empty answer"]


def test_a_hint_is_told_once() -> None:
    lines: list[str] = []
    told = Troubles("j", lines.append)
    told.hint("slow", "raise timeout")
    told.hint("slow", "raise timeout more")
    assert lines == ["LLM 'j': raise timeout"]
