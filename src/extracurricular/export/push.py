"""Put an export on the Hugging Face Hub, or on a server with the same interface."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from extracurricular.errors import ExportError, RecipeError, from_extra, shorten
from extracurricular.export.formats import quietly


def check_push(repo: str) -> None:
    """Check what a push needs, before anything is exported.

    Raises:
        ExportError: huggingface_hub is missing.
        RecipeError: The repository's name is not allowed.
    """
    hub = _library()
    try:
        hub.utils.validate_repo_id(repo)
    except ValueError:
        raise RecipeError(
            "--push",
            f"is {shorten(repo)}; it must be NAME or OWNER/NAME, of letters, digits, '-', '_' and "
            "'.', and no sign may be at an end or doubled",
        ) from None


def push(
    files: Sequence[Path], repo: str, *, private: bool = False, endpoint: str | None = None
) -> str:
    """Upload files to a repository, in one commit; make the repository if there is none.

    The account is that of ``hf auth login`` or of the variable HF_TOKEN.

    Args:
        files: The files to upload, under their names without folders.
        repo: ``NAME`` or ``OWNER/NAME``.
        private: Whether the repository must be private; an existing public one is refused.
        endpoint: Address of the Hub; if None, that of the variable HF_ENDPOINT, or the public one.

    Returns:
        The address of the commit.

    Raises:
        ExportError: The upload failed; at most an empty repository was made.
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
    except Exception as error:  # the hub, its HTTP client and the system have errors of their own
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
        raise ExportError(f"--push needs huggingface_hub, {from_extra('hub')}") from None
    return huggingface_hub


def _flat(error: object) -> str:
    """Return a text as one line, without what looks like a token."""
    return re.sub(r"\bhf_\w+", "hf_…", " ".join(str(error).split()))
