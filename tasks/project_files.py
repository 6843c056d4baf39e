"""The files of a new project, by their path in it.

params.yaml             a preset's settings, turned to the project's own data
dvc.yaml                the graph; the code that it runs is installed
data/raw                the worked example: questions.jsonl, and the texts that it names
models/tiny-base        where the preset's base model is this one
plots/bars_from_zero.json   how `dvc plots` draws an evaluation
prefect.yaml            deployments for a work pool
README.md, .gitignore, .dvcignore
"""

import itertools
import json
import random
import re
from pathlib import Path, PurePosixPath
from typing import Any

from longreward.builtin import TINY_BASE, TINY_BASE_FILES
from longreward.builtin.documents import make_document
from longreward.builtin.questions import ask, draw_questions, faulty_answer
from longreward.builtin.word_lists import SOCIETIES, SOCIETY_KINDS
from longreward.params import Params, preset_path

PLOT = "plots/bars_from_zero.json"
PLAIN = {
    ".gitignore": "gitignore",
    ".dvcignore": "dvcignore",
    "README.md": "README.md",
    "dvc.yaml": "dvc.yaml",
    "prefect.yaml": "prefect.yaml",
    PLOT: "bars_from_zero.json",
}


def project_files(preset: str) -> dict[PurePosixPath, bytes]:
    """Every file of a new project whose settings begin as those of the preset.

    Raises ConfigError where there is no such preset.
    """
    settings = own_data(preset_path(preset).read_text(encoding="utf-8"), preset=preset)
    texts = {target: _template(name) for target, name in PLAIN.items()}
    texts |= {f"data/raw/{name}": text for name, text in example_files().items()}
    made = {name: text.encode() for name, text in texts.items()}
    made["params.yaml"] = settings.encode()
    if _params(settings).policy.base_model == TINY_BASE:
        made |= {f"{TINY_BASE}/{file.name}": file.read_bytes() for file in sorted(TINY_BASE_FILES.iterdir())}
    else:
        made["dvc.yaml"] = _without_dependency(texts["dvc.yaml"], TINY_BASE).encode()
    return {PurePosixPath(name): content for name, content in made.items()}


def _template(name: str) -> str:
    return (Path(__file__).parent / "project_template" / name).read_text(encoding="utf-8")


def _params(settings: str) -> Params:
    import yaml

    return Params.parse(yaml.safe_load(settings), source="the preset")


def _without_dependency(graph: str, path: str) -> str:
    return graph.replace(f"      - {path}\n", "")


# A preset's text as params.yaml of a project with data of its own: few things change, the comments stay.


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


# The worked example of a new project: short texts, and questions on them that name their text's file.
#
#     questions.jsonl    {"idx": 0, "query": "Who …?", "answer": "…", "context_file": "documents/heron-guild.txt"}
#     documents/heron-guild.txt
#
# It is the shape that a user's own data has: texts as they are, and one line a question.


DOCUMENTS, QUESTIONS_PER_DOCUMENT = 24, 4


def example_files() -> dict[str, str]:
    """The questions and the texts, by path below data/raw; the same on every machine.

    They are written in the words of the tiny base model, which knows few others. As in the built-in corpus, the answers
    are those of an imperfect model.
    """
    texts: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    for number in itertools.count():
        document = make_document(f"example-{number}")
        name = f"documents/{_subject(document.text)}.txt"
        if name in texts:
            continue
        if len(texts) == DOCUMENTS:
            break
        texts[name] = document.text + "\n"
        rng = random.Random(f"longreward example {number}")
        for facts in draw_questions(rng, document, QUESTIONS_PER_DOCUMENT):
            answer = faulty_answer(rng, document, facts)
            rows.append({"idx": len(rows), "query": ask(facts), "answer": answer, "context_file": name})
    return {"questions.jsonl": "".join(json.dumps(row) + "\n" for row in rows), **texts}


def _subject(text: str) -> str:
    """The society that a text is about, as a file's name."""
    found = re.search(rf"({'|'.join(SOCIETIES)}) ({'|'.join(SOCIETY_KINDS)})", text)
    assert found, "a document of the corpus names its society"
    return "-".join(found.groups()).lower()


# The graph of a new project: that of the repository, without the code, which is installed.
#
# python -m longreward.tasks.project_files > tasks/project_template/dvc.yaml    # after a change of dvc.yaml
#
# A test holds the two together.


GRAPH_HEAD = """\
# The graph. Each stage is a Prefect flow (python -m longreward.flows.<stage>), a section of params.yaml and an
# MLflow run of one name. Their code is installed: after an upgrade, `longreward run --force` makes everything anew.
"""
CODE = re.compile(r"(?m)^      - (?:flows|longreward|tasks)/.*\n")


def without_code(graph: str) -> str:
    """The text of dvc.yaml without dependencies on code, under a head of its own."""
    return GRAPH_HEAD + CODE.sub("", graph[graph.index("stages:\n") :])


if __name__ == "__main__":
    print(without_code((Path(__file__).resolve().parents[1] / "dvc.yaml").read_text(encoding="utf-8")), end="")
