"""The context window of a judge's server, and the settings that decide how long each prompt is.

Servers report the window in different places: llama.cpp in `/props`, Ollama in `/api/ps`, vLLM, SGLang and several
providers in the list of models.
"""

from collections.abc import Mapping
from typing import Any

MODEL_LIST_FIELDS = ("max_model_len", "context_length", "max_context_length", "context_window")
LENGTH_SETTINGS: Mapping[str, str] = {
    "extraction": "score.extraction_chunk_tokens",
    "support_list": "score.statements_per_call, score.evidence_chunks or score.evidence_chunk_tokens",
    "support": "score.evidence_chunks or score.evidence_chunk_tokens",
    "helpfulness": "sample.max_new_tokens",
    "logicality": "sample.max_new_tokens",
    "statements": "sample.max_new_tokens",
    "rubric_check": "sample.max_new_tokens",
    "citation_need": "sample.max_new_tokens",
    "pairwise": "pair.pairwise.context_tokens",
    "synthesis/questions": "synthesize.max_tokens",
    "synthesis/answer": "synthesize.max_tokens",
}
"""For each template the setting that makes its prompts shorter. The completeness prompt has none: it holds the extracts
of the whole document."""


def window_from_properties(properties: Any) -> int | None:
    """Return the window of one slot of llama.cpp's server, from `/props`."""
    try:
        return _positive(properties["default_generation_settings"]["n_ctx"])
    except (LookupError, TypeError):
        return None


def window_from_models(models: Any, model: str) -> int | None:
    """Return the window of a model from the list of models (`/v1/models`)."""
    try:
        entries = [entry for entry in models["data"] if entry.get("id") == model]
    except (LookupError, TypeError, AttributeError):
        return None
    windows = [window for entry in entries for field in MODEL_LIST_FIELDS if (window := _positive(entry.get(field)))]
    return windows[0] if windows else None


def window_from_loaded_models(loaded: Any, model: str) -> int | None:
    """Return the window of a model that Ollama has loaded, from `/api/ps`."""
    try:
        for entry in loaded["models"]:
            if {entry.get("name"), entry.get("model")} & {model, f"{model}:latest"}:
                return _positive(entry.get("context_length"))
    except (LookupError, TypeError, AttributeError):
        pass
    return None


def shorten_advice(template: str) -> str:
    """Return what to do about a prompt of this template that does not fit."""
    setting = LENGTH_SETTINGS.get(template)
    larger = "give the server a larger context window"
    return f"lower {setting}, or {larger}" if setting else larger


def _positive(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
