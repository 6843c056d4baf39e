"""The checks of `longreward doctor`. Each yields Findings and raises no error for what it examines.

`environment.py` checks Python, packages, GPU, memory and disk; `project.py` the folder with its settings, data, git and
DVC; `state.py` the state folder and the store of runs; `servers.py` everything that answers over a network.
"""
