"""Rendering of conversations and truncation to the window; each word of the tiny vocabulary is one token."""

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
def encoder(tiny_policy):
    """Load an encoder with a prompt template, which a conversation does not use."""
    config = PolicyConfig(base_model=str(tiny_policy), prompt_template="river {context} river {query} river")
    return load_tokenizer(config, tiny_policy)


def make_request(*turns, limit=24, max_prompt_tokens=None):
    roles = {"s": "system", "u": "user", "a": "assistant"}
    messages = tuple(Message(roles[role], content) for role, content in turns)
    return GenerationRequest("81", messages, temperature=0.0, max_new_tokens=limit, max_prompt_tokens=max_prompt_tokens)


def decode(encoder, prompt):
    return encoder.tokenizer.decode(prompt.ids)


def test_turns_rendered_by_chat_template(encoder):
    prompt = PromptFitter(encoder, 256)(make_request(("u", "the town"), ("a", "is in the north"), ("u", "who ?")))
    expected = "<s> <|user|> the town <|assistant|> is in the north </s> <|user|> who ? <|assistant|>"
    assert decode(encoder, prompt) == expected
    assert (prompt.truncated, prompt.max_new_tokens) == (False, 24)


def test_without_system_role_text_precedes_first_user_turn(encoder):
    prompt = PromptFitter(encoder, 256)(
        make_request(("s", "anna is mayor"), ("u", "who ?"), ("a", "anna"), ("u", "and first ?"))
    )
    assert prompt.turns == (
        Message("user", "anna is mayor\n\nwho ?"),
        Message("assistant", "anna"),
        Message("user", "and first ?"),
    )
    assert not prompt.truncated


@pytest.mark.parametrize(
    ("template", "has_role"),
    [(CHAT_TEMPLATE, True), (STRICT, True), (DROPPING, False), (REFUSING, False), (None, False)],
    ids=[
        "tiny base",
        "user turn first",
        "drops system turns",
        "refuses system turns",
        "renders system turns as answers",
    ],
)
def test_system_role_support_detected(encoder, tiny_policy, template, has_role):
    config = PolicyConfig(base_model=str(tiny_policy), chat_template=template)
    assert has_system_role(load_tokenizer(config, tiny_policy)) is has_role


def test_system_turn_kept_if_template_has_role(tiny_policy):
    encoder = load_tokenizer(PolicyConfig(base_model=str(tiny_policy), chat_template=STRICT), tiny_policy)
    prompt = PromptFitter(encoder, 256)(make_request(("s", "anna is mayor"), ("u", "who ?")))
    assert [turn.role for turn in prompt.turns] == ["system", "user"]


@pytest.mark.parametrize(
    ("max_prompt_tokens", "left"),
    [
        (6, "the town of anna and ben"),
        (4, "the town" + "and ben"),
        (5, "the town" + "and ben"),  # 5 // 2 tokens of either end, as published
    ],
)
def test_last_turn_over_limit_keeps_both_ends(encoder, max_prompt_tokens, left):
    prompt = PromptFitter(encoder, 256)(
        make_request(
            ("u", "cara " * 9), ("a", "ben"), ("u", "the town of anna and ben"), max_prompt_tokens=max_prompt_tokens
        )
    )
    assert prompt.turns[-1].content == left
    assert prompt.turns[0].content == "cara " * 9
    assert prompt.truncated == (max_prompt_tokens < 6)


def test_answer_limit_reduced_before_prompt_and_logged_once(encoder, caplog):
    fitter = PromptFitter(encoder, 256)
    prompts = [fitter(make_request(("u", "the river " * 60), limit=200)) for _ in range(2)]
    # 3 tokens of the template and 120 of the turn: 133 are left.
    assert [(len(prompt.ids), prompt.max_new_tokens, prompt.truncated) for prompt in prompts] == [(123, 133, False)] * 2
    [record] = caplog.records  # one warning for both
    assert "123 prompt tokens in a window of 256 leave 133 instead of 200" in record.getMessage()


def test_prompt_cut_until_answer_has_quarter_of_window(encoder):
    prompt = PromptFitter(encoder, 256)(make_request(("u", "anna " + "the river " * 120 + "ben"), limit=200))
    assert len(prompt.ids) <= 192
    assert len(prompt.ids) > 185  # no more than necessary is cut
    assert prompt.max_new_tokens == 256 - len(prompt.ids)
    assert prompt.truncated
    assert prompt.turns[0].content.startswith("anna the river")
    assert prompt.turns[0].content.endswith("the river ben")


def test_short_answer_needs_no_quarter(encoder):
    prompt = PromptFitter(encoder, 256)(make_request(("u", "the river " * 115), limit=8))
    assert (len(prompt.ids), prompt.max_new_tokens, prompt.truncated) == (233, 8, False)


def test_longest_turn_cut_but_not_question(encoder):
    turns = ("u", "the first of the two " * 30), ("a", "the north " * 40), ("u", "who built the bridge ?")
    prompt = PromptFitter(encoder, 256)(make_request(*turns))
    assert prompt.turns[2].content == "who built the bridge ?"
    assert prompt.turns[1].content == "the north " * 40
    assert len(encoder.encode(prompt.turns[0].content)) < 150
    assert len(prompt.ids) + prompt.max_new_tokens <= 256


def test_several_long_turns_cut_until_all_fit(encoder):
    prompt = PromptFitter(encoder, 256)(
        make_request(*[("u", "the river " * 90), ("a", "ben " * 150)] * 2, ("u", "who ?"))
    )
    assert len(prompt.ids) <= 232
    assert [turn.role for turn in prompt.turns] == ["user", "assistant", "user", "assistant", "user"]


def test_conversation_that_cannot_fit_refused(encoder):
    turns = [("u", "who"), ("a", "anna"), ("u", "who"), ("a", "ben"), ("u", "who")]
    with pytest.raises(PolicyError, match=r"conversation 81: its 5 turns have 5 tokens more than the 9 that fit"):
        PromptFitter(encoder, 12)(make_request(*turns))


def test_text_without_chat_template_fitted_to_window(encoder):
    text = "anna is mayor " + "the town is in the north " * 20 + "who ?"
    request = GenerationRequest("lcc/1", (Message("user", text),), 0.0, 8, chat=False)
    complete = PromptFitter(encoder, 4096)(request)
    assert (complete.ids, complete.truncated) == (encoder.chat.encode_text(text, add_special_tokens=True), False)
    shorter = PromptFitter(encoder, 40)(request)
    assert (len(shorter.ids) <= 32, shorter.truncated) == (True, True)
    assert (shorter.ids[:3], shorter.ids[-2:]) == (complete.ids[:3], complete.ids[-2:])


def test_special_tokens_and_slots_in_turn_unchanged(tiny_policy):
    encoder = load_tokenizer(PolicyConfig(base_model=str(tiny_policy), chat_template=STRICT), tiny_policy)
    content = "[[10]] {query} {{ eos_token }} {% raw %} <<slot>>"
    prompt = PromptFitter(encoder, 256)(make_request(("u", "who ?"), ("a", content), ("u", "and ?")))
    expected = f"<s><|user|> who ? <|assistant|> {content} </s><|user|> and ? <|assistant|> "
    assert encoder.conversation_text([vars(turn) for turn in prompt.turns]) == expected
    assert prompt.ids == encoder.chat.encode_rendered(expected)
