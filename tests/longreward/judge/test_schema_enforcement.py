"""The JSON schemas that judges receive: the rules of OpenAI's strict mode, and what a server that enforces them admits.

llguidance is one of the libraries with which vLLM and SGLang enforce schemas.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from longreward.judge.prompt_template import PromptTemplate
from longreward.judge.prompts import load_prompts
from longreward.judge.schema_support import SCHEMA
from longreward.judge.structured_output import Schema, fix_list_length, verdict_schema
from longreward.pairs.pairwise import _prompt as pairwise_prompt

STRICT_KEYWORDS = {"type", "properties", "required", "additionalProperties", "items", "enum", "minItems", "maxItems"}


def schemas() -> dict[str, tuple[Schema, list[dict[str, Any]]]]:
    """Return the schema and the examples of each template."""
    prompts = load_prompts(optional=("rubric", "citations"), statements_per_call=2)
    templates = [prompts.template(name, "en") for name, language in prompts.templates if language == "en"]
    by_name: dict[str, tuple[Schema, list[dict[str, Any]]]] = {"schema_support": (SCHEMA, [])}
    for template in (*templates, pairwise_prompt("en")):
        structured = template.reply_format.structured
        if isinstance(structured, PromptTemplate) and (schema := structured.reply_format.schema) is not None:
            lines = "".join(structured.pieces[::2]).splitlines()
            by_name[template.name] = schema, [json.loads(line) for line in lines if line.startswith("{")]
    return by_name


SCHEMAS = schemas()
LISTS = ("support_list", "rubric_check")


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    yield schema
    for child in (*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else ())):
        yield from objects(child)


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_follows_rules_of_strict_mode(name: str) -> None:
    schema, _ = SCHEMAS[name]
    for variant in (schema, verdict_schema(schema), fix_list_length(schema, 2) if name in LISTS else schema):
        for part in objects(variant):
            assert part.keys() <= STRICT_KEYWORDS
            if part["type"] == "object":
                assert part["additionalProperties"] is False
                assert part["required"] == list(part["properties"])


def is_accepted(schema: Schema, reply: Any) -> bool:
    """Return whether a server that enforces the schema could generate the reply, byte by byte."""
    llguidance = pytest.importorskip("llguidance")
    tokenizer = llguidance.LLTokenizer("byte")
    grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema))
    matcher = llguidance.LLMatcher(tokenizer, grammar)
    assert not matcher.is_error(), matcher.get_error()
    tokens = tokenizer.tokenize_bytes(json.dumps(reply, ensure_ascii=False).encode())
    return bool(matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting())


@pytest.mark.parametrize("name", [name for name, (_, examples) in SCHEMAS.items() if examples])
def test_examples_can_be_generated(name: str) -> None:
    schema, examples = SCHEMAS[name]
    for example in examples:
        assert is_accepted(schema, example)
        assert not is_accepted(schema, example | {"remark": ""})


@pytest.mark.parametrize("name", [name for name, (schema, _) in SCHEMAS.items() if len(schema["properties"]) == 2])
def test_analysis_comes_before_verdict(name: str) -> None:
    schema, _ = SCHEMAS[name]
    verdict = list(schema["properties"])[1]
    for value in schema["properties"][verdict]["enum"]:
        assert is_accepted(schema, {"analysis": "“Ann Lee”\n安", verdict: value})
        assert is_accepted(verdict_schema(schema), {verdict: value})
        assert not is_accepted(schema, {verdict: value, "analysis": "Good."})
        assert not is_accepted(schema, {verdict: value})
    for value in (11, "6", "Supported", None):
        assert not is_accepted(schema, {"analysis": "Good.", verdict: value})


@pytest.mark.parametrize("name", LISTS)
def test_list_has_one_item_for_each_statement(name: str) -> None:
    schema, examples = SCHEMAS[name]
    (item, *_) = examples[0]["verdicts"]
    lengths = [length for length in range(5) if is_accepted(fix_list_length(schema, 3), {"verdicts": [item] * length})]
    assert lengths == [3]
    reversed_item = dict(reversed(item.items()))
    assert not is_accepted(schema, {"verdicts": [item, reversed_item]})
