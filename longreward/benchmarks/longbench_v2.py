"""LongBench v2: 503 multiple-choice questions about texts of 8,000 to 2 million words.

    data.json          [{"_id", "domain", "sub_domain", "difficulty": "easy" or "hard", "length": "short", "medium" or
                         "long", "question", "choice_A" to "choice_D", "answer": "A" to "D", "context"}, …]
    0shot.txt          the prompt, with $DOC$, $Q$ and $C_A$ to $C_D$
    0shot_cot.txt      the first prompt with chain of thought
    0shot_cot_ans.txt  the second, without the text and with $COT$

The prediction file is that of LongBench's `pred.py`, so that its `result.py` computes the same scores:

    longbench_v2/results/<model>.jsonl         with chain of thought <model>_cot.jsonl

Source: Bai et al. 2024, "LongBench v2" (arXiv 2412.15204), and THUDM/LongBench.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from longreward.benchmarks.published_formats import IndexedJsonList, parse_text, read_text
from longreward.benchmarks.types import (
    TOY_DATA,
    Answer,
    Benchmark,
    CaseScore,
    ChatClient,
    DocumentCase,
    GenerationRequest,
    Message,
    Metric,
    OnProgress,
    Summary,
    Verdict,
    ignore_progress,
    lower_limit,
    scan_cases,
)
from longreward.evaluation.statistics import IntervalOptions, Observation, mean
from longreward.judge.prompts import Parsing
from longreward.utils.jsonl import RowError, write_rows

TOY = TOY_DATA / "longbench_v2" / "data.json"
SCALE = 100.0
BOUNDS = (0.0, SCALE)
CHOICES = "ABCD"
GUESSING = SCALE / len(CHOICES)
TEMPERATURE, MAX_PROMPT_TOKENS = 0.1, 120_000
MAX_NEW_TOKENS, MAX_REASONING_TOKENS = 128, 1024
DIFFICULTIES, LENGTHS = ("easy", "hard"), ("short", "medium", "long")
SAVED_CONTEXT = 1000  # characters of the context in the prediction file
FIELDS = (
    *("_id", "domain", "sub_domain", "difficulty", "length", "question"),
    *(f"choice_{letter}" for letter in CHOICES),
    *("answer", "context"),
)
_SLOT = re.compile(r"\$(?:DOC|Q|C_[ABCD]|COT)\$")

_QUESTION = "Question: $Q$\n(A) $C_A$\n(B) $C_B$\n(C) $C_C$\n(D) $C_D$\n\n"
_FORMAT = 'Choose one of the four answers. Reply in this form: "The correct answer is (letter)".'
PROMPT = f"Here is a text with a question about it.\n\n<text>\n$DOC$\n</text>\n\n{_QUESTION}{_FORMAT}"
REASONING_PROMPT = (
    f"Here is a text with a question about it.\n\n<text>\n$DOC$\n</text>\n\n{_QUESTION}"
    "Reason about the four answers, one step at a time:"
)
CONCLUSION_PROMPT = (
    f"Here is a question about a text that is not repeated.\n\n{_QUESTION}Reasoning, one step at a time: $COT$\n\n"
    f"What follows from this reasoning? {_FORMAT}"
)


@dataclass(frozen=True)
class ChoiceCase(DocumentCase):
    """One question with its text and four choices."""

    id: str
    category: str  # the domain
    difficulty: str
    length: str
    question: str
    choices: tuple[str, ...]
    answer: str  # the letter
    row: Mapping[str, str]  # as published, without the context


class LongBenchV2(Benchmark[ChoiceCase]):
    """LongBench v2 with its own protocol."""

    name = "longbench_v2"
    files: ClassVar = {
        "data": "data.json",
        "prompt": "0shot.txt",
        "reasoning_prompt": "0shot_cot.txt",
        "conclusion_prompt": "0shot_cot_ans.txt",
    }
    max_score = SCALE
    uses_judge = False

    def __init__(
        self,
        *,
        data: Path = TOY,
        prompt: Path | None = None,
        reasoning_prompt: Path | None = None,
        conclusion_prompt: Path | None = None,
        chain_of_thought: bool = False,
        temperature: float = TEMPERATURE,
        max_prompt_tokens: int = MAX_PROMPT_TOKENS,
        max_new_tokens: int | None = None,
        parsing: Parsing = "strict",
    ) -> None:
        """Read the files; built-in prompts replace those that are None.

        Args:
            chain_of_thought: Two requests per case: the model reasons first and then chooses without the text.
            max_prompt_tokens: A longer prompt keeps its first and last halves.
            parsing: `published` leaves out cases with an empty answer; `strict` counts them as wrong.
        """
        self.cases = [*scan_cases(IndexedJsonList(data, _parse_case))]
        self._cases_by_id = {case.id: case for case in self.cases}
        paths = (reasoning_prompt, conclusion_prompt) if chain_of_thought else (prompt,)
        defaults = (REASONING_PROMPT, CONCLUSION_PROMPT) if chain_of_thought else (PROMPT,)
        self._prompts = [read_text(path) if path else default for path, default in zip(paths, defaults, strict=True)]
        self._temperature, self._max_prompt_tokens = temperature, max_prompt_tokens
        self._max_new_tokens, self._published = max_new_tokens, parsing == "published"
        self.official = data != TOY and None not in paths and max_new_tokens is None

    def request(self, case: ChoiceCase) -> GenerationRequest:
        limit = MAX_REASONING_TOKENS if len(self._prompts) > 1 else MAX_NEW_TOKENS
        return self._request(case, self._prompts[0], limit)

    def _request(self, case: ChoiceCase, template: str, limit: int, reasoning: str = "") -> GenerationRequest:
        values = {f"$C_{letter}$": text.strip() for letter, text in zip(CHOICES, case.choices, strict=True)}
        values |= {"$DOC$": case.context.strip(), "$Q$": case.question.strip(), "$COT$": reasoning.strip()}
        # In one pass, so that $Q$ in a document stays; the published code would replace it.
        text = _SLOT.sub(lambda slot: values[slot.group()], template)
        return GenerationRequest(
            f"{self.name}/{case.id}{'/conclusion' if reasoning else ''}",
            (Message("user", text),),
            self._temperature,
            lower_limit(limit, self._max_new_tokens),
            seed=42,
            max_prompt_tokens=self._max_prompt_tokens,
        )

    def question_and_document(self, case: ChoiceCase) -> tuple[str, str | None]:
        """Return the question with its choices, and the text."""
        choices = (f"({letter}) {text.strip()}" for letter, text in zip(CHOICES, case.choices, strict=True))
        return "\n".join((case.question.strip(), *choices)), case.context

    async def answer(
        self, client: ChatClient, cases: Sequence[ChoiceCase], *, on_progress: OnProgress = ignore_progress
    ) -> list[Answer]:
        """Generate the answers; with chain of thought the second turn is the answer."""
        if len(self._prompts) == 1:
            return await super().answer(client, cases, on_progress=on_progress)
        reasonings = await client.generate([self.request(case) for case in cases])
        requests = [
            self._request(case, self._prompts[1], MAX_NEW_TOKENS, reasoning.text or " ")
            for case, reasoning in zip(cases, reasonings, strict=True)
        ]
        conclusions = await client.generate(requests, on_progress=on_progress)
        return [
            Answer.from_completions(case.id, turns) for case, *turns in zip(cases, reasonings, conclusions, strict=True)
        ]

    def summarize(self, answers: Sequence[Answer], verdicts: Sequence[Verdict], options: IntervalOptions) -> Summary:
        """Return the accuracy in percent as `score`, `difficulty/<level>` and `length/<class>`; `compensated`, in which
        an answer without a letter counts 25 as if guessed; and `without_letter`, the share of these answers."""
        groups: dict[str, list[Observation]] = {}
        names = ["score", *(f"difficulty/{name}" for name in DIFFICULTIES), *(f"length/{name}" for name in LENGTHS)]
        for name in (*names, "compensated", "without_letter"):
            groups[name] = []
        case_scores = []
        for answer in answers:
            if self._published and not all(answer.turns):
                continue  # the published code writes no row for an empty reply
            case, letter = self._cases_by_id[answer.case_id], parse_choice(answer.turns[-1])
            score = SCALE * (letter == case.answer)
            for name in ("score", f"difficulty/{case.difficulty}", f"length/{case.length}"):
                groups[name].append((case.id, score))
            groups["compensated"].append((case.id, score if letter else GUESSING))
            groups["without_letter"].append((case.id, SCALE * (letter is None)))
            case_scores.append(CaseScore(case.id, case.category, answer.prompt_tokens[0], score))
        metrics = [
            Metric(name, mean(values, options, bounds=BOUNDS), cases=len(values), unscored=0)
            for name, values in groups.items()
            if values
        ]
        return Summary(self.name, tuple(metrics), tuple(case_scores), ratings=())

    def write_files(self, folder: Path, answers: Sequence[Answer], verdicts: Sequence[Verdict], *, model: str) -> None:
        """Write `longbench_v2/results/<model>.jsonl`."""
        rows = []
        for answer in answers:
            case, letter = self._cases_by_id[answer.case_id], parse_choice(answer.turns[-1])
            row: dict[str, Any] = {**case.row, "context": case.context.strip()[:SAVED_CONTEXT]}
            if len(answer.turns) > 1:
                row["response_cot"] = answer.turns[0].strip()
            rows.append(row | {"response": answer.turns[-1].strip(), "pred": letter, "judge": letter == case.answer})
        suffix = "_cot" if len(self._prompts) > 1 else ""
        write_rows(folder / self.name / "results" / f"{model.rstrip('/').split('/')[-1]}{suffix}.jsonl", rows)


def parse_choice(text: str) -> str | None:
    """Return the letter after "The correct answer is", as the published code does.

    >>> parse_choice("**The correct answer is (B)**"), parse_choice("The correct answer is C."), parse_choice("B")
    ('B', 'C', None)
    """
    text = text.replace("*", "")
    for pattern in (r"The correct answer is \(([A-D])\)", r"The correct answer is ([A-D])"):
        if match := re.search(pattern, text):
            return match[1]
    return None


def _parse_case(row: Any) -> ChoiceCase:
    texts = {key: parse_text(row, key) for key in FIELDS}
    for key, allowed in (("difficulty", DIFFICULTIES), ("length", LENGTHS), ("answer", CHOICES)):
        if texts[key] not in [*allowed]:
            raise RowError(f"{key} is {texts[key]!r}, expected one of {', '.join(allowed)}")
    context = texts.pop("context")
    return ChoiceCase(
        texts["_id"],
        category=texts["domain"],
        difficulty=texts["difficulty"],
        length=texts["length"],
        question=texts["question"],
        choices=tuple(texts[f"choice_{letter}"] for letter in CHOICES),
        answer=texts["answer"],
        row=texts,
        read_context=lambda: context,
    )
