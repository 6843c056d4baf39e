"""The built-in corpus: reproducible bytes, document sizes, questions and answers."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from longreward.builtin.corpus import main, read_gold, write_corpus
from longreward.builtin.documents import Document, make_document
from longreward.builtin.gold import GoldRow, measure_against_gold
from longreward.builtin.grammar import FABRICATED_RELATIONS, RELATIONS, Fact
from longreward.builtin.questions import faulty_answer, format_question, gold_answer, sample_questions
from longreward.errors import DataError

MARA = Fact("Mara Voss", "birthplace", "Kelden")
IVO = Fact("Ivo Lang", "building", "stone mill")
TESS = Fact("Tess Arden", "pupils", "198")


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_same_arguments_give_same_bytes(tmp_path: Path) -> None:
    first = write_corpus(tmp_path / "a", seed=3, documents=12, questions_per_document=4)
    second = write_corpus(tmp_path / "b", seed=3, documents=12, questions_per_document=4)
    other = write_corpus(tmp_path / "c", seed=4, documents=12, questions_per_document=4)
    assert first.corpus.read_bytes() == second.corpus.read_bytes() != other.corpus.read_bytes()
    assert first.gold.read_bytes() == second.gold.read_bytes() != other.gold.read_bytes()
    assert (first.documents, first.rows) == (12, 48)


def test_bytes_are_same_on_all_machines(tmp_path: Path) -> None:
    """An intended change of the grammar needs a new tiny base, and new digests here."""
    written = write_corpus(tmp_path, seed=1, documents=3, questions_per_document=2)
    digests = [hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in (written.corpus, written.gold)]
    assert digests == ["3cdbf633bdf0dcd2", "9a369b216ed873bb"]


def test_text_of_small_document() -> None:
    document = make_document("remembered", people=2, facts_per_person=2, scenes=0)
    assert document.text.split("\n\n") == [
        "This is a short account of the Cardinal Academy and of its members. "
        "Its best known members were Ivo Marsh and Pavel Thorne.",
        "Much has been asked about how these people began. Pavel Thorne was fond of long walks. "
        "Pavel Thorne was born in Rosewall.",
        "A longer part of the register lists deeds and gifts. "
        "Ivo Marsh wrote the book Faithful River if the register is right.",
        "Several columns of the register hold nothing but sums.",
        "The register closes with news of a more private kind. Ivo Marsh seldom spoke of money. "
        "Ivo Marsh retired in 1899. Pavel Thorne was buried in Solby after a hard winter.",
    ]
    assert document.facts == (
        Fact("Ivo Marsh", "book", "Faithful River"),
        Fact("Ivo Marsh", "end", "1899"),
        Fact("Pavel Thorne", "birthplace", "Rosewall"),
        Fact("Pavel Thorne", "grave", "Solby"),
    )


def test_both_files_have_same_rows(tmp_path: Path) -> None:
    written = write_corpus(tmp_path, seed=1, documents=5, questions_per_document=3)
    rows, gold = _rows(written.corpus), read_gold(written.gold)
    assert [list(row) for row in rows[:1]] == [["idx", "query", "answer", "context", "document"]]
    assert [row["idx"] for row in rows] == list(gold) == list(range(15))
    for row in rows:
        assert format_question(gold[row["idx"]].facts) == row["query"]
        assert gold_answer(gold[row["idx"]].facts) == gold[row["idx"]].answer


def test_documents_are_distinct_and_long_enough() -> None:
    texts = [make_document(f"d{number}").text for number in range(100)]
    assert len(set(texts)) == 100
    words = [len(text.replace(",", " ,").replace(".", " .").split()) for text in texts]
    assert 450 < min(words) <= max(words) < 650


def test_document_states_all_facts_and_no_others() -> None:
    for number in range(30):
        document = make_document(f"d{number}")
        assert all(fact.clause in document.text for fact in (*document.facts, *document.background))
        rng = random.Random(number)
        (facts,) = sample_questions(rng, document, 1)
        row = _gold_row(document, facts)
        assert measure_against_gold(document.text, row).recall == 1.0
        assert measure_against_gold(document.text, row).unsupported == 0.0


def test_value_belongs_to_one_fact() -> None:
    for number in range(30):
        values = [word for fact in make_document(f"d{number}").facts for word in fact.value.split()]
        assert len(values) == len(set(values))


def test_facts_of_question_in_different_paragraphs() -> None:
    document = make_document("d1")
    for facts in sample_questions(random.Random(5), document, 20):
        paragraphs = {
            index for index, text in enumerate(document.text.split("\n\n")) for f in facts if f.clause in text
        }
        assert len(paragraphs) == len(facts)


def test_document_too_small_for_questions_is_error() -> None:
    with pytest.raises(ValueError, match="too few"):
        sample_questions(random.Random(1), make_document("tiny", people=1, facts_per_person=1), 9)


def test_questions_and_answers_are_english_sentences() -> None:
    assert format_question([MARA]) == "Where was Mara Voss born?"
    assert format_question([MARA, IVO]) == "Where was Mara Voss born, and what did Ivo Lang build?"
    assert format_question([MARA, IVO, TESS]) == (
        "Where was Mara Voss born, what did Ivo Lang build, and how many pupils did Tess Arden train?"
    )
    assert gold_answer([MARA, TESS]) == "Mara Voss was born in Kelden. Tess Arden trained 198 pupils."


def test_error_rates_of_answers() -> None:
    facts = kept = wrong = padded = answers = 0
    for number in range(400):
        document = make_document(f"d{number}")
        rng = random.Random(number)
        for question_facts in sample_questions(rng, document, 4):
            sentences = faulty_answer(rng, document, question_facts).split(". ")
            fabricated = [s for s in sentences if " also " in s]
            answers += 1
            padded += len(fabricated)
            facts += len(question_facts)
            kept += len(sentences) - len(fabricated)
            wrong += sum(
                sentence.rstrip(".") not in document.text for sentence in sentences if " also " not in sentence
            )
    assert kept / facts == pytest.approx(0.85, abs=0.02)
    assert wrong / kept == pytest.approx(0.20, abs=0.02)
    assert padded / answers == pytest.approx(0.31, abs=0.02)


def test_no_document_states_fabricated_relation() -> None:
    for number in range(50):
        text = make_document(f"d{number}").text
        assert not any(f" {RELATIONS[name].cue} " in text for name in FABRICATED_RELATIONS)


def test_damaged_gold_file_reported_with_line(tmp_path: Path) -> None:
    path = tmp_path / "gold.jsonl"
    path.write_text('{"idx": 1}\n')
    with pytest.raises(DataError, match=r"gold\.jsonl, line 1"):
        read_gold(path)
    good = {"idx": 7, "answer": "one \u2028 line", "facts": [], "document_facts": [], "scenery": []}
    path.write_text(json.dumps(good, ensure_ascii=False) + "\n")
    assert read_gold(path)[7].answer == "one \u2028 line"
    for bad in ("[" * 100_000, f'{{"idx": {"9" * 5000}}}'):
        path.write_text(f"{json.dumps(good, ensure_ascii=False)}\n{bad}\n")
        with pytest.raises(DataError, match=r"gold\.jsonl, line 2"):
            read_gold(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_gold(tmp_path / "none.jsonl")


def test_command_writes_both_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["corpus", "--out", str(tmp_path / "raw"), "--documents", "3"])
    main()
    assert (tmp_path / "raw" / "corpus.jsonl").exists()
    assert capsys.readouterr().out.startswith("12 questions on 3 documents")


def _gold_row(document: Document, facts: list[Fact]) -> GoldRow:
    return GoldRow(
        idx=0,
        answer=gold_answer(facts),
        facts=tuple(facts),
        document_facts=(*document.facts, *document.background),
        scenery=document.scenery,
    )
