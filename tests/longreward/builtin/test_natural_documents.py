"""The natural corpus: reproducible bytes, disjoint parts, answerable questions, lengths."""

import hashlib
import re
from pathlib import Path

import pytest

from longreward.builtin.mentions import find_mentions, words_of
from longreward.builtin.natural_corpus import (
    main,
    read_natural_gold,
    sample_natural_questions,
    write_natural_corpus,
)
from longreward.builtin.natural_documents import NaturalDocument, genre_names, make_natural_document
from longreward.builtin.natural_gold import NaturalGoldRow, measure_natural
from longreward.builtin.natural_values import MEN, SURNAMES, TOWNS, WOMEN, Split
from longreward.data.formats import read_examples
from longreward.data.prepare import PrepareConfig, prepare
from longreward.errors import DataError
from longreward.evaluation.measures import load_gold_measures

DOCUMENTS = [(split, number) for split in ("train", "heldout") for number in range(40)]
TOKENS_PER_WORD = 1.35  # SmolLM2's tokenizer on these texts


@pytest.fixture(scope="module")
def documents() -> list[NaturalDocument]:
    return [make_natural_document(split, number) for split, number in DOCUMENTS]


def test_same_arguments_give_same_bytes(tmp_path: Path) -> None:
    first = write_natural_corpus(tmp_path / "a", train=8, heldout=4)
    second = write_natural_corpus(tmp_path / "b", train=8, heldout=4)
    other = write_natural_corpus(tmp_path / "c", train=8, heldout=4, seed=2)
    assert first.corpus.read_bytes() == second.corpus.read_bytes() != other.corpus.read_bytes()
    assert first.gold.read_bytes() == second.gold.read_bytes() != other.gold.read_bytes()
    assert (first.documents, first.rows) == (12, 48)


def test_longer_corpus_begins_with_same_documents() -> None:
    assert make_natural_document("train", 5) == make_natural_document("train", 5)
    assert make_natural_document("train", 5).text != make_natural_document("heldout", 5).text
    assert len({make_natural_document("train", number).text for number in range(100)}) == 100


def test_names_are_in_one_pool() -> None:
    pools = [*WOMEN, *MEN, *SURNAMES, *TOWNS]
    assert len(pools) == len(set(pools))


def test_parts_share_no_name_or_value_and_no_sentence_with_one(documents: list[NaturalDocument]) -> None:
    mentions: dict[Split, set[tuple[str, str]]] = {"train": set(), "heldout": set()}
    values: dict[Split, set[str]] = {"train": set(), "heldout": set()}
    sentences: dict[Split, set[str]] = {"train": set(), "heldout": set()}
    for (split, _), document in zip(DOCUMENTS, documents, strict=True):
        mentions[split] |= find_mentions(re.sub(r"(?m)^\d+\. ", "", document.text))  # without numbers of sections
        values[split] |= {fact.value for fact in document.facts}
        for sentence in re.split(r"(?<=[.!?])\s+", document.text):
            if any(fact.value in sentence for fact in document.facts):
                sentences[split].add(sentence)
    assert not mentions["train"] & mentions["heldout"]
    assert not values["train"] & values["heldout"]
    assert not sentences["train"] & sentences["heldout"]


def test_every_value_is_in_text(documents: list[NaturalDocument]) -> None:
    for document in documents:
        for fact in document.facts:
            assert fact.value.lower() in document.text.lower(), (document.id, fact)
            assert any(form in fact.statement for form in (fact.value, *fact.forms)), (document.id, fact)


def test_every_gold_answer_is_exact_and_every_distractor_is_wrong(documents: list[NaturalDocument]) -> None:
    for document in documents:
        for question in document.questions:
            row = gold_row(document, question.query)
            measures = measure_natural(question.answer, row)
            assert (measures.recall, measures.unsupported, measures.exact) == (1.0, 0.0, True), (question, measures)
            for fact in question.facts:
                for wrong in fact.wrong:
                    if len(question.facts) == 1:
                        stated = next(form for form in (fact.value, *fact.forms) if form in question.answer)
                        swapped = measure_natural(question.answer.replace(stated, wrong), row)
                        assert (swapped.recall, swapped.exact) == (0.0, False), (question, wrong)
                        assert measure_natural(f"{wrong}.", row).recall == 0.0


def test_answer_with_exchanged_values_is_not_exact(documents: list[NaturalDocument]) -> None:
    exchanged = 0
    for document in documents:
        for question in document.questions:
            kinds, values = {fact.kind for fact in question.facts}, [fact.value for fact in question.facts]
            if question.kind == "two" and len(kinds) == 1 and all(value in question.answer for value in values):
                parts = re.split(f"({'|'.join(map(re.escape, values))})", question.answer)
                answer = "".join({values[0]: values[1], values[1]: values[0]}.get(part, part) for part in parts)
                assert not measure_natural(answer, gold_row(document, question.query)).exact, answer
                exchanged += 1
    assert exchanged > 200


def test_questions_use_other_words_than_text(documents: list[NaturalDocument]) -> None:
    """No sentence of a text has all content words of a question about it together with the answer."""
    for document in documents:
        sentences = [set(words_of(sentence)) for sentence in re.split(r"(?<=[.!?])\s+", document.text)]
        names = {word for name in document.people for word in words_of(name)}
        for question in document.questions:
            content = {word for word in words_of(question.query) if len(word) > 3} - names
            answer = set(words_of(question.facts[0].value))
            copied = [sentence for sentence in sentences if content <= sentence and answer <= sentence]
            assert not copied, (question.query, copied)


def test_every_genre_has_all_kinds_of_questions(documents: list[NaturalDocument]) -> None:
    assert {document.genre for document in documents} == set(genre_names())
    for document in documents:
        assert {question.kind for question in document.questions} == {"single", "two", "list", "open"}
        assert len({question.query for question in document.questions}) == len(document.questions)
        assert [question.kind for question in sample_natural_questions(document, 4)] == [
            "single",
            "two",
            "list",
            "open",
        ]
        for question in document.questions:
            expected = {"single": {1}, "two": {2}, "list": {3, 4, 5}, "open": {3, 4, 5}}[question.kind]
            assert len(question.facts) in expected, question


def test_no_template_syntax_and_no_wrong_article_remain(documents: list[NaturalDocument]) -> None:
    for document in documents:
        texts = [document.text, *(text for q in document.questions for text in (q.query, q.answer))]
        for text in texts:
            assert not re.search(r"[\[\]{}|]|  | [.,;:?!]|\.\.", text), text
            assert not re.search(
                r"\b(?:the|a|an) (?:the|an?)\b|\b[Aa] (?=[aeio])|\ban (?=[bcdfgjklmnpqrstvwxyz])", text
            ), text


def test_lengths_are_in_range(documents: list[NaturalDocument]) -> None:
    lengths = [TOKENS_PER_WORD * len(document.text.split()) for document in documents]
    assert 450 < min(lengths) <= max(lengths) < 1500


def test_bytes_are_same_on_every_machine(tmp_path: Path) -> None:
    """An intended change of a text needs a new digest here."""
    written = write_natural_corpus(tmp_path, train=12, heldout=12)
    digests = [hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in (written.corpus, written.gold)]
    assert digests == ["acb0eea803e1a2f2", "b2305d0b72424238"]


def test_prepare_and_evaluate_read_both_files(tmp_path: Path) -> None:
    written = write_natural_corpus(tmp_path / "data/raw/natural", train=20, heldout=10, questions_per_document=2)
    config = PrepareConfig(
        source="data/raw/natural/corpus.jsonl",
        preference_share=0.5,
        heldout_share=0,
        heldout_documents="heldout-*",
    )
    report = prepare(config, lambda context, query: 1, root=tmp_path, out=tmp_path / "out")
    assert (report.splits["heldout"], sum(report.splits.values()), report.rejected) == (20, 60, {})
    measure = load_gold_measures(written.gold)
    for example in read_examples(tmp_path / "out" / "heldout.jsonl"):
        assert example.document_id.startswith("heldout-")
        assert measure(example.id, example.answer or "") == {"recall": 1.0, "unsupported": 0.0, "exact": 1.0}
    assert measure("60", "") is None


def test_damaged_gold_file_is_named_with_line(tmp_path: Path) -> None:
    written = write_natural_corpus(tmp_path, train=1, heldout=0, questions_per_document=2)
    first, second = written.gold.read_text(encoding="utf-8").splitlines()
    written.gold.write_text(first + "\n" + second.replace('"people"', '"persons"') + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"gold\.jsonl, line 2: not a row of gold.jsonl \(KeyError\('people'\)\)"):
        load_gold_measures(written.gold)


def test_command_writes_both_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--out", str(tmp_path), "--train", "2", "--heldout", "1", "--kinds", "single", "two"]
    monkeypatch.setattr("sys.argv", ["natural_corpus", *arguments])
    main()
    assert capsys.readouterr().out.startswith("12 questions on 3 documents")
    assert {row.kind for row in read_natural_gold(tmp_path / "gold.jsonl").values()} == {"single", "two"}


def gold_row(document: NaturalDocument, query: str) -> NaturalGoldRow:
    (question,) = [question for question in document.questions if question.query == query]
    return NaturalGoldRow(
        idx=0,
        kind=question.kind,
        genre=document.genre,
        query=query,
        answer=question.answer,
        facts=question.facts,
        document_facts=document.facts,
        people=document.people,
        context=document.text,
    )
