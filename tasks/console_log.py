"""Log lines on the console: those of this project, with the time and the stage; a library's only if they are errors.

    04:54:00  score: judge offline-lexical-5: 2,415 replies, 25 from the ledger
    04:54:20  score: warning: 3 responses are unscored

With LONGREWARD_VERBOSE the console shows all lines in Prefect's own form. The Prefect UI has them in any case.
"""

import logging
import sys
from pathlib import Path
from typing import Any

import prefect

from longreward.utils.console import is_verbose, uses_color

UI_ONLY: dict[str, Any] = {"ui_only": True}
"""`extra` of a record that the console does not show, since the program prints the same text in another way."""

_PREFECT_FOLDER = str(Path(prefect.__file__).parent)
_COLORS = {logging.WARNING: "\033[33m", logging.ERROR: "\033[31m", logging.CRITICAL: "\033[31m"}
_LABELS = {logging.WARNING: "warning: ", logging.ERROR: "error: ", logging.CRITICAL: "error: "}


class ConsoleHandler(logging.StreamHandler[Any]):
    """Writes to what `sys.stderr` is at that moment: a progress bar replaces it, to print lines above itself."""

    def __init__(self, stage: str) -> None:
        super().__init__(sys.stderr)
        self.stage = stage
        self.addFilter(_is_shown)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record."""
        self.stream = sys.stderr
        super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with color if the terminal has it."""
        time = logging.Formatter().formatTime(record, "%H:%M:%S")
        text = super().format(record)
        start, end = (_COLORS.get(record.levelno, ""), "\033[0m") if uses_color(sys.stderr) else ("", "")
        label = _LABELS.get(record.levelno, "")
        # Progress starts with the name of the stage already: "score: 12 of 40", "train, steps: 3 of 99".
        names_stage = not self.stage or text.startswith((f"{self.stage}:", f"{self.stage},"))
        prefix = "" if names_stage else f"{self.stage}: "
        return f"{time}  {prefix}{start}{label}{end if start else ''}{text}"


def configure_console(stage: str = "") -> None:
    """Show this project's log lines on the console in place of all lines in Prefect's form, unless verbose.

    Args:
        stage: the name of the stage that this process runs, for its lines.
    """
    if is_verbose():
        return
    root = logging.getLogger()
    for handler in root.handlers:
        if isinstance(handler, ConsoleHandler):
            handler.stage = stage or handler.stage
            return
    from prefect.logging.handlers import PrefectConsoleHandler

    for handler in [handler for handler in root.handlers if isinstance(handler, PrefectConsoleHandler)]:
        root.removeHandler(handler)
    root.addHandler(ConsoleHandler(stage))


def _is_shown(record: logging.LogRecord) -> bool:
    if getattr(record, "ui_only", False):
        return False
    if record.levelno >= logging.ERROR:
        return True
    # The logger of a flow run has lines of this project and of Prefect's engine.
    is_own = record.name.split(".")[0] == "longreward" or record.name in ("prefect.flow_runs", "prefect.task_runs")
    return is_own and not record.pathname.startswith(_PREFECT_FOLDER)
