"""Toy versions of the benchmarks that have no generator, in the formats of the published files.

    python -m longreward.builtin.toy_data      # writes builtin/benchmarks again, with the same bytes on every machine

The corpus's generator makes them from documents that are in no training data. LongBench-Chat has longer documents and
three example answers with scores by the share of right facts; LongBench has a few records of one data set of each
class, and for LongBench's own protocol one with each metric. AlpacaEval's instructions contain a short register with
their question, and the baseline's answers some of its facts; its `df_gamed.csv` is random, so that the
length-controlled win rate can be computed.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longreward.builtin.documents import THEMES, Document, make_document
from longreward.builtin.grammar import RELATIONS, Fact
from longreward.builtin.questions import absent_value, format_question, gold_answer, sample_questions, with_wrong_value
from longreward.utils.jsonl import to_line

FOLDER = Path(__file__).parent / "benchmarks"
LONGBENCH_CHAT_CASES, LONGBENCH_RECORDS, ALPACA_EVAL_CASES, FACTSCORE_CASES = 12, 4, 16, 8
LONGBENCH_V2_CASES, INFINITEBENCH_ROWS = 6, 4
LONGBENCH_TEMPLATES = {
    "multifieldqa_en": "{context}\n\n{input}",
    "hotpotqa": "{context}\n\n{input}",
    "multi_news": "{context}\n\nWhat did the members of this society do, and when was it?",
}
OFFICIAL_TEMPLATES = {
    "multifieldqa_en": "{context}\n\nReply with the value alone.\n\n{input}",
    "multi_news": "{context}\n\nWhat did the members of this society do, and when was it?",
    "trec": "Name the topic of the last question.\n\n{context}\n{input}",
    "passage_count": "{context}\n\nHow many different passages are there, without repetitions? Reply with the number.",
    "passage_retrieval_en": "{context}\n\nWhich paragraph says this? {input}\n\nReply like this: Paragraph 2.",
    "lcc": "Continue the code.\n{context}Next line:\n",
}
OFFICIAL_LIMITS = dict.fromkeys(OFFICIAL_TEMPLATES, 32) | {"multi_news": 256}
LongBenchRow = tuple[str, str, list[str], list[str] | None]
"""Input, context, references and the labels of a classification."""
GAMED_COLUMNS = ("index", "model", "preference", "std_delta_len", "instruction_difficulty", "not_gamed_baseline")


def write_toy_data(folder: Path) -> None:
    """Write the files of all toy benchmarks to `folder`."""
    _write_longbench_chat(folder / "longbench_chat")
    _write_longbench(folder / "longbench")
    _write_longbench_official(folder / "longbench_official")
    _write_longbench_v2(folder / "longbench_v2")
    _write_infinitebench(folder / "infinitebench")
    _write_alpaca_eval(folder / "alpaca_eval")
    _write_factscore(folder / "factscore")


def _write_longbench_chat(folder: Path) -> None:
    """Write the cases, and for each case answers in which all, some and none of the facts are right."""
    cases, shots = [], []
    for number in range(1, LONGBENCH_CHAT_CASES + 1):
        document = make_document(f"longbench-chat-{number}", people=10, scenes=4)
        rng = random.Random(f"longreward longbench-chat {number}")
        facts = next(facts for facts in sample_questions(rng, document, 8) if len(facts) >= 2)
        answers = []
        for right in (len(facts), rng.randrange(1, len(facts)), 0):
            stated = [*facts[:right], *(with_wrong_value(rng, document, fact) for fact in facts[right:])]
            answers.append({"answer": gold_answer(stated), "score": 1 + round(9 * right / len(facts))})
        query = format_question(facts)
        prompt = f"{document.text}\n\n{query}"
        cases.append({"idx": number, "prompt": prompt, "query": query, "answer": gold_answer(facts)})
        shots.append(answers)
    _write_json(folder / "test_cases.json", cases)
    _write_json(folder / "few_shots.json", shots)


def _write_longbench(folder: Path) -> None:
    """Write one data set of each class, each record from question, context and reference answers."""
    _write_json(folder / "dataset2prompt.json", LONGBENCH_TEMPLATES)
    numbers = range(1, LONGBENCH_RECORDS + 1)
    rows: dict[str, list[tuple[str, str, list[str]]]] = {name: [] for name in LONGBENCH_TEMPLATES}
    for number in numbers:  # a fact of a document, as a sentence and as a value
        document = make_document(f"longbench-single-{number}")
        fact = random.Random(number).choice(document.facts)
        rows["multifieldqa_en"].append((format_question([fact]), document.text, [fact.sentence, fact.value]))
    for number in numbers:  # a fact of each of two documents
        documents = [make_document(f"longbench-multi-{number}-{part}", people=4) for part in (1, 2)]
        facts = [random.Random(number).choice(document.facts) for document in documents]
        passages = [f"Passage {n}:\n{document.text}" for n, document in enumerate(documents, start=1)]
        rows["hotpotqa"].append((format_question(facts), "\n".join(passages), [gold_answer(facts)]))
    for number in numbers:  # no question; the reference summary is the first fact of each member
        document = make_document(f"longbench-news-{number}")
        first_facts = {fact.subject: fact for fact in reversed(document.facts)}
        summary = gold_answer([first_facts[name] for name in document.people])
        rows["multi_news"].append(("", document.text, [summary]))
    for name, name_rows in rows.items():
        _write_longbench_set(folder, name, [(*row, None) for row in name_rows])


def _write_longbench_official(folder: Path) -> None:
    """Write one set with each of LongBench's metrics, with their templates and limits."""
    _write_json(folder / "dataset2prompt.json", OFFICIAL_TEMPLATES)
    _write_json(folder / "dataset2maxlen.json", OFFICIAL_LIMITS)
    rows: dict[str, list[LongBenchRow]] = {name: [] for name in OFFICIAL_TEMPLATES}
    for number in range(1, LONGBENCH_RECORDS + 1):
        document = make_document(f"longbench-official-{number}")
        rng = random.Random(f"longreward longbench-official {number}")
        fact, *others = rng.sample(document.facts, 6)
        rows["multifieldqa_en"].append((format_question([fact]), document.text, [fact.value], None))
        first_facts = {fact.subject: fact for fact in reversed(document.facts)}
        summary = gold_answer([first_facts[name] for name in document.people])
        rows["multi_news"].append(("", document.text, [summary], None))
        topics = [RELATIONS[example.relation].theme for example in (fact, *others)]
        questions = [f"Question: {format_question([example])}\nTopic:" for example in (fact, *others)]
        examples = "\n".join(map("{} {}".format, questions[1:], topics[1:]))
        rows["trec"].append((questions[0], examples, [topics[0]], [*THEMES]))
        paragraphs = document.text.split("\n\n")
        repeated = [*paragraphs, *rng.choices(paragraphs, k=number)]
        rng.shuffle(repeated)
        rows["passage_count"].append(("", _number_paragraphs(repeated), [str(len(set(paragraphs)))], None))
        index = next(index for index, text in enumerate(paragraphs, start=1) if fact.sentence[:-1] in text)
        rows["passage_retrieval_en"].append(
            (fact.sentence, _number_paragraphs(paragraphs), [f"Paragraph {index}"], None)
        )
        names = [name.split()[0].lower() for name in document.people]
        code = "".join(f'values["{name}"] = read("{name}")\n' for name in names)
        rows["lcc"].append(("", code, [f'values["{names[0]}"] = read("{names[0]}")'], None))
    for name, name_rows in rows.items():
        _write_longbench_set(folder, name, name_rows)


def _write_longbench_v2(folder: Path) -> None:
    """Write questions about one fact with four values, of which the others are in no sentence of the text."""
    cases = []
    for number in range(1, LONGBENCH_V2_CASES + 1):
        document = make_document(f"longbench-v2-{number}")
        rng = random.Random(f"longreward longbench-v2 {number}")
        fact = rng.choice(document.facts)
        choices = _value_choices(rng, document, fact)
        cases.append(
            {
                "_id": str(number),
                "domain": "Registers",
                "sub_domain": RELATIONS[fact.relation].theme,
                "difficulty": ("easy", "hard")[number % 2],
                "length": ("short", "medium", "long")[number % 3],
                "question": format_question([fact]),
                **{f"choice_{letter}": choice for letter, choice in zip("ABCD", choices, strict=True)},
                "answer": "ABCD"[choices.index(fact.value)],
                "context": document.text,
            }
        )
    _write_json(folder / "data.json", cases)


def _value_choices(rng: random.Random, document: Document, fact: Fact) -> list[str]:
    """Return the value of a fact and three that are in no sentence of the document."""
    values = {fact.value}
    while len(values) < len("ABCD"):
        values.add(absent_value(rng, document, fact.relation))
    choices = sorted(values)
    rng.shuffle(choices)
    return choices


def _write_infinitebench(folder: Path) -> None:
    """Write a hidden number, questions about a fact, and the same questions with choices."""
    rows: dict[str, list[dict[str, Any]]] = {"passkey": [], "longbook_qa_eng": [], "longbook_choice_eng": []}
    for number in range(INFINITEBENCH_ROWS):
        document = make_document(f"infinitebench-{number}")
        rng = random.Random(f"longreward infinitebench {number}")
        fact, key = rng.choice(document.facts), str(rng.randint(10_000, 99_999))
        paragraphs = document.text.split("\n\n")
        paragraphs.insert(rng.randrange(len(paragraphs)), f"The pass key is {key}.")
        row = {"id": number, "context": document.text, "input": format_question([fact]), "options": []}
        hidden = {"context": "\n\n".join(paragraphs), "input": "What is the pass key?", "answer": [key]}
        rows["passkey"].append(row | hidden)
        rows["longbook_qa_eng"].append(row | {"answer": [fact.value]})
        options = _value_choices(rng, document, fact)
        rows["longbook_choice_eng"].append(row | {"answer": [fact.value], "options": options})
    for task, task_rows in rows.items():
        _write(folder / f"{task}.jsonl", "".join(map(to_line, task_rows)))


def _number_paragraphs(texts: Sequence[str]) -> str:
    return "\n\n".join(f"Paragraph {number}: {text}" for number, text in enumerate(texts, start=1))


def _write_longbench_set(folder: Path, name: str, rows: Sequence[LongBenchRow]) -> None:
    records = [
        {
            "input": query,
            "context": context,
            "answers": answers,
            "length": len(context.split()),
            "dataset": name,
            "language": "en",
            "all_classes": labels,
            "_id": f"{name}-{number}",
        }
        for number, (query, context, answers, labels) in enumerate(rows, start=1)
    ]
    _write(folder / f"{name}.jsonl", "".join(map(to_line, records)))


def _write_alpaca_eval(folder: Path) -> None:
    """Write the baseline's answers, and random annotations of two models for the length-controlled win rate."""
    cases = []
    for number in range(ALPACA_EVAL_CASES):
        document = make_document(f"alpaca-eval-{number}", people=3, facts_per_person=4, scenes=1)
        rng = random.Random(f"longreward alpaca-eval {number}")
        (facts,) = sample_questions(rng, document, 1)
        stated = [fact if rng.random() < 0.7 else with_wrong_value(rng, document, fact) for fact in facts]
        cases.append(
            {
                "dataset": f"registers_{1 + number % 2}",
                "instruction": f"{document.text}\n\n{format_question(facts)}",
                "output": gold_answer(stated),
                "generator": "longreward_baseline",
            }
        )
    _write(folder / "alpaca_eval_gpt4_baseline.json", json.dumps(cases, indent=1) + "\n")
    rng = random.Random("longreward alpaca-eval gamed")
    difficulties = [rng.gauss(0, 1) for _ in range(ALPACA_EVAL_CASES)]
    lines = [",".join(GAMED_COLUMNS)]
    for model, shift in (("longreward_baseline_concise", 1.0), ("longreward_baseline_verbose", -1.0)):
        for index, difficulty in enumerate(difficulties):
            length = rng.gauss(shift, 0.5)
            preference = min(1.0, max(0.0, 0.5 - 0.2 * length + rng.gauss(0, 0.1)))
            lines.append(f"{index},{model},{preference:.4f},{length:.4f},{difficulty:.4f},False")
    _write(folder / "df_gamed.csv", "\n".join(lines) + "\n")


def _write_factscore(folder: Path) -> None:
    cases = []
    for number in range(1, FACTSCORE_CASES + 1):
        document = make_document(f"factscore-{number}", people=8, scenes=4)
        rng = random.Random(f"longreward factscore {number}")
        facts = next(facts for facts in sample_questions(rng, document, 8) if len(facts) >= 2)
        query, answer = format_question(facts), gold_answer(facts)
        cases.append({"idx": str(number), "context": document.text, "query": query, "answer": answer})
    _write(folder / "cases.jsonl", "".join(map(to_line, cases)))


def _write_json(path: Path, value: Any) -> None:
    _write(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write_toy_data(FOLDER)
