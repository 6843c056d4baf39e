"""`python -m longreward.tasks.quiet_dvc …`: the `dvc` command without bars and hints, and with its errors on stdout.

The stages that DVC starts inherit the terminal, where they show their own bars. `dvc --quiet` would hide errors too.
"""

import logging
import sys


def main() -> int:
    """Run DVC with the arguments of this process; return its exit code."""
    from dvc.cli import main as dvc_main

    for name in ("dvc", "dvc_objects", "dvc_data"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.WARNING)
        for handler in logger.handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr:
                handler.setStream(sys.stdout)  # the pipeline reads stdout, and reports the errors itself
    # DVC shows bars unless the levels of these loggers are above ERROR; no option does that alone (DVC 3.67).
    for name in ("dvc.progress", "dvc_data.callbacks"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return int(dvc_main(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
