"""The Python client of the service, synchronous and asynchronous."""

from valueflow.client.client import AsyncClient, Client, Settings
from valueflow.client.protocol import ValueFlowError

__all__ = ["AsyncClient", "Client", "Settings", "ValueFlowError"]
