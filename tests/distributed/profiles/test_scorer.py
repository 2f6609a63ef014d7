"""The precision of an encoder in mode fast."""

import pytest

from valueflow.distributed.embed import EmbedderConfig
from valueflow.distributed.profiles import scorer
from valueflow.distributed.profiles.config import ProfileConfig
from valueflow.records import ValueId


@pytest.mark.parametrize("prompt", ["", "query: "])  # one pass gives vectors and relevance, or two
def test_the_stored_fit_is_in_float32_whatever_the_precision(monkeypatch, prompt):
    made = []

    def regression(config, version, embed):
        of = embed.__self__
        made.extend(holder.encoder.in_bfloat16 for holder in (of.ranker, of.embedder) if holder)

    monkeypatch.setattr(scorer, "regression", regression)
    encoder = EmbedderConfig(precision="bfloat16", prompt=prompt or None)
    fast = scorer.FastScorer(ProfileConfig(root="r", encoder=encoder), "v", [ValueId("svt:power")], None)
    assert set(made) == {False}
    assert {holder.encoder.in_bfloat16 for holder in (fast.ranker, fast.embedder) if holder} == {True}
