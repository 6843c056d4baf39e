"""What `longreward doctor` looks at, each thing a Finding; none of it raises for what it looks at.

finding.py    ✓, ! or ✗, what was found, what to do
installed.py  Python, packages against the tested ranges, git
machine.py    GPU, memory, disk
project.py    the folder: files, settings, data, DVC, state
servers.py    what answers over a network: judge, embeddings, policy server, Prefect, MLflow
    remote.py     DVC's remote
"""

from longreward.tasks.doctor.finding import Finding, Mark

__all__ = ["Finding", "Mark"]
