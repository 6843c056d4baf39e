"""One model at several servers: each prompt goes to the least busy one, and servers that fail are left out."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from longreward.errors import ServerUnavailable
from longreward.models.policy_client import Choice, PolicyClient, Prompt

log = logging.getLogger(__name__)


class BalancedClient:
    """A client with the interface of PolicyClient for several servers of the same model.

    A server that is not available after its retries is left out from then on, and its prompts go to the others.
    ServerUnavailable once none is left. All responses to a prompt come from one server, whose prefix cache they share.

    Args:
        clients: One client per server, at least one.
        max_concurrency: Maximum number of prompts at one server at a time.
    """

    def __init__(self, clients: Sequence[PolicyClient], *, max_concurrency: int) -> None:
        self._running = dict.fromkeys(clients, 0)
        self._max_concurrency = max_concurrency
        self._changed = asyncio.Condition()
        self._failure = ServerUnavailable("no policy server is left")
        self.model = clients[0].model
        windows = [client.window for client in clients if client.window]
        self.window = min(windows, default=None)
        """The smallest window of the servers that report one."""
        self.chat = clients[0].chat
        self.location = f"{len(clients)} policy servers"

    async def complete(
        self, prompt: Prompt, *, n: int, seed_for: Callable[[int], int], token_ids: bool = False, **settings: float
    ) -> list[Choice]:
        """Return `n` choices as PolicyClient.complete does."""
        while True:
            client = await self._acquire()
            try:
                return await client.complete(prompt, n=n, seed_for=seed_for, token_ids=token_ids, **settings)
            except ServerUnavailable as error:
                self._leave_out(client, error)
            finally:
                await self._release(client)

    async def close(self) -> None:
        """Close the connections to the servers that are left."""
        for client in self._running:
            await client.close()

    async def _acquire(self) -> PolicyClient:
        """Wait for a server with a free place and return it."""
        async with self._changed:
            while True:
                if not self._running:
                    raise self._failure
                client = min(self._running, key=self._running.__getitem__)
                if self._running[client] < self._max_concurrency:
                    self._running[client] += 1
                    return client
                await self._changed.wait()

    async def _release(self, client: PolicyClient) -> None:
        async with self._changed:
            if client in self._running:
                self._running[client] -= 1
            self._changed.notify_all()

    def _leave_out(self, client: PolicyClient, error: ServerUnavailable) -> None:
        self._failure = error
        if self._running.pop(client, None) is not None:  # other prompts may have met the same failure before
            log.warning("%s; it is left out (policy servers left: %d)", error, len(self._running))
