"""Optimizers: AdamW, AdamW with 8-bit states and 16-bit gradients, and plain gradient descent.

AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) first clips the gradient of all parameters together to a length of
MAX_GRADIENT_NORM. Plain gradient descent (`sgd`) subtracts the gradient times the learning rate, without clipping. With
a computing precision of float16, the loss is multiplied by a factor before the backward pass, and the gradients are
divided by it here; a step whose gradient is infinite or NaN is skipped (see LossScale).

Bytes in memory for each trained parameter, besides its weight:

    optimizer              states   gradient
    AdamW                  8        4
    AdamW, 8-bit states    2        2           plus 4 bytes for each 256 values of a state
    sgd                    0        4

The 8-bit states are those of bitsandbytes (Dettmers et al. 2021, arXiv:2110.02861).
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from redditgen.engines.pytorch.network import import_bitsandbytes
from redditgen.errors import InputError

if TYPE_CHECKING:
    import torch

    from redditgen.gpt2.tensor_names import Tensors

    Parameters = Mapping[str, torch.nn.Parameter]

BETAS, WEIGHT_DECAY = (0.9, 0.99), 0.01  # AdamW's
MAX_GRADIENT_NORM = 1.0  # the length to which the gradient of a step is clipped
_MOMENTS = (("exp_avg", "exp_avg_sq"), ("state1", "state2"))  # AdamW's two moments in PyTorch and in bitsandbytes


class LossScale:
    """The factor of the loss that lifts float16 gradients above 6e-8, below which float16 has only zero.

    It starts at 65,536 and changes as PyTorch's GradScaler does by default. GradScaler itself is not used, since it
    refuses gradients that are kept in float16. In other precisions the factor stays 1.
    """

    def __init__(self, precision: str) -> None:
        self.is_needed = precision == "float16"
        self.factor, self.good_steps = (2.0**16 if self.is_needed else 1.0), 0

    def update(self, is_finite: bool) -> None:
        """Halve the factor after a gradient that overflowed, and double it after 2,000 in a row that were finite."""
        if not self.is_needed:
            return
        self.good_steps = self.good_steps + 1 if is_finite else 0
        if not is_finite:
            self.factor /= 2
        elif self.good_steps == 2000:
            self.factor, self.good_steps = 2 * self.factor, 0


class Optimizer:
    """AdamW with 32-bit states, or plain gradient descent without clipping where `kind` is `sgd`."""

    def __init__(self, learning: "Parameters", kind: str, precision: str) -> None:
        import torch

        self.trainable, self.is_sgd, self.scale = learning, kind == "sgd", LossScale(precision)
        self._optimizer: torch.optim.Optimizer = (
            torch.optim.SGD(learning.values())
            if self.is_sgd
            else torch.optim.AdamW(learning.values(), betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True)
        )

    def clear(self) -> None:
        """Delete the gradients."""
        self._optimizer.zero_grad()

    def step(self, rate: float) -> None:
        """Update the parameters by their gradients at a learning rate; skip this where a scaled gradient overflowed."""
        import torch

        gradients = [parameter.grad for parameter in self.trainable.values() if parameter.grad is not None]
        if self.scale.is_needed:
            torch._foreach_mul_(gradients, 1 / self.scale.factor)
        is_finite = True
        if self.scale.is_needed or not self.is_sgd:
            max_norm = math.inf if self.is_sgd else MAX_GRADIENT_NORM
            norm = torch.nn.utils.clip_grad_norm_(self.trainable.values(), max_norm)
            is_finite = not self.scale.is_needed or math.isfinite(norm.item())
        if is_finite:
            self._optimizer.param_groups[0]["lr"] = rate
            self._optimizer.step()
        self.scale.update(is_finite)

    def state(self) -> "Tensors":
        """Return the states of every parameter, under `<parameter>.<name>`, and in float16 the loss scale."""
        arrays = {
            f"{name}.{kind}": tensor.cpu().numpy()
            for name, parameter in self.trainable.items()
            for kind, tensor in self._state_of(name, parameter).items()
            if kind != "step" and hasattr(tensor, "cpu")
        }
        if self.scale.is_needed:
            arrays["loss_scale"] = np.array([self.scale.factor, self.scale.good_steps], np.float64)
        return arrays

    def restore(self, state: "Tensors", step: int) -> None:
        """Restore states that `state` returned after this `step`; parameters without saved states start with new ones.

        Raises InputError where a saved moment has another shape than its parameter.
        """
        import torch

        if self.scale.is_needed and "loss_scale" in state:
            self.scale.factor, self.scale.good_steps = float(state["loss_scale"][0]), int(state["loss_scale"][1])
        saved_by_name: dict[str, dict[str, np.ndarray]] = {}
        for key, array in state.items():
            name, _, kind = key.rpartition(".")
            saved_by_name.setdefault(name, {})[kind] = array
        for name, parameter in self.trainable.items():
            saved = saved_by_name.get(name, {})
            if any(saved[kind].shape != parameter.shape for pair in _MOMENTS for kind in pair if kind in saved):
                raise InputError(f"optimizer state: {name} is of another shape; delete the file to go on without it")
            if all(moment in saved for moment in self._required_states()):
                tensors = {kind: torch.from_numpy(array).to(parameter.device) for kind, array in saved.items()}
                self._state_of(name, parameter).update(self._step_state(step, parameter), **tensors)

    def _state_of(self, name: str, parameter: "torch.nn.Parameter") -> dict[str, Any]:
        """Return the states of one parameter by name, as a dictionary that can be changed."""
        states: dict[str, Any] = self._optimizer.state[parameter]
        return states

    def _required_states(self) -> tuple[str, ...]:
        """Return the names of the states that restoring needs; for sgd, which has none, a name that no file has."""
        return ("",) if self.is_sgd else _MOMENTS[0]

    def _step_state(self, step: int, parameter: "torch.nn.Parameter") -> dict[str, Any]:
        """Return the state that counts the steps taken, in the type that the optimizer expects."""
        import torch

        return {"step": torch.tensor(float(step), device=parameter.device)}


class LowMemoryOptimizer(Optimizer):
    """AdamW with bitsandbytes' 8-bit states, and with gradients kept in 16 bits.

    As soon as a parameter's float32 gradient is complete, a hook moves it to 16 bits. It is converted back only for
    that parameter's own update, so at most one gradient is in float32 at a time.
    """

    def __init__(self, learning: "Parameters", twins: "Parameters", precision: str) -> None:
        """Optimize the parameters of `learning`, by name.

        `twins` are parameters, by the name of the one whose memory they share, that get gradients of their own; these
        are added to that one's. Raises MissingError where bitsandbytes is not installed.
        """
        import torch

        library = import_bitsandbytes()
        self.trainable, self.is_sgd, self.scale = learning, False, LossScale(precision)
        self._optimizers = {
            name: library.optim.AdamW8bit([parameter], betas=BETAS, weight_decay=WEIGHT_DECAY)
            for name, parameter in learning.items()
        }
        self._gradients: dict[str, torch.Tensor] = {}
        self._dtype = torch.float16 if precision == "float16" else torch.bfloat16
        for name, parameter in [*learning.items(), *twins.items()]:
            parameter.register_post_accumulate_grad_hook(self._gradient_hook(name))

    def _gradient_hook(self, name: str) -> Any:
        """Return the hook that moves a parameter's complete gradient to 16 bits, and adds it up under `name`."""

        def store_gradient(parameter: "torch.Tensor") -> None:
            gradient, parameter.grad = parameter.grad, None
            assert gradient is not None
            if name in self._gradients:
                self._gradients[name] += gradient
            else:
                self._gradients[name] = gradient.to(self._dtype)

        return store_gradient

    def clear(self) -> None:
        """Delete the gradients."""
        self._gradients.clear()

    def step(self, rate: float) -> None:
        """Update the parameters one by one, at a learning rate; skip this where the gradient is infinite or NaN."""
        import torch

        norms = [torch.linalg.vector_norm(gradient, dtype=torch.float32) for gradient in self._gradients.values()]
        norm = torch.linalg.vector_norm(torch.stack(norms)).item() / self.scale.factor
        if is_finite := math.isfinite(norm):
            factor = min(1.0, MAX_GRADIENT_NORM / (norm + 1e-6)) / self.scale.factor
            for name in list(self._gradients):
                self.trainable[name].grad = self._gradients.pop(name).float().mul_(factor)
                self._optimizers[name].param_groups[0]["lr"] = rate
                self._optimizers[name].step()
                self.trainable[name].grad = None
        self.clear()
        self.scale.update(is_finite)

    def _state_of(self, name: str, parameter: "torch.nn.Parameter") -> dict[str, Any]:
        states: dict[str, Any] = self._optimizers[name].state[parameter]
        return states

    def _required_states(self) -> tuple[str, ...]:
        return _MOMENTS[1]

    def _step_state(self, step: int, parameter: "torch.nn.Parameter") -> dict[str, Any]:
        return {"step": step}
