"""Logins that Google's libraries take for real ones, and how nobody is logged in."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa


def log_out(monkeypatch: pytest.MonkeyPatch, gcloud: Path) -> None:
    """Nobody is logged in on this machine, and it is none of Google's; `gcloud` is the folder of gcloud's logins."""
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "BIGQUERY_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(gcloud))
    monkeypatch.setenv("NO_GCE_CHECK", "true")


def pem(key: Any) -> bytes:
    form, pkcs8, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    content: bytes = key.private_bytes(form, pkcs8, plain)
    return content


def service_account(email: str, token_uri: str) -> dict[str, str]:
    """What is in a service account's key file."""
    return {
        "type": "service_account",
        "project_id": "marker-project",
        "private_key_id": "marker-key-id",
        "private_key": pem(rsa.generate_private_key(public_exponent=65537, key_size=2048)).decode(),
        "client_email": email,
        "client_id": "1",
        "token_uri": token_uri,
    }
