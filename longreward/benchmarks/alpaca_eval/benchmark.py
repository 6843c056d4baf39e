"""AlpacaEval 2: each instruction answered once, and held against the baseline's answer by the probability of one token.

The judge sees both answers in an order drawn from the instruction, and says `m` or `M`; the probabilities of the two
are the preference. An answer equal to the baseline's is a draw that no judge is asked about.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import starmap
from pathlib import Path

from longreward.benchmarks import single_turn
from longreward.benchmarks.alpaca_eval import files, summary
from longreward.benchmarks.alpaca_eval.cases import AlpacaCase, read_cases
from longreward.benchmarks.alpaca_eval.length_control import read_gamed
from longreward.benchmarks.alpaca_eval.preference import EQUAL, TOP_LOGPROBS, is_switched, read_shown, unswitched
from longreward.benchmarks.alpaca_eval.prompts import TEMPLATE, load_prompt
from longreward.benchmarks.types import Answer, ChatClient, Intervals, Judging, Summary, Tell, Verdict
from longreward.judge import Judge
from longreward.utils.concurrency import gather, with_progress

BUILTIN = Path(__file__).parents[2] / "builtin" / "benchmarks" / "alpaca_eval"
MAX_NEW_TOKENS, JUDGE_TOKENS = 2048, 1


class AlpacaEval:
    """AlpacaEval 2 with its files read; the built-in instructions where none are given."""

    name = "alpaca_eval"
    top = 100.0
    judging = Judging(temperature=1.0, retry_temperature=1.0, attempts=1)
    """The published temperature, which no probability depends on; it does not ask again."""

    def __init__(
        self,
        *,
        baseline: Path = BUILTIN / "alpaca_eval_gpt4_baseline.json",
        judge_prompt: Path | None = None,
        gamed: Path | None = None,
        temperature: float = 0.0,
        seed: int = 42,
        max_new_tokens: int | None = None,
    ) -> None:
        """`baseline` is `alpaca_eval_gpt4_baseline.json`, `judge_prompt` `alpaca_eval_clf.txt` (None: our own prompt),
        `gamed` `df_gamed.csv` (None: the length-controlled rate is the minimal one; the built-in set has its own).

        Answers have up to 2,048 tokens, or fewer with `max_new_tokens`. Published leaderboards leave the temperature
        to each model; here it is 0.
        """
        self.cases = read_cases(baseline)
        self.system, self.prompt = load_prompt(judge_prompt)
        if gamed is None and baseline.parent == BUILTIN:
            gamed = BUILTIN / "df_gamed.csv"
        self._gamed = None if gamed is None else read_gamed(gamed)
        self._temperature, self._seed, self._max_new_tokens = temperature, seed, max_new_tokens
        self._by_id = {case.id: case for case in self.cases}
        self.official = judge_prompt is not None and gamed is not None and baseline.parent != BUILTIN

    async def answer(self, speaker: ChatClient, cases: Sequence[AlpacaCase], *, tell: Tell) -> list[Answer]:
        """Each answer as the model gave it."""
        asks = [
            single_turn.ask(
                f"{self.name}/{case.id}",
                case.instruction,
                temperature=self._temperature,
                max_new_tokens=single_turn.at_most(MAX_NEW_TOKENS, self._max_new_tokens),
                max_prompt_tokens=None,
                seed=self._seed,
            )
            for case in cases
        ]
        return await single_turn.answers(speaker, [case.id for case in cases], asks, tell)

    async def judge(
        self, judge: Judge, items: Sequence[tuple[AlpacaCase, Answer]], *, tell: Tell
    ) -> list[tuple[Verdict, ...]]:
        """One verdict for each answer."""

        async def one(case: AlpacaCase, answer: Answer) -> tuple[Verdict, ...]:
            return (await self._verdict(judge, case, answer.turns[0]),)

        return await gather(starmap(with_progress(one, tell), items))

    def summarise(self, answers: Sequence[Answer], verdicts: Sequence[Verdict], intervals: Intervals) -> Summary:
        """`win_rate`, `length_controlled` (`length_controlled_minimal` without `df_gamed.csv`), `discrete_win_rate`,
        `length` in characters, and `without_probabilities`: the percentage that was read from the bare letter."""
        return summary.summarise(self.name, self._by_id, self._gamed, answers, verdicts, intervals)

    def write(self, folder: Path, answers: Sequence[Answer], verdicts: Sequence[Verdict], *, model: str) -> None:
        """The library's `model_outputs.json` and `annotations.json`."""
        files.write(folder / self.name, self._by_id, answers, verdicts, model=model)

    async def _verdict(self, judge: Judge, case: AlpacaCase, output: str) -> Verdict:
        if output == case.output:
            more = self._more(EQUAL, switched=False, weighed=False, identical=True)
            return Verdict(case.id, "preference", TEMPLATE, "", "", "", exact=0.5, strict=0.5, more=more)
        switched = is_switched(case.instruction)
        first, second = (output, case.output) if switched else (case.output, output)
        slots = {"instruction": case.instruction, "output_1": first, "output_2": second}
        asked = self.prompt.ask(slots, system=self.system, max_tokens=JUDGE_TOKENS)
        question = replace(asked, top_logprobs=TOP_LOGPROBS)
        reading = await judge.query(question, lambda text: read_shown(text).strict)
        shown = read_shown(reading.text)
        exact, strict = unswitched(shown.exact, switched), unswitched(shown.strict, switched)
        return Verdict(
            case.id,
            "preference",
            question.template,
            question.system,
            question.text,
            reading.text,
            exact=None if exact is None else exact - 1,
            strict=None if strict is None else strict - 1,
            reason=None if strict is not None else reading.reason or "neither m nor M is among the likeliest tokens",
            judge=reading.judge,
            created=time.time(),
            more=self._more(strict, switched=switched, weighed=shown.weighed, identical=False),
        )

    def _more(self, preference: float | None, **told: bool) -> dict[str, object]:
        return {"preference": preference, "official": self.prompt.official, **told}
