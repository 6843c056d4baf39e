"""The presets of the top-level folder configs/ are installed as data of the package `longreward.configs`.

All else is in pyproject.toml, whose package finder cannot take in a folder from elsewhere.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["longreward*", "tasks*", "flows*"]), "longreward.configs"],
    package_dir={"longreward.configs": "configs"},
)
