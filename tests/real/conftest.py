"""Real models, from the folder that LONGREWARD_MODELS names; without them the tests are skipped with a reason.

    smollm2-135m/        SmolLM2-135M-Instruct, as transformers saves it
    smollm2-135m.gguf    the same model for llama.cpp
    qwen-0.5b.gguf       Qwen2.5-Coder-0.5B-Instruct
    mpnet/               all-mpnet-base-v2, as sentence-transformers saves it

Servers run in processes of their own. One thread is the default: llama.cpp's threads wait for each other in busy loops,
and on a machine with other work two of them were 30 times slower than one.
"""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

LLAMA_SERVER = Path(__file__).with_name("llama_server.py")

ModelPath = Callable[[str], Path]
ServeGguf = Callable[..., AbstractContextManager[str]]


@pytest.fixture(scope="session")
def model_path() -> ModelPath:
    """Return `model_path(name)`: the path of a model, or a skipped test where it is missing."""

    def find(name: str) -> Path:
        folder = os.environ.get("LONGREWARD_MODELS")
        if not folder:
            pytest.skip("LONGREWARD_MODELS names no folder with real models")
        path = Path(folder) / name
        if not path.exists():
            pytest.skip(f"LONGREWARD_MODELS has no {name}")
        return path.absolute()

    return find


@pytest.fixture(scope="session")
def serve_gguf(model_path: ModelPath, tmp_path_factory: pytest.TempPathFactory) -> ServeGguf:
    """Return `serve_gguf(name, context=8192, slots=2, threads=1)`, a context manager that yields the base URL.

    The server's model has the name of the file without `.gguf`. `context` is the window of each slot, in tokens.
    """

    @contextmanager
    def serve(name: str, *, context: int = 8192, slots: int = 2, threads: int = 1) -> Iterator[str]:
        path = model_path(name)
        if importlib.util.find_spec("xllamacpp") is None:
            pytest.skip("llama.cpp is not installed: pip install --no-deps xllamacpp")
        log = tmp_path_factory.mktemp("llama") / "server.log"
        arguments = [str(path), path.stem, str(context), str(slots), str(threads)]
        with (
            log.open("wb") as stderr,
            subprocess.Popen(
                [sys.executable, str(LLAMA_SERVER), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
            ) as process,
        ):
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                line = process.stdout.readline().decode()
                if not line.startswith("listening "):
                    pytest.fail(f"the server of {name} did not start:\n{log.read_text(errors='replace')[-2000:]}")
                yield f"{line.split()[1]}/v1"
            finally:
                process.stdin.close()  # ends the server
                try:
                    process.wait(timeout=10)
                except subprocess.TimeoutExpired:  # it finishes the requests in flight first
                    process.kill()

    return serve
