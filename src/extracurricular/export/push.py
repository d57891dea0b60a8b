"""Put an export on the Hugging Face Hub, or on what speaks its language."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from extracurricular.errors import ExportError, RecipeError, shorten
from extracurricular.export.formats import quietly


def check_push(repo: str) -> None:
    """Find what would keep a push from working, before anything is exported.

    Raises:
        ExportError: huggingface_hub is missing.
        RecipeError: The repository's name cannot be one.
    """
    hub = _library()
    try:
        hub.utils.validate_repo_id(repo)
    except ValueError:
        raise RecipeError(
            "--push",
            f"is {shorten(repo)}; it must be NAME or OWNER/NAME, of letters, digits, '-', '_' and "
            "'.', with none of the signs at an end or doubled",
        ) from None


def push(
    files: Sequence[Path], repo: str, *, private: bool = False, endpoint: str | None = None
) -> str:
    """Upload files to a repository, in one commit; make the repository if there is none.

    Who uploads is what ``hf auth login`` or the variable HF_TOKEN says.

    Args:
        files: What to upload, by its name without folders.
        repo: ``NAME`` or ``OWNER/NAME``.
        private: Whether it must be private; a public one that is there already is refused.
        endpoint: Address of the Hub; what the variable HF_ENDPOINT says, or the public one.

    Returns:
        The address of the commit.

    Raises:
        ExportError: It did not work; nothing, or an empty repository, is there.
    """
    hub = _library()
    hub.utils.disable_progress_bars()
    api = hub.HfApi(endpoint=endpoint, library_name="extracurricular")
    try:
        with quietly():
            made = api.create_repo(repo, private=private, exist_ok=True)
            if private and not api.model_info(made.repo_id).private:
                raise ExportError("it is there already, and public; nothing was uploaded")
            done = api.create_commit(
                made.repo_id,
                [hub.CommitOperationAdd(file.name, str(file)) for file in files],
                commit_message="Export of extracurricular",
            )
    except Exception as error:  # of hub, of its HTTP client, of the system
        raise ExportError(
            f"the export lies in {str(files[0].parent)!r}, but cannot be pushed to {repo!r} "
            f"at {api.endpoint}: {_why(error)}"
        ) from error
    return str(done.commit_url)


def _why(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return (
            "the Hub does not know you, or does not let you write there; log in by `hf auth "
            "login`, or set HF_TOKEN to a token that may write"
        )
    said = getattr(error, "server_message", None)
    texts = [_flat(said)] if said else [_flat(error), _flat(error.__cause__ or "")]
    return ": ".join(dict.fromkeys(text.rstrip(".") for text in texts if text)) or "it gave up"


def _library() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.utils
    except ImportError:
        raise ExportError(
            "--push needs huggingface_hub: pip install 'extracurricular[hub]'"
        ) from None
    return huggingface_hub


def _flat(error: object) -> str:
    """Return a text as one line, without what looks like a token."""
    return re.sub(r"\bhf_\w+", "hf_…", " ".join(str(error).split()))
