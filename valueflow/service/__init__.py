"""The evaluator as a service: answers one request at a time, in asyncio, over a published VIDB."""

from valueflow.service.local import local_service
from valueflow.service.service import EmbeddingBackend, Service

__all__ = ["EmbeddingBackend", "Service", "local_service"]
