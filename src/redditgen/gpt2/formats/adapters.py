"""Reads what a folder of LoRA adapters in peft's layout states: the adapters' rank, and the weights below them.

    adapters-500/   adapter_config.json, adapter_model.safetensors: as peft's PeftModel.from_pretrained reads them

In the configuration, `base_model_name_or_path` names the weights that the adapters were trained on, and `revision`
holds a hash of them, so that training continues only on exactly these weights.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redditgen.errors import InputError
from redditgen.gpt2.formats.hugging_face_tokenizer import read_json_object

_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class AdapterBase:
    """The weights that adapters were trained on: their path, and a hash that identifies them."""

    path: str
    revision: str


NO_BASE = AdapterBase("", "")


@dataclass(frozen=True)
class AdapterDir:
    """A folder of saved adapters; methods raise MissingError or InputError where it can't be read."""

    path: Path

    def _config(self) -> dict[str, Any]:
        return read_json_object(self.path / _CONFIG)

    def base(self) -> AdapterBase:
        """Return the weights that the adapters were trained on."""
        config = self._config()
        return AdapterBase(str(config.get("base_model_name_or_path")), str(config.get("revision")))

    def rank(self) -> int:
        """Return the rank of the adapters' matrices."""
        rank = self._config().get("r")
        if not isinstance(rank, int):
            raise InputError(f"{self.path / _CONFIG}: r must be the rank, a whole number, not {rank!r}")
        return rank
