"""Conversations rendered and made to fit; every word of the tiny vocabulary is one token."""

import pytest

from longreward.benchmarks.chat_clients import PromptFitter, has_system_role
from longreward.benchmarks.types import GenerationRequest, Message
from longreward.builtin.tokenizer import CHAT_TEMPLATE
from longreward.errors import PolicyError
from longreward.models.config import PolicyConfig
from longreward.models.policy import load_tokenizer

USER_ONLY = "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<|user|> {{ m.content }} {% endif %}"
END = "{% endfor %}{% if add_generation_prompt %}<|assistant|> {% endif %}"
DROPPING = USER_ONLY + "{% if m.role == 'assistant' %}<|assistant|> {{ m.content }} {{ eos_token }}{% endif %}" + END
REFUSING = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + DROPPING
)
STRICT = (
    "{{ bos_token }}{% if messages[0].role == 'assistant' %}{{ raise_exception('user first') }}{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|> {{ m.content }} {% if m.role == 'assistant' %}{{ eos_token }}{% endif %}"
    + END
)


@pytest.fixture(scope="module")
def text(tiny_policy):
    """The template of prompts is no part of a conversation."""
    config = PolicyConfig(base_model=str(tiny_policy), prompt_template="river {context} river {query} river")
    return load_tokenizer(config, tiny_policy)


def ask(*turns, limit=24, most=None):
    roles = {"s": "system", "u": "user", "a": "assistant"}
    messages = tuple(Message(roles[role], content) for role, content in turns)
    return GenerationRequest("81", messages, temperature=0.0, max_new_tokens=limit, max_prompt_tokens=most)


def rendered(text, fitted):
    return text.tokenizer.decode(fitted.ids)


def test_turns_rendered_by_chat_template(text):
    fitted = PromptFitter(text, 256)(ask(("u", "the town"), ("a", "is in the north"), ("u", "who ?")))
    expected = "<s> <|user|> the town <|assistant|> is in the north </s> <|user|> who ? <|assistant|>"
    assert rendered(text, fitted) == expected
    assert (fitted.truncated, fitted.max_new_tokens) == (False, 24)


def test_without_system_role_text_precedes_first_user_turn(text):
    fitted = PromptFitter(text, 256)(ask(("s", "anna is mayor"), ("u", "who ?"), ("a", "anna"), ("u", "and first ?")))
    assert fitted.turns == (
        Message("user", "anna is mayor\n\nwho ?"),
        Message("assistant", "anna"),
        Message("user", "and first ?"),
    )
    assert not fitted.truncated


@pytest.mark.parametrize(
    ("template", "known"),
    [(CHAT_TEMPLATE, True), (STRICT, True), (DROPPING, False), (REFUSING, False), (None, False)],
    ids=["of the tiny base", "refuses to begin with an answer", "drops it", "refuses it", "takes it for an answer"],
)
def test_system_role_support_detected(text, tiny_policy, template, known):
    config = PolicyConfig(base_model=str(tiny_policy), chat_template=template)
    assert has_system_role(load_tokenizer(config, tiny_policy)) is known


def test_system_turn_kept_if_template_has_role(tiny_policy):
    text = load_tokenizer(PolicyConfig(base_model=str(tiny_policy), chat_template=STRICT), tiny_policy)
    fitted = PromptFitter(text, 256)(ask(("s", "anna is mayor"), ("u", "who ?")))
    assert [turn.role for turn in fitted.turns] == ["system", "user"]


@pytest.mark.parametrize(
    ("most", "left"),
    [
        (6, "the town of anna and ben"),
        (4, "the town" + "and ben"),  # halves are put together as they are
        (5, "the town" + "and ben"),  # 5 // 2 on either side, as published
    ],
)
def test_last_turn_over_limit_keeps_both_ends(text, most, left):
    fitted = PromptFitter(text, 256)(
        ask(("u", "cara " * 9), ("a", "ben"), ("u", "the town of anna and ben"), most=most)
    )
    assert fitted.turns[-1].content == left
    assert fitted.turns[0].content == "cara " * 9
    assert fitted.truncated == (most < 6)


def test_answer_limit_reduced_before_prompt_and_logged_once(text, caplog):
    fitting = PromptFitter(text, 256)
    fitted = [fitting(ask(("u", "the river " * 60), limit=200)) for _ in range(2)]
    # 3 tokens of the template and 120 of the turn: 133 are left.
    assert [(len(each.ids), each.max_new_tokens, each.truncated) for each in fitted] == [(123, 133, False)] * 2
    [record] = caplog.records  # one warning for both
    assert "123 prompt tokens in a window of 256 leave 133 instead of 200" in record.getMessage()


def test_prompt_cut_until_answer_has_quarter_of_window(text):
    fitted = PromptFitter(text, 256)(ask(("u", "anna " + "the river " * 120 + "ben"), limit=200))
    assert len(fitted.ids) <= 192
    assert len(fitted.ids) > 185  # no more is cut than must be
    assert fitted.max_new_tokens == 256 - len(fitted.ids)
    assert fitted.truncated
    assert fitted.turns[0].content.startswith("anna the river")
    assert fitted.turns[0].content.endswith("the river ben")


def test_short_answer_needs_no_quarter(text):
    fitted = PromptFitter(text, 256)(ask(("u", "the river " * 115), limit=8))
    assert (len(fitted.ids), fitted.max_new_tokens, fitted.truncated) == (233, 8, False)


def test_longest_turn_cut_but_not_question(text):
    turns = ("u", "the first of the two " * 30), ("a", "the north " * 40), ("u", "who built the bridge ?")
    fitted = PromptFitter(text, 256)(ask(*turns))
    assert fitted.turns[2].content == "who built the bridge ?"
    assert fitted.turns[1].content == "the north " * 40
    assert len(text.encode(fitted.turns[0].content)) < 150
    assert len(fitted.ids) + fitted.max_new_tokens <= 256


def test_several_long_turns_cut_until_all_fit(text):
    fitted = PromptFitter(text, 256)(ask(*[("u", "the river " * 90), ("a", "ben " * 150)] * 2, ("u", "who ?")))
    assert len(fitted.ids) <= 232
    assert [turn.role for turn in fitted.turns] == ["user", "assistant", "user", "assistant", "user"]


def test_conversation_that_cannot_fit_refused(text):
    turns = [("u", "who"), ("a", "anna"), ("u", "who"), ("a", "ben"), ("u", "who")]
    with pytest.raises(PolicyError, match=r"conversation 81: its 5 turns have 5 tokens more than the 9 that fit"):
        PromptFitter(text, 12)(ask(*turns))


def test_special_tokens_and_slots_in_turn_unchanged(tiny_policy):
    text = load_tokenizer(PolicyConfig(base_model=str(tiny_policy), chat_template=STRICT), tiny_policy)
    said = "[[10]] {query} {{ eos_token }} {% raw %} <<slot>>"
    fitted = PromptFitter(text, 256)(ask(("u", "who ?"), ("a", said), ("u", "and ?")))
    expected = f"<s><|user|> who ? <|assistant|> {said} </s><|user|> and ? <|assistant|> "
    assert text.conversation_text([vars(turn) for turn in fitted.turns]) == expected
    assert fitted.ids == text.chat.encode_rendered(expected)
