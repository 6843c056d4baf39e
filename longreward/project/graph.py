"""The graph of a new project: that of the repository, without the code, which is installed.

python -m longreward.project.graph > longreward/project/template/dvc.yaml    # after a change of dvc.yaml

A test holds the two together.
"""

import re
from pathlib import Path

HEAD = """\
# The graph. Each stage is a Prefect flow (python -m flows.<stage>), a section of params.yaml and an MLflow run of one
# name. Their code is installed: after an upgrade, `longreward run --force` makes everything anew.
"""
CODE = re.compile(r"(?m)^      - (?:flows|longreward|tasks)/.*\n")


def without_code(graph: str) -> str:
    """The text of dvc.yaml without dependencies on code, under a head of its own."""
    return HEAD + CODE.sub("", graph[graph.index("stages:\n") :])


if __name__ == "__main__":
    print(without_code((Path(__file__).resolve().parents[2] / "dvc.yaml").read_text(encoding="utf-8")), end="")
