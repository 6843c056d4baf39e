"""Replies of a judge as text and as JSON (`judge.reply_format`): readable replies, tokens, seconds, and their meaning.

    python benchmarks/reply_formats.py http://localhost:8080/v1 qwen-0.5b --cases 5 --out qwen-0.5b.jsonl

The questions are those of the judge validation: the right answer and a damaged one in each dimension that must detect
the damage, the statements of the right answer, and the support of a true and of a changed sentence by the document.
Every request is made in each format, one at a time, with at most 256 tokens and 3 attempts. The rank correlation
compares the two verdicts on the same item; "damaged lower" is the share of right answers that scored above their
damaged copy, where a tie counts one half. Prints the tables of
docs/decisions/2026-11-27-structured-output.md, over all outcomes in the file `--out`.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common import argument_parser

from longreward.judge import ChatRequest, Judge, JudgeConfig, open_judge
from longreward.judge.prompts import PromptSet, load_prompts
from longreward.judge.truncation import truncated_list, truncated_verdict
from longreward.judge_validation.cases import make_case
from longreward.reward.parsers import parse_rating, parse_statements, parse_support
from longreward.reward_bench.agreement import spearman

FIRST_CASE = 3000  # the judge validation and the reward benchmark use lower numbers
FORMATS = ("text", "json_schema")
MAX_TOKENS = 256


class Item(NamedTuple):
    """A request; of two with the same pair, `is_damaged` marks the one that should score lower."""

    request: ChatRequest
    pair: str
    is_damaged: bool


class Measured(NamedTuple):
    """The outcome of a request in one format."""

    template: str
    pair: str
    is_damaged: bool
    format: str
    value: Any
    attempts: int
    first_unreadable: bool
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    text: str


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("--cases", type=int, default=5)
    parser.add_argument("--templates", nargs="*", help="only these, in this order")
    parser.add_argument("--out", type=Path, required=True, help="append each outcome to this JSON Lines file")
    options = parser.parse_args()
    items = list(make_items(load_prompts(), options.cases))
    if options.templates:
        items = [item for name in options.templates for item in items if item.request.template == name]
    asyncio.run(measure(options.url, options.model, items, options.out))
    rows = [json.loads(line) for line in options.out.read_text(encoding="utf-8").splitlines()]
    print_table(options.model, [Measured(**row) for row in rows])


def make_items(prompts: PromptSet, cases: int) -> Iterator[Item]:
    """Yield the items by template, so that a server that caches prompts reads the examples once per format."""
    selected = [make_case(number) for number in range(FIRST_CASE, FIRST_CASE + cases)]
    damages = {"helpfulness": "other question", "logicality": "contradiction"}
    for name, damage in damages.items():
        template = prompts.template(name, "en")
        for case in selected:
            for text in (case.gold, case.damaged[damage]):
                request = template.request({"question": case.query, "answer": text})
                yield Item(request, f"{name} {case.id}", text != case.gold)
    template = prompts.template("completeness", "en")
    for case in selected:
        for text in (case.gold, case.damaged["fact dropped"]):
            # The sentences of the right answer, as an extraction would list them.
            sentences = enumerate(case.gold.split(". "), start=1)
            extract = "\n".join(f"{number}. {sentence.rstrip('.')}." for number, sentence in sentences)
            context = prompts.extracts([(0, 100, extract)], "en")
            request = template.request({"question": case.query, "context": context, "answer": text})
            yield Item(request, f"completeness {case.id}", text != case.gold)
    template = prompts.template("support", "en")
    for case in selected:
        evidence = prompts.evidence(passages(case.context, case.gold), "en")
        for answer in (case.gold, case.damaged["value changed"]):
            statement = answer.split(". ")[0].rstrip(".") + "."
            request = template.request({"context": evidence, "statement": statement})
            yield Item(request, f"support {case.id}", answer != case.gold)
    template = prompts.template("statements", "en")
    for case in selected:
        for text in (case.gold, case.damaged["refusal"]):
            request = template.request({"question": case.query, "answer": text})
            yield Item(request, f"statements {case.id}", text != case.gold)


def passages(context: str, answer: str) -> list[str]:
    """Return the paragraphs that share the most words with the first sentence of the answer."""
    words = set(answer.split(". ")[0].split())
    paragraphs = context.split("\n\n")
    best = sorted(paragraphs, key=lambda paragraph: -len(words & set(paragraph.split())))[:2]
    return [paragraph for paragraph in paragraphs if paragraph in best]


async def measure(url: str, model: str, items: Sequence[Item], out: Path) -> None:
    """Send each request in each format, and append the outcomes to a file."""
    parsers: dict[str, Callable[[str], Any]] = {
        "support": parse_support,
        "statements": lambda text: parse_statements(text, "<no_statement/>"),
    }
    judges = {name: open_format(url, model, name) for name in FORMATS}
    for number, item in enumerate(items):
        parse = parsers.get(item.request.template, parse_rating)
        is_list = item.request.template == "statements"
        truncated = truncated_list(parse, end_tag="statement") if is_list else truncated_verdict(parse)
        # Alternate: the server's caches favour neither format.
        for name in FORMATS if number % 2 == 0 else reversed(FORMATS):
            judge = judges[name]
            before, started = judge.metrics(), time.monotonic()
            reply = await judge.query(item.request, parse, parse_truncated=truncated)
            seconds = time.monotonic() - started
            unreadable = judge.metrics()["unreadable"] - before["unreadable"]
            usage = reply.usage
            row = Measured(
                *(item.request.template, item.pair, item.is_damaged, name, reply.value, reply.attempts),
                *(unreadable > 0, usage.prompt_tokens, usage.completion_tokens, seconds, reply.text),
            )
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row._asdict(), ensure_ascii=False) + "\n")
    for judge in judges.values():
        await judge.close()


def open_format(url: str, model: str, name: str) -> Judge:
    """Open a judge with one request in flight."""
    settings = {"kind": "http", "base_url": url, "model": model, "reply_format": name}
    # A limit in extra_body is never raised: small judges repeat themselves up to any limit.
    limits = {"max_concurrency": 1, "timeout_s": 600.0, "max_attempts": 3, "extra_body": {"max_tokens": MAX_TOKENS}}
    config = JudgeConfig.parse(settings | limits, source="reply_formats.py")
    return open_judge(config, ledger=None)


def print_table(model: str, measured: Sequence[Measured]) -> None:
    """Print the Markdown table, then the ratings that each format gave."""
    columns = ("judge", "template", "format", "verdicts", "requests", "unreadable", "tokens", "s")
    print("|", " | ".join((*columns, "damaged lower", "rank correlation")), "|")
    print("|---" * (len(columns) + 2), "|", sep="")
    templates = dict.fromkeys(row.template for row in measured)
    for template in (*templates, "all"):
        for name in FORMATS:
            rows = [row for row in measured if row.format == name and template in (row.template, "all")]
            verdicts = sum(row.value is not None for row in rows)
            requests = sum(row.attempts for row in rows)
            unreadable = sum(row.first_unreadable for row in rows)
            tokens = sum(row.completion_tokens for row in rows) / len(rows)
            seconds = sum(row.seconds for row in rows) / len(rows)
            scores = "" if template == "all" else f"{damaged_lower(rows):.2f}"
            same = "" if template == "all" or name == "text" else f"{correlation(measured, template):.2f}"
            cells = (model, template, name, f"{verdicts}/{len(rows)}", requests, unreadable, f"{tokens:.0f}")
            print("|", " | ".join(map(str, (*cells, f"{seconds:.1f}", scores, same))), "|")
    for template in templates:
        for name in FORMATS:
            values = Counter(as_number(row.value) for row in measured if (row.template, row.format) == (template, name))
            print(template, name, dict(sorted(values.items(), key=str)))


def as_number(value: Any) -> float | None:
    """Return a rating or a level; of statements, their number."""
    return float(len(value)) if isinstance(value, list) else value


def damaged_lower(rows: Sequence[Measured]) -> float:
    """Return the share of pairs in which the damaged answer scored lower."""
    by_pair: dict[str, dict[bool, float | None]] = {}
    for row in rows:
        by_pair.setdefault(row.pair, {})[row.is_damaged] = as_number(row.value)
    shares = []
    for pair in by_pair.values():
        right, damaged = pair[False], pair[True]
        if right is not None and damaged is not None:
            shares.append((right > damaged) + (right == damaged) / 2)
    return sum(shares) / len(shares) if shares else float("nan")


def correlation(measured: Sequence[Measured], template: str) -> float:
    """Return Spearman's rank correlation between the verdicts in both formats on the same items."""
    by_item: dict[tuple[str, bool], dict[str, float | None]] = {}
    for row in measured:
        if row.template == template:
            by_item.setdefault((row.pair, row.is_damaged), {})[row.format] = as_number(row.value)
    text, structured = [], []
    for verdicts in by_item.values():
        first, second = (verdicts[name] for name in FORMATS)
        if first is not None and second is not None:
            text.append(first)
            structured.append(second)
    return spearman(structured, text)


if __name__ == "__main__":
    main()
