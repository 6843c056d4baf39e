"""Regular expressions and text functions take time proportional to the text, whatever it holds.

Judge replies and documents are untrusted: a pattern that needs quadratic time lets 8,000 spaces stop the event loop
for seconds. Every pattern of the project is found in its syntax tree and run on inputs that are derived from the
pattern: its repetitions, repeated and led up to.

Time is the thread's own CPU time, so that other processes do not count. The ratio of the times for 2n and n characters
is 2 for a linear function and 4 for a quadratic one; the smallest of several measurements is taken, since caches and
clock rates can only make one slower. Inputs grow until a run takes a millisecond, far above the clock's resolution.
"""

import ast
import importlib
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

import pytest

from longreward.benchmarks import parsers
from longreward.chat_model import ChatReply
from longreward.flows.cli.score import without_verdict
from longreward.judge.prompts import load_prompts
from longreward.judge.reasoning import strip_reasoning
from longreward.judge.reply_text import tag_pattern
from longreward.pairs.pairwise import parse_better
from longreward.retrieval import Bm25Retriever
from longreward.retrieval.chunking import split_text
from longreward.retrieval.terms import extract_terms
from longreward.reward.parsers import PARSERS
from longreward.utils.language import detect_language
from longreward.utils.token_spans import SimpleTokenizer

ROOT = Path(__file__).parent.parent
METHODS = {"compile", "search", "match", "fullmatch", "sub", "subn", "split", "findall", "finditer"}
ANCHORED = {"match", "fullmatch"}
GENERAL = (" ", "\n", "\t", "a", "A", "1", "-", ".", "[", "<", "汉", "_", "*", '"', "\\", "é")
MEASURABLE_S, LONGEST, RATIO = 0.001, 16_384, 3.0

NOT_CONSTANT = {
    # patterns made of other values at run time, and how they are covered
    "longreward/models/chat_encoding.py": "literal special tokens, and marks of a fixed length",
    "longreward/judge/escaping.py": "Marks: see test_what_prompts_escape",
    "longreward/judge/reply_text.py": "tag_pattern: see test_tags",
    "longreward/judge/truncation.py": "a tag's name and spaces: see test_functions_on_replies",
    "longreward/judge/prompt_template.py": "literal slot markers, on prompt files",
    "longreward/training/config.py": "the user's own pattern, on names of layers",
    "longreward/training/lora.py": "the user's own pattern, on names of layers",
}


@dataclass(frozen=True)
class Found:
    """A pattern in the source, and how it is applied."""

    where: str
    pattern: re.Pattern[str]
    anchored: bool


def test_every_pattern_is_linear() -> None:
    slow = [
        f"{found.where}: {found.pattern.pattern!r} on {unit!r}"
        for found in PATTERNS
        for unit in units(found.pattern)
        if growth(applied(found), unit) >= RATIO
    ]
    assert slow == []
    assert len(PATTERNS) > 100


def test_the_measurement_tells_quadratic_patterns_from_linear_ones() -> None:
    """The patterns that were found slow, and linear ones that match the same texts."""
    for slow in (r"\s*\[\[[^\[\]]*\]\]\s*$", r"\[\[([^\]]+)\]\]", r"<\s*/?\s*think>", r"(\w+)\s+=", r"^[ \t]*[ \t]*x"):
        found = Found("", re.compile(slow), anchored=False)
        assert any(growth(applied(found), unit) >= RATIO for unit in units(found.pattern)), slow
    for fast in (r"\[\[[^\[\]]{1,80}\]\]", r"<\s*+/?\s*+think>", r"\w+", r"(?<!\s)\s+"):
        found = Found("", re.compile(fast), anchored=False)
        assert all(growth(applied(found), unit) < RATIO for unit in units(found.pattern)), fast


def test_patterns_that_cannot_be_evaluated_are_known() -> None:
    assert {where.partition(":")[0] for where in NOT_EVALUATED} <= set(NOT_CONSTANT)


PROMPTS = load_prompts()
REPLIES = (
    *(("", piece) for piece in ("[[", "[[ ", "[[1", "[[a ", "[[ 1.", "[[7]]", "[[7", "Rating: [[7]]", "]]", "- ", '"')),
    *(("", piece) for piece in ("Rating: ", "Rating: 7\n", "1. a\n", "\n1", "{", '{"', "[", "(", "\\boxed{", "```\n")),
    *(("[[", piece) for piece in ("a", "1.", "a/", " ")),
    *(
        ("No relevant information\n", piece)
        for piece in ("\n\n", "1 ", "-\n", "\t", "in a ", "No relevant information\n")
    ),
    *(
        ("", piece)
        for piece in ("<statement>", "</statement>", "<statement>a", "</", "<", "<statement ", "< statement")
    ),
    *(("</think>", piece) for piece in ("<think>", "</think>", "<think></think>", "[THINK]a", "</think><", "a")),
    *(("</statement", piece) for piece in (" ", "</statement")),
    *(("<", piece) for piece in (" ", "\\", "/ ", "\u200b", "[ ")),
)


def on_replies() -> dict[str, Callable[[str], object]]:
    functions: dict[str, Callable[[str], object]] = {
        "better": parse_better,
        "longbench, published": parsers.first_number_in_last_brackets,
        "longbench, as asked": lambda text: parsers.strict_rating(text, low=1, high=10),
        "thinking": lambda text: strip_reasoning(ChatReply(text)),
        "thinking, cut": lambda text: strip_reasoning(ChatReply(text, "length"), thinks=True),
        "card": without_verdict,
    }
    for name, reply_parsers in PARSERS.items():
        functions[f"rating, {name}"] = reply_parsers.rating
        functions[f"support, {name}"] = reply_parsers.support
        functions[f"statements, {name}"] = lambda text, parse=reply_parsers.statements: parse(text, "<no_statement/>")  # type: ignore[misc]
        functions[f"extraction, {name}"] = lambda text, parse=reply_parsers.extraction: parse(
            text, "No relevant information"
        )  # type: ignore[misc]
    return functions


@pytest.mark.parametrize("name", on_replies())
def test_functions_on_replies(name: str) -> None:
    function = on_replies()[name]
    assert [unit for unit in (*REPLIES, *(("", piece) for piece in GENERAL)) if growth(function, unit) >= RATIO] == []


def test_what_prompts_escape() -> None:
    assert PROMPTS.escaper is not None
    marks = PROMPTS.escaper
    functions = (marks.escape, marks.restore, marks.find_marks)
    assert [unit for unit in REPLIES for function in functions if growth(function, unit) >= RATIO] == []
    own = [unit for escape in marks._rules for unit in units(escape._unescaped)]
    some = random.Random(0).sample(sorted(own), 200)  # each letter of each heading may be followed by spaces
    assert [unit for unit in some if growth(marks.escape, unit) >= RATIO] == []


@pytest.mark.parametrize("name", ["statement", "no_statement", "question"])
def test_tags(name: str) -> None:
    found = Found("", tag_pattern(name), anchored=False)
    assert [unit for unit in {*units(found.pattern), *REPLIES} if growth(applied(found), unit) >= RATIO] == []


DOCUMENTS = (
    *(("", piece) for piece in GENERAL),
    *(
        ("", piece)
        for piece in ("word ", "a-\n", "a\u00ad\n", "aB", "e\u0301", "林桥", "ภาษา", "हिन्दी ", "\u0301", "\u200b", "1 ")
    ),
    *(("a", piece) for piece in ("-\n", "\u00ad", "A", "\u0301")),
)


@pytest.mark.parametrize(
    "function", [extract_terms, SimpleTokenizer().spans, detect_language], ids=lambda each: each.__qualname__
)
def test_functions_on_documents(function: Callable[[str], object]) -> None:
    assert [unit for unit in DOCUMENTS if growth(function, unit) >= RATIO] == []


def test_a_document_is_cut_and_indexed_in_linear_time() -> None:
    def index(text: str) -> object:
        return Bm25Retriever().index([text[c.start : c.end] for c in split_text(text, 128, SimpleTokenizer())])

    assert growth(index, ("", "The lighthouse on Varn Point was first lit in 1874. ")) < RATIO


# Measuring


def growth(function: Callable[[str], object], unit: tuple[str, str]) -> float:
    """The CPU time for 2n characters over that for n; 0 where even the longest input takes no time to speak of.

    The input is the first text of `unit` once, the second as often as it takes, and a character that fits nothing.
    """
    size = 16
    while size < LONGEST and seconds(function, text_of(unit, size)) < MEASURABLE_S:
        size *= 2
    if size >= LONGEST:
        return 0.0
    ratios = []
    for _ in range(4):
        short = min(seconds(function, text_of(unit, size)) for _ in range(3))
        long = min(seconds(function, text_of(unit, 2 * size)) for _ in range(3))
        ratios.append(long / short)
        if ratios[-1] < RATIO:
            break
    return min(ratios)


def seconds(function: Callable[[str], object], text: str) -> float:
    started = time.thread_time()
    function(text)
    return time.thread_time() - started


def text_of(unit: tuple[str, str], size: int) -> str:
    once, repeated = unit
    return once + repeated * (size // len(repeated)) + "\x00"


def applied(found: Found) -> Callable[[str], object]:
    if found.anchored:
        return lambda text: (found.pattern.match(text), found.pattern.fullmatch(text))
    return lambda text: sum(1 for _ in found.pattern.finditer(text))


# Inputs that may be slow for a pattern


def units(pattern: re.Pattern[str]) -> set[tuple[str, str]]:
    """What leads up to each repetition, with what is repeated; and simple texts."""
    found = {("", piece) for piece in GENERAL}
    for prefix, bodies in repetitions(_parser.parse(pattern.pattern, pattern.flags), ""):
        for body in bodies:
            found |= {(prefix, body), ("", prefix + body), ("", body)} | ({("", prefix)} if prefix else set())
    return {(once, repeated) for once, repeated in found if repeated}


def repetitions(nodes: Any, prefix: str) -> Iterator[tuple[str, list[str]]]:
    for kind, value in nodes:
        if kind in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
            _, most, body = value
            if most > 10:
                yield prefix, [sample + "".join(map(witness, body[1:])) for sample in samples(body[0])]
            yield from repetitions(body, prefix)
        elif kind is op.SUBPATTERN:
            yield from repetitions(value[-1], prefix)
        elif kind is op.ATOMIC_GROUP:
            yield from repetitions(value, prefix)
        elif kind in (op.ASSERT, op.ASSERT_NOT):
            yield from repetitions(value[1], prefix)
        elif kind is op.BRANCH:
            for branch in value[1]:
                yield from repetitions(branch, prefix)
        prefix += witness((kind, value))


def witness(node: Any) -> str:
    """A short text that the node matches."""
    kind, value = node
    if kind in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
        return "".join(map(witness, value[2])) * min(max(value[0], 1), 20) if value[1] else ""
    if kind is op.SUBPATTERN:
        return "".join(map(witness, value[-1]))
    if kind is op.ATOMIC_GROUP:
        return "".join(map(witness, value))
    if kind is op.BRANCH:
        return "".join(map(witness, value[1][0]))
    return next(iter(samples(node)), "")


def samples(node: Any) -> list[str]:
    """Up to five different characters that the node matches, or one text."""
    kind, value = node
    if kind is op.LITERAL:
        return [chr(value)]
    if kind is op.IN:
        own = [chr(item[1]) for item in value if item[0] is op.LITERAL]
        own += [chr(item[1][0]) for item in value if item[0] is op.RANGE]
        return [c for c in dict.fromkeys([*GENERAL, *own]) if is_in(c, value)][:5]
    if kind is op.NOT_LITERAL:
        return [c for c in GENERAL if ord(c) != value][:5]
    if kind is op.ANY:
        return ["a", " ", "["]
    if kind in (op.AT, op.ASSERT, op.ASSERT_NOT, op.GROUPREF, op.GROUPREF_EXISTS, op.FAILURE):
        return []
    return [witness(node)]


def is_in(character: str, items: Any) -> bool:
    negated = items[0][0] is op.NEGATE
    return negated != any(
        (kind is op.LITERAL and ord(character) == value)
        or (kind is op.RANGE and value[0] <= ord(character) <= value[1])
        or (kind is op.CATEGORY and re.match(CATEGORIES[value], character) is not None)
        for kind, value in items
    )


CATEGORIES = {
    op.CATEGORY_DIGIT: r"\d",
    op.CATEGORY_NOT_DIGIT: r"\D",
    op.CATEGORY_SPACE: r"\s",
    op.CATEGORY_NOT_SPACE: r"\S",
    op.CATEGORY_WORD: r"\w",
    op.CATEGORY_NOT_WORD: r"\W",
}


# The patterns of the project


def collect() -> tuple[list[Found], list[str]]:
    """All patterns in calls of `re`, and the places of those whose value is not constant."""
    found: list[Found] = []
    unknown: list[str] = []
    files = {file: file.read_text(encoding="utf-8") for folder in PACKAGES for file in sorted(folder.rglob("*.py"))}
    everything = "\n".join(files.values())
    for file, source in files.items():
        if "re." not in source:
            continue
        tree = ast.parse(source)
        names = {
            id(node.value): node.targets[0].id
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        for call in ast.walk(tree):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
                continue
            if ast.unparse(call.func.value) != "re" or call.func.attr not in METHODS:
                continue
            where = f"{file.relative_to(ROOT)}:{call.lineno}"
            pattern = evaluated(call, file)
            if pattern is None:
                unknown.append(where)
                continue
            used = {call.func.attr}
            if name := names.get(id(call)):
                used = set(re.findall(rf"\b{name}\.(\w+)\(", everything)) & METHODS
            found.append(Found(where, pattern, anchored=bool(used) and used <= ANCHORED))
    return found, unknown


def evaluated(call: ast.Call, file: Path) -> re.Pattern[str] | None:
    """The compiled pattern; the file is imported only if it is more than literals."""
    position = {"sub": 4, "subn": 4, "split": 3}.get(call.func.attr, 2 if call.func.attr != "compile" else 1)  # type: ignore[attr-defined]
    flags = [each.value for each in call.keywords if each.arg == "flags"] or call.args[position : position + 1]
    wanted = ast.Tuple([call.args[0], *flags], ast.Load())
    constants = {"re": re}
    for namespace in (lambda: constants, lambda: vars(importlib.import_module(module_of(file)))):
        try:
            values = eval(compile(ast.fix_missing_locations(ast.Expression(wanted)), str(file), "eval"), namespace())
        except NameError:
            continue
        return values[0] if isinstance(values[0], re.Pattern) else re.compile(*values)
    return None


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


PACKAGES = [ROOT / name for name in ("longreward", "tasks", "flows")]
PATTERNS, NOT_EVALUATED = collect()
