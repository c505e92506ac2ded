"""The options of `redditgen download`."""

import re
from pathlib import Path

from redditgen.gpt2.find import OPENAI_MODELS
from redditgen.settings import shared
from redditgen.settings.options import argument, command_settings, option, require, require_choice

OPENAI_URL = "https://openaipublic.blob.core.windows.net/gpt-2"  # as in gpt-2-simple 0.8


@command_settings
class DownloadSettings:
    model: str = argument(f"One of OpenAI's models: {', '.join(OPENAI_MODELS)}.")
    base_url: str = option(OPENAI_URL, "Where to download from; the files lie below it as models/NAME/FILE.")
    model_dir: Path = shared.model_dir()
    overwrite: bool = option(False, "Download anew and replace a model that is already there.", "--overwrite")

    def __post_init__(self) -> None:
        require_choice("MODEL", self.model, *OPENAI_MODELS)
        # The message leaves out the URL, which may contain a password.
        is_web = re.match(r"https?://[^/?#]", self.base_url, re.IGNORECASE)
        require(is_web is not None, "--base-url must begin with https:// or http:// and name a server")
