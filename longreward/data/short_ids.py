"""Ids of examples and pairs without a document, which `train.short` mixes into the training data."""

SHORT_PREFIX = "short/"


def has_short_prefix(record_id: str) -> bool:
    """Return whether the example or pair with this id has no document."""
    return record_id.startswith(SHORT_PREFIX)
