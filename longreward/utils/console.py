"""What programs show: errors in one form, color where it can be read, and libraries' messages only on request.

Two variables apply to every program of a run, since its stages are processes of their own:

    LONGREWARD_VERBOSE=1   shows the messages and bars of Prefect, MLflow, DVC and transformers (`--verbose`)
    NO_COLOR, FORCE_COLOR  no color on a terminal; color in a pipe
"""

import os
import shutil
import sys
from typing import IO, Any

PROGRAM = "longreward"
VERBOSE_VARIABLE = "LONGREWARD_VERBOSE"
PIPE_WIDTH = 110  # columns of tables outside a terminal
# Libraries read these when they are imported.
QUIET_ENVIRONMENT = {
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # transformers too: "Loading weights", "Writing model shards"
    "HF_HUB_VERBOSITY": "error",
    "MLFLOW_CONFIGURE_LOGGING": "false",  # MLflow's own handler: its messages go to the root logger instead
    "TQDM_DISABLE": "1",  # transformers reads GGUF files with a bar that its own switch leaves on
    "TRANSFORMERS_VERBOSITY": "error",
}


def is_verbose() -> bool:
    """Whether messages of libraries are shown."""
    return os.environ.get(VERBOSE_VARIABLE, "0") not in ("", "0")


def set_verbose() -> None:
    """Show messages of libraries in this process and its children; call this before the libraries are imported."""
    os.environ[VERBOSE_VARIABLE] = "1"


def quiet_libraries() -> None:
    """Hide progress bars and messages of libraries, unless verbose; call this before the libraries are imported.

    Variables that the user has set stay.
    """
    if not is_verbose():
        for name, value in QUIET_ENVIRONMENT.items():
            os.environ.setdefault(name, value)


def uses_color(stream: IO[Any]) -> bool:
    """Whether text for this stream may have colors."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def output_width(stream: IO[Any] | None = None) -> int:
    """Return the number of columns of a terminal, or PIPE_WIDTH elsewhere; `COLUMNS` overrides both."""
    if not (stream or sys.stdout).isatty() and not os.environ.get("COLUMNS", "").isdecimal():
        return PIPE_WIDTH
    return shutil.get_terminal_size().columns


def print_error(message: object) -> None:
    """Print an error on stderr, in the form that all programs share."""
    label = f"{PROGRAM}: error:"
    print(f"\033[31m{label}\033[0m" if uses_color(sys.stderr) else label, message, file=sys.stderr)
