"""The judge's prompts: FastChat's `judge_prompts.jsonl` where it is given, else our own texts for the same eight uses.

{"name": "single-v1", "type": "single", "system_prompt": "You are …", "prompt_template": "… {question} …",
 "output_format": "[[rating]]"}
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Literal

from longreward.chat_model import ChatRequest
from longreward.errors import DataError
from longreward.judge.prompt_template import JudgePrompt, load_builtin_prompt
from longreward.utils.jsonl import Row, RowError, read_records

Kind = Literal["single", "pair"]
MAX_TOKENS = 2048


@dataclass(frozen=True)
class Template:
    """A prompt, its system prompt, and its name in rows: `single-v1`, ours `longreward-single-v1`."""

    name: str
    system: str
    prompt: JudgePrompt

    def ask(self, slots: Mapping[str, str]) -> ChatRequest:
        """The question; of `slots` it holds those that the prompt shows."""
        shown = {name: slots[name] for name in self.prompt.slots}
        return self.prompt.ask(shown, system=self.system, max_tokens=MAX_TOKENS)


def load_templates(path: Path | None = None) -> dict[str, Template]:
    """All eight by FastChat's names. Raises DataError where the file lacks one or a row has not the slots it should."""
    if path is None:
        made = {name: load_builtin_prompt(file, template=f"{PREFIX}{name}") for name, file in FILES.items()}
        return {name: Template(f"{OURS}{name}", "", prompt) for name, prompt in made.items()}
    found = {template.name: template for template in read_records(path, _official)}
    lacking = [name for name in SLOTS if name not in found]
    if lacking:
        raise DataError(f"{path} lacks the prompts {', '.join(lacking)}; take the judge_prompts.jsonl of llm_judge")
    return {name: found[name] for name in SLOTS}


def template_name(kind: Kind, *, with_reference: bool, turn: int) -> str:
    """FastChat's name of the prompt.

    >>> template_name("single", with_reference=True, turn=2)
    'single-math-v1-multi-turn'
    """
    version = "math-v1" if with_reference else {"single": "v1", "pair": "v2"}[kind]
    return f"{kind}-{version}" + ("-multi-turn" if turn == 2 else "")


def _official(row: Row) -> Template:
    name, system, text, form = (_text(row, k) for k in ("name", "system_prompt", "prompt_template", "output_format"))
    try:
        pieces = _pieces_of(text)
    except ValueError as error:
        raise RowError(f"prompt_template of {name}: {error}; braces of its own are written {{{{ and }}}}") from None
    if name in SLOTS:
        _check(name, pieces, form)
    digest = hashlib.sha256(f"{system}\n{text}".encode()).hexdigest()
    return Template(name, system, JudgePrompt(f"{PREFIX}{name}", pieces, digest, official=True))


def _text(row: Row, field: str) -> str:
    text = row.get(field)
    if not isinstance(text, str):
        raise RowError(f"{field} is {text!r}, expected a text")
    return text


def _pieces_of(template: str) -> tuple[str, ...]:
    pieces = [""]
    for literal, slot, spec, conversion in Formatter().parse(template):
        pieces[-1] += literal  # a doubled brace ends a part that has no slot
        if slot is not None:
            if spec or conversion or not slot.isidentifier():
                raise ValueError(f"{{{slot}}} is not the name of a slot")
            pieces += [slot, ""]
    return tuple(pieces)


def _check(name: str, pieces: tuple[str, ...], form: str) -> None:
    wanted = "[[rating]]" if name.startswith("single") else "[[A]]"
    if form != wanted:
        raise RowError(f"output_format of {name} is {form!r}, expected {wanted!r}")
    if set(pieces[1::2]) != set(SLOTS[name]):
        raise RowError(
            f"prompt_template of {name} has the slots {sorted(set(pieces[1::2]))}, not {sorted(SLOTS[name])}"
        )


PREFIX = "mt_bench/"  # of the templates' names, whoever wrote them: the offline judge has a rule for each
OURS = "longreward-"
SLOTS: Mapping[str, tuple[str, ...]] = {
    "single-v1": ("question", "answer"),
    "single-math-v1": ("question", "answer", "ref_answer_1"),
    "single-v1-multi-turn": ("question_1", "answer_1", "question_2", "answer_2"),
    "single-math-v1-multi-turn": ("question_1", "answer_1", "question_2", "answer_2", "ref_answer_1", "ref_answer_2"),
    "pair-v2": ("question", "answer_a", "answer_b"),
    "pair-math-v1": ("question", "answer_a", "answer_b", "ref_answer_1"),
    "pair-v2-multi-turn": ("question_1", "question_2", "answer_a_1", "answer_a_2", "answer_b_1", "answer_b_2"),
    "pair-math-v1-multi-turn": (
        *("question_1", "question_2", "answer_a_1", "answer_a_2", "answer_b_1", "answer_b_2"),
        *("ref_answer_1", "ref_answer_2"),
    ),
}
FILES: Mapping[str, str] = {
    "single-v1": "mt_bench_single",
    "single-math-v1": "mt_bench_single_reference",
    "single-v1-multi-turn": "mt_bench_single_second",
    "single-math-v1-multi-turn": "mt_bench_single_reference_second",
    "pair-v2": "mt_bench_pair",
    "pair-math-v1": "mt_bench_pair_reference",
    "pair-v2-multi-turn": "mt_bench_pair_second",
    "pair-math-v1-multi-turn": "mt_bench_pair_reference_second",
}
