"""`pretint push`: a run's encoder on a model hub, from where timm and Pretint load it. Only what was verified is uploaded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from ..backbones import load_backbone
from ..runtime.encoderfacts import CARD, CONFIG, WEIGHTS, find_encoder
from ..runtime.errors import ArgumentError, HubError, RunFolderError
from .options import Outcome

_FILES = (CONFIG, WEIGHTS, CARD)
_NAME = r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}"


@dataclass(frozen=True, kw_only=True)
class PushConfig:
    """Upload an encoder to the Hugging Face hub.

    Attributes:
        folder: the run's folder, or an encoder folder.
        name: where to, as user/name; made if need be.
        private: only its owner sees it.
        commit_message: what the upload's history says.
        json: print as JSON for programs.
    """

    folder: Positional[Path]
    name: Positional[str]
    private: bool = False
    commit_message: str = "Upload an encoder with Pretint"
    json: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(_NAME, self.name, re.ASCII):
            raise ArgumentError(
                f"name: {self.name!r} is not of the form user/name; use letters, digits, '-', '_' and '.', such as ada/flowers."
            )


def push(config: PushConfig) -> Outcome:
    """Verifies an encoder by loading it, then uploads its folder.

    Raises:
        RunFolderError: the folder is no run or encoder, or is damaged; nothing was sent.
        HubError: nobody is logged in, the hub can't be reached, or it refuses.
    """
    folder = find_encoder(config.folder)
    load_backbone(folder)
    url = _upload(folder, config)
    lines = [
        f"Pushed {folder} to {url}",
        f'Load it with timm.create_model("hf-hub:{config.name}", pretrained=True); the card there says what to import.',
    ]
    return Outcome({"pushed": str(folder), "name": config.name, "url": url, "private": config.private}, [], lines)


def _upload(folder: Path, config: PushConfig) -> str:
    import huggingface_hub

    linked = [name for name in _FILES if (folder / name).is_symlink()]
    if linked:
        raise RunFolderError(
            f"{folder / linked[0]} is a link, which may lead anywhere; copy the folder's files and push those."
        )
    try:
        hub = huggingface_hub.HfApi()
        # left open unless asked for, because an organisation may have made private its default
        url = str(hub.create_repo(config.name, private=config.private or None, exist_ok=True))
        if config.private and not hub.repo_info(config.name).private:
            # the hub ignores the wish for a repository that is there already
            raise HubError(f"{config.name} exists and is public; make it private on the hub, or name another.")
        hub.upload_folder(
            repo_id=config.name,
            folder_path=folder,
            allow_patterns=list(_FILES),
            commit_message=config.commit_message,
        )
    except HubError:
        raise
    except Exception as error:  # each release of the client has another network library, with errors of its own
        raise HubError(_sentence(error, config.name)) from error
    return url


def _sentence(error: Exception, name: str) -> str:
    """What went wrong at the hub, and what to do."""
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

    status: Any = getattr(getattr(error, "response", None), "status_code", None)
    reason = " ".join(str(getattr(error, "server_message", None) or error).split())[:200]
    if isinstance(error, LocalTokenNotFoundError) or status == 401:
        return "Nobody is logged in to the hub, or the token is not valid; run hf auth login, or set HF_TOKEN."
    if status == 403:
        return f"The hub does not let this token write to {name} ({reason}); use one with write access: hf auth login, or HF_TOKEN."
    if isinstance(error, HFValidationError):
        return f"The hub does not take the name {name} ({reason}); choose another."
    if isinstance(error, OfflineModeIsEnabled):
        return "The hub's client is set to stay offline (HF_HUB_OFFLINE); unset it to push."
    if status is not None:
        return f"The hub refused {name} with status {status} ({reason}); mend that, or try again later."
    return f"The upload to {name} failed ({type(error).__name__}: {reason}); look at the network and try again."
