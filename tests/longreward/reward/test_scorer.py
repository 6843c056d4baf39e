import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from virtual_time import in_virtual_time

from longreward.errors import JudgeUnavailable
from longreward.judge import Judge, JudgeConfig
from longreward.judge.ledger import Ledger
from longreward.records import Example, Response
from longreward.retrieval import Bm25Retriever, Index
from longreward.reward import ScoreConfig, ScoredExample, Scorer, open_scorer, score_examples

# Eight simple tokens each (a year is two): a sentence is a chunk of evidence, and two are a part to extract from.
SENTENCES = (
    "Keld was begun once by Ann Lee. ",
    "A mill was built in 1905. ",
    "Bees were kept by old Tom Ray. ",
    "The lake froze in May 1929. ",
)
DOCUMENT = "".join(SENTENCES)
CONFIG = ScoreConfig(evidence_chunk_tokens=8, evidence_chunks=2, extraction_chunk_tokens=16)
QUERY = "Who founded Keld, and what was built there?"
STATEMENTS = (
    "<statement>Keld was begun by Ann Lee.</statement>\n"
    "<statement>A mill was built in 1906.</statement>\n"
    "<statement>Keld has a school.</statement>"
)
TABLE = {
    "helpfulness": "On the point. Rating: [[8]]",
    "logicality": "No mistake. Rating: [[9]]",
    "statements": STATEMENTS,
    "support": {
        "Keld was begun by Ann Lee.": "In passage 1. Support: [[Fully supported]]",
        "A mill was built in 1906.": "The year differs. Support: [[Partially supported]]",
        "Keld has a school.": "Nowhere. Support: [[No support]]",
    },
    "extraction": {"Ann Lee": "1. Ann Lee founded Keld.\n2. A mill was built.", "Tom Ray": "No relevant information"},
    "completeness": "The mill is missing. Rating: [[6]]",
}


def example(name: str = "1", *, context: str = DOCUMENT, query: str = QUERY) -> Example:
    return Example(id=name, document_id=name, context=context, query=query)


def answers(*texts: str, to: str = "1", query: str = QUERY) -> list[Response]:
    return [Response(id=f"{to}-{n}", example_id=to, query=query, text=text) for n, text in enumerate(texts)]


async def _all(results: AsyncIterator[ScoredExample]) -> list[ScoredExample]:
    return [scored async for scored in results]


async def score(
    model: Any, *texts: str, config: ScoreConfig = CONFIG, of: Example | None = None, attempts: int = 2
) -> ScoredExample:
    async with Judge.from_model(model, JudgeConfig(max_attempts=attempts)) as judge:
        return await Scorer(config).score(judge, of or example(), answers(*texts))


async def test_reward_is_mean_of_four_scores(scripted: Callable[..., Any]) -> None:
    (card,) = (await score(scripted(TABLE), "Ann Lee founded Keld.")).responses
    scores = {name: verdict.score for name, verdict in card.verdicts.items()}
    # faithfulness: 10 × (1 + 0.5 + 0) / 3 = 5
    assert scores == {"helpfulness": 8.0, "logicality": 9.0, "faithfulness": 5.0, "completeness": 6.0}
    assert card.complete
    assert card.reward == 7.0  # (8 + 9 + 5 + 6) / 4


async def test_verdicts_keep_analysis_and_usage(scripted: Callable[..., Any]) -> None:
    scored = await score(scripted(TABLE), "Ann Lee founded Keld.")
    verdicts = scored.responses[0].verdicts
    assert verdicts["helpfulness"].analysis == "On the point. Rating: [[8]]"
    assert [(s.text, s.support, s.analysis) for s in verdicts["faithfulness"].statements] == [
        ("Keld was begun by Ann Lee.", 1.0, "In passage 1. Support: [[Fully supported]]"),
        ("A mill was built in 1906.", 0.5, "The year differs. Support: [[Partially supported]]"),
        ("Keld has a school.", 0.0, "Nowhere. Support: [[No support]]"),
    ]
    assert all(verdict.judge == "scripted" for verdict in verdicts.values())
    faithfulness = verdicts["faithfulness"]  # one call for the statements, three for their support
    assert (faithfulness.calls, faithfulness.prompt_tokens, faithfulness.completion_tokens) == (4, 400, 40)
    assert [len(verdicts[name].prompt_hashes) for name in ("helpfulness", "faithfulness", "completeness")] == [1, 2, 2]


async def test_evidence_is_slices_in_document_order(scripted: Callable[..., Any]) -> None:
    model = scripted(TABLE)
    scored = await score(model, "Ann Lee founded Keld.")
    mill = scored.responses[0].verdicts["faithfulness"].statements[1]
    assert [evidence.text for evidence in mill.evidence] == [SENTENCES[1], SENTENCES[3]]  # both hold "in"
    assert all(DOCUMENT[evidence.start : evidence.end] == evidence.text for evidence in mill.evidence)
    (question,) = [q for q in model.requests if q.slots.get("statement") == "A mill was built in 1906."]
    assert question.slots["context"] == f"[Passage 1]\n{SENTENCES[1]}\n\n[Passage 2]\n{SENTENCES[3]}"


async def test_evidence_order_does_not_depend_on_rank(scripted: Callable[..., Any]) -> None:
    text = "The lake froze in May 1929, and bees were kept."  # shares most with the last sentence
    model = scripted({**TABLE, "statements": f"<statement>{text}</statement>", "support": "[[No support]]"})
    best = await score(model, "Bees.", config=CONFIG.model_copy(update={"evidence_chunks": 1}))
    assert [e.text for e in best.responses[0].verdicts["faithfulness"].statements[0].evidence] == [SENTENCES[3]]
    await score(model, "Bees.")
    contexts = [question.slots["context"] for question in model.requests if question.template == "support"]
    assert contexts[1] == f"[Passage 1]\n{SENTENCES[2]}\n\n[Passage 2]\n{SENTENCES[3]}"


async def test_extracts_shared_by_all_responses(scripted: Callable[..., Any]) -> None:
    model = scripted(TABLE)
    scored = await score(model, "Ann Lee founded Keld.", "Nobody knows.", "Ann Lee did.")
    assert model.counts() == {
        "extraction": 2,
        "helpfulness": 3,
        "logicality": 3,
        "statements": 3,
        "support": 3,
        "completeness": 3,
    }
    contexts = {q.slots["context"] for q in model.requests if q.template == "completeness"}
    assert contexts == {
        "[Relevant information from 0% - 50% of the document]\n1. Ann Lee founded Keld.\n2. A mill was built."
    }
    half = len(SENTENCES[0] + SENTENCES[1])  # 58 of 117 characters
    assert [
        (e.start, e.end, e.first_percent, e.last_percent, e.text, e.reason) for e in scored.extraction.extracts
    ] == [
        (0, half, 0, 50, "1. Ann Lee founded Keld.\n2. A mill was built.", None),
        (half, len(DOCUMENT), 50, 100, None, None),
    ]
    assert (scored.extraction.calls, scored.extraction.prompt_tokens) == (2, 200)


async def test_no_request_sent_twice(scripted: Callable[..., Any]) -> None:
    model = scripted(TABLE)
    scored = await score(model, "Ann Lee founded Keld.", "Ann Lee founded Keld.", "Another answer.")
    assert len({question.text for question in model.requests}) == len(model.requests)
    assert scored.responses[0].verdicts == scored.responses[1].verdicts


@in_virtual_time
async def test_longest_chain_has_two_calls(scripted: Callable[..., Any]) -> None:
    await score(scripted(TABLE, latency=3.0), "Ann Lee founded Keld.", "Nobody knows.")
    assert asyncio.get_running_loop().time() == pytest.approx(6.0)


async def test_unreadable_rating(scripted: Callable[..., Any]) -> None:
    model = scripted({**TABLE, "logicality": "I would rather not say."})
    (card,) = (await score(model, "Ann Lee founded Keld.")).responses
    verdict = card.verdicts["logicality"]
    assert verdict.score is None
    assert verdict.reason is not None
    assert "2 attempts" in verdict.reason
    assert verdict.analysis == "I would rather not say.\n\nI would rather not say."  # also to the reminder
    assert card.verdicts["helpfulness"].score == 8.0
    assert not card.complete
    assert card.reward is None


async def test_parsing_setting(scripted: Callable[..., Any]) -> None:
    table = {
        **TABLE,
        "support": {"1906": "[[Supported]]", "": "[[Yes]]"},
        "extraction": "1. Ann Lee.\n2. No relevant information on the mill.",
    }
    strict = await score(scripted(table), "Ann Lee founded Keld.")
    assert [s.support for s in strict.responses[0].verdicts["faithfulness"].statements] == [None, 1.0, None]
    assert strict.extraction.extracts[0].text == table["extraction"]
    published = await score(
        scripted(table), "Ann Lee founded Keld.", config=CONFIG.model_copy(update={"parsing": "published"})
    )
    assert [s.support for s in published.responses[0].verdicts["faithfulness"].statements] == [0.0, 0.0, 0.0]
    assert published.extraction.extracts[0].text is None
    assert published.extraction.extracts[0].reason is None


async def test_unreadable_statements(scripted: Callable[..., Any]) -> None:
    (card,) = (await score(scripted({**TABLE, "statements": "There are three."}), "Ann Lee founded Keld.")).responses
    verdict = card.verdicts["faithfulness"]
    assert (verdict.score, verdict.statements, verdict.analysis) == (None, (), "There are three.\n\nThere are three.")
    assert verdict.reason is not None


async def test_unreadable_support(
    scripted: Callable[..., Any],
) -> None:
    support = {"A mill was built in 1906.": "Hard to tell.", "": "Support: [[Fully supported]]"}
    (card,) = (await score(scripted({**TABLE, "support": support}), "Ann Lee founded Keld.")).responses
    verdict = card.verdicts["faithfulness"]
    assert verdict.score is None
    assert verdict.reason is not None
    assert verdict.reason.startswith("1 of 3 statements have no readable support; the first: ")
    assert [statement.support for statement in verdict.statements] == [1.0, None, 1.0]


async def test_unreadable_extract(
    scripted: Callable[..., Any],
) -> None:
    model = scripted({**TABLE, "extraction": {"Ann Lee": " ", "Tom Ray": "1. Bees."}})
    scored = await score(model, "Ann Lee founded Keld.")
    first, second = scored.extraction.extracts
    assert first.text is None
    assert first.reason is not None
    assert (second.text, second.reason) == ("1. Bees.", None)
    verdict = scored.responses[0].verdicts["completeness"]
    assert verdict.score is None
    assert verdict.reason is not None
    assert verdict.reason.startswith("1 of 2 parts of the document gave no readable extract; the first, 0% - 50%: ")
    assert "completeness" not in model.counts()


async def test_response_without_statements(
    scripted: Callable[..., Any],
) -> None:
    model = scripted({**TABLE, "statements": "<no_statement/>"})
    (card,) = (await score(model, "I cannot say.")).responses
    verdict = card.verdicts["faithfulness"]
    assert (verdict.score, verdict.reason) == (None, "the response holds no factual statement")
    zero = CONFIG.model_copy(update={"no_statements": "zero"})
    (card,) = (await score(model, "I cannot say.", config=zero)).responses
    assert card.verdicts["faithfulness"].score == 0.0
    assert card.reward == 5.75  # (8 + 9 + 0 + 6) / 4


async def test_extract_labels_count_tokens(scripted: Callable[..., Any]) -> None:
    """As in the published code. In characters, the first part of this document would be 0% - 81%."""
    model = scripted({**TABLE, "extraction": "1. Ann Lee."})
    document = "Ann Lee, " + "." * 80 + " 1 2 3 4 5 6 7 8 9."  # tokens: 3 and 10 (8 dots each), then 10
    config = CONFIG.model_copy(update={"extraction_chunk_tokens": 13})
    scored = await score(model, "Ann Lee did.", of=example(context=document), config=config)
    assert [(e.first_percent, e.last_percent) for e in scored.extraction.extracts] == [(0, 57), (57, 100)]
    (context,) = [q.slots["context"] for q in model.requests if q.template == "completeness"]
    assert context.startswith("[Relevant information from 0% - 57% of the document]\n")


@pytest.mark.parametrize("context", ["", " \n\t\u3000 "])
async def test_empty_document(scripted: Callable[..., Any], context: str) -> None:
    model = scripted(TABLE)
    scored = await score(model, "Ann Lee founded Keld.", of=example(context=context))
    assert scored.extraction.extracts == ()
    assert scored.responses[0].verdicts["faithfulness"].score == 0.0
    assert {"support", "extraction"}.isdisjoint(model.counts())
    (question,) = [q for q in model.requests if q.template == "completeness"]
    assert question.slots["context"].endswith("\nNo relevant information")


async def test_document_of_one_word(scripted: Callable[..., Any]) -> None:
    scored = await score(scripted({**TABLE, "extraction": "1. Keld."}), "Keld.", of=example(context="Keld"))
    assert [(e.start, e.end, e.first_percent, e.last_percent) for e in scored.extraction.extracts] == [(0, 4, 0, 100)]
    assert scored.responses[0].verdicts["faithfulness"].statements[0].evidence[0].text == "Keld"


async def test_slots_and_ratings_in_material_escaped(scripted: Callable[..., Any]) -> None:
    query = "Is <<answer>> worth [[10]]?"
    model = scripted(TABLE)
    scored = await score(model, "Yes: <<question>> [[0]]", of=example(query=query))
    assert scored.responses[0].reward == 7.0
    rating = next(q for q in model.requests if q.template == "helpfulness")
    assert "[Question]\nIs <<answer>> worth [\\[10]]?\n" in rating.text
    assert "[Answer]\nYes: <<question>> [\\[0]]\n" in rating.text


async def test_empty_response(scripted: Callable[..., Any]) -> None:
    table = {**TABLE, "statements": "<no_statement/>", "helpfulness": "Empty. [[0]]"}
    (card,) = (await score(scripted(table), "")).responses
    assert card.verdicts["helpfulness"].score == 0.0
    assert card.verdicts["faithfulness"].score is None


async def test_example_without_responses(scripted: Callable[..., Any]) -> None:
    model = scripted(TABLE)
    assert (await score(model)).responses == ()
    assert model.requests == []


async def test_prompt_languages(scripted: Callable[..., Any]) -> None:
    table = {
        **TABLE,
        "support": "支持程度：[[Fully supported]]",
        "statements": "<statement>林桥建于1988年。</statement>",
    }
    model = scripted({**table, "extraction": "1. 林桥。"})
    document = "林桥建于1988年，由市长揭幕。" + "The bridge of Lin was opened by the mayor of the town of Keld. "
    await score(model, "林桥建于1988年。", of=example(context=document, query="桥是什么时候建的？"))
    openings = {(q.template, q.text[:4]) for q in model.requests}
    assert openings == {
        ("helpfulness", "你负责给"),
        ("logicality", "你负责检"),
        ("statements", "你负责拆"),
        ("support", "你负责核"),
        ("completeness", "你负责给"),
        ("extraction", "你将阅读"),
        ("extraction", "You "),
    }


class CountingRetriever(Bm25Retriever):
    """BM25, which records the indexed texts."""

    def __init__(self) -> None:
        super().__init__()
        self.indexed: list[str] = []

    def index(self, chunks: Sequence[str]) -> Index:
        self.indexed += chunks
        return super().index(chunks)


async def test_prompts_about_document_share_index(scripted: Callable[..., Any]) -> None:
    retriever = CountingRetriever()
    work = [(example(n, query=f"Query {n}?"), answers("One answer.", "Another.", to=n)) for n in "abc"]
    async with Judge.from_model(scripted(TABLE)) as judge:
        scorer = Scorer(CONFIG, retriever=retriever)
        scored = await _all(score_examples(judge, scorer, work))
    assert retriever.indexed == list(SENTENCES)
    assert [[r.response.id for r in scored_example.responses] for scored_example in scored] == [
        ["a-0", "a-1"],
        ["b-0", "b-1"],
        ["c-0", "c-1"],
    ]


class BlockingModel:
    """Blocks requests about one query until it is released."""

    name = "blocking"

    def __init__(self, model: Any, query: str) -> None:
        self.model, self.query, self.released = model, query, asyncio.Event()

    async def complete(self, request: Any, *, temperature: float) -> Any:
        if self.query in request.text:
            await self.released.wait()
        return await self.model.complete(request, temperature=temperature)

    async def close(self) -> None:
        pass


async def test_buffer_of_finished_prompts_limited(
    scripted: Callable[..., Any],
) -> None:
    started: list[int] = []
    finished: list[str] = []
    complete = asyncio.Semaphore(0)

    def work() -> Any:
        for n in range(30):
            started.append(n)
            yield example(str(n), query=f"Query {n}?"), answers("One answer.", to=str(n))

    reported = [0]

    def report_progress(count: int) -> None:
        for _ in range(count - reported[-1]):
            complete.release()
        reported.append(count)

    model = BlockingModel(scripted(TABLE), "Query 0?")
    config = CONFIG.model_copy(update={"prompts_in_flight": 2})

    async def collect() -> None:
        async with Judge.from_model(model, JudgeConfig()) as judge:
            async for scored in score_examples(judge, open_scorer(config), work(), progress=report_progress):
                finished.append(scored.extraction.example_id)

    collector = asyncio.create_task(collect())
    for _ in range(7):  # all but the blocked one of eight: the buffer is four times the prompts in flight
        await complete.acquire()
    for _ in range(2000):  # let the event loop start more, if it would
        await asyncio.sleep(0)
    assert (len(started), finished) == (8, [])
    model.released.set()
    await collector
    assert finished == [str(n) for n in range(30)]


async def test_results_in_order_with_few_prompts_in_flight(scripted: Callable[..., Any]) -> None:
    started, reported, finished = [], [], []

    def work() -> Any:
        for n in range(30):
            started.append(n)
            yield example(str(n), query=f"Query {n}?"), answers("One answer.", to=str(n))

    config = CONFIG.model_copy(update={"prompts_in_flight": 2})
    async with Judge.from_model(scripted(TABLE, latency=0.001)) as judge:
        async for scored in score_examples(judge, open_scorer(config), work(), progress=reported.append):
            finished.append(scored.extraction.example_id)
            assert len(started) - len(finished) < 8  # complete ones may wait, up to four times as many as are in flight
    assert finished == [str(n) for n in range(30)]
    assert reported == sorted(reported)
    assert reported[-1] == 30


async def test_judge_failure_keeps_replies_in_ledger(scripted: Callable[..., Any], tmp_path: Path) -> None:
    work = [(example(n, query=f"Query {n}?"), answers(f"Answer {n}.", to=n)) for n in ("first", "second")]
    failing = scripted({**TABLE, "completeness": {"Answer second": JudgeUnavailable("the judge is down"), "": "[[6]]"}})
    async with Judge.from_model(failing, ledger=Ledger(tmp_path / "ledger.sqlite")) as judge:
        with pytest.raises(JudgeUnavailable, match="the judge is down"):
            await _all(score_examples(judge, open_scorer(CONFIG), work))
    assert asyncio.all_tasks() == {asyncio.current_task()}

    complete_model = scripted(TABLE)
    async with Judge.from_model(complete_model, ledger=Ledger(tmp_path / "ledger.sqlite")) as judge:
        scored = await _all(score_examples(judge, open_scorer(CONFIG), work))
    assert [scored_example.responses[0].reward for scored_example in scored] == [7.0, 7.0]
    requests = [question.text for question in failing.requests + complete_model.requests]
    assert len(complete_model.requests) < len(failing.requests)
    assert len(requests) - len(set(requests)) <= 1  # only what had failed was asked again


async def test_closed_generator_cancels_calls(scripted: Callable[..., Any]) -> None:
    work = [(example(n, query=f"Query {n}?"), answers("Answer.", to=n)) for n in "abcdef"]
    config = CONFIG.model_copy(update={"prompts_in_flight": 3})
    async with Judge.from_model(scripted(TABLE, latency=0.001)) as judge:
        results = score_examples(judge, open_scorer(config), work)
        async for _ in results:
            break
        await results.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_scorer_settings() -> None:
    settings = Scorer(CONFIG).settings
    assert settings["tokenizer"] == "simple"
    assert (settings["evidence_chunk_tokens"], settings["evidence_chunks"], settings["extraction_chunk_tokens"]) == (
        8,
        2,
        16,
    )
    assert len(str(settings["prompts"])) == 64
