"""Names of concept anchors: short phrases only, and the fingerprint of the namer is that of earlier versions."""

import pytest

from valueflow.hives.naming import NAME, NAME_WORDS, WORD_LENGTH, namer_fingerprint, parse_name
from valueflow.llm.answer_text import InvalidReply
from valueflow.llm.configs import EndpointModel, VllmModel


@pytest.mark.parametrize("reply", ["Care for the old", ' "Care for the old." ', "Care for\nthe old\n"])
def test_a_name_comes_back_without_quotes_and_full_stop(reply):
    assert parse_name(reply) == "Care for the old"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "empty reply"),
        (' "." ', "empty reply"),
        ("12 + 3", "no name: '12 . 3'"),
        ("a" * (WORD_LENGTH + 1), "longer than a name"),
        (" ".join("a" * (NAME_WORDS + 1)), "longer than a name"),
    ],
)
def test_an_invalid_name_has_its_reason(reply, reason):
    with pytest.raises(InvalidReply, match=reason):
        parse_name(reply)


@pytest.mark.parametrize(
    ("namer", "fingerprint"),
    [
        (VllmModel(name="v", model="Qwen/Qwen3-8B", revision="r1", engine={"max_model_len": 4096, "dtype": "bfloat16"},
                   logprobs=True), "388b6e478a8e88ba"),
        (EndpointModel(name="o", model="gpt-4o-mini", extra={"seed": 7}, extra_tokens=5), "eda1e642c7a71d17"),
    ],
)  # fmt: skip
def test_fingerprints_of_namers_are_unchanged(namer, fingerprint):
    assert namer_fingerprint(namer) == fingerprint  # computed by the code before the setting chat_template_args
    assert namer_fingerprint(namer.model_copy(update={"chat_template_args": {"enable_thinking": False}})) != fingerprint


def test_the_question_allows_names_only():
    question = NAME.question({"texts": ["I kept my promise.", "I paid my debt."]}, VllmModel(name="v", model="m"))
    assert question.constraint is not None
    assert question.options == []
    assert question.max_tokens == 6 * NAME_WORDS
