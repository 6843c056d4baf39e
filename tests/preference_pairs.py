"""Preference pairs of literal texts."""

from longreward.records import PreferencePair, Response


def make_pair(
    number: int,
    chosen: str,
    rejected: str,
    *,
    context: str = "the town is north .",
    query: str = "where is it ?",
) -> PreferencePair:
    """Make a pair of two responses with the rewards 9 and 3."""
    responses = [
        Response(id=f"{number}-{n}", example_id=str(number), query=query, text=text)
        for n, text in enumerate((chosen, rejected))
    ]
    return PreferencePair(
        id=str(number),
        context=context,
        query=query,
        chosen=responses[0],
        rejected=responses[1],
        chosen_reward=9.0,
        rejected_reward=3.0,
    )
