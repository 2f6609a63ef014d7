"""A judge that takes its time, and remembers which of its calls were cancelled."""

import asyncio

import pyarrow as pa


class SlowJudge:
    """Returns the windows of a call after `seconds`; `begun` and `cancelled` have the number of windows of each such call."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.begun: list[int] = []
        self.cancelled: list[int] = []

    async def __call__(self, windows: pa.Table) -> pa.Table:
        self.begun.append(windows.num_rows)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled.append(windows.num_rows)
            raise
        return windows
