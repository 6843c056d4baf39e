"""Numbers with their nouns in messages."""


def pluralize(count: int, noun: str) -> str:
    """Return the number and the noun, in the plural unless the number is 1. `noun` may have words before it.

    >>> pluralize(1, "reply"), pluralize(2415, "truncated reply"), pluralize(0, "retry"), pluralize(2, "key")
    ('1 reply', '2,415 truncated replies', '0 retries', '2 keys')
    """
    if count != 1:
        ends_in_y = noun.endswith("y") and noun[-2] not in "aeiou"
        noun = f"{noun[:-1]}ies" if ends_in_y else f"{noun}s"
    return f"{count:,} {noun}"
