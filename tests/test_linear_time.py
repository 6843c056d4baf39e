"""Functions on untrusted text (judge replies, documents, log lines) take time proportional to its length.

A pattern that needs quadratic time lets a reply of 100,000 spaces stop the event loop for minutes. Each function runs
on one long text for each repeated piece, under a limit of CPU time: linear functions take milliseconds for such a text,
quadratic ones much more than the limit. CPU time does not depend on other processes.
"""

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from longreward.benchmarks import published_formats
from longreward.chat_model import ChatReply, parse_logprobs
from longreward.flows.cli.score import without_verdict
from longreward.judge.continuation import cut_continuation
from longreward.judge.prompts import load_prompts
from longreward.judge.reasoning import strip_reasoning
from longreward.judge.truncation import truncated_list, truncated_verdict
from longreward.pairs.pairwise import parse_better
from longreward.retrieval import Bm25Retriever
from longreward.retrieval.chunking import split_text
from longreward.retrieval.terms import extract_terms
from longreward.reward.parser_sets import PARSERS
from longreward.utils.http_errors import is_filter_notice
from longreward.utils.language import detect_language
from longreward.utils.redaction import redact
from longreward.utils.token_spans import SimpleTokenizer

RATING_FORMAT = load_prompts().template("helpfulness", "en").reply_format
LENGTH = 100_000
CPU_LIMIT_S = 3.0

GENERAL = (" ", "\n", "\t", "a", "1", "-", ".", "_", "*", '"', "\\", "汉")
REPLIES = (
    *(
        "[[",
        "[[ ",
        "[[a ",
        "[[7]]",
        "]]",
        "Rating: ",
        "Rating: [[7",
        "1. a\n",
        "\n1",
        "{",
        '{"',
        "(",
        "\\boxed{",
        "```\n",
        "[Analysis]\n",
        "Rating\n[Question]\n",
    ),
    *("<statement>", "</statement>", "<statement>a", "</", "<", "< ", "<statement ", "</statement "),
    *("<think>", "</think>", "<think></think>", "[THINK]a", "</think><", "No relevant information\n"),
)
# Opened once, then repeated.
PREFIXED = (
    *(("[[", piece) for piece in ("a", "1.", "a/", " ")),
    *(("</think>", piece) for piece in ("<think>", "<think></think>", "[THINK]a", "</think><", "a")),
    *(("<", piece) for piece in (" ", "\\", "/ ", "\u200b", "[ ")),
    *(("No relevant information\n", piece) for piece in ("\n\n", "1 ", "-\n", "\t", "in a ")),
    ("</statement", " "),
    ("a", "\u0301"),
)
DOCUMENTS = ("word ", "a-\n", "a\u00ad\n", "aB", "e\u0301", "林桥", "ภาษา", "हिन्दी ", "\u0301", "\u200b", "1 ")
LOG_LINES = ("/", "://", "@", "a:b@", "password=", "?", "=", "&token=")


def reply_functions() -> dict[str, Callable[[str], object]]:
    functions: dict[str, Callable[[str], object]] = {
        "parse_better": parse_better,
        "longbench, published": published_formats.first_number_in_last_brackets,
        "longbench, strict": lambda text: published_formats.strict_rating(text, low=1, high=10),
        "strip_reasoning": lambda text: strip_reasoning(ChatReply(text)),
        "strip_reasoning, truncated": lambda text: strip_reasoning(ChatReply(text, "length"), thinks=True),
        "parse_logprobs": parse_logprobs,
        "is_filter_notice": is_filter_notice,
        "without_verdict": without_verdict,
        "cut_continuation": lambda text: cut_continuation(text, RATING_FORMAT),
        "truncated_list": truncated_list(lambda text: text, end_tag="statement"),
    }
    for name, reply_parsers in PARSERS.items():

        def statements(text: str, parse: Callable[..., object] = reply_parsers.statements) -> object:
            return parse(text, "<no_statement/>")

        def extraction(text: str, parse: Callable[..., object] = reply_parsers.extraction) -> object:
            return parse(text, "No relevant information")

        functions[f"rating, {name}"] = reply_parsers.rating
        functions[f"truncated rating, {name}"] = truncated_verdict(reply_parsers.rating)
        functions[f"support, {name}"] = reply_parsers.support
        functions[f"statements, {name}"] = statements
        functions[f"extraction, {name}"] = extraction
    return functions


def index_document(text: str) -> object:
    return Bm25Retriever().index([text[c.start : c.end] for c in split_text(text, 128, SimpleTokenizer())])


DOCUMENT_FUNCTIONS: dict[str, Callable[[str], object]] = {
    "extract_terms": extract_terms,
    "SimpleTokenizer": SimpleTokenizer().spans,
    "detect_language": detect_language,
    "index_document": index_document,
}
ESCAPER = load_prompts().escaper
assert ESCAPER is not None
CASES = [
    *((name, function, GENERAL + REPLIES) for name, function in reply_functions().items()),
    *((name, function, GENERAL + DOCUMENTS) for name, function in DOCUMENT_FUNCTIONS.items()),
    ("escape", ESCAPER.escape, GENERAL + REPLIES),
    ("restore", ESCAPER.restore, GENERAL + REPLIES),
    ("redact", redact, GENERAL + LOG_LINES),
]


@pytest.mark.parametrize(("name", "function", "pieces"), CASES, ids=[name for name, *_ in CASES])
def test_time_is_linear(name: str, function: Callable[[str], object], pieces: tuple[str, ...]) -> None:
    for prefix, piece in (*(("", piece) for piece in pieces), *PREFIXED):
        # The NUL matches nothing, so a pattern cannot succeed at the end of the text.
        text = prefix + piece * (LENGTH // len(piece)) + "\x00"
        with cpu_limit(f"{name} on {prefix!r} and many {piece!r}"):
            function(text)


def test_quadratic_function_exceeds_limit() -> None:
    with pytest.raises(TimeoutError), cpu_limit("search", 0.2):
        re.search(r"\s*\[\[[^\[\]]*\]\]\s*$", " " * LENGTH)


@contextmanager
def cpu_limit(label: str, seconds: float = CPU_LIMIT_S) -> Iterator[None]:
    """Raise TimeoutError once the process has used so many seconds of CPU time; regular expressions are interrupted."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"{label} takes more than {seconds:g} s")

    previous = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)
