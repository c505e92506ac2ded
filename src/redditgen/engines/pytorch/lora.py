"""LoRA adapters on a network: added, saved and loaded with peft, and merged into the weights.

LoRA (Hu et al. 2021, arXiv:2106.09685) freezes each weight matrix W, [out, in], and trains two small matrices of rank
r next to it, A [r, in] and B [out, r]. The layer then computes with W + (alpha / r) B A, where alpha is 2r here. B
starts at zero, so new adapters leave the network's results unchanged.

All four matrices of every layer get adapters: c_attn [3E, E], attention's c_proj [E, E], c_fc [4E, E] and the MLP's
c_proj [E, 4E], for a width of E. That is 16 r E trainable parameters a layer, and only they take gradients and
optimizer states. In training, each matrix costs two more, thin products. Merging costs one product B A a matrix, whose
result, [out, in] in float32, is held for one matrix at a time.

Adapters are saved in a folder that peft's PeftModel.from_pretrained reads:

    adapters-500/   adapter_config.json, adapter_model.safetensors

`base_model_name_or_path` in the configuration names the weights under the adapters, and `revision` holds a hash of
those weights, so that training continues on exactly the same ones.
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

_ADAPTED_LAYERS = ["c_attn", "c_proj", "c_fc"]  # all matrices of a layer; attention and the MLP have a c_proj each
_RECOVERY_HINT = "delete the folder to go on with new ones on the run's merged weights"


class Adapters:
    """The LoRA adapters on one network."""

    def __init__(self, model: "GPT2LMHeadModel", rank: int, base: AdapterBase, *, seed: int) -> None:
        """Add new adapters of a rank to `model`, in place; they don't change its results yet.

        `base` names the weights under them, for the saved configuration. `seed` sets the initial values of A, without
        changing the state of torch's random generator.
        """
        import torch

        is_conv1d = not (getattr(model, "is_loaded_in_8bit", False) or getattr(model, "is_loaded_in_4bit", False))
        with warnings_silenced(), torch.random.fork_rng():
            import peft

            config = peft.LoraConfig(
                r=rank,
                lora_alpha=2 * rank,
                target_modules=_ADAPTED_LAYERS,
                fan_in_fan_out=is_conv1d,
                task_type="CAUSAL_LM",
            )
            torch.manual_seed(seed)
            self._peft = peft.get_peft_model(cast(Any, model), config)
        config.base_model_name_or_path, config.revision = base.path, base.revision

    def load(self, folder: Path) -> None:
        """Replace the new adapters with saved ones.

        Raises InputError where the file can't be read, or holds adapters of another network or rank.
        """
        from peft import set_peft_model_state_dict
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = folder / "adapter_model.safetensors"
        try:
            load_result: Any = set_peft_model_state_dict(self._peft, load_file(path))
        except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{path}: can't be read as this run's adapters ({reason}); {_RECOVERY_HINT}") from error
        missing = [name for name in load_result.missing_keys if "lora_" in name]
        if missing or load_result.unexpected_keys:
            raise InputError(f"{path}: holds other adapters than this run's; {_RECOVERY_HINT}")

    def save(self, folder: Path) -> None:
        """Write the adapters into a folder. Raises OSError where a file can't be written."""
        from safetensors import SafetensorError

        try:
            # The embeddings are frozen. By default, peft asks the Hugging Face Hub for the base model to compare them.
            self._peft.save_pretrained(str(folder), save_embedding_layers=False)
        except SafetensorError as error:
            raise OSError(f"{error}") from error
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty template of a model card

    def merge_into(self, tensors: "Tensors") -> None:
        """Add (alpha / r) B A of each adapter to its matrix in `tensors`, the float32 weights under the adapters."""
        import torch

        network = self._peft.get_base_model()
        for name in [name for name, array in tensors.items() if array.ndim == 3]:
            layer: Any = network.get_submodule(torch_name(name).removesuffix(".weight"))
            with torch.no_grad():
                product = layer.lora_B["default"].weight.float() @ layer.lora_A["default"].weight.float()
            delta = layer.scaling["default"] * product.t().cpu().numpy()
            tensors[name] = np.asarray(tensors[name] + delta[None], dtype=np.float32)
