"""Whether requests can be answered: for probes, which come often and wait for a second at most."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

FRESH_SECONDS = 5.0  # a result is used for so long
PROBE_SECONDS = 0.5  # a probe waits for a new result; then it gets the last one
CHECK_SECONDS = 5.0  # a check that takes longer has failed


class Readiness:
    """The result of the last check; a new one begins when a probe comes and the last is no longer fresh.

    Args:
        check: raises an exception if requests cannot be answered.
    """

    def __init__(self, check: Callable[[], Awaitable[None]]) -> None:
        self._check = check
        self._ready, self._reason, self._checked = False, "", -FRESH_SECONDS
        self._checking: asyncio.Task[None] | None = None

    async def __call__(self) -> bool:
        """Return whether requests can be answered; before the first result, they cannot."""
        if time.monotonic() - self._checked >= FRESH_SECONDS:
            self._checking = self._checking or asyncio.create_task(self._renew())
            await asyncio.wait({self._checking}, timeout=PROBE_SECONDS)
        return self._ready

    async def _renew(self) -> None:
        reason = ""
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self._check()
        except TimeoutError:
            reason = f"no answer within {CHECK_SECONDS:g} s"
        except Exception as error:  # noqa: BLE001 - whatever fails, requests cannot be answered
            reason = f"{type(error).__name__}: {error}"
        if reason != self._reason:
            log.log(logging.ERROR if reason else logging.INFO, "ready: %s", f"no, {reason}" if reason else "yes")
        self._ready, self._reason, self._checked, self._checking = not reason, reason, time.monotonic(), None
