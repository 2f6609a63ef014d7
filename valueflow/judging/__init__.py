"""Judges: kinds and their settings, fingerprints, questions to LLM judges and their replies, judges without a cluster."""

from valueflow.judging.configs import AnyJudge, EncoderJudge, JudgeConfig, SimulatedJudge
from valueflow.judging.kind import JudgeKind, OnlineJudge, Worker
from valueflow.judging.kinds import KINDS, kind_of
from valueflow.judging.online import MicroBatcher, online_judge
from valueflow.judging.tasks import RANK, VOTE
from valueflow.judging.turns import CALLER, Caller, Piece, Turns, calling, new_caller

__all__ = [
    "CALLER", "KINDS", "RANK", "VOTE", "AnyJudge", "Caller", "EncoderJudge", "JudgeConfig", "JudgeKind", "MicroBatcher",
    "OnlineJudge", "Piece", "SimulatedJudge", "Turns", "Worker", "calling", "kind_of", "new_caller", "online_judge",
]  # fmt: skip
