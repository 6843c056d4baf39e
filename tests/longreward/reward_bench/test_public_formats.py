"""Rows of public sets, as published, and what becomes of them."""

import pytest

from longreward.data.preferences import PairsConfig
from longreward.errors import DataError
from longreward.reward_bench.public_formats import FORMATS, detect_format, item_from_row
from longreward.utils.jsonl import RowError

USER, ASSISTANT = ({"role": role, "content": text} for role, text in (("user", "Where?"), ("assistant", "North.")))
DOCUMENT = "[1] Ann Lee founded Keld.\n[2] Bo Ray founded Solby."

# One row of each format with the published columns that are read, and some that are not.
ROWS = {
    "items": {"id": "1", "query": "Where?", "responses": ["a", "b"], "labels": [1, 2]},
    "pairs": {"prompt": "Where?", "chosen": "North.", "rejected": "South.", "subset": "alpacaeval-easy", "id": 30},
    "hh-rlhf": {
        "chosen": "\n\nHuman: Where?\n\nAssistant: North.",
        "rejected": "\n\nHuman: Where?\n\nAssistant: South.",
    },
    "ultrafeedback": {
        "source": "evol_instruct",
        "instruction": "Where?",
        "models": ["falcon-40b-instruct", "gpt-4"],
        "completions": [
            {"model": "falcon-40b-instruct", "response": "South.", "overall_score": 2.0, "fine-grained_score": 2.5},
            {"model": "gpt-4", "response": "North.", "overall_score": 8.5, "fine-grained_score": 4.75},
        ],
    },
    "judgebench": {
        "pair_id": "b5ce1305",
        "original_id": 6603,
        "source": "mmlu-pro-health",
        "question": "Where?",
        "response_model": "gpt-4o",
        "response_A": "South.",
        "response_B": "North.",
        "label": "B>A",
    },
    "rewardbench-2": {
        "id": "12",
        "prompt": "Where?",
        "chosen": ["North."],
        "rejected": ["South.", "East.", "West."],
        "num_correct": 1,
        "num_incorrect": 3,
        "total_completions": 4,
        "models": ["gpt-4o"] * 4,
        "subset": "Factuality",
    },
    "rm-bench": {
        "id": 8,
        "prompt": "Where?",
        "chosen": ["North", "In the north", "**North**"],
        "rejected": ["South", "In the south", "**South**"],
        "domain": "safety-refuse",
    },
    "rag-rewardbench": {
        "prompt": f"Use these references.\n{DOCUMENT}\nQuestion: Who founded Keld?",
        "question": "Who founded Keld?",
        "chosen": "Ann Lee [1].",
        "chosen_model": "gpt-4o",
        "reject": "Bo Ray [2].",
        "reject_model": "gemma-2-9b-it",
        "subset": "citation",
    },
    "long-rewardbench": {
        "id": 3,
        "prompt_template": [{"role": "user", "content": f"{DOCUMENT}\n\nWho founded Keld?"}],
        "question": "Who founded Keld?",
        "tasktype": "PairWise",
        "chosen": "Ann Lee.",
        "rejected": "Bo Ray.",
        "candidates": None,
    },
}


def item(row, name=None, *, stem="file", **columns):
    return item_from_row(row, name or detect_format(row), stem=stem, columns=PairsConfig(**columns))


def test_every_format_is_recognized_by_its_published_columns():
    assert {name: detect_format(row) for name, row in ROWS.items()} == {name: name for name in ROWS}
    assert ROWS.keys() == FORMATS.keys()


def test_unknown_columns_are_error_that_names_formats():
    with pytest.raises(DataError, match="not known from the columns question, answer; name one with --format"):
        detect_format({"question": "Where?", "answer": "North."})


@pytest.mark.parametrize(
    ("name", "responses", "labels", "group"),
    [
        ("pairs", ("North.", "South."), (1, 0), "alpacaeval-easy"),
        ("hh-rlhf", ("North.", "South."), (1, 0), ""),
        ("ultrafeedback", ("South.", "North."), (2, 8.5), "evol_instruct"),
        ("judgebench", ("South.", "North."), (0, 1), "mmlu-pro"),
        ("rewardbench-2", ("North.", "South.", "East.", "West."), (1, 0, 0, 0), "Factuality"),
    ],
)
def test_sets_without_documents(name, responses, labels, group):
    converted = item(ROWS[name])
    assert (converted.context, converted.query) == ("", "Where?")
    assert (converted.responses, converted.labels, converted.group) == (responses, labels, group)
    assert converted.benchmark == ("" if name == "pairs" else name)


def test_rm_bench_has_three_styles_and_domains_of_its_code():
    converted = item(ROWS["rm-bench"])
    assert (converted.labels, converted.group, converted.id) == ((1, 1, 1, 0, 0, 0), "safety", "safety-refuse/8")
    # The files of single domains have no column for it.
    row = {name: value for name, value in ROWS["rm-bench"].items() if name != "domain"}
    assert item(row, stem="chat_filtered").group == "chat"


def test_ties_of_rewardbench_2_are_named_by_form_and_prompt():
    tied = {**ROWS["rewardbench-2"], "id": "tied:4", "subset": "Ties", "chosen": ["red", "blue"], "num_correct": 2}
    converted = item(tied)
    assert (converted.task, converted.document, converted.group) == ("tied", "Ties/4", "Ties")
    assert converted.labels == (1, 1, 0, 0, 0)


def test_prompts_with_document_and_question_are_split():
    rag, long = item(ROWS["rag-rewardbench"]), item(ROWS["long-rewardbench"], stem="LongQA")
    assert rag.query == long.query == "Who founded Keld?"
    assert rag.context == f"Use these references.\n{DOCUMENT}\nQuestion:"
    assert (long.context, long.group, long.task, long.id) == (DOCUMENT, "LongQA", "PairWise", "LongQA/3")
    assert (rag.group, rag.responses) == ("citation", ("Ann Lee [1].", "Bo Ray [2]."))
    # As a chat, and without the question: what follows the last blank line.
    chat = {**ROWS["rag-rewardbench"], "prompt": [{"role": "user", "content": "The town.\n\nWho?"}], "question": None}
    assert (item(chat).context, item(chat).query) == ("The town.", "Who?")
    references = {**ROWS["rag-rewardbench"], "prompt": f"[1] {DOCUMENT}\n\n[2] More."}  # without the question
    assert (item(references).context, item(references).query) == (f"[1] {DOCUMENT}\n\n[2] More.", "Who founded Keld?")


def test_long_rewardbench_lists():
    row = {**ROWS["long-rewardbench"], "tasktype": "BestOfN", "candidates": ["a", "b", "c"]}
    assert item(row).labels == (3.0, 2.0, 1.0)  # best first
    scored = item({**row, "candidates_score": [0.9, 0.7, 0.1]})
    assert (scored.labels, scored.task) == ((0.9, 0.7, 0.1), "BestOfN")


def test_chats_and_columns_of_pairs():
    binarized = {
        "prompt": "Where?",
        "prompt_id": "f0e3",
        "chosen": [USER, ASSISTANT],
        "rejected": [USER, {"role": "assistant", "content": "South."}],
        "score_chosen": 8.5,
        "score_rejected": 2.0,
    }
    assert item(binarized).responses == ("North.", "South.")
    row = {"ask": "Where?", "good": "North.", "bad": "South.", "doc": ["The town.", "It is big."], "key": 5}
    mapped = item(row, "pairs", idx="key", prompt="ask", chosen="good", rejected="bad", context="doc")
    assert (mapped.id, mapped.query, mapped.context) == ("5", "Where?", "The town.\n\nIt is big.")


def test_conversation_is_one_query_with_roles():
    start = "\n\nHuman: Hi!\n\nAssistant: Hello: how can I help?\n\nHuman: Where?"
    row = {"chosen": f"{start}\n\nAssistant: North.", "rejected": f"{start}\n\nAssistant: South."}
    assert item(row).query == "User: Hi!\n\nAssistant: Hello: how can I help?\n\nUser: Where?"
    chat = [{"role": "system", "content": "Be brief."}, USER, ASSISTANT, USER]
    pair = {"prompt": chat, "chosen": "North.", "rejected": "South."}
    assert item(pair).query == "System: Be brief.\n\nUser: Where?\n\nAssistant: North.\n\nUser: Where?"


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("pairs", {"rejected": "North."}, "both responses are the same"),
        ("pairs", {"score_chosen": 3, "score_rejected": 3}, "score_chosen and score_rejected are both 3"),
        ("pairs", {"prompt": [USER, ASSISTANT]}, "a prompt ends with the user's turn"),
        ("hh-rlhf", {"chosen": "Where? North."}, "expected a transcript that begins with a blank line and Human:"),
        ("hh-rlhf", {"rejected": "\n\nHuman: When?\n\nAssistant: Now."}, "chosen and rejected have different prompts"),
        ("hh-rlhf", {"rejected": "\n\nHuman: Where?\n\nAssistant: "}, "rejected is empty"),
        ("ultrafeedback", {"completions": "a"}, "completions is 'a', expected a list of objects"),
        ("ultrafeedback", {"completions": [{"response": "a", "overall_score": "N/A"}]}, "labels must be a list of num"),
        ("judgebench", {"label": "A=B"}, "label is 'A=B', expected A>B or B>A"),
        ("judgebench", {"response_A": None}, "responses must be a list of texts"),
        ("rewardbench-2", {"num_correct": 2}, "num_correct is 2, and chosen has 1 responses"),
        ("rewardbench-2", {"rejected": []}, "rejected is [], expected a non-empty list of texts"),
        ("rewardbench-2", {"subset": "Ties"}, "id is '12', expected ref:<prompt> or tied:<prompt>"),
        ("rewardbench-2", {"subset": "Ties", "id": "tied:1"}, "tied:1 has 1 correct responses, expected 2"),
        ("rm-bench", {"chosen": ["a", "b"]}, "2 chosen and 3 rejected responses, expected 3 styles of each"),
        ("rag-rewardbench", {"prompt": None}, "prompt is NoneType, expected a text or a chat"),
        ("long-rewardbench", {"prompt_template": "Where?"}, "prompt_template is str, expected a list of messages"),
        ("long-rewardbench", {"prompt_template": [USER]}, "nor a blank line before one"),
        ("long-rewardbench", {"tasktype": "BestOfN"}, "candidates is missing or not a list"),
    ],
)
def test_row_that_is_no_item_is_error_with_reason(name, change, reason):
    with pytest.raises(RowError) as error:
        item({**ROWS[name], **change}, name)
    assert reason in str(error.value)


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("items", "pairs")])
def test_row_of_another_format_is_bad(name):
    with pytest.raises(RowError):
        item({"text": "Where?"}, name)
