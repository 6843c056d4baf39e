"""The scorer of inspect_ai, with its mock model as the policy and as the judge."""

import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("inspect_ai", reason="pip install 'longreward[inspect-ai]'")
from inspect_ai import Task
from inspect_ai import eval as run_eval
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog
from inspect_ai.model import ChatMessage, GenerateConfig, Model, ModelOutput, ModelUsage, get_model

from longreward.builtin.offline_judge.judge import OfflineJudge
from longreward.integrations.inspect_ai import long_reward
from longreward.judge import JudgeConfig
from longreward.records import DIMENSIONS

CONTEXT = "Keld was founded in 1905 by Ann Lee. The market opened in 1931."
QUERY = "Who founded Keld, and when?"
# A phrase of each template, and the reply to it.
REPLIES = {
    "how helpful the answer is": "It speaks to the question.\nRating: [[8]]",
    "whether the answer holds together": "It does.\nRating: [[9]]",
    "take apart the answers": "<statement>Ann Lee founded Keld in 1907.</statement>",
    "bears out a statement": "The passages say 1905.\nSupport: [[No support]]",
    "read one part of a long document": "1. Keld was founded in 1905 by Ann Lee.",
    "how complete the answer is": "It covers both points.\nRating: [[7]]",
}


def output(text: str) -> ModelOutput:
    result = ModelOutput.from_content("mockllm/model", text)
    # Without it the mock model counts tokens with a vocabulary that it downloads.
    result.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    return result


def evaluate(tmp_path: Path, response: str, metadata: dict[str, Any], **kwargs: Any) -> EvalLog:
    policy = get_model("mockllm/model", custom_outputs=[output(response)])
    task = Task(dataset=[Sample(input=QUERY, target="", metadata=metadata)], scorer=long_reward(**kwargs))
    (log,) = run_eval(task, model=policy, log_dir=str(tmp_path), display="none")
    return log


def mock_judge(replies: dict[str, str], configs: list[GenerateConfig]) -> Model:
    """Return the mock model as a judge, with the reply whose phrase the prompt contains."""

    def reply(input: list[ChatMessage], tools: Any, tool_choice: Any, config: GenerateConfig) -> ModelOutput:
        configs.append(config)
        return output(next(text for phrase, text in replies.items() if phrase in input[0].text))

    return get_model("mockllm/judge", custom_outputs=reply)


@pytest.mark.parametrize("judge", [None, JudgeConfig()])
def test_scores_of_the_offline_judge(tmp_path: Path, judge: JudgeConfig | None) -> None:
    log = evaluate(tmp_path, "Ann Lee founded Keld in 1905.", {"context": CONTEXT, "query": QUERY}, judge=judge)
    assert log.status == "success", log.error
    (score,) = log.samples[0].scores.values()
    assert score.value == dict.fromkeys((*DIMENSIONS, "reward"), 10.0)
    assert score.metadata == {"judge": OfflineJudge().name}
    assert "faithfulness: 10.0\n- fully supported: Ann Lee founded Keld in 1905." in score.explanation
    metrics = {score.name: score.metrics["mean"].value for score in log.results.scores}
    assert metrics == dict.fromkeys((*DIMENSIONS, "reward"), 10.0)


def test_model_of_inspect_as_judge(tmp_path: Path) -> None:
    configs: list[GenerateConfig] = []
    judge = mock_judge(REPLIES, configs)
    log = evaluate(tmp_path, "Ann Lee founded Keld in 1907.", {"context": CONTEXT}, judge=judge)
    assert log.status == "success", log.error
    (score,) = log.samples[0].scores.values()
    expected = {"helpfulness": 8.0, "logicality": 9.0, "faithfulness": 0.0, "completeness": 7.0, "reward": 6.0}
    assert score.value == expected
    assert score.answer == "Ann Lee founded Keld in 1907."
    assert score.metadata == {"judge": "mockllm/judge"}
    assert "faithfulness: 0.0\n- not supported: Ann Lee founded Keld in 1907." in score.explanation
    assert [(config.temperature, config.max_tokens) for config in configs].count((0.01, 512)) == 4
    # The judge's calls are in the sample's transcript and count as tokens of the judge.
    assert log.stats.model_usage["mockllm/judge"].output_tokens == len(configs) == 6


def test_unreadable_verdict_is_left_out_of_the_mean(tmp_path: Path) -> None:
    judge = mock_judge(REPLIES | {"whether the answer holds together": "I cannot say."}, [])
    log = evaluate(tmp_path, "Ann Lee founded Keld in 1907.", {"context": CONTEXT}, judge=judge)
    assert log.status == "success", log.error
    (score,) = log.samples[0].scores.values()
    assert math.isnan(score.value["logicality"])
    assert math.isnan(score.value["reward"])
    assert score.value["helpfulness"] == 8.0
    assert "logicality: None\nI cannot say.\nNo score: no readable" in score.explanation


def test_sample_without_a_document(tmp_path: Path) -> None:
    log = evaluate(tmp_path, "Ann Lee.", {"document": CONTEXT})
    assert log.status == "error"
    assert "sample 1 has no document: set its metadata['context']" in log.error.message
    assert "its metadata has 'document'" in log.error.message
