"""Folders of the repository's top are installed as data of packages: the presets of configs/, the tiny base model.

All else is in pyproject.toml, whose package finder cannot take in a folder from elsewhere.
"""

from setuptools import find_packages, setup

ELSEWHERE = {"longreward.configs": "configs", "longreward.project.tiny_base": "models/tiny-base"}

setup(
    packages=[*find_packages(include=["longreward*", "tasks*", "flows*"]), *ELSEWHERE],
    package_dir=ELSEWHERE,
)
