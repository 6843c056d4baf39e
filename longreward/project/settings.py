"""A preset's text as params.yaml of a project with data of its own: few things change, the comments stay."""

import re

HEAD = """\
# The settings of this project, begun from the preset {preset}. `longreward params` prints every key's meaning
# and default, which is the paper's figure where it gives one.
"""
PREPARE = """\
prepare:
  source: data/raw/questions.jsonl
  preference_share: {preference} # of the documents: to be sampled, scored and paired{rest}
  heldout_share: {heldout} # of the documents: only `evaluate` sees them
  seed: 0
"""
NO_GOLD = "  gold: null # the built-in corpus alone has facts known to be true"
SHORT = re.compile(r"(?m)^  short: .*\n")  # instructions in the built-in corpus's words
ROOM = re.compile(r"(?m)^  (?:over_window|answer_room):.*\n")  # what `prepare` keeps: it is about the model
OF_THE_REPOSITORY = re.compile(r"(?m)^# .*(?:The same settings as params\.yaml|docs/parameters\.md has).*\n")


def own_data(text: str, *, preset: str) -> str:
    """The settings with the project's own questions in `prepare`, in shares for a handful of documents, without gold
    facts and short instructions, and with the judge's reward, which any data has, to tell the champion."""
    head, *sections = re.split(r"(?m)^(?=[a-z_]+:)", text)
    trains_sft = re.search(r"(?m)^  sft_model: *+(?:null|~)? *+(?:#.*)?$", text) is not None
    head = HEAD.format(preset=preset) + OF_THE_REPOSITORY.sub("", head)
    return head + "".join(_adapted(section, trains_sft=trains_sft) for section in sections)


def _adapted(section: str, *, trains_sft: bool) -> str:
    if section.startswith("prepare:"):
        shares = ("0.4", "0.3", "; the rest trains `sft`") if trains_sft else ("0.6", "0.4", "")
        prepare = PREPARE.format(**dict(zip(("preference", "heldout", "rest"), shares, strict=True)))
        return prepare + "".join(ROOM.findall(section)) + "\n"
    if section.startswith("evaluate:"):
        section = re.sub(r"(?m)^  gold:.*$", NO_GOLD, SHORT.sub("", section))
        return re.sub(r"(?m)\bmeasure: *\w+( *#.*)?", "measure: reward", section)
    return section
