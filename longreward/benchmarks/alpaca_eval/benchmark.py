r"""AlpacaEval 2: a judge compares each answer with a baseline's by the probability of one token.

The judge sees both answers, in an order drawn from the instruction, and replies `m` (the first is better) or `M` (the
second). The preference is computed from the probabilities of the two tokens:

    {"m": -0.02, "M": -4.05}   ->   2 - 0.98 = 1.02

It lies between 1 (the baseline's answer is better) and 2 (the model's is). The win share is the preference minus 1.

The instructions with the baseline's answers come from `alpaca_eval_gpt4_baseline.json`:

    [{"dataset": "helpful_base", "instruction": "…", "output": "…", "generator": "gpt4_1106_preview"}, …]
"""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from longreward.benchmarks.alpaca_eval.length_control import (
    AnswerLengths,
    length_controlled_win_rate,
    read_gamed_baselines,
)
from longreward.benchmarks.judge_prompts import load_builtin_prompt, parse_marked_prompt
from longreward.benchmarks.metrics import verdict_metric
from longreward.benchmarks.published_formats import parse_text, read_json_list, read_text
from longreward.benchmarks.types import (
    TOY_DATA,
    Answer,
    Benchmark,
    CaseScore,
    GenerationRequest,
    JudgeOptions,
    Message,
    Metric,
    Summary,
    Verdict,
    lower_limit,
)
from longreward.chat_model import parse_logprobs
from longreward.errors import DataError
from longreward.evaluation.statistics import IntervalOptions, mean
from longreward.judge import Judge
from longreward.judge.prompt_template import PromptTemplate
from longreward.judge.prompts import Parsing
from longreward.utils.jsonl import RowError, open_atomic

TOY = TOY_DATA / "alpaca_eval"
TEMPLATE = "alpaca_eval"
SLOTS = {"{instruction}": "instruction", "{output_1}": "output_1", "{output_2}": "output_2"}
# Published leaderboards leave the temperature to each model.
MAX_NEW_TOKENS, TEMPERATURE, SEED, JUDGE_TOKENS = 2048, 0.0, 42, 1
FIRST_TOKEN, SECOND_TOKEN, TOP_LOGPROBS = "m", "M", 5
EQUAL_PREFERENCE = 1.5  # of two identical answers; the judge is not queried
ANNOTATOR = "weighted_alpaca_eval_gpt4_turbo"
SCALE = 100.0
BOUNDS = (0.0, SCALE)


@dataclass(frozen=True)
class AlpacaCase:
    """One instruction with the baseline's answer."""

    index: int  # position in the file from 0, by which `df_gamed.csv` refers to it
    instruction: str
    output: str  # the baseline's answer
    generator: str  # the baseline's name
    dataset: str

    @property
    def id(self) -> str:
        return str(self.index)

    @property
    def category(self) -> str:
        return self.dataset


class AlpacaEval(Benchmark[AlpacaCase]):
    """AlpacaEval 2 from its published files, or from the built-in instructions by default."""

    name = "alpaca_eval"
    files: ClassVar = {
        "baseline": "alpaca_eval_gpt4_baseline.json",
        "judge_prompt": "alpaca_eval_clf.txt",
        "gamed": "df_gamed.csv",
    }
    max_score = 100.0
    # The published temperature, which does not affect probabilities; the published code does not retry.
    judge_options = JudgeOptions(temperature=1.0, retry_temperature=1.0)

    def __init__(
        self,
        *,
        baseline: Path = TOY / "alpaca_eval_gpt4_baseline.json",
        judge_prompt: Path | None = None,
        gamed: Path | None = None,
        max_new_tokens: int | None = None,
        parsing: Parsing = "strict",
    ) -> None:
        """Read the files.

        Args:
            baseline: The published `alpaca_eval_gpt4_baseline.json`.
            judge_prompt: The published `alpaca_eval_clf.txt`; default: the built-in prompt.
            gamed: The published `df_gamed.csv`; without it the length-controlled win rate is the minimal one.
        """
        self.cases = read_cases(baseline)
        self.system, self.prompt = load_prompt(judge_prompt)
        if gamed is None and baseline.parent == TOY:
            gamed = TOY / "df_gamed.csv"
        self._gamed = None if gamed is None else read_gamed_baselines(gamed)
        self._max_new_tokens = lower_limit(MAX_NEW_TOKENS, max_new_tokens)
        self._parsing = parsing
        self._cases_by_id = {case.id: case for case in self.cases}
        self.official = judge_prompt is not None and gamed is not None and baseline.parent != TOY

    def request(self, case: AlpacaCase) -> GenerationRequest:
        messages = (Message("user", case.instruction),)
        return GenerationRequest(f"{self.name}/{case.id}", messages, TEMPERATURE, self._max_new_tokens, seed=SEED)

    async def judge_answer(self, judge: Judge, case: AlpacaCase, answer: Answer) -> list[Verdict]:
        """Compare one answer with the baseline's."""
        output = answer.turns[0]
        if output == case.output:
            metadata = {
                "preference": EQUAL_PREFERENCE,
                "official": self.prompt.official,
                "switched": False,
                "weighted": False,
                "identical": True,
            }
            return [Verdict(case.id, "preference", TEMPLATE, "", "", "", value=0.5, metadata=metadata)]
        switched = is_switched(case.instruction)
        first, second = (output, case.output) if switched else (case.output, output)
        slots = {"instruction": case.instruction, "output_1": first, "output_2": second}
        request = self.prompt.request(slots, system=self.system, max_tokens=JUDGE_TOKENS)
        request = replace(request, top_logprobs=TOP_LOGPROBS)
        reply = await judge.query(request, lambda text: parse_preference(text).value)
        shown = parse_preference(reply.text, parsing=self._parsing)
        preference = undo_switch(shown.value, switched)
        verdict = Verdict.from_reply(
            case.id,
            "preference",
            request,
            reply,
            value=None if preference is None else preference - 1,
            unscored_reason="neither m nor M is among the likeliest tokens",
            metadata={
                "preference": preference,
                "official": self.prompt.official,
                "switched": switched,
                "weighted": shown.weighted,
                "identical": False,
            },
        )
        return [verdict]

    def summarize(self, answers: Sequence[Answer], verdicts: Sequence[Verdict], options: IntervalOptions) -> Summary:
        """Return `win_rate`, `length_controlled` (`length_controlled_minimal` without `df_gamed.csv`),
        `discrete_win_rate`, `length` in characters, and `without_probabilities`, the percentage of verdicts that were
        parsed from the letter alone."""
        answer_by_case = {answer.case_id: answer for answer in answers}
        ordered = sorted(verdicts, key=lambda verdict: self._cases_by_id[verdict.case_id].index)

        shares = {verdict.case_id: verdict.value for verdict in verdicts}
        rows = []
        for verdict in ordered:
            case, output = self._cases_by_id[verdict.case_id], answer_by_case[verdict.case_id].turns[0]
            rows.append(AnswerLengths(case.index, len(case.output), len(output), shares[case.id]))
        win_rate = verdict_metric("win_rate", verdicts, options, scale=SCALE, bounds=BOUNDS)
        metrics = [win_rate]
        if (controlled := length_controlled_win_rate(rows, self._gamed, options)) is not None:
            name = "length_controlled" if self._gamed is not None else "length_controlled_minimal"
            metrics.append(replace(win_rate, name=name, estimate=controlled))
        scored = [(case_id, share) for case_id, share in shares.items() if share is not None]
        wins = [(case_id, SCALE * (0.5 if share == 0.5 else float(share > 0.5))) for case_id, share in scored]
        metrics.append(replace(win_rate, name="discrete_win_rate", estimate=mean(wins, options, bounds=BOUNDS)))
        length = mean([(answer.case_id, float(len(answer.turns[0]))) for answer in answers], options)
        metrics.append(Metric("length", length, len(answers), unscored=0))
        judged = [verdict for verdict in verdicts if not verdict.metadata["identical"]]
        flags = [(verdict.case_id, SCALE * (not verdict.metadata["weighted"])) for verdict in judged]
        without = mean(flags, options, bounds=BOUNDS)
        metrics.append(Metric("without_probabilities", without, len(judged), unscored=0))
        return Summary(
            self.name,
            tuple(metrics),
            tuple(
                CaseScore(
                    case_id,
                    self._cases_by_id[case_id].category,
                    answer_by_case[case_id].prompt_tokens[0],
                    SCALE * share,
                )
                for case_id, share in scored
            ),
            tuple(1 + share for _, share in scored),
        )

    def write_files(self, folder: Path, answers: Sequence[Answer], verdicts: Sequence[Verdict], *, model: str) -> None:
        """Write the library's `<model>/model_outputs.json` and `<model>/<annotator>/annotations.json`.

        The annotator has the published name only if the published prompt was used.
        """
        folder = folder / self.name / model.replace("/", "_")
        outputs = {answer.case_id: answer.turns[0] for answer in answers}
        verdict_by_case = {verdict.case_id: verdict for verdict in verdicts}
        official = bool(verdicts) and all(verdict.metadata["official"] for verdict in verdicts)
        annotator = ANNOTATOR if official else "longreward"
        output_rows, annotations = [], []
        for case in self.cases:
            if case.id not in outputs:
                continue
            output = outputs[case.id]
            output_rows.append(
                {"dataset": case.dataset, "instruction": case.instruction, "output": output, "generator": model}
            )
            if (verdict := verdict_by_case.get(case.id)) is None:
                continue
            annotations.append(
                {
                    "instruction": case.instruction,
                    "output_1": case.output,
                    "generator_1": case.generator,
                    "dataset": case.dataset,
                    "output_2": output,
                    "generator_2": model,
                    "annotator": annotator,
                    "preference": verdict.metadata["preference"],
                    "preference_price_per_example": None,
                    "preference_time_per_example": None,
                    "preference_raw_completion": _raw_completion(verdict.judgment) if verdict.judgment else None,
                }
            )
        for name, rows in (("model_outputs.json", output_rows), (f"{annotator}/annotations.json", annotations)):
            with open_atomic(folder / name) as file:
                file.write(json.dumps(rows, indent=2) + "\n")  # ASCII, because UTF-8 cannot encode a lone surrogate


def read_cases(path: Path) -> tuple[AlpacaCase, ...]:
    """Read all instructions, in order, from the baseline's outputs or from annotations, which repeat them.

    Raises DataError for malformed rows, duplicates or several generators.
    """
    numbers: dict[str, int] = {}

    def parse(row: Any, index: int) -> AlpacaCase:
        suffix = "_1" if isinstance(row, dict) and "output_1" in row else ""
        keys = ("instruction", f"output{suffix}", f"generator{suffix}")
        instruction, output, generator = (parse_text(row, key) for key in keys)
        if (number := numbers.setdefault(instruction, index + 1)) <= index:
            raise RowError(f"same instruction as entry {number}")
        return AlpacaCase(index, instruction, output, generator, str(row.get("dataset") or "unknown"))

    cases = tuple(read_json_list(path, parse))
    generators = sorted({case.generator for case in cases})
    if len(generators) > 1:
        raise DataError(f"{path} has outputs of {len(generators)} generators ({', '.join(generators[:3])}, …)")
    return cases


def load_prompt(path: Path | None) -> tuple[str, PromptTemplate]:
    """Load system prompt and prompt from the published `alpaca_eval_clf.txt`, a file in ChatML; None: the built-in."""
    if path is None:
        return "", load_builtin_prompt("alpaca_eval", template=TEMPLATE)
    turns = [turn.partition("\n") for turn in read_text(path).split("<|im_start|>")[1:]]
    if [role.strip() for role, _, _ in turns] != ["system", "user"]:
        raise DataError(f"{path} is not a ChatML prompt with a system and a user turn; fetch the file again")
    system, user = (content.partition("<|im_end|>")[0].strip() for _, _, content in turns)
    return system, parse_marked_prompt(user, SLOTS, template=TEMPLATE, source=path)


@dataclass(frozen=True)
class ShownPreference:
    """A preference in the order shown: 1 (the first answer is better) to 2; None if unreadable."""

    value: float | None
    weighted: bool  # whether there were probabilities


def parse_preference(text: str, *, parsing: Parsing = "strict") -> ShownPreference:
    """Parse the judge's reply; if the server returned no probabilities, `strict` uses the letter.

    >>> parse_preference('{"text": "M", "top_logprobs": [{"m": -3.0, "M": -3.0}]}')
    ShownPreference(value=1.5, weighted=True)
    >>> parse_preference("M"), parse_preference("M", parsing="published")
    (ShownPreference(value=2.0, weighted=False), ShownPreference(value=None, weighted=False))
    """
    reply = parse_logprobs(text)
    if reply.top_logprobs:
        value = _weighted_preference(reply.top_logprobs[0].get(FIRST_TOKEN), reply.top_logprobs[0].get(SECOND_TOKEN))
        return ShownPreference(value, weighted=True)
    letter = reply.text.strip().strip(".\"'`")
    letters = {FIRST_TOKEN: 1.0, SECOND_TOKEN: 2.0} if parsing == "strict" else {}
    return ShownPreference(letters.get(letter), weighted=False)


def is_switched(instruction: str, *, seed: int = 0) -> bool:
    """Whether the model's answer is shown first: drawn from the instruction, as in the library `alpaca_eval`.

    >>> [is_switched(text) for text in ("a", "b", "c", "d")]
    [True, True, False, False]
    """
    return random.Random(f"is_switched_outputs{instruction}{seed}").choices([False, True], k=1)[0]


def undo_switch(preference: float | None, switched: bool) -> float | None:
    """Return the preference between baseline and model from the preference in the order shown."""
    return 3 - preference if switched and preference is not None else preference


def _weighted_preference(first: float | None, second: float | None) -> float | None:
    """Return 2 minus the first token's share of both probabilities; a token without a logprob has probability 0."""
    if first is None and second is None:
        return None
    if first is None or second is None:
        return 2.0 if first is None else 1.0
    # The logistic function of the difference avoids 0 / 0 for very small probabilities; exp overflows from 710 on.
    log_odds = second - first
    return 2 - (1 / (1 + math.exp(log_odds)) if log_odds < 700 else 0.0)


def _raw_completion(judgment: str) -> dict[str, Any]:
    """Return the reply as a choice of the OpenAI protocol, the form in which the library stores and reads it."""
    reply = parse_logprobs(judgment)
    content = [
        {
            "token": reply.text,
            "top_logprobs": [{"token": token, "logprob": logprob} for token, logprob in top_logprobs.items()],
        }
        for top_logprobs in reply.top_logprobs
    ]
    return {"text": reply.text, "logprobs": {"content": content} if content else None}
