import logging
import random

import pytest

from longreward.retrieval import Bm25Retriever, RetrieverConfig, bm25

CHUNKS = [
    "The lighthouse on Varn Point was first lit in 1874.",
    "Its keeper, Anders Holt, kept bees.",
    "In 1902 a paraffin lamp replaced the oil lamp.",
    "The harbour froze in the winter of 1929.",
]


async def test_best_chunks_returned_in_document_order() -> None:
    index = Bm25Retriever().index(CHUNKS)
    assert await index.search(["The paraffin lamp of 1902 was lit on Varn Point."], 2) == [[0, 2]]
    assert await index.search(["Anders Holt was a keeper of bees."], 1) == [[1]]


async def test_document_order_is_independent_of_rank() -> None:
    query = "Winter of 1929: the harbour froze, and its keeper told of a lamp."
    index = Bm25Retriever().index([*CHUNKS, "Nothing else is told."])
    assert [await index.search([query], k) for k in (1, 2, 3)] == [[[3]], [[2, 3]], [[1, 2, 3]]]


async def test_plurals_and_capitals_match() -> None:
    assert await Bm25Retriever().index(CHUNKS).search(["HARBOURS"], 1) == [[3]]


async def test_chinese_matches_by_pairs_of_characters() -> None:
    chunks = ["林桥于1988年修好。", "洪水使工程延误。", "市长出席了典礼。"]
    assert await Bm25Retriever().index(chunks).search(["工程因为洪水而延误"], 1) == [[1]]


async def test_all_chunks_returned_if_fewer_than_k() -> None:
    assert await Bm25Retriever().index(CHUNKS).search(["bees"], 5) == [[0, 1, 2, 3]]


async def test_empty_document_has_no_results() -> None:
    assert await Bm25Retriever().index([]).search(["bees"], 5) == [[]]


async def test_statement_of_unknown_words_gets_first_chunks() -> None:
    assert await Bm25Retriever().index(CHUNKS).search(["zzz qqq", "", "?!"], 2) == [[0, 1], [0, 1], [0, 1]]


async def test_chunks_without_word_can_be_searched() -> None:
    assert await Bm25Retriever().index(["...", "!!!", "???"]).search(["bees"], 2) == [[0, 1]]


async def test_equal_scores_ranked_by_position() -> None:
    assert await Bm25Retriever().index(["bees here", "bees here", "bees here", "none"]).search(["bees"], 2) == [[0, 1]]


# Statements that share no word with the chunk that supports them, but an inflected form or a part of a compound.
INFLECTED = [
    ("The governor signed a treaty.", "Governing was easy."),
    ("Die Eltern wählen den Grundschulunterricht.", "Grundschulen sind frei wählbar."),
    ("Каждый гражданин имеет право на гражданство.", "Государство защищает граждан."),
    ("Toute personne accusée est présumée innocente.", "On présume son innocence."),
]


@pytest.mark.parametrize(("chunk", "statement"), INFLECTED)
async def test_ngrams_match_inflected_words(chunk: str, statement: str) -> None:
    others = ["A lamp was lit.", "Nobody came by boat.", "Es regnet oft.", "Шёл дождь."]
    retriever = Bm25Retriever(RetrieverConfig(terms="ngrams"))
    assert await retriever.index([*others, chunk]).search([statement], 1) == [[4]]
    assert await Bm25Retriever().index([*others, chunk]).search([statement], 1) == [[0]]
    assert retriever.settings() == {"retriever": "bm25", "retriever_terms": "ngrams"}


async def test_user_query_ranks_chunks_that_statement_does_not_distinguish() -> None:
    chunks = ["The mill closed.", "The school closed.", "The harbour froze.", "Bees were kept."]
    statements = ["It closed in winter.", "It froze."]
    weighted = Bm25Retriever(RetrieverConfig(user_query_weight=0.5))
    assert await weighted.index(chunks).search(statements, 1, "What became of the school?") == [[1], [2]]
    assert await weighted.index(chunks).search(statements, 1) == [[0], [2]]
    assert await Bm25Retriever().index(chunks).search(statements, 1, "What became of the school?") == [[0], [2]]
    assert weighted.settings() == {"retriever": "bm25", "retriever_user_query_weight": 0.5}


async def test_long_user_query_does_not_outweigh_statement() -> None:
    chunks = ["The mill closed.", "A school, a school, and a school.", "The harbour froze."]
    query = "Tell me about a school and a school and a school and a school and a school. " * 20
    retriever = Bm25Retriever(RetrieverConfig(user_query_weight=0.3))
    assert await retriever.index(chunks).search(["The mill closed."], 1, query) == [[0]]


async def test_nothing_printed_or_logged(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    Bm25Retriever().index(CHUNKS)
    with caplog.at_level(logging.INFO):
        await Bm25Retriever().index(CHUNKS).search(["bees"], 2)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


async def test_many_statements_in_long_document() -> None:
    """Its duration is measured in tests/test_linear_time.py."""
    words = [f"word{number}" for number in range(5000)]
    rng = random.Random(0)
    chunks = [" ".join(rng.choices(words, k=128)) for _ in range(300)]
    queries = [" ".join(rng.sample(chunk.split(), k=20)) for chunk in rng.sample(chunks, k=40)]
    results = await Bm25Retriever().index(chunks).search(queries, 5)
    assert [len(indices) for indices in results] == [5] * 40
    assert all(
        any(set(query.split()) <= set(chunks[n].split()) for n in indices)
        for query, indices in zip(queries, results, strict=True)
    )


# Spellings that differ only in form. Without normalization each statement shares no term with the chunk that supports
# it, or fewer than with another chunk.
SPELLINGS = [
    ("The obser-\nvatory stands on a hill.", "An observatory"),
    ("The obser-  \r\n  vatory stands on a hill.", "An observatory"),
    ("The obser\u2010\nvatory stands on a hill.", "An observatory"),
    ("The obser\u00ad\nvatory stands on a hill.", "An observatory"),
    ("The ob\u00adser\u00adva\u00adto\u00adry stands on a hill.", "An observatory"),
    ("The obser\u200bvatory stands on a hill.", "An observatory"),
    ("The observatory stands on a hill.", "An obser\u2060vatory"),
    ("Cafe\u0301s are open late.", "caf\u00e9"),
    ("Caf\u00e9s are open late.", "cafe\u0301"),
    ("Caf\u00e9s are open late.", "cafe"),
    ("Vi\u1ec7t Nam has rivers.", "Vie\u0323\u0302t"),
    ("The \ufb01eld is wide.", "field"),
    ("Ｋｅｌｄ is a village.", "Keld"),
    ("Set maxRetryCount to three.", "max_retry_count"),
    ("Set max_retry_count to three.", "maxRetryCount"),
    ("Set MaxRetryCount to three.", "max retry count"),
    ("An HTTPServer starts.", "http server"),
    ("YouTube has films.", "Youtube"),
    ("A well-\nknown man came.", "well-known"),
    ("\u0643\u0650\u062a\u064e\u0627\u0628 is a word.", "\u0643\u062a\u0627\u0628"),
    ("Straße und Haus.", "STRASSE"),
]


@pytest.mark.parametrize(("chunk", "statement"), SPELLINGS)
async def test_spelling_variants_match(chunk: str, statement: str) -> None:
    others = ["A lamp was lit.", "Bees were kept in a garden.", "Nobody came by boat."]
    index = Bm25Retriever().index([*others, chunk])
    assert await index.search([statement], 1) == [[3]]


# Facts, and statements of them in another word order. The first six Thai facts contain no vowel signs.
THAI = [
    ("นายสมชายขายอาหารทะเลในตลาด", "ตลาดขายอาหารทะเลของนายสมชาย"),
    ("โรงงานกระดาษยะลาขยายสาขา", "สาขาของโรงงานกระดาษ"),
    ("ธนาคารสงขลาลดราคาทอง", "ราคาทองของธนาคารสงขลา"),
    ("นางพยาบาลพาทหารชราไปบวช", "ทหารชราไปกบนางพยาบาล"),
    ("แมวขาวนอนกลางถนนยาว", "กลางถนนยาวแมวขาวนอน"),
    ("ละครไทยฉายตลอดสองเดอน", "สองเดอนละครไทยฉาย"),
    ("ท่าเรือกลายเป็นน้ำแข็งในฤดูหนาว", "ในฤดูหนาวน้ำแข็งปกคลุมท่าเรือ"),
    ("โรงสีข้าวเก่าปิดกิจการเพราะค่าซ่อมแพง", "เพราะค่าซ่อมแพงโรงสีข้าวจึงปิด"),
    ("พิพิธภัณฑ์จัดแสดงเครื่องปั้นดินเผา", "เครื่องปั้นดินเผาจัดแสดงในพิพิธภัณฑ์"),
    ("เทศกาลโคมไฟดึงดูดนักท่องเที่ยวทุกปี", "ทุกปีนักท่องเที่ยวมาดูเทศกาลโคมไฟ"),
]
KANA = [
    ("みさきのとうだいははじめてあきにともされました", "あきにはじめてともされたのはみさきのとうだいです"),
    ("とうだいもりのたろうはみつばちをかっていました", "みつばちをかっていたのはたろうでした"),
    ("みなとはさむいふゆにすっかりこおりました", "さむいふゆにこおったのはみなとです"),
    ("ふるいすいしゃごやはしゅうりがたかくてしまりました", "しゅうりがたかいのですいしゃごやはしまった"),
    ("しちょうがあたらしいはしをごがつにひらきました", "あたらしいはしはごがつにしちょうがひらいた"),
    ("しょうがっこうはいちばのちかくにうつりました", "いちばのちかくにうつったしょうがっこう"),
    ("はくぶつかんにはうみべのむらのやきものがあります", "うみべのむらのやきものははくぶつかんにある"),
    ("キタノテツドウハコウズイノアトデトマリマシタ", "ｺｳｽﾞｲﾉｱﾄｷﾀﾉﾃﾂﾄﾞｳｶﾞﾄﾏｯﾀ"),
    ("まちではじめてのおんないしがかんごをおしえました", "かんごをおしえたのはおんないしです"),
    ("ちょうちんまつりにはまいとしおおくのひとがきます", "まいとしちょうちんまつりにひとがおおくくる"),
]
KOREAN = [
    ("도서관은 강가에 있다", "강가의 도서관이 크다"),
    ("등대지기가 꿀벌을 길렀다", "꿀벌은 등대지기의 것이다"),
    ("항구는 겨울에 얼었다", "겨울이면 항구가 언다"),
    ("방앗간이 문을 닫았다", "문닫은 방앗간에서"),
    ("시장은 다리를 열었다", "다리가 열린 날 시장이 왔다"),
    ("학교를 시장 옆으로 옮겼다", "옆으로 옮긴 학교는"),
]
LAO = [
    ("ນົກບິນຢູ່ເທິງຟ້າ", "ເທິງຟ້າມີນົກບິນ"),
    ("ຕະຫຼາດຂາຍປາແລະຜັກ", "ປາແລະຜັກຂາຍໃນຕະຫຼາດ"),
    ("ໂຮງຮຽນຕັ້ງຢູ່ໃກ້ແມ່ນ້ຳ", "ໃກ້ແມ່ນ້ຳມີໂຮງຮຽນ"),
    ("ນາຍໝໍສອນວິຊາພະຍາບານ", "ວິຊາພະຍາບານສອນໂດຍນາຍໝໍ"),
]


@pytest.mark.parametrize("facts", [THAI, KANA, KOREAN, LAO], ids=["Thai", "kana", "Korean", "Lao"])
async def test_scripts_without_spaces_match_in_another_word_order(facts: list[tuple[str, str]]) -> None:
    results = await Bm25Retriever().index([fact for fact, _ in facts]).search([statement for _, statement in facts], 1)
    assert results == [[n] for n in range(len(facts))]


def test_untested_script_warned_about_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(bm25, "_warned_scripts", set())
    cherokee = "ᎣᏏᏲ ᎣᏂ ᎦᏙ ᏓᎳᎨ " * 20
    Bm25Retriever().index(
        [*(["In English, then."] * 9), "Ελληνικά, русский, 中文, 日本語, ไทย, हिन्दी, עברית, العربية."]
    )
    Bm25Retriever().index(["An English text of some length on one word: ᎣᏏᏲ."])
    assert caplog.records == []
    Bm25Retriever().index(["In English.", cherokee])
    Bm25Retriever().index([cherokee])
    (record,) = caplog.records
    assert "CHEROKEE" in record.getMessage()
    assert "score.retriever" in record.getMessage()
