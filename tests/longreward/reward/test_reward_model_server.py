"""A reward model behind vLLM's pooling API, imitated by a local server that computes with a real, tiny model."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from http_server import JsonHandler, http_server

from longreward.errors import ConfigError, ServerRefused, ServerUnavailable
from longreward.records import Example, Response
from longreward.reward import reward_model_server
from longreward.reward.reward_model import RewardBackend, RewardModelConfig, load_reward_model

EXAMPLE = Example(id="7", document_id="d", context="the town is north of the river . " * 9, query="where is the town ?")
TEXTS = ("it is north .", "it is south of the bridge .", "north", "anna built it .", "the mayor .")


class PoolingServer:
    """Replies as vLLM does; arguments change that. `requests` has the path, the key and the body of each request."""

    def __init__(self, backend: RewardBackend, *, listed: dict[str, Any] | None, outputs: int, status: int) -> None:
        self.backend, self.listed, self.outputs, self.status = backend, listed, outputs, status
        self.requests: list[tuple[str, str | None, Any]] = []
        self._stack = ExitStack()
        self.url = self._stack.enter_context(http_server(self._handler()))
        self.close = self._stack.close

    def reply(self, path: str, body: Any) -> tuple[int, Any]:
        if path == "/v1/models":
            return (404, {"detail": "Not Found"}) if self.listed is None else (200, {"data": [self.listed]})
        if path not in ("/classify", "/pooling"):
            return 404, {"detail": "Not Found"}
        if self.status != 200:
            return self.status, {"error": {"message": "the engine is gone"}}
        assert body["use_activation"] is False
        assert path == "/classify" or body["task"] == "classify"
        [rewards] = self.backend.rewards([body["input"]])
        values = [[reward] * self.outputs for reward in rewards]
        data: list[dict[str, Any]] = [
            {"index": n, "label": "LABEL_0", "probs": value, "num_classes": len(value)}
            if path == "/classify"
            else {"index": n, "object": "pooling", "data": value}
            for n, value in enumerate(values)
        ]
        return 200, {"id": "1", "object": "list", "model": "m", "data": data[::-1], "usage": {"prompt_tokens": 1}}

    def _handler(self) -> type[JsonHandler]:
        server = self

        class Handler(JsonHandler):
            def do_GET(self) -> None:
                status, reply = server.reply(self.path, None)
                self.send(reply, status)

            def do_POST(self) -> None:
                body = self.read_json()
                server.requests.append((self.path, self.headers["Authorization"], body))
                status, reply = server.reply(self.path, body)
                self.send(reply, status)

        return Handler


@pytest.fixture(scope="module")
def classifier(save_classifier: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("served") / "model")


@pytest.fixture
def serve(classifier: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., PoolingServer]]:
    monkeypatch.setattr(reward_model_server, "MAX_RETRIES", 0)
    backend = load_reward_model(RewardModelConfig(model=str(classifier))).backend
    started: list[PoolingServer] = []

    def start(
        listed: dict[str, Any] | None = {"id": "served-name", "max_model_len": 64},  # noqa: B006 (not changed)
        outputs: int = 1,
        status: int = 200,
    ) -> PoolingServer:
        started.append(PoolingServer(backend, listed=listed, outputs=outputs, status=status))
        return started[-1]

    yield start
    for server in started:
        server.close()


def rank(classifier: Path, **settings: Any) -> list[float | None]:
    model = load_reward_model(RewardModelConfig(model=str(classifier), batch_size=2, **settings))
    responses = [Response(id=f"7-{n}", example_id="7", query=EXAMPLE.query, text=text) for n, text in enumerate(TEXTS)]
    [ranked] = model.rank([(EXAMPLE, responses)])
    return [reward.reward for reward in ranked.rewards]


@pytest.mark.parametrize("address", ["", "/v1", "/classify", "/pooling"])
def test_served_rewards_equal_local_ones(serve: Callable[..., PoolingServer], classifier: Path, address: str) -> None:
    server = serve()
    rewards = rank(classifier, base_url=f"{server.url}{address}")
    assert rewards == pytest.approx(rank(classifier, window=64), abs=1e-5)  # the server's window
    assert {path for path, *_ in server.requests} == {"/pooling" if address == "/pooling" else "/classify"}
    assert {body["model"] for *_, body in server.requests} == {"served-name"}
    assert [len(body["input"]) for *_, body in server.requests].count(2) == 2  # five texts in batches of two
    assert max(len(ids) for *_, body in server.requests for ids in body["input"]) <= 64


def test_server_without_list_of_models(serve: Callable[..., PoolingServer], classifier: Path) -> None:
    server = serve(listed=None)
    assert rank(classifier, base_url=server.url) == pytest.approx(rank(classifier), abs=1e-5)
    assert all("model" not in body for *_, body in server.requests)


def test_key_is_sent_and_never_shown(
    serve: Callable[..., PoolingServer], classifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REWARD_KEY", "sk-secret")
    server = serve(status=401)
    with pytest.raises(ServerRefused, match="REWARD_KEY") as caught:
        rank(classifier, base_url=server.url, api_key_env="REWARD_KEY")
    assert server.requests[0][1] == "Bearer sk-secret"
    assert "sk-secret" not in str(caught.value)
    monkeypatch.delenv("REWARD_KEY")
    with pytest.raises(ConfigError, match=r"REWARD_KEY holds no key for the reward model's server"):
        rank(classifier, base_url=server.url, api_key_env="REWARD_KEY")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"status": 503}, ServerUnavailable, "the engine is gone"),
        ({"status": 400}, ServerRefused, "the engine is gone"),
        ({"outputs": 3}, ServerRefused, "has 3 outputs, but a reward is a single number"),
    ],
)
def test_failures_name_the_server(
    serve: Callable[..., PoolingServer],
    classifier: Path,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    server = serve(**options)
    with pytest.raises(error, match=f"reward model at {server.url}/classify.*{message}"):
        rank(classifier, base_url=server.url)


def test_no_server_and_no_tokenizer(serve: Callable[..., PoolingServer], classifier: Path) -> None:
    server = serve()
    server.close()
    with pytest.raises(ServerUnavailable, match="is the server running"):
        rank(classifier, base_url=server.url)
    with pytest.raises(ConfigError, match=r"model names no tokenizer"):
        RewardModelConfig.parse({"base_url": server.url}, source="pair.srm")
