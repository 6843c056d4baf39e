"""Redaction of secrets in text."""

import pytest

from longreward.utils.redaction import redact


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://me:hunter2@db.example:5432/runs", "postgresql://***@db.example:5432/runs"),
        ("cannot use mysql+pymysql://me:p@ss/w@rd@db/runs now", "cannot use mysql+pymysql://***@db/runs now"),
        ("https://ghp_token@github.example/a", "https://***@github.example/a"),
        ("postgresql:///runs?host=/tmp&user=me&password=hunter2", "postgresql:///runs?host=/tmp&user=me&password=***"),
        ("failed: host=db password=hunter2 dbname=runs", "failed: host=db password=*** dbname=runs"),
        ("s3://b/x?X-Amz-Signature=abc&part=1", "s3://b/x?X-Amz-Signature=***&part=1"),
        ("'http://u:pw1@a:1' and 'http://u:pw2@b:2'", "'http://***@a:1' and 'http://***@b:2'"),
        ("http://host:5000/#/experiments/1", "http://host:5000/#/experiments/1"),
        ("http://host/team@work/x", "http://host/team@work/x"),
        ("sqlite:////home/me/mlflow.db", "sqlite:////home/me/mlflow.db"),
        ("max_new_tokens=64, n=10, mail me@example.org", "max_new_tokens=64, n=10, mail me@example.org"),
    ],
)
def test_logins_and_secret_values_masked(text: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    assert redact(text) == expected


def test_passwords_from_environment_masked_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:hun%40ter2@db/runs")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret-word")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "abc")  # shorter than MIN_SECRET_LENGTH
    text = "FATAL: wrong password hun@ter2 (sent hun%40ter2), Basic s3cret-word abc"
    assert redact(text) == "FATAL: wrong password *** (sent ***), Basic *** abc"
