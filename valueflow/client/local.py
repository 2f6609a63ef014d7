"""Client of a service in this process, with the methods of `AsyncClient` that need no server."""

import functools
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from valueflow import api
from valueflow.client.protocol import StreamLine, build_request
from valueflow.errors import InputError

if TYPE_CHECKING:
    from valueflow.judging.configs import AnyJudge
    from valueflow.service.service import Service
    from valueflow.service.work import Plan

REQUEST_ID = "local"


class LocalClient:
    """Scores in this process. The service is loaded by the first valid request, since that takes seconds.

    Args:
        root: folder or URL with the tables.
        version: id of the VIDB version.
        judge: default: the judge that built the version, if it is the packaged encoder.
        fast: offer mode fast.
    """

    def __init__(self, root: str, version: str = "current", judge: "AnyJudge | None" = None, fast: bool = False) -> None:
        self.root, self.version, self.judge, self.fast = root, version, judge, fast

    @functools.cached_property
    def _service(self) -> "Service":
        from valueflow.service import local

        return local.local_service(self.root, self.version, self.judge, self.fast)

    def stream(self, texts: list[str], values: list[str], **settings: Any) -> AsyncIterator[StreamLine]:
        """Yield a StreamStart, the scores, and a StreamEnd."""
        request = build_request(api.StreamRequest, {"texts": texts, "values": values, **settings})
        return self._service.stream(request, REQUEST_ID)

    def plan(self, texts: list[str], values: list[str], **settings: Any) -> "Plan":
        """Return what the judge will be asked to score the texts."""
        return self._service.plan(build_request(api.StreamRequest, {"texts": texts, "values": values, **settings}), texts)

    async def compare(self, first: str, second: str, values: list[str], **settings: Any) -> api.CompareResponse:
        """Return for each value the probability that the first text has the higher intensity."""
        request = build_request(api.CompareRequest, {"first": first, "second": second, "values": values, **settings})
        return await self._service.compare(request, REQUEST_ID)

    async def profile(self, texts: list[str], values: list[str], **settings: Any) -> api.ProfileResponse:
        """Return the mean intensity of each value over the texts of one person or group that concern it."""
        request = build_request(api.ProfileRequest, {"texts": texts, "values": values, **settings})
        return await self._service.profile(request, REQUEST_ID)

    async def extract(self, texts: list[str], theories: list[str] | None, top: int) -> api.ExtractResponse:
        """Check the request.

        Raises:
            InputError: always: extraction needs a server.
        """
        from valueflow.service.extraction import extraction_steps

        build_request(api.ExtractRequest, {"texts": texts, "theories": theories, "top": top})
        raise InputError(extraction_steps(self.root))

    async def theories(self) -> api.TheoriesResponse:
        """Return the theories and their nodes."""
        return self._service.theories()

    async def value(self, value: str) -> api.ValueResponse:
        """Return a value's definition, its paths in the theory, and example anchors."""
        return self._service.value(value)

    async def steering(self, value: str) -> api.SteeringResponse:
        """Return the wording by which models are steered on a value."""
        return self._service.steering(value)
