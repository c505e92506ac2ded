"""What turns gradients into steps: AdamW, the same with states of 8 bits and gradients of 16, and plain descent."""

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

BETAS, WEIGHT_DECAY = (0.9, 0.99), 0.01  # of AdamW
MAX_GRADIENT_NORM = 1.0  # length to which the gradient of a step is clipped
_MOMENTS = (("exp_avg", "exp_avg_sq"), ("state1", "state2"))  # PyTorch's names of AdamW's two, and bitsandbytes'


class LossScale:
    """The factor that lifts float16's gradients above 6e-8, where its numbers end; PyTorch's GradScaler's values.

    GradScaler itself refuses gradients that are kept in 16 bits.
    """

    def __init__(self, precision: str) -> None:
        self.is_needed = precision == "float16"
        self.factor, self.good_steps = (2.0**16 if self.is_needed else 1.0), 0

    def learn(self, is_finite: bool) -> None:
        """Halve it after a gradient that was too large for float16, and double it after 2,000 that were not."""
        if not self.is_needed:
            return
        self.good_steps = self.good_steps + 1 if is_finite else 0
        if not is_finite:
            self.factor /= 2
        elif self.good_steps == 2000:
            self.factor, self.good_steps = 2 * self.factor, 0


class Optimizer:
    """AdamW, or `sgd`: plain gradient descent without clipping."""

    def __init__(self, learning: "Parameters", kind: str, precision: str) -> None:
        import torch

        self.learning, self.is_sgd, self.scale = learning, kind == "sgd", LossScale(precision)
        self._all: torch.optim.Optimizer = (
            torch.optim.SGD(learning.values())
            if self.is_sgd
            else torch.optim.AdamW(learning.values(), betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True)
        )

    def clear(self) -> None:
        """Forget the gradients."""
        self._all.zero_grad()

    def step(self, rate: float) -> None:
        import torch

        gradients = [parameter.grad for parameter in self.learning.values() if parameter.grad is not None]
        if self.scale.is_needed:
            torch._foreach_mul_(gradients, 1 / self.scale.factor)
        is_finite = True
        if self.scale.is_needed or not self.is_sgd:
            longest = math.inf if self.is_sgd else MAX_GRADIENT_NORM
            norm = torch.nn.utils.clip_grad_norm_(self.learning.values(), longest)
            is_finite = not self.scale.is_needed or math.isfinite(norm.item())
        if is_finite:
            self._all.param_groups[0]["lr"] = rate
            self._all.step()
        self.scale.learn(is_finite)

    def state(self) -> "Tensors":
        """What it remembers of every parameter, under `<parameter>.<name>`, and the factor of float16's losses."""
        remembered = {
            f"{name}.{kind}": tensor.cpu().numpy()
            for name, parameter in self.learning.items()
            for kind, tensor in self._of(name, parameter).items()
            if kind != "step" and hasattr(tensor, "cpu")
        }
        if self.scale.is_needed:
            remembered["loss_scale"] = np.array([self.scale.factor, self.scale.good_steps], np.float64)
        return remembered

    def restore(self, state: "Tensors", step: int) -> None:
        """Put back what was saved; parameters that have nothing begin anew. Raises InputError for another network's."""
        import torch

        if self.scale.is_needed and "loss_scale" in state:
            self.scale.factor, self.scale.good_steps = float(state["loss_scale"][0]), int(state["loss_scale"][1])
        of_each: dict[str, dict[str, np.ndarray]] = {}
        for key, array in state.items():
            name, _, kind = key.rpartition(".")
            of_each.setdefault(name, {})[kind] = array
        for name, parameter in self.learning.items():
            saved = of_each.get(name, {})
            if any(saved[kind].shape != parameter.shape for pair in _MOMENTS for kind in pair if kind in saved):
                raise InputError(f"optimizer state: {name} is of another shape; delete the file to go on without it")
            if all(moment in saved for moment in self._moments()):
                kept = {kind: torch.from_numpy(array).to(parameter.device) for kind, array in saved.items()}
                self._of(name, parameter).update(self._counted(step, parameter), **kept)

    def _of(self, name: str, parameter: "torch.nn.Parameter") -> dict[str, Any]:
        of_one: dict[str, Any] = self._all.state[parameter]
        return of_one

    def _moments(self) -> tuple[str, ...]:
        """Names without which there is nothing to go on with; sgd has none that could be there."""
        return ("",) if self.is_sgd else _MOMENTS[0]

    def _counted(self, step: int, parameter: "torch.nn.Parameter") -> dict[str, Any]:
        import torch

        return {"step": torch.tensor(float(step), device=parameter.device)}


class LowMemoryOptimizer(Optimizer):
    """AdamW whose states take 8 bits, by bitsandbytes, and whose gradients are kept in 16.

    A gradient is moved to 16 bits as soon as it is whole, and back to 32 only for the parameter's own step; so at most
    one of them stands in 32 at a time.
    """

    def __init__(self, learning: "Parameters", twins: "Parameters", precision: str) -> None:
        """`twins` are tensors that share a parameter's memory and have gradients of their own, by its name."""
        import torch

        library = import_bitsandbytes()
        self.learning, self.is_sgd, self.scale = learning, False, LossScale(precision)
        self._each = {
            name: library.optim.AdamW8bit([parameter], betas=BETAS, weight_decay=WEIGHT_DECAY)
            for name, parameter in learning.items()
        }
        self._gradients: dict[str, torch.Tensor] = {}
        self._dtype = torch.float16 if precision == "float16" else torch.bfloat16
        for name, parameter in [*learning.items(), *twins.items()]:
            parameter.register_post_accumulate_grad_hook(self._keeper(name))

    def _keeper(self, name: str) -> Any:
        def keep(parameter: "torch.Tensor") -> None:
            gradient, parameter.grad = parameter.grad, None
            assert gradient is not None
            if name in self._gradients:
                self._gradients[name] += gradient
            else:
                self._gradients[name] = gradient.to(self._dtype)

        return keep

    def clear(self) -> None:
        self._gradients.clear()

    def step(self, rate: float) -> None:
        import torch

        lengths = [torch.linalg.vector_norm(one, dtype=torch.float32) for one in self._gradients.values()]
        length = torch.linalg.vector_norm(torch.stack(lengths)).item() / self.scale.factor
        if is_finite := math.isfinite(length):
            factor = min(1.0, MAX_GRADIENT_NORM / (length + 1e-6)) / self.scale.factor
            for name in list(self._gradients):
                self.learning[name].grad = self._gradients.pop(name).float().mul_(factor)
                self._each[name].param_groups[0]["lr"] = rate
                self._each[name].step()
                self.learning[name].grad = None
        self.clear()
        self.scale.learn(is_finite)

    def _of(self, name: str, parameter: "torch.nn.Parameter") -> dict[str, Any]:
        of_one: dict[str, Any] = self._each[name].state[parameter]
        return of_one

    def _moments(self) -> tuple[str, ...]:
        return _MOMENTS[1]

    def _counted(self, step: int, parameter: "torch.nn.Parameter") -> dict[str, Any]:
        return {"step": step}
