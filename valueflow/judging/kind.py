"""The record of a kind of judge."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal, NamedTuple, Protocol

import pyarrow as pa

# Windows or ballots with their texts -> rows of `rankings` or `votes`, one for each, in the same order.
Worker = Callable[[pa.Table], pa.Table]
Ask = Callable[[pa.Table], Awaitable[pa.Table]]
# What answers to windows of one text say: nothing; how far the text concerns the value, which orders do not know ("apart"), or
# which they contain already ("in orders"), so that posteriors of texts must not follow it a second time.
Relevance = Literal["none", "apart", "in orders"]
# Texts, padded to one length, that take a small encoder a fraction of a second on one CPU core. Larger pieces would not be
# faster, and the other callers of a service wait for the piece in progress.
PIECE_BYTES = 2_000


class OnlineJudge(Protocol):
    """A judge that answers windows in an event loop."""

    async def __call__(self, windows: pa.Table, /) -> pa.Table:
        """Return the `rankings` rows."""

    async def check(self) -> None:
        """Return if the judge can answer; costs nothing.

        Raises:
            Exception: it cannot.
        """


class Ranker(Protocol):
    """A worker that answers windows.

    knows: whether it can answer windows without reading their texts once more, so in no time.
    piece_bytes: UTF-8 bytes of texts, padded to one length, that it answers at once in a service.
    read_bytes: of a text, the rest costs nothing.
    """

    piece_bytes: int
    read_bytes: int

    def __call__(self, windows: pa.Table, /) -> pa.Table:
        """Return the `rankings` rows."""

    def knows(self, windows: pa.Table, /) -> bool:
        """Return whether all texts were read before."""


class JudgeKind(NamedTuple):
    """All that distinguishes a kind of judge from the others; every function takes the judge's settings first.

    ranking_knowledge: content beside the settings that can change orders of windows, for the fingerprint.
    voting_knowledge: content beside the settings that can change votes, for the fingerprint.
    ranker, voter: worker classes that answer windows or ballots in a process of their own; None for an LLM.
    online: the judge of an LLM in an event loop, given the URL of the call cache; None if `ranker` runs in a thread or if the
        LLM needs processes of its own.
    check: raises InputError early, where a missing model or key would otherwise end an actor.
    correlation: of people's theta with that of several judges of the kind together, given their settings; None if unknown.
    true_rating: the truth about a text (settings, node, text id); None for judges that are rated by people's ratings.
    relevance: whether the judge says, by its settings, how far a text concerns a value.
    relevance_knowledge: content beside the settings that can change the relevance it says, for the id of an evaluation.
    """

    ranking_knowledge: Callable[[Any], object]
    voting_knowledge: Callable[[Any], object]
    ranker: Callable[[Any], Ranker] | None = None
    voter: Callable[[Any], Worker] | None = None
    online: Callable[[Any, str], OnlineJudge] | None = None
    check: Callable[[Any], object] = lambda _: None
    correlation: Callable[[list[Any]], float] | None = None
    true_rating: Callable[[Any, str, str], float] | None = None
    relevance: Callable[[Any], Relevance] = lambda _: "none"
    relevance_knowledge: Callable[[Any], object] = lambda _: ""
