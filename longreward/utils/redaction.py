"""Remove passwords and tokens from text that people or files keep: log lines, errors, reports, notes."""

import os
import re
from urllib.parse import unquote

MASK = "***"
URI_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_BACKEND_STORE_URI", "PREFECT_API_URL")
SECRET_VARIABLES = (
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_SERVER_API_AUTH_STRING",
    "PREFECT_API_KEY",
)
MIN_SECRET_LENGTH = 4  # masking a shorter one everywhere would leave nothing readable
SECRET_NAMES = frozenset({"auth", "odbcconnect", "pwd", "sig", "signature", "token"}) | {
    f"{kind}{suffix}" for kind in ("access", "account", "api", "auth", "sas", "secret") for suffix in ("key", "token")
}

_WORD = re.compile(r"[^\s'\"`<>]+")


def redact(text: str) -> str:
    """Mask every secret in `text`.

    These are the login of a URI (`postgresql://***@host/db`), the values of `name=value` pairs with the name of a
    secret (`?password=***`), and the logins of MLflow and Prefect from the environment, anywhere in the text: a
    database driver may quote a password without its URI.
    """
    secrets = {os.environ.get(name, "") for name in SECRET_VARIABLES}
    for name in URI_VARIABLES:
        password = split_login(os.environ.get(name, ""))[1].partition(":")[2]
        secrets |= {password, unquote(password)}
    # The longest first: a secret that is part of another one would leave the rest of it visible.
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= MIN_SECRET_LENGTH:
            text = text.replace(secret, MASK)
    # Word by word: one pattern for a whole URI takes quadratic time on a long run of slashes.
    return _WORD.sub(lambda match: _redact_word(match.group()), text)


def split_login(uri: str) -> tuple[str, str, str]:
    """Split a URI into (scheme with "://", login, rest).

    The login ends at the last @ before the path, but a password may contain an unquoted / or @. The widest
    interpretation with a colon wins, because showing part of a password is worse than hiding part of a path.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return "", "", uri
    login, at, after = rest.rpartition("@")
    if at and "/" in login and ":" not in login.partition("/")[0]:
        host, slash, path = rest.partition("/")  # the @ stands in the path: http://host/a@b
        login, at, after = host.rpartition("@")
        after += slash + path
    return (scheme + separator, login, after) if at else (scheme + separator, "", rest)


def _redact_word(word: str) -> str:
    scheme, login, rest = split_login(word)
    if login:
        word = f"{scheme}{MASK}@{rest}"
    parts = re.split(r"([?&;])", word)
    for index, part in enumerate(parts):
        name, _, value = part.partition("=")
        if value:
            letters = "".join(filter(str.isalnum, name.lower()))
            if letters in SECRET_NAMES or any(kind in letters for kind in ("password", "passwd", "secret", "xamz")):
                parts[index] = f"{name}={MASK}"
    return "".join(parts)
