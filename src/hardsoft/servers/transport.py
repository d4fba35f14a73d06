"""How requests travel: a limit of each try, however slowly its reply trickles in, and enough open files for all of them."""

import asyncio
import resource
from typing import Any

import httpx2
import openai

SPARE_FILES = 128
"""Files that a process has open beside its connections, roughly."""


class TimedClient(openai.DefaultAsyncHttpxClient):
    """The client's own transport, which limits the whole of a try: httpx limits the time between two bytes only."""

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send a request and read its reply, within the request's own limit.

        Raises:
            httpx2.ReadTimeout: it took longer; the client tries again.
        """
        limit = request.extensions["timeout"]["read"]
        try:
            async with asyncio.timeout(limit):
                return await super().send(request, **options)
        except TimeoutError:
            raise httpx2.ReadTimeout(f"no whole reply within {limit:g} s", request=request) from None


def allow_connections(count: int) -> None:
    """Raise this process's own limit of open files, as far as it may, where it has no room for so many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
