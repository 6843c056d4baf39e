"""∞Bench by its authors' protocol, without the two tasks of long answers.

    <task>.jsonl     {"id", "context", "input", "answer": text, number or list of them, "options": [four texts] or []}
    prompt.py        the prompts: `gpt4_templates` for chat models, `yarn_mistral_templates` for base models
    eval_utils.py    the first line of `math_find`

The prediction files are those of its code, so that its `compute_scores.py` computes the same scores from them:

    infinitebench/<model>/preds_<task>.jsonl    {"id", "prediction", "ground_truth"}

Source: Zhang et al. 2024, "∞Bench" (arXiv 2402.13718), and OpenBMB/InfiniteBench.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from longreward.benchmarks.infinitebench.metrics import CHOICE_TASKS, TaskName, task_score
from longreward.benchmarks.metrics import macro_mean
from longreward.benchmarks.published_formats import parse_text, parse_texts, read_constant
from longreward.benchmarks.types import (
    TOY_DATA,
    Answer,
    Benchmark,
    CaseScore,
    DocumentCase,
    GenerationRequest,
    Message,
    Metric,
    Summary,
    Verdict,
    lower_limit,
    scan_cases,
)
from longreward.errors import DataError
from longreward.evaluation.statistics import IntervalOptions, Observation
from longreward.judge.prompts import Parsing
from longreward.utils.jsonl import IndexedJsonl, Row, RowError, shorten, write_rows

TOY = TOY_DATA / "infinitebench"
SCALE = 100.0
BOUNDS = (0.0, SCALE)
LETTERS = "ABCD"
NUMERIC_TASKS: frozenset[TaskName] = frozenset(("math_find", "code_run"))
MAX_PROMPT_TOKENS = 127_000
MAX_CHAT_TOKENS = 1024  # the published code sets no limit for chat models
MAX_NEW_TOKENS: dict[TaskName, int] = {
    "passkey": 6,
    "number_string": 12,
    "kv_retrieval": 50,
    **dict.fromkeys(("longbook_choice_eng", "longbook_qa_eng", "longbook_qa_chn", "longdialogue_qa_eng"), 40),
    "math_find": 3,
    "code_run": 5,
    "code_debug": 5,
}
"""The published limits of answers without the chat template."""
_QUESTION = "{context}\n\nAnswer the question about the text above in a few words.\nQuestion: {question}"
_CHOICES = "A. {OPTION_A}\nB. {OPTION_B}\nC. {OPTION_C}\nD. {OPTION_D}\nReply with the letter alone."
TEMPLATES: dict[TaskName, str] = {
    **dict.fromkeys(("passkey", "number_string"), "The text below hides a number.\n\n{context}\n\n{input}"),
    "kv_retrieval": "Look up a key in this JSON object.\n\n{context}\n\n{input}",
    "longbook_choice_eng": f"{{context}}\n\nQuestion about the text above: {{question}}\n{_CHOICES}",
    "longbook_qa_eng": _QUESTION,
    "longbook_qa_chn": _QUESTION,
    "longdialogue_qa_eng": "{context}\n\nWhose name does $$MASK$$ replace in this script? Reply with the name alone.",
    "math_find": "{prefix}\n\n{context}\n\n{input}",
    "code_run": "{context}\n\nWhat does {func_call} return? End your reply with the number.",
    "code_debug": f"{{context}}\n\nWhich of these functions has an error?\n{_CHOICES}",
}
MATH_FIND_PREFIX = "Search the list for {target_number}."
_CALL = re.compile(r"(func_[0-9]+)\(-?[0-9]+\)")
_TARGET = re.compile(r"The .+(?= of)")


@dataclass(frozen=True)
class InfiniteCase(DocumentCase):
    """One row of one task."""

    task: TaskName
    number: int  # in its file, from 1
    before: str  # the prompt in front of the context
    after: str  # the prompt after it
    ground_truth: list[Any]  # texts or numbers; of multiple choice the text and the letter

    @property
    def id(self) -> str:
        return f"{self.task}/{self.number}"

    @property
    def category(self) -> str:
        return self.task

    @property
    def prompt(self) -> str:
        """The prompt for the model."""
        return f"{self.before}{self.context}{self.after}"


class InfiniteBench(Benchmark[InfiniteCase]):
    """∞Bench from its published files, or from built-in rows of three tasks by default."""

    name = "infinitebench"
    files: ClassVar = {"folder": "data", "prompts": "prompt.py", "code": "eval_utils.py"}
    max_score = SCALE
    uses_judge = False

    def __init__(
        self,
        *,
        folder: Path = TOY,
        prompts: Path | None = None,
        code: Path | None = None,
        tasks: Sequence[TaskName] | None = None,
        chat_template: Literal["always", "never"] = "always",
        temperature: float = 0.0,
        max_prompt_tokens: int = MAX_PROMPT_TOKENS,
        max_new_tokens: int | None = None,
        parsing: Parsing = "strict",
    ) -> None:
        """Read the files; built-in prompts replace those that are None.

        Args:
            folder: Contains `<task>.jsonl`.
            tasks: The tasks to run; default: all that `folder` contains.
            chat_template: `never`: the model continues the prompt as it is (base models).
            max_prompt_tokens: A longer prompt keeps its first and last halves.
            parsing: Has no effect, because no judge's reply is parsed.
        """
        self._chat = chat_template == "always"
        templates: Mapping[Any, Any] = TEMPLATES
        if prompts is not None:
            templates = read_constant(prompts, "gpt4_templates" if self._chat else "yarn_mistral_templates", dict)
        prefix = read_constant(code, "prefix", str, function="create_prompt") if code else MATH_FIND_PREFIX
        names: Sequence[TaskName] = tasks or [
            task for task in get_args(TaskName) if (folder / f"{task}.jsonl").is_file()
        ]
        self.cases: list[InfiniteCase] = []
        for task in names:
            if not isinstance(template := templates.get(task), str):
                raise DataError(f"{prompts}: the template of {task} is {template!r}, expected a text")
            parse = partial(_parse_case, task=task, template=template, prefix=prefix)
            cases = scan_cases(IndexedJsonl(folder / f"{task}.jsonl", parse))
            self.cases += [replace(case, number=number) for number, case in enumerate(cases, start=1)]
        self._cases_by_id = {case.id: case for case in self.cases}
        self._temperature, self._max_prompt_tokens = temperature, max_prompt_tokens
        self._max_new_tokens = max_new_tokens
        self.official = folder != TOY and prompts is not None and code is not None and max_new_tokens is None

    def request(self, case: InfiniteCase) -> GenerationRequest:
        return GenerationRequest(
            f"{self.name}/{case.id}",
            (Message("user", case.prompt),),
            self._temperature,
            lower_limit(MAX_CHAT_TOKENS if self._chat else MAX_NEW_TOKENS[case.task], self._max_new_tokens),
            seed=42,
            max_prompt_tokens=self._max_prompt_tokens,
            chat=self._chat,
        )

    def question_and_document(self, case: InfiniteCase) -> tuple[str, str | None]:
        """Return what follows the context in the prompt, and the context."""
        return case.after.strip(), case.context

    def summarize(self, answers: Sequence[Answer], verdicts: Sequence[Verdict], options: IntervalOptions) -> Summary:
        """Return `score`, the mean over the tasks, and `task/<task>`."""
        groups: dict[str, list[Observation]] = {}
        case_scores = []
        for answer in answers:
            case = self._cases_by_id[answer.case_id]
            score = SCALE * task_score(case.task, answer.turns[0], [*map(str, case.ground_truth)])
            groups.setdefault(case.task, []).append((case.id, score))
            case_scores.append(CaseScore(case.id, case.task, answer.prompt_tokens[0], score))
        members = {"score": groups} | {f"task/{task}": {task: scores} for task, scores in groups.items()}
        metrics = [
            Metric(name, macro_mean(means, options, bounds=BOUNDS), cases=sum(map(len, means.values())), unscored=0)
            for name, means in members.items()
        ]
        return Summary(self.name, tuple(metrics), tuple(case_scores), ratings=())

    def write_files(self, folder: Path, answers: Sequence[Answer], verdicts: Sequence[Verdict], *, model: str) -> None:
        """Write `infinitebench/<model>/preds_<task>.jsonl`."""
        rows: dict[TaskName, list[dict[str, Any]]] = {}
        for answer in answers:
            case = self._cases_by_id[answer.case_id]
            # The published code of this task compares with a text, although the newest file has lists.
            truth = case.ground_truth[0] if case.task == "kv_retrieval" else case.ground_truth
            row = {"id": case.number - 1, "prediction": answer.turns[0], "ground_truth": truth}
            rows.setdefault(case.task, []).append(row)
        for task, predictions in rows.items():
            write_rows(folder / self.name / model.rstrip("/").split("/")[-1] / f"preds_{task}.jsonl", predictions)


def _parse_case(row: Row, *, task: TaskName, template: str, prefix: str) -> InfiniteCase:
    """Parse one row, without its number."""
    context, query = parse_text(row, "context"), parse_text(row, "input")
    truth = row.get("answer")
    truth = truth if isinstance(truth, list) else [truth]
    kind = "number" if task in NUMERIC_TASKS else "text"
    if not truth or not all(isinstance(value, (int, float) if kind == "number" else str) for value in truth):
        raise RowError(f"answer is {shorten(row.get('answer'))}, expected a {kind} or a list of them")
    slots = {"context": context, "input": query, "question": query}
    if task in CHOICE_TASKS:
        options = parse_texts(row, "options")
        if len(options) != len(LETTERS) or truth[0] not in options:
            raise RowError(f"options is {shorten(row['options'])}, expected four texts with {shorten(truth[0])}")
        slots |= {f"OPTION_{letter}": option for letter, option in zip(LETTERS, options, strict=True)}
        truth = [truth[0], LETTERS[options.index(truth[0])]]
    elif task == "code_run":
        slots["func_call"], slots["func"] = _search(_CALL, query).group(0, 1)
    elif task == "math_find":
        slots["prefix"] = prefix.format(target_number=_search(_TARGET, query)[0].lower())
    try:
        prompt = template.format(**slots)
        start = prompt.rindex(context)
    except (LookupError, ValueError) as error:
        raise DataError(f"the template of {task} cannot be filled: {error!r}") from error
    before, after = prompt[:start], prompt[start + len(context) :]
    return InfiniteCase(task, 0, before, after, truth, read_context=lambda: context)


def _search(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    match = pattern.search(text)
    if match is None:
        raise RowError(f"input is {shorten(text)}, expected a match of {pattern.pattern}")
    return match
