"""The options of `redditgen tokenize`."""

from pathlib import Path

from redditgen.settings import shared
from redditgen.settings.options import argument, command_settings, option, require, require_at_least, require_choice


@command_settings
class TokenizeSettings:
    dataset: Path = argument("Encoded text, a CSV of one column, or plain text; or a folder or a quoted glob of them.")
    out: Path | None = option(None, ".npz to write.  [default: DATASET's name with .npz]")
    model: str = option("mini", "Model whose tokens to write: a folder in --model-dir, mini, or the path of a folder.")
    record_tokens: str = option(
        "literal", "literal, as gpt-2-simple reads them; compact: start and end of a record are one token each."
    )
    combine: int = option(50_000, "Join files until they have this many characters.")
    model_dir: Path = shared.model_dir()
    skip_existing: bool = shared.skip_existing()
    overwrite: bool = option(False, "Replace an output that is already there.", "--overwrite")

    def __post_init__(self) -> None:
        require_at_least(1, self, "combine")
        require_choice("--record-tokens", self.record_tokens, "literal", "compact")
        has_name = self.dataset.name not in ("", "..") and not set("*?") & set(self.dataset.name)
        require(self.out is not None or has_name, f"--out: is needed, since {self.dataset} is no name for a file")
        require(self.output.suffix == ".npz", f"--out must end in .npz, not {self.output}")

    @property
    def output(self) -> Path:
        return self.out or self.dataset.with_suffix(".npz")
