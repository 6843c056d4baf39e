"""The offline judge's rules outside of the reward: benchmarks, pairwise comparison, synthesis of questions.

Each rule takes the slots of a prompt and replies in the format that the prompt asks for. The rules show that a
benchmark runs. They compare words only, and distinguish little more than an answer from an empty one.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from longreward.builtin.offline_judge.lexical import (
    Sentence,
    neutralize,
    parse_sentence,
    repetition_rate,
    split_sentences,
)
from longreward.builtin.offline_judge.overlap import (
    clauses,
    coverage,
    evidence_clauses,
    evidence_sentences,
    relevance,
    support_level,
)
from longreward.chat_model import with_logprobs
from longreward.utils.language import Language, detect_language

Slots = Mapping[str, str]
T = TypeVar("T")
MAX_SENTENCES = 300  # of an answer; one without end is cut


def alpaca_eval(slots: Slots) -> str:
    """Reply `m` or `M` with log-probabilities that differ the more, the more the outputs differ in quality.

    An output is half rated by its support and half by its relevance to the last sentence, which asks the question. The
    instruction is the only evidence; the built-in ones contain it.
    """
    instruction = split_sentences(slots["instruction"])
    evidence = evidence_clauses(slots["instruction"])

    def quality(output: str) -> float:
        sentences = split_sentences(output)[:100]
        if not sentences or not instruction:
            return 0.0
        return (_support(sentences, evidence) + max(relevance(instruction[-1], item) for item in sentences)) / 2

    first = 1 / (1 + math.exp(4.0 * (quality(slots["output_2"]) - quality(slots["output_1"]))))
    logprobs = [{"token": token, "logprob": round(math.log(p), 6)} for token, p in (("m", first), ("M", 1 - first))]
    logprobs.sort(key=lambda top: -float(str(top["logprob"])))
    return with_logprobs(str(logprobs[0]["token"]), {"content": [{"top_logprobs": logprobs}]})


def factscore_facts(slots: Slots) -> str:
    """List the clauses of the sentence; none of a question or a sentence without content words."""
    sentence = parse_sentence(slots["sentence"].strip())
    if not sentence.terms or sentence.text.endswith(("?", "？", ":", "：")):
        return "No fact."
    facts = dict.fromkeys(" ".join(clause.text.split()) for clause in clauses(sentence))
    return "\n".join(f"- {fact}" for fact in facts if fact)


def factscore_check(slots: Slots) -> str:
    """Reply whether one sentence of the passages supports the whole fact."""
    level, _ = support_level(parse_sentence(slots["fact"].strip()), evidence_clauses(slots["context"], joined=True))
    return str(level == 1)


def longbench_chat(slots: Slots) -> str:
    """Rate from 1 to 10 by the covered share of the reference; unsupported answers get half of it."""
    return _rate_against_reference(slots, lambda covered, supported: 1 + round(9 * covered * (0.5 + 0.5 * supported)))


def longbench_qa(slots: Slots) -> str:
    """Rate 3 if the answer covers nearly all of the reference, 2 for a good part, else 1."""
    return _rate_against_reference(slots, lambda covered, _: 3 if covered >= 0.8 else 2 if covered >= 0.3 else 1)


def longbench_summary(slots: Slots) -> str:
    """Rate from 1 to 5, otherwise as `longbench_chat`."""
    return _rate_against_reference(slots, lambda covered, supported: 1 + round(4 * covered * (0.5 + 0.5 * supported)))


def mt_bench_rate(slots: Slots) -> str:
    """Rate the last turn from 1 to 10 in halves."""
    quality, analysis = _turn_quality(slots, slots.get("answer_2" if "question_2" in slots else "answer", ""))
    return f"{analysis}\nRating: [[{round(2 + 18 * quality) / 2:g}]]"


def mt_bench_compare(slots: Slots) -> str:
    """Compare the last turns of two answers; a tie if their quality is close."""
    turn = "_2" if "question_2" in slots else ""
    (a, analysis_a), (b, analysis_b) = (_turn_quality(slots, slots[f"answer_{side}{turn}"]) for side in "ab")
    return f"Assistant A: {analysis_a} Assistant B: {analysis_b}\n[[{_preference(a, b, tie=0.05)}]]"


def pairwise(slots: Slots) -> str:
    """Compare two answers by the share that the document supports and their coverage of its relevant sentences.

    The verdict does not depend on the order of the two.
    """
    evidence, question = evidence_sentences(slots["context"]), parse_sentence(slots["question"])
    points = [(item, weight) for item in evidence if (weight := relevance(question, item)) > 0]
    total = sum(weight for _, weight in points)

    def quality(answer: str) -> tuple[float, str]:
        sentences = list(split_sentences(answer)[:60])
        if not sentences:
            return 0.0, "it is empty."
        if evidence:
            supported = _support(sentences, evidence)
        else:
            supported = sum(bool(item.terms & question.terms) for item in sentences) / len(sentences)
        covered = supported
        if points:
            covered = sum(weight * coverage(sentences, item, question) for item, weight in points) / total
        repeated = repetition_rate([(item.order, item.negated) for item in sentences])
        value = 0.5 * supported + 0.5 * covered - 0.2 * repeated
        return value, f"supported {supported:.2f}, covered {covered:.2f}."

    (a, analysis_a), (b, analysis_b) = quality(slots["answer_a"]), quality(slots["answer_b"])
    return f"A: {analysis_a} B: {analysis_b}\nBetter: [[{_preference(a, b, tie=0.02)}]]"


def synthesis_questions(slots: Slots) -> str:
    """Ask up to `count` questions of one kind about what the document names, spread over its length."""
    document, kind, count = slots["document"], slots["kind"], int(slots["count"])
    language = detect_language(document)
    whole, template = QUESTION_TEMPLATES[language][kind]
    questions = [whole] if whole else []
    statements = (s for s in split_sentences(document) if _is_statement(s) and (s.numbers or kind != "extraction"))
    subjects = list(dict.fromkeys(subject for s in statements if (subject := _subject(s, language))))
    if kind == "reasoning":
        pairs = list(zip(subjects[0::2], subjects[1::2], strict=False))
        questions += [template.format(first, second) for first, second in _spread(pairs, count - len(questions))]
    else:
        questions += [template.format(subject) for subject in _spread(subjects, count - len(questions))]
    return "\n".join(f"<question>{text}</question>" for text in questions[:count]) or "<no_question/>"


def synthesis_answer(slots: Slots) -> str:
    """Answer with the document's most relevant sentences, up to the length, in the document's order."""
    document, max_length = slots["document"], int(slots["length"])
    question = parse_sentence(slots["question"])
    needs_numbers = bool(_NUMBERS_QUESTION.search(slots["question"]))
    stated = [
        item for item in evidence_sentences(document) if _is_statement(item) and (item.numbers or not needs_numbers)
    ]
    if slots["question"] in {templates["summary"][0] for templates in QUESTION_TEMPLATES.values()}:
        mean = sum(map(_length, stated)) / max(len(stated), 1)
        ranked = list(_spread(stated, max(1, int(max_length / max(mean, 1)))))
    else:
        ratings = [(-relevance(question, item), index) for index, item in enumerate(stated)]
        ranked = [stated[index] for rating, index in sorted(ratings) if rating < 0]
    selected: list[Sentence] = []
    length = 0
    for item in ranked:
        length += _length(item)
        if length > max_length and selected:
            break
        selected.append(item)
    if not selected:
        return "<unanswerable/>"
    ids = {id(item) for item in selected}
    texts = [neutralize(item.text) for item in stated if id(item) in ids]
    return f"<answer>{('' if detect_language(document) == 'zh' else ' ').join(texts)}</answer>"


BENCHMARK_RULES: dict[str, Callable[[Slots], str]] = {
    "longbench_chat": longbench_chat,
    "longbench/qa": longbench_qa,
    "longbench/summary": longbench_summary,
    "mt_bench/single-v1": mt_bench_rate,
    "mt_bench/single-math-v1": mt_bench_rate,
    "mt_bench/single-v1-multi-turn": mt_bench_rate,
    "mt_bench/single-math-v1-multi-turn": mt_bench_rate,
    "mt_bench/pair-v2": mt_bench_compare,
    "mt_bench/pair-math-v1": mt_bench_compare,
    "mt_bench/pair-v2-multi-turn": mt_bench_compare,
    "mt_bench/pair-math-v1-multi-turn": mt_bench_compare,
    "alpaca_eval": alpaca_eval,
    "factscore/facts": factscore_facts,
    "factscore/check": factscore_check,
    "pairwise": pairwise,
}
SYNTHESIS_RULES: dict[str, Callable[[Slots], str]] = {
    "synthesis/questions": synthesis_questions,
    "synthesis/answer": synthesis_answer,
}
QUESTION_TEMPLATES: Mapping[Language, Mapping[str, tuple[str, str]]] = {  # for the whole document, and for a subject
    "en": {
        "general": ("", "What does the document tell about {}?"),
        "summary": ("Summarise the document.", "Summarise what the document tells about {}."),
        "reasoning": ("", "What does the document tell about {}, and what about {}?"),
        "extraction": ("", "Which dates and numbers does the document give about {}?"),
    },
    "zh": {
        "general": ("", "关于{}，文档说了什么？"),
        "summary": ("请概括这份文档的主要内容。", "请概括文档中关于{}的内容。"),
        "reasoning": ("", "关于{}，文档说了什么？关于{}呢？"),
        "extraction": ("", "关于{}，文档给出了哪些日期和数字？"),
    },
}


def _support(sentences: Sequence[Sentence], evidence: tuple[Sentence, ...]) -> float:
    """Return the share of the sentences that the evidence supports."""
    return sum(support_level(item, evidence)[0] for item in sentences) / len(sentences)


def _preference(a: float, b: float, *, tie: float) -> str:
    return "C" if abs(a - b) < tie else "A" if a > b else "B"


def _rate_against_reference(slots: Slots, rate: Callable[[float, float], int]) -> str:
    """Rate by the share of the reference that the answer covers, and of the answer that the reference supports."""
    question = parse_sentence(slots.get("question", ""))
    answer, reference = split_sentences(slots["answer"])[:MAX_SENTENCES], split_sentences(slots["reference"])
    covered = supported = 0.0
    if answer and reference:
        stated = [clause for item in answer for clause in {item, *clauses(item)}]
        shares: list[float] = []
        for point in reference:
            if point.terms - question.terms:
                shares.append(coverage(stated, point, question))
            else:  # "Yes." adds no term to the question
                text = point.text.strip(" .!?。！？").casefold()
                shares.append(any(text in item.text.casefold() for item in stated))
        covered = sum(shares) / len(reference)
        supported = _support(answer, evidence_clauses(slots["reference"]))
    analysis = f"Covered share of the reference: {covered:.2f}. Supported share of the answer: {supported:.2f}."
    return f"{analysis}\n[[{rate(covered, supported)}]]"


def _turn_quality(slots: Slots, answer: str) -> tuple[float, str]:
    """Return from 0 to 1 the quality of an answer to the last turn of MT-Bench, and an analysis."""
    if "question_2" in slots:  # it often refers to the first
        query, reference = f"{slots['question_1']} {slots['question_2']}", slots.get("ref_answer_2", "")
    else:
        query, reference = slots["question"], slots.get("ref_answer_1", "")
    sentences = list(split_sentences(answer)[:MAX_SENTENCES])
    terms = frozenset[str]().union(*(item.terms for item in sentences))
    if not terms:
        return 0.0, "The answer is empty."
    question = parse_sentence(query)
    on_subject = min(1.0, 2 * len(terms & question.terms) / max(1, len(question.terms)))
    new = min(1.0, len(terms - question.terms) / 12)
    repeated = repetition_rate([term for item in sentences for term in item.order][:1000])
    unfinished = 0.0 if sentences[-1].finished else 0.1
    quality = 0.5 * on_subject + 0.5 * new
    analysis = f"on the subject {on_subject:.2f}, new {new:.2f}, repeated {repeated:.2f}"

    def covered(point: Sentence) -> float:
        if point.terms - question.terms:
            return coverage(sentences, point, question)
        return len(terms & point.terms) / len(point.terms) if point.terms else 1.0

    if points := split_sentences(reference):
        share = sum(map(covered, points)) / len(points)
        quality = 0.3 * quality + 0.7 * share
        analysis += f", of the reference {share:.2f}"
    quality -= 0.5 * max(0.0, repeated - 0.4)  # any longer text uses some words again
    return max(0.0, min(1.0, quality - unfinished)), f"It is {analysis}."


def _subject(sentence: Sentence, language: Language) -> str:
    """Return the first name, or what stands before an unambiguous verb; "" if there is neither."""
    if language == "zh":
        opening = _HAN_OPENING.match(sentence.text)
        return opening.group(1) if opening else ""
    if name := _NAME.search(sentence.text):
        return name.group()
    opening = _OPENING.match(sentence.text)
    return opening.group(1)[0].lower() + opening.group(1)[1:] if opening else ""


def _is_statement(sentence: Sentence) -> bool:
    """Return whether this is a finished sentence of some words, and no heading, label or question."""
    return sentence.finished and len(sentence.terms) > 2 and not sentence.text.rstrip().endswith(("?", "？"))


def _spread(items: Sequence[T], count: int) -> Iterator[T]:
    """Return up to `count` of the items at even distances."""
    count = max(0, min(count, len(items)))
    return (items[index * len(items) // count] for index in range(count))


def _length(sentence: Sentence) -> int:
    """Return the number of words, or of characters in Chinese."""
    return len(sentence.text) if detect_language(sentence.text) == "zh" else len(sentence.text.split())


_NUMBERS_QUESTION = re.compile(r"dates and numbers|日期和数字")  # as in QUESTION_TEMPLATES
_NAME = re.compile(
    r"\b(?!(?:The|A|An|In|On|At|By|As|He|She|It|They|We|When|Where|Who|Which|What|How|This|That|These|Those|But|And)\b)"
    r"[A-Z]\w+(?: [A-Z]\w+)+|(?<=[a-z,] )[A-Z][a-z]{2,}\b"
)
_OPENING = re.compile(r"(The [a-z]+(?: [a-z]+)?) (?:is|are|was|were|has|have|had|will|must|may|can)\b")
_HAN_OPENING = re.compile(r"([\u4e00-\u9fffA-Za-z]{2,12}?)(?=(?:位于|建于|始建|出生|[是在于有为被由现，,年]))")
