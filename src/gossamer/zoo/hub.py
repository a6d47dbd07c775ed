"""How does a published folder get to the Hugging Face hub and back? Through its client, where that is installed."""

import importlib
import re
from pathlib import Path
from typing import Any, Protocol

from gossamer.errors import ConfigError, RunError

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
WANTED = ("gossamer.json", "model.safetensors", "recipe.yaml", "env.json", "status.json", "metrics.jsonl", "results/*")
"""What is fetched, and replaced: a published network, and nothing else that lies in the same place."""


class Client(Protocol):
    """What is asked of the hub's client; the package `huggingface_hub` has it."""

    def snapshot_download(self, repo_id: str, **options: Any) -> str:
        """Return the folder with the files of a model."""
        ...

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        """Make the place of a model, where it is not there yet."""
        ...

    def upload_folder(self, **options: Any) -> Any:
        """Send a folder's files."""
        ...


def is_hub_name(text: str) -> bool:
    """Tell whether a text is written as the hub's "org/name"."""
    return _ID.fullmatch(text) is not None and ".." not in text


def fetch(
    name: str,
    *,
    revision: str | None = None,
    cache_dir: Path | None = None,
    offline: bool = False,
    client: Client | None = None,
) -> Path:
    """Return the folder of a model of the hub, from the cache where it is there.

    offline: ask the cache alone, as HF_HUB_OFFLINE=1 does. Raises RunError where it cannot be fetched, ConfigError
    where the client is not installed.
    """
    asked = client or _client()
    try:
        return Path(
            asked.snapshot_download(
                repo_id=name,
                revision=revision,
                cache_dir=None if cache_dir is None else str(cache_dir),
                local_files_only=offline,
                allow_patterns=list(WANTED),
            )
        )
    # Whatever the client and its transport raise.
    except Exception as error:
        raise RunError(
            f"hub model {name}",
            expected="its files" if not offline else "its files in the cache",
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            remedy="check the name, the revision and the network, or download the folder and load it by its path",
        ) from error


def push(
    folder: Path, name: str, *, private: bool = False, revision: str | None = None, client: Client | None = None
) -> str:
    """Send a published folder to the hub as "org/name" and return its address; raises ConfigError and RunError."""
    check_name(name)
    asked = client or _client()
    try:
        asked.create_repo(name, repo_type="model", private=private, exist_ok=True)
        sent = asked.upload_folder(
            repo_id=name,
            repo_type="model",
            folder_path=str(folder),
            revision=revision,
            commit_message="Publish with gossamer",
            delete_patterns=list(WANTED),
        )
    # Whatever the client and its transport raise.
    except Exception as error:
        raise RunError(
            f"hub model {name}",
            expected="a hub that takes the files",
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            remedy=f"log in with `hf auth login`; {folder} is written and can be sent again",
        ) from error
    return str(getattr(sent, "commit_url", None) or f"https://huggingface.co/{name}")


def check_push(name: str) -> None:
    """Raise ConfigError where a folder could not be sent: a bad name, or no client."""
    check_name(name)
    _client()


def check_name(name: str) -> None:
    """Raise ConfigError unless a name can be that of a model on the hub."""
    if not is_hub_name(name):
        raise ConfigError("name on the hub", expected="org/name", got=repr(name), remedy="write --push myname/mymodel")


def _client() -> Client:
    try:
        found: Any = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise ConfigError(
            "Hugging Face hub",
            expected="its client, huggingface_hub",
            got="none installed",
            remedy="pip install 'gossamer[hub]', or download the folder and give its path",
        ) from error
    return found
