"""A folder of LoRA adapters in peft's layout, and the weights that its configuration says they were trained on.

    adapters-500/   adapter_config.json, adapter_model.safetensors: as peft's PeftModel.from_pretrained reads them

`base_model_name_or_path` in the configuration names the weights below the adapters, and `revision` holds a hash of
those weights, so that training continues on exactly the same ones."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redditgen.errors import InputError
from redditgen.gpt2.formats.hugging_face_tokenizer import read_json_object

_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class AdapterBase:
    """The weights that adapters lie on: where they are, and a hash that knows them."""

    path: str
    revision: str


NO_BASE = AdapterBase("", "")


@dataclass(frozen=True)
class AdapterDir:
    """A folder of saved adapters."""

    path: Path

    def _config(self) -> dict[str, Any]:
        return read_json_object(self.path / _CONFIG)

    def base(self) -> AdapterBase:
        config = self._config()
        return AdapterBase(str(config.get("base_model_name_or_path")), str(config.get("revision")))

    def rank(self) -> int:
        rank = self._config().get("r")
        if not isinstance(rank, int):
            raise InputError(f"{self.path / _CONFIG}: r must be the rank, a whole number, not {rank!r}")
        return rank
