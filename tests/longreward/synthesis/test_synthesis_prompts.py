"""The writer's prompts and what is read from its answers."""

import doctest

import pytest

from longreward.builtin.offline_judge.writer import RULES
from longreward.synthesis import prompts
from longreward.synthesis.config import TASKS
from longreward.synthesis.prompts import (
    ANSWER,
    PROMPTS,
    QUESTIONS,
    ParsedAnswer,
    answer_request,
    parse_answer,
    parse_questions,
    questions_request,
)
from longreward.synthesis.records import Context
from longreward.synthesis.writer import DuplicateFilter, count_words
from longreward.utils.language import Language, detect_language


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_prompt_fills_all_of_its_slots_and_names_its_language_kind_and_length(language: Language) -> None:
    context = Context("a.txt", 0, "THE TEXT", language)
    for task in TASKS:
        question = questions_request(context, task, 7)
        assert question.template == QUESTIONS
        assert "<<" not in question.text
        assert "THE TEXT" in question.text
        assert "7" in question.text
        assert (PROMPTS / language / f"task_{task}.txt").read_text(encoding="utf-8").strip() in question.text
    answer = answer_request(context, "THE QUESTION?", 123)
    assert answer.template == ANSWER
    assert "<<" not in answer.text
    assert "THE QUESTION?" in answer.text
    assert "123" in answer.text
    assert answer.max_tokens > 2 * 123
    assert detect_language(question.text) == detect_language(answer.text) == language
    assert set(RULES) == {QUESTIONS, ANSWER}


def test_prompts_of_two_kinds_have_two_hashes() -> None:
    context = Context("a.txt", 0, "x", "en")
    assert len({questions_request(context, task, 1).prompt_hash for task in TASKS}) == len(TASKS)


@pytest.mark.parametrize(
    ("text", "found"),
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
def test_questions_stand_between_tags(text: str, found: tuple[str, ...] | None) -> None:
    assert parse_questions(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Sure: <answer>\nAnn.\n\nLee.\n</answer>", ParsedAnswer("Ann.\n\nLee.")),
        ("<Answer>Ann.</ANSWER>", ParsedAnswer("Ann.")),
        ("<unanswerable/>", ParsedAnswer(None)),
        ("<unanswerable />", ParsedAnswer(None)),
        ("<answer>Ann", None),
        ("<answer> </answer>", None),
    ],
)
def test_an_answer_stands_between_tags_and_one_that_was_cut_off_is_none(text: str, found: ParsedAnswer | None) -> None:
    assert parse_answer(text) == found


def test_questions_are_alike_by_their_words_without_little_ones_and_endings() -> None:
    asked = DuplicateFilter(0.7)
    asked.add("When did the mill at Keld burn down?")
    assert asked.like("When was it that the mills at Keld burned down?") == "When did the mill at Keld burn down?"
    assert asked.like("When was the mill at Keld rebuilt?") is None  # two words of four: mill, Keld
    asked.add("磨坊是哪一年烧毁的？")
    assert asked.like("磨坊是哪一年烧毁的") == "磨坊是哪一年烧毁的？"


def test_lengths_are_words_and_in_chinese_characters() -> None:
    assert count_words("Ann Lee's mill, of 1905.") == 6
    assert count_words("磨坊建于1905年。") == 6


def test_the_examples_in_the_documentation_hold() -> None:
    results = doctest.testmod(prompts)
    assert (results.attempted, results.failed) == (2, 0)
