"""The offline judge's rule for AlpacaEval: of two answers the one that the instruction bears out, and that bears on it.

Facts can stand only in the instruction itself, which the built-in ones hold with their question.
"""

import math
from collections.abc import Callable, Mapping

from longreward.builtin.offline_judge.lexical import parse_sentence, split_sentences
from longreward.builtin.offline_judge.overlap import evidence_clauses, relevance, support_level
from longreward.chat_model import with_logprobs


def alpaca_eval(slots: Mapping[str, str]) -> str:
    """`m` or `M` with their probabilities, the further apart the more the answers differ."""
    first, second = (_worth(slots["instruction"], slots[name]) for name in ("output_1", "output_2"))
    share = 1 / (1 + math.exp(_STEEP * (second - first)))
    tops = [
        {"token": token, "logprob": round(math.log(p), 6)} for token, p in sorted({"m": share, "M": 1 - share}.items())
    ]
    tops.sort(key=lambda top: (-float(str(top["logprob"])), str(top["token"]) != "m"))
    return with_logprobs(str(tops[0]["token"]), {"content": [{"top_logprobs": tops}]})


RULES: dict[str, Callable[[Mapping[str, str]], str]] = {"alpaca_eval": alpaca_eval}
_STEEP = 4.0
_LONGEST = 100  # sentences of an answer that count


def _worth(instruction: str, output: str) -> float:
    """0 to 1: half of it for what is borne out, half for what bears on the last sentence, which asks."""
    given, told = split_sentences(output)[:_LONGEST], split_sentences(instruction)
    if not given or not told:
        return 0.0
    asked = parse_sentence(told[-1].text)
    evidence = evidence_clauses(instruction)
    borne_out = sum(support_level(each, evidence)[0] for each in given) / len(given)
    to_the_point = max(relevance(asked, each) for each in given)
    return (borne_out + to_the_point) / 2
