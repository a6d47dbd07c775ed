"""What must not be told on? Logins within addresses, and the keys of trackers that the environment holds."""

import os
import re

_VARIABLES = ("WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
_LOGIN = re.compile(r"(?<=://)[^/\s]+@")


def without_secrets(text: str) -> str:
    """Return a text with dots in the place of secrets."""
    for name in _VARIABLES:
        if value := os.environ.get(name):
            text = text.replace(value, "...")
    return _LOGIN.sub("...@", text)
