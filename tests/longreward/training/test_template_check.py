"""The template of the conftest, changed in one place a test."""

import pytest
from preference_pairs import make_pair
from transformers import AutoTokenizer

from longreward.errors import PolicyError
from longreward.models.policy import PolicyTokenizer
from longreward.records import Example
from longreward.training.template_check import check_template

TURNS = (
    "{% for m in messages %}{% if m.role == 'user' %}<|user|> {{ m.content }} {% else %}ANSWER{% endif %}{% endfor %}"
)
OPENING = "{% if add_generation_prompt %}<|assistant|> {% endif %}"


PAIR = make_pair(7, "it is north .", "south")


@pytest.fixture
def text(tiny_policy):
    """`text(template)`"""

    def make(template: str | None = None) -> PolicyTokenizer:
        tokenizer = AutoTokenizer.from_pretrained(tiny_policy)
        tokenizer.chat_template = template or tokenizer.chat_template
        return PolicyTokenizer(tokenizer, "{context}\n\n{query}", (3,))

    return make


def test_consistent_template_passes(text):
    check_template(text(), [PAIR])
    example = Example(id="1", document_id="1", context="the town", query="where ?", answer="north")
    check_template(text(), [example])


def test_template_with_another_prompt_before_answer_is_refused(text):
    alone = "{% if messages | length == 1 %}system one{% else %}system two{% endif %} "
    turns = TURNS.replace("ANSWER", "<|assistant|> {{ m.content }}")
    with pytest.raises(PolicyError, match=r"prompt of 7 differently alone, '…system one <(.|\n)*'…system two <"):
        check_template(text(alone + turns + OPENING), [PAIR])


def test_generation_prompt_may_open_reasoning(text):
    turns = TURNS.replace("ANSWER", "<|assistant|> {{ m.content }}")
    thinking = OPENING.replace("<|assistant|> ", "<|assistant|> <think> ")
    check_template(text(turns + thinking), [PAIR])
