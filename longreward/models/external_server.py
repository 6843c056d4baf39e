"""A server of the user's own: is it there, does it serve the model that it should, and how long may a text be?"""

from typing import TYPE_CHECKING, Any

from longreward.errors import PolicyError, ServerRefused
from longreward.models.policy_client import PolicyClient
from longreward.models.server_config import ServerConfig

if TYPE_CHECKING:
    from longreward.records import Role


def addresses(config: ServerConfig) -> "dict[Role, tuple[str, str | None]]":
    """The base URL and the model's name for the SFT model and, where one is configured, the trained one."""
    assert config.base_url is not None, "ServerConfig holds external to an address"
    found: dict[Role, tuple[str, str | None]] = {"sft": (config.base_url, config.model)}
    if config.trained_base_url or config.trained_model:
        found["dpo"] = (config.trained_base_url or config.base_url, config.trained_model)
    return found


async def open_external(config: ServerConfig, *, base_url: str, model: str | None) -> PolicyClient:
    """A client that has got a first token from `model` (None: the only one that is served).

    Raises ServerUnavailable, ServerRefused, or ConfigError where the key is missing.
    """
    client = PolicyClient(config, base_url=base_url, model=model)
    try:
        listed = await client.listed()
        names = [str(one["id"]) for one in listed]
        if client.model is None and len(names) == 1:
            client.model = names[0]
        await _check_served(client, names)
        client.window = next((_window(one) for one in listed if one["id"] == client.model), None)
    except PolicyError:
        await client.close()
        raise
    return client


async def _check_served(client: PolicyClient, names: list[str]) -> None:
    """A list without the name settles nothing: `transformers serve` lists its download cache, and not what it serves.

    So the server is asked under the name, and under one that no model has: who answers to both looks at neither.
    """
    wanted = f"{client.model!r}, as configured," if client.model else "one model alone, so that it must be named,"
    another = f"the {client.faults.where} does not serve {wanted} but {', '.join(names) or 'does not say what'}; "
    advice = "set server.model (server.trained_model for the trained one) or start the right server"
    if client.model is None:
        raise ServerRefused(another + advice)
    try:
        await client.first_token()
    except ServerRefused as error:
        if client.model in names or not names:
            raise
        raise ServerRefused(f"{another}{advice} ({error})") from None
    if names and client.model not in names and await client.answers_to(NO_MODEL):
        raise ServerRefused(another + advice)


def _window(listed: dict[str, Any]) -> int | None:
    """What vLLM and SGLang say beside a model's name."""
    said = listed.get("max_model_len")
    return said if isinstance(said, int) and said > 0 else None


NO_MODEL = "no-model-has-this-name"
