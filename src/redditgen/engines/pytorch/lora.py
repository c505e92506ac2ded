"""LoRA: small matrices that learn beside a network's frozen ones, put there and saved by peft.

    adapters-500/   adapter_config.json, adapter_model.safetensors: as peft's PeftModel.from_pretrained reads them

The configuration names the weights that the adapters lie on, as `base_model_name_or_path`, and a hash of them, as
`revision`; so that training goes on from the very same ones.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from redditgen.engines.pytorch.network import warnings_silenced
from redditgen.errors import InputError
from redditgen.gpt2.formats.adapters import AdapterBase
from redditgen.gpt2.tensor_names import torch_name

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

    from redditgen.gpt2.tensor_names import Tensors

_ADAPTED = ["c_attn", "c_proj", "c_fc"]  # all of a layer's matrices; there is a c_proj of each kind


class Adapters:
    """The adapters on one network."""

    def __init__(self, model: "GPT2LMHeadModel", rank: int, base: AdapterBase, *, seed: int) -> None:
        """Put adapters beside the matrices of `model`, which as they are change nothing that it computes."""
        import torch

        is_conv1d = not (getattr(model, "is_loaded_in_8bit", False) or getattr(model, "is_loaded_in_4bit", False))
        with warnings_silenced(), torch.random.fork_rng():
            import peft

            config = peft.LoraConfig(
                r=rank, lora_alpha=2 * rank, target_modules=_ADAPTED, fan_in_fan_out=is_conv1d, task_type="CAUSAL_LM"
            )
            torch.manual_seed(seed)
            self._peft = peft.get_peft_model(cast(Any, model), config)
        config.base_model_name_or_path, config.revision = base.path, base.revision

    def load(self, folder: Path) -> None:
        """Put saved adapters in place of the new ones; raises InputError for what are none of this network."""
        from peft import set_peft_model_state_dict
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = folder / "adapter_model.safetensors"
        try:
            found: Any = set_peft_model_state_dict(self._peft, load_file(path))
        except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{path}: can't be read as this run's adapters ({reason}); {_GO_ON}") from error
        missing = [name for name in found.missing_keys if "lora_" in name]
        if missing or found.unexpected_keys:
            raise InputError(f"{path}: holds other adapters than this run's; {_GO_ON}")

    def save(self, folder: Path) -> None:
        """Write them into a folder; raises OSError where a file can't be written."""
        from safetensors import SafetensorError

        try:
            # The embeddings are frozen; peft would ask the network whether they are the base's.
            self._peft.save_pretrained(str(folder), save_embedding_layers=False)
        except SafetensorError as error:
            raise OSError(f"{error}") from error
        (folder / "README.md").unlink(missing_ok=True)  # peft's form of a model card, not filled in

    def merge_into(self, tensors: "Tensors") -> None:
        """Add the adapters' products to the float32 tensors of the weights that they lie on."""
        import torch

        network = self._peft.get_base_model()
        for name in [name for name, array in tensors.items() if array.ndim == 3]:
            layer: Any = network.get_submodule(torch_name(name).removesuffix(".weight"))
            with torch.no_grad():
                product = layer.lora_B["default"].weight.float() @ layer.lora_A["default"].weight.float()
            change = layer.scaling["default"] * product.t().cpu().numpy()
            tensors[name] = np.asarray(tensors[name] + change[None], dtype=np.float32)


_GO_ON = "delete the folder to go on with new ones on the run's merged weights"
