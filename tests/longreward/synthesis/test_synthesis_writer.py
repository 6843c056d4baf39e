"""The writer's prompts, parsers of its replies and the filter of duplicate questions."""

import doctest

import pytest

from longreward.builtin.offline_judge.benchmark_rules import SYNTHESIS_RULES
from longreward.synthesis import prompts
from longreward.synthesis.config import TASKS
from longreward.synthesis.prompts import (
    ANSWER_TEMPLATE,
    PROMPT_DIR,
    QUESTIONS_TEMPLATE,
    answer_request,
    parse_answer,
    parse_questions,
    questions_request,
)
from longreward.synthesis.records import Context
from longreward.synthesis.writer import count_words, find_duplicate
from longreward.utils.language import Language, detect_language


@pytest.mark.parametrize("language", ["en", "zh"])
def test_prompts_fill_all_slots(language: Language) -> None:
    context = Context("a.txt", 0, "THE TEXT", language)
    for task in TASKS:
        request = questions_request(context, task, 7)
        assert request.template == QUESTIONS_TEMPLATE
        assert "<<" not in request.text
        assert "THE TEXT" in request.text
        assert "7" in request.text
        assert (PROMPT_DIR / language / f"task_{task}.txt").read_text(encoding="utf-8").strip() in request.text
    answer = answer_request(context, "THE QUESTION?", 123)
    assert answer.template == ANSWER_TEMPLATE
    assert "<<" not in answer.text
    assert "THE QUESTION?" in answer.text
    assert "123" in answer.text
    assert answer.max_tokens > 2 * 123
    assert detect_language(request.text) == detect_language(answer.text) == language
    assert set(SYNTHESIS_RULES) == {QUESTIONS_TEMPLATE, ANSWER_TEMPLATE}


def test_each_kind_has_own_prompt_hash() -> None:
    context = Context("a.txt", 0, "x", "en")
    assert len({questions_request(context, task, 1).prompt_hash for task in TASKS}) == len(TASKS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1. <question> Who? </question><question></question>", ("Who?",)),
        ('<Question n="1">Who?</Question> <question >When?</question>', ("Who?", "When?")),
        ("<question>Who? <question>When?</question>", None),
        ("<no_question/>", ()),
        ("<No_question />", ()),
        ("1. Who?", None),
        ("<question>Who", None),
        ("", None),
    ],
)
def test_parse_questions(text: str, expected: tuple[str, ...] | None) -> None:
    assert parse_questions(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Sure: <answer>\nAnn.\n\nLee.\n</answer>", "Ann.\n\nLee."),
        ("<Answer>Ann.</ANSWER>", "Ann."),
        ("<unanswerable/>", ""),
        ("<unanswerable />", ""),
        ("<answer>Ann", None),
        ("<answer> </answer>", None),
    ],
)
def test_parse_answer(text: str, expected: str | None) -> None:
    assert parse_answer(text) == expected


def test_duplicates_found_by_word_stems() -> None:
    mill, chinese = "When did the mill at Keld burn down?", "磨坊是哪一年烧毁的？"
    for question, duplicate in {
        "When was it that the mills at Keld burned down?": mill,
        "When was the mill at Keld rebuilt?": None,  # two words of four: mill, Keld
        "磨坊是哪一年烧毁的": chinese,
    }.items():
        assert find_duplicate(question, [mill, chinese], max_similarity=0.7) == duplicate


def test_count_words() -> None:
    assert count_words("Ann Lee's mill, of 1905.") == 6
    assert count_words("磨坊建于1905年。") == 6


def test_docstring_examples() -> None:
    results = doctest.testmod(prompts)
    assert (results.attempted, results.failed) == (2, 0)
