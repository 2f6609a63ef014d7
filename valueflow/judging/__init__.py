"""Judges: kinds and their settings, fingerprints, questions to LLM judges and their replies, judges without a cluster."""

from valueflow.judging.configs import AnyJudge, EncoderJudge, JudgeConfig, SimulatedJudge
from valueflow.judging.kind import JudgeKind, OnlineJudge, Worker
from valueflow.judging.kinds import KINDS, kind_of
from valueflow.judging.online import MicroBatcher, online_judge
from valueflow.judging.tasks import RANK, VOTE
from valueflow.judging.turns import Piece, Turns

__all__ = [
    "KINDS", "RANK", "VOTE", "AnyJudge", "EncoderJudge", "JudgeConfig", "JudgeKind", "MicroBatcher", "OnlineJudge", "Piece",
    "SimulatedJudge", "Turns", "Worker", "kind_of", "online_judge",
]  # fmt: skip
