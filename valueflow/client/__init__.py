"""Python clients of the service: over HTTP, blocking or in asyncio, and in this process."""

from valueflow.client.client import AsyncClient, Client
from valueflow.client.local import LocalClient
from valueflow.client.protocol import ProfileSettings, Scores, Settings, ValueFlowError

__all__ = ["AsyncClient", "Client", "LocalClient", "ProfileSettings", "Scores", "Settings", "ValueFlowError"]
