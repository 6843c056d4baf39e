"""The file formats of public sets of labelled responses, converted to the form of `items.py`.

    items             {"query", "responses", "labels", …} or {"query", "chosen", "rejected", …}, as in `items.py`
    pairs             {"prompt", "chosen", "rejected"}: texts or chats (TRL, RewardBench 1, UltraFeedback binarized)
    hh-rlhf           {"chosen": "\\n\\nHuman: … \\n\\nAssistant: …", "rejected": …}
    ultrafeedback     {"instruction", "completions": [{"response", "overall_score", …}, …]}
    judgebench        {"pair_id", "source", "question", "response_A", "response_B", "label": "A>B"}
    rewardbench-2     {"id", "subset", "prompt", "chosen": […], "rejected": […], "num_correct"}
    rm-bench          {"id", "prompt", "chosen": [3 styles], "rejected": [3 styles], "domain"}
    rag-rewardbench   {"prompt", "question", "chosen", "reject", "subset"}
    long-rewardbench  {"prompt_template", "question", "tasktype", "chosen", "rejected" or "candidates", …}

Most of these sets have no documents: their items get no context. The prompts of RAG-RewardBench and Long-RewardBench
hold document and question in one text, which is split.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from longreward.data.chats import parse_messages
from longreward.data.preferences import PairsConfig, preference_from_row
from longreward.data.source import recognize_format
from longreward.reward_bench.items import Item, parse_item
from longreward.utils.jsonl import Row, RowError, missing_key, shorten

AUTO = "auto"
GENERAL = ("items", "pairs")  # not those of one benchmark
STYLES = 3  # of RM-Bench: concise, detailed, detailed with Markdown
TIES = "ties"
SPEAKERS = re.compile(r"\n\n(Human|Assistant):")
RM_BENCH_DOMAINS = ("chat", "math", "code", "safety")
JUDGEBENCH_LABELS = {"A>B": (1.0, 0.0), "B>A": (0.0, 1.0)}
JUDGEBENCH_GROUPS = ("mmlu-pro", "livebench-reasoning", "livebench-math", "livecodebench")


@dataclass(frozen=True)
class ItemFormat:
    """One format: how its rows are recognized, and how they become rows of `items.py`."""

    recognizes: Callable[[Row], bool]
    convert: Callable[[Row, str], Row]
    """Gets the row and the name of its file without suffix, which is a group in some sets. Raises RowError."""


def detect_format(row: Row) -> str:
    """Return the name of the format of a row. Raises DataError if it has none of the known ones."""
    recognizers = {name: item_format.recognizes for name, item_format in FORMATS.items()}
    return recognize_format(row, recognizers, columns="a pair, as in --column prompt=question")


def item_from_row(row: Row, name: str, *, stem: str, columns: PairsConfig) -> Item:
    """Return the item of a row in the format `name`; `columns` are those of pairs. Raises RowError."""
    converted = convert_pair(row, columns) if name == "pairs" else FORMATS[name].convert(row, stem)
    return parse_item(converted, benchmark="" if name in GENERAL else name)


def convert_pair(row: Row, columns: PairsConfig) -> Row:
    """Convert a pair of texts or chats; a conversation of several turns becomes one query."""
    if row.get("score_chosen") is not None and row["score_chosen"] == row.get("score_rejected"):
        raise RowError(f"score_chosen and score_rejected are both {row['score_chosen']}: neither response is better")
    pair = preference_from_row(row, columns, 0, several_turns=True)
    return {
        "id": None if columns.idx is None else pair.id,
        "context": pair.context or None,
        "query": pair.query,
        "chosen": pair.chosen.text,
        "rejected": pair.rejected.text,
        "group": row.get("group") or row.get("subset"),
        "document": row.get("document"),
    }


# --- formats ----------------------------------------------------------------------------------------------------------


def _convert_hh_rlhf(row: Row, stem: str) -> Row:
    chats = {column: _parse_transcript(row.get(column), column) for column in ("chosen", "rejected")}
    return convert_pair({**row, **chats}, PairsConfig())


def _parse_transcript(value: object, column: str) -> list[dict[str, str]]:
    """Return the turns of a transcript. The names of speakers in the middle of a line are part of a turn."""
    if not isinstance(value, str) or not (parts := SPEAKERS.split(value))[1:] or parts[0].strip():
        raise RowError(f"{column} is {shorten(value)}, expected a transcript that begins with a blank line and Human:")
    return [
        {"role": "user" if speaker == "Human" else "assistant", "content": text.strip()}
        for speaker, text in zip(parts[1::2], parts[2::2], strict=True)
    ]


def _convert_ultrafeedback(row: Row, stem: str) -> Row:
    completions = row.get("completions")
    if not isinstance(completions, list) or not all(isinstance(completion, dict) for completion in completions):
        raise RowError(f"completions is {shorten(completions)}, expected a list of objects")
    return {
        "query": row.get("instruction"),
        "responses": [completion.get("response") for completion in completions],
        "labels": [completion.get("overall_score") for completion in completions],
        "group": row.get("source"),
    }


def _convert_judgebench(row: Row, stem: str) -> Row:
    label, source = row.get("label"), row.get("source")
    if label not in JUDGEBENCH_LABELS:
        raise RowError(f"label is {shorten(label)}, expected {' or '.join(JUDGEBENCH_LABELS)}")
    return {
        "id": row.get("pair_id"),
        "query": row.get("question"),
        "responses": [row.get("response_A"), row.get("response_B")],
        "labels": list(JUDGEBENCH_LABELS[label]),
        # The groups of its evaluation code: the many subjects of MMLU-Pro are one.
        "group": next((name for name in JUDGEBENCH_GROUPS if str(source).startswith(name)), source),
    }


def _convert_rewardbench_2(row: Row, stem: str) -> Row:
    chosen, rejected = _texts(row, "chosen"), _texts(row, "rejected")
    if row.get("num_correct") != len(chosen):
        raise RowError(f"num_correct is {shorten(row.get('num_correct'))}, and chosen has {len(chosen)} responses")
    subset, row_id, ties = str(row.get("subset") or ""), row.get("id"), {}
    if subset.lower() == TIES:
        task, _, prompt_id = str(row_id).partition(":")
        if task not in ("ref", "tied") or not prompt_id.isdecimal():
            raise RowError(f"id is {shorten(row_id)}, expected ref:<prompt> or tied:<prompt> in the subset {subset}")
        if (task == "tied") != (len(chosen) > 1):
            raise RowError(f"{row_id} has {len(chosen)} correct responses, expected {'1' if task == 'ref' else '2'}")
        ties = {"task": task, "document": f"{subset}/{prompt_id}"}
    return _convert_chosen_lists(row, chosen, rejected, group=subset, id_prefix=subset) | ties


def _convert_rm_bench(row: Row, stem: str) -> Row:
    chosen, rejected = _texts(row, "chosen"), _texts(row, "rejected")
    if len(chosen) != STYLES or len(rejected) != STYLES:
        raise RowError(f"{len(chosen)} chosen and {len(rejected)} rejected responses, expected {STYLES} styles of each")
    domain = str(row.get("domain") or stem.removesuffix("_filtered"))
    # The two sets on safety are one domain of its evaluation code.
    group = next((name for name in RM_BENCH_DOMAINS if domain.startswith(name)), domain)
    return _convert_chosen_lists(row, chosen, rejected, group=group, id_prefix=domain)


def _convert_chosen_lists(row: Row, chosen: list[str], rejected: list[str], *, group: str, id_prefix: str) -> Row:
    return {
        # Ids are unique within a subset only.
        "id": None if row.get("id") is None else f"{id_prefix}/{row['id']}",
        "query": row.get("prompt"),
        "responses": chosen + rejected,
        "labels": [1] * len(chosen) + [0] * len(rejected),
        "group": group,
    }


def _convert_rag_rewardbench(row: Row, stem: str) -> Row:
    prompt = row.get("prompt")
    if not isinstance(prompt, str):
        messages = parse_messages(prompt, name="prompt", expected="a text or a chat")
        prompt = "\n\n".join(message.text for message in messages)
    question = row.get("question")
    if isinstance(question, str) and question.strip() and question not in prompt:
        context, query = prompt, question  # the prompt has the references only
    else:
        context, query = _split_prompt(prompt, question)
    pair = convert_pair({**row, "prompt": query, "rejected": row.get("reject", row.get("rejected"))}, PairsConfig())
    return pair | {"context": context, "query": query, "group": row.get("subset") or stem}


def _convert_long_rewardbench(row: Row, stem: str) -> Row:
    messages = parse_messages(row.get("prompt_template"), name="prompt_template")
    context, query = _split_prompt("\n\n".join(message.text for message in messages), row.get("question"))
    converted: Row = {
        "id": None if row.get("id") is None else f"{stem}/{row['id']}",
        "context": context,
        "query": query,
        "group": stem,
        "task": row.get("tasktype") or "PairWise",
    }
    if row.get("tasktype") != "BestOfN":
        return converted | {"chosen": row.get("chosen"), "rejected": row.get("rejected")}
    candidates = row.get("candidates")
    if not isinstance(candidates, list):
        raise RowError("candidates is missing or not a list, and tasktype is BestOfN")
    # Its evaluation code takes candidates as sorted from best to worst.
    scores = row.get("candidates_score") or list(range(len(candidates), 0, -1))
    return converted | {"responses": candidates, "labels": scores}


def _split_prompt(prompt: str, question: object) -> tuple[str, str]:
    """Return context and query of a prompt that holds both.

    The context is the prompt without the question if it contains it, else the query is what follows the last blank
    line, as LongReward splits LongBench's prompts.
    """
    if isinstance(question, str) and question.strip() and question in prompt:
        before, _, after = prompt.rpartition(question)
        return f"{before.rstrip()}\n\n{after.lstrip()}".strip(), question.strip()
    context, blank_line, query = prompt.rstrip().rpartition("\n\n")
    if not blank_line:
        raise RowError("its prompt has neither the question that it names nor a blank line before one")
    return context, query


def _texts(row: Row, column: str) -> list[str]:
    value = row.get(column)
    if column not in row:
        raise missing_key(column, row)
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise RowError(f"{column} is {shorten(value)}, expected a non-empty list of texts")
    return value


def _has_text_lists(row: Row) -> bool:
    lists: list[Any] = [row.get("chosen"), row.get("rejected")]
    return all(isinstance(value, list) and value and isinstance(value[0], str) for value in lists)


def _is_transcript(value: object) -> bool:
    return isinstance(value, str) and value.startswith("\n\nHuman:")


# Tried in this order: the columns of a pair are part of several other formats.
FORMATS: Mapping[str, ItemFormat] = {
    "long-rewardbench": ItemFormat(lambda row: "prompt_template" in row, _convert_long_rewardbench),
    "judgebench": ItemFormat(lambda row: {"response_A", "response_B"} <= row.keys(), _convert_judgebench),
    "ultrafeedback": ItemFormat(lambda row: {"instruction", "completions"} <= row.keys(), _convert_ultrafeedback),
    "rewardbench-2": ItemFormat(lambda row: "num_correct" in row and _has_text_lists(row), _convert_rewardbench_2),
    "rm-bench": ItemFormat(_has_text_lists, _convert_rm_bench),
    "hh-rlhf": ItemFormat(lambda row: _is_transcript(row.get("chosen")), _convert_hh_rlhf),
    "rag-rewardbench": ItemFormat(
        lambda row: {"prompt", "question", "chosen"} <= row.keys() and bool({"reject", "rejected"} & row.keys()),
        _convert_rag_rewardbench,
    ),
    "items": ItemFormat(
        lambda row: {"query", "chosen"} <= row.keys() or {"query", "responses"} <= row.keys(), lambda row, stem: row
    ),
    "pairs": ItemFormat(
        lambda row: {"chosen", "rejected"} <= row.keys() or {"win_response", "lose_response"} <= row.keys(),
        lambda row, stem: convert_pair(row, PairsConfig()),
    ),
}
