"""A preset's text as params.yaml of a project with data of its own: three things change, the comments stay."""

import re

PREPARE = """\
prepare:
  source: data/raw/questions.jsonl
  preference_share: 0.4 # of the documents: to be sampled, scored and paired; the rest trains `sft`
  heldout_share: 0.3 # of the documents: only `evaluate` sees them
  seed: 0

"""


def own_data(preset: str) -> str:
    """The settings with the project's own questions in `prepare`, without gold facts, and with the judge's reward,
    which any data has, to tell the champion."""
    sections = re.split(r"(?m)^(?=[a-z_]+:)", preset)
    return "".join(_adapted(section) for section in sections)


def _adapted(section: str) -> str:
    if section.startswith("prepare:"):
        return PREPARE
    if section.startswith("evaluate:"):
        section = re.sub(
            r"(?m)^  gold:.*$", "  gold: null # the built-in corpus alone has facts known to be true", section
        )
        return re.sub(r"(?m)\bmeasure: *\w+( *#.*)?", "measure: reward", section)
    return section
