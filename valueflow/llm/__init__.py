"""Calling LLMs: settings, questions, chat templates, admission, the call cache, and cost.

Clients are imported from their modules: `llm.endpoint` needs httpx, `llm.chat` loads tokenizers.
"""

from valueflow.llm.cache import CallCache, Reply, call_key
from valueflow.llm.configs import AnyLlm, Budget, EndpointModel, LlmConfig, LlmModel, Price, VllmModel
from valueflow.llm.cost import CostEstimate, MeasuredSpeed, cost_summary
from valueflow.llm.question import Question, Task, with_replies

__all__ = [
    "AnyLlm", "Budget", "CallCache", "CostEstimate", "EndpointModel", "LlmConfig", "LlmModel", "MeasuredSpeed", "Price",
    "Question", "Reply", "Task", "VllmModel", "call_key", "cost_summary", "with_replies",
]  # fmt: skip
