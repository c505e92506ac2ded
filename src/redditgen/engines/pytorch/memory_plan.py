"""A prediction of the peak memory of a training, in bytes, and the choice of the best plan that fits.

The prediction counts the weights, the gradients, the optimizer's states, the activations that layers keep for the
backward pass, and the slices of logits (see `loss`). It takes the largest of the phases of a step: the end of the
forward pass, the end of the backward pass and the optimizer's update, and on a CPU loading and saving too. It leaves
out FIXED_OVERHEAD, which is CUDA's context, or Python and its libraries on a CPU, and the share FRAGMENTATION. The
sizes of activations are counted from the operations of a layer, in multiples of its width, and checked against measured
peaks (scripts/bench/memory.py).

The choice tries plans in this order, within what the options ask for, and takes the first that fits:

1. What is trained: all weights (or `layers` or `head`, where asked for) with 32-bit optimizer states, then with 8-bit
   states; then LoRA on weights of 32 bits (16 where the computing precision is not float32), then of 8 and of 4 bits.
2. For each of these: activations kept, with a whole batch of up to MAX_TOKENS_AT_ONCE positions computed at once, then
   halves of it down to a quarter.
3. Then activations recomputed (checkpointing), with a whole batch at once, then halves of it down to one record.

Both are arithmetic on the model's shape, without torch: a few dozen predictions at most.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from redditgen.engines.pytorch.loss import GRADIENT_ROWS, LOGIT_ROWS
from redditgen.errors import InputError, MissingError
from redditgen.gpt2.hyperparameters import Hyperparameters

FIXED_OVERHEAD = 500_000_000  # bytes: CUDA's context, or Python and its libraries on a CPU
FRAGMENTATION = 0.075  # the share of the memory that allocators lose to gaps
MAX_TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 16_384}  # positions by kind of device; computing more together is no faster
INSTALL_BITSANDBYTES = "pip install 'bitsandbytes>=0.49'"

TRAINABLE_PARTS = ("full", "layers", "head", "lora")
# Activations that a layer keeps for each token, as multiples of the width. In float32: its input, and the sum after
# attention. In the computing precision: both norms' results, queries, keys and values, attention's result before the
# projection, and the MLP's wide layer before and after GELU.
_FLOAT32_WIDTHS, _INNER_WIDTHS = 2, 14
_BACKWARD_WIDTHS = 9  # gradients for each token in a layer's backward pass, as a multiple of the width
_QUANTIZED_WIDTHS = 5  # more of the inner widths with bitsandbytes' layers, whose results are in float32
# In bytes: memory that libraries allocate when they are first used, and freed memory that glibc keeps by default.
_LIBRARY_WORKSPACE, _GLIBC_RETAINED = 10_000_000, 40_000_000
_ADAPTER_WIDTHS = 16  # parameters of a layer's four adapters for each rank, as a multiple of the width


@dataclass(frozen=True)
class Plan:
    """How to train: which parameters, how much is computed at once, and in which precisions."""

    train: str = "full"
    """The trained parameters.

    `full`: all. `layers`: all but the embeddings and the final norm. `head`: the last layer and the final norm. `lora`:
    adapters on the layers' matrices.
    """
    tokens: int | None = None
    """The most positions computed at once, though at least one record; None computes a whole batch.

    The gradients are added up over the parts of a batch, so it does not change a step.
    """
    checkpointing: bool = False
    """Whether layers keep only their input, and recompute the rest in the backward pass."""
    precision: str = "float32"
    """The computing precision of the matrix products: `float32`, `bfloat16` or `float16`."""
    optimizer_bits: int = 32
    """Bits of each of AdamW's states. With 8, gradients take 16 bits; with 32, they take 32."""
    weight_bits: int = 32
    """Bits of the frozen matrices under adapters. Below 32, the embeddings are kept in the computing precision."""
    lora_rank: int = 16

    @property
    def saves_memory(self) -> bool:
        """Whether the plan gives up speed to save memory."""
        return self.checkpointing or self.optimizer_bits < 32 or self.train == "lora"

    def lighter(self, rows: int, length: int) -> "Plan | None":
        """Return the plan to try after memory ran out with a batch of `rows` of `length` tokens.

        It computes half as many rows at once, or, where that was a single row, uses checkpointing. Returns None where
        this plan does both already.
        """
        if (together := self.rows(rows, length)) > 1:
            return replace(self, tokens=(together + 1) // 2 * length)
        return None if self.checkpointing else replace(self, checkpointing=True)

    def rows(self, rows: int, length: int) -> int:
        """Return how many rows of a batch of `rows` of `length` tokens are computed at once."""
        return rows if self.tokens is None else max(1, min(rows, self.tokens // length))

    def __str__(self) -> str:
        frozen = f" on {self.weight_bits}-bit weights" if self.weight_bits < 32 else ""
        trained = f"lora of rank {self.lora_rank}{frozen}" if self.train == "lora" else self.train
        with_8_bits = ", optimizer in 8 bits" if self.optimizer_bits == 8 else ""
        checkpointing = ", layers computed twice" if self.checkpointing else ""
        at_once = "all of a batch" if self.tokens is None else f"{self.tokens} tokens"
        return f"{trained}, {at_once} at once, {self.precision}{with_8_bits}{checkpointing}"


@dataclass(frozen=True)
class Workload:
    """The training to plan for: the model's shape, the batches, the optimizer and the kind of device."""

    hyperparameters: Hyperparameters
    batch: int
    """Records in a batch of one process."""
    length: int
    """The most tokens of a record."""
    accumulated: int = 1
    """Batches a step."""
    optimizer: str = "adam"
    """`adam` or `sgd`."""
    device: str = "cuda"
    """`cuda` or `cpu`."""
    is_shared: bool = False
    """Whether several processes train the network together."""


@dataclass(frozen=True)
class PlanRequest:
    """What the options require of the plan; None leaves the choice open."""

    precision: str
    train: str | None = None
    checkpointing: bool = False
    weight_bits: int | None = None
    lora_rank: int = 16
    has_bitsandbytes: bool = True


def usable_memory(memory: int) -> int:
    """Return the bytes of a device's `memory` that are left for what `predict_peak` counts: 3.2 GB of 4 GB."""
    return int(memory * (1 - FRAGMENTATION)) - FIXED_OVERHEAD


def choose_plan(work: Workload, request: PlanRequest, room: int) -> Plan:
    """Return the first plan that fits into `room` bytes, in the order that the module describes.

    Raises InputError where none fits, and MissingError where `request` needs bitsandbytes and it is not installed.
    """
    _require_bitsandbytes(request)
    candidates = list(_candidate_plans(work, request))
    for plan in candidates:
        if predict_peak(work, plan) <= room:
            return plan
    smallest = min(candidates, key=lambda plan: predict_peak(work, plan))
    need = (predict_peak(work, smallest) + FIXED_OVERHEAD) / (1 - FRAGMENTATION)
    available = (room + FIXED_OVERHEAD) / (1 - FRAGMENTATION)
    hint, advice = _bitsandbytes_hint(work, request, room), _advice(work, request, room)
    raise InputError(
        f"--memory: {available / 1e9:.1f} GB hold no training of this model; the least takes "
        f"{need / 1e9 + 0.05:.1f} GB ({smallest}){hint}; {advice}"
    )


def _require_bitsandbytes(request: PlanRequest) -> None:
    if request.weight_bits in (4, 8) and not request.has_bitsandbytes:
        raise MissingError(
            f"--weight-bits {request.weight_bits}: needs bitsandbytes; install it with: {INSTALL_BITSANDBYTES}"
        )


def _bitsandbytes_hint(work: Workload, request: PlanRequest, room: int) -> str:
    """Return a hint to install bitsandbytes where that would make a plan fit, else an empty string."""
    with_bitsandbytes = replace(request, has_bitsandbytes=True)
    helps = not request.has_bitsandbytes and any(
        predict_peak(work, plan) <= room for plan in _candidate_plans(work, with_bitsandbytes)
    )
    return f", or less with bitsandbytes: {INSTALL_BITSANDBYTES}" if helps else ""


def _advice(work: Workload, request: PlanRequest, room: int) -> str:
    """Return the advice to use the best plan that fits but that the options rule out, or else a smaller model."""
    unrestricted = replace(request, train="lora" if request.train == "lora" else None, weight_bits=None)
    fitting = next((plan for plan in _candidate_plans(work, unrestricted) if predict_peak(work, plan) <= room), None)
    if fitting is None:
        return "take a smaller --model"
    weight_bits = f" --weight-bits {fitting.weight_bits}" if fitting.weight_bits < 16 else ""
    return f"--train {fitting.train}{weight_bits} fits"


def _candidate_plans(work: Workload, request: PlanRequest) -> Iterator[Plan]:
    """Yield the plans that the options allow, the best first."""
    max_tokens = min(work.batch * work.length, max(MAX_TOKENS_AT_ONCE[work.device], work.length))
    for kind in _plan_kinds(work, request):
        if not request.checkpointing:
            # Down to a quarter, computing fewer tokens at once costs less time than recomputing the activations.
            yield from (
                replace(kind, tokens=tokens)
                for tokens in _halvings(max_tokens, work.length)
                if 4 * tokens >= max_tokens
            )
        yield from (replace(kind, tokens=tokens, checkpointing=True) for tokens in _halvings(max_tokens, work.length))


def _plan_kinds(work: Workload, request: PlanRequest) -> Iterator[Plan]:
    """Yield plans that differ in the trained parameters and in the bits of states and weights, the best first."""
    if request.train in (None, *TRAINABLE_PARTS[:3]) and request.weight_bits in (None, 32):
        plan = Plan(train=request.train or "full", precision=request.precision)
        yield plan
        # Not with several processes: gradients would be reduced to 16 bits before the processes could add them up.
        if request.has_bitsandbytes and work.optimizer == "adam" and not work.is_shared:
            yield replace(plan, optimizer_bits=8)
    if request.train in (None, "lora"):
        unquantized = 32 if request.precision == "float32" else 16
        quantized = (8, 4) if request.has_bitsandbytes else ()
        for bits in (request.weight_bits,) if request.weight_bits else (unquantized, *quantized):
            yield Plan(train="lora", precision=request.precision, weight_bits=bits, lora_rank=request.lora_rank)


def _halvings(largest: int, smallest: int) -> Iterator[int]:
    """Yield `largest`, then halves of it, rounded up, while they are above `smallest`, and `smallest` at the end."""
    while largest > smallest:
        yield largest
        largest = (largest + 1) // 2
    yield smallest


def predict_peak(work: Workload, plan: Plan) -> int:
    """Return the peak memory of a training by a plan, in bytes, without FIXED_OVERHEAD and FRAGMENTATION."""
    return int(max(memory_by_phase(work, plan).values()))


def memory_by_phase(work: Workload, plan: Plan) -> dict[str, float]:
    """Return the predicted bytes in each phase at which memory may be at its peak."""
    hyperparameters, trainable = work.hyperparameters, _trainable_parameters(work.hyperparameters, plan)
    embedding_gradient = 4 * hyperparameters.n_vocab * hyperparameters.n_embd if plan.train == "full" else 0
    retained = _GLIBC_RETAINED if work.device == "cpu" and not plan.saves_memory else 0
    fixed = retained + _LIBRARY_WORKSPACE + _weight_bytes(hyperparameters, plan) + trainable * _state_bytes(work, plan)
    gradients = trainable * (2 if plan.optimizer_bits == 8 else 4)
    is_cpu = work.device == "cpu"
    is_split = work.accumulated * work.batch * work.length > _max_positions(work, plan)
    phases = {
        "forward": fixed + is_split * gradients + _activation_bytes(work, plan, embedding_gradient),
        # The embeddings get two gradients, as the input and as the output layer, and the backward pass ends with both
        # in memory. `gradients` counts one of them, or, where the batch is split, the sum of earlier parts instead.
        "backward": fixed + gradients + (1 if plan.optimizer_bits == 8 else 1 + is_split) * embedding_gradient,
        # With 8-bit states, the update holds one gradient at a time in float32; the embeddings' is the largest.
        # bitsandbytes' kernels for it are for CUDA; on a CPU its temporaries raise that to 5.5 times as much.
        "update": fixed + gradients + (embedding_gradient * (5.5 if is_cpu else 1) if plan.optimizer_bits == 8 else 0),
    }
    if is_cpu:  # weights are read into, and copied for saving in, the memory that training itself uses
        all_weights = 4 * _total_parameters(hyperparameters)
        phases |= {"loading": all_weights + _weight_bytes(hyperparameters, plan), "saving": fixed + all_weights}
    return phases


def _matrix_parameters(hyperparameters: Hyperparameters) -> int:
    """Return the parameters of the matrices of one layer."""
    return 12 * hyperparameters.n_embd**2


def _total_parameters(hyperparameters: Hyperparameters) -> int:
    """Return the parameters of the whole network."""
    width = hyperparameters.n_embd
    layers = hyperparameters.n_layer * (_matrix_parameters(hyperparameters) + 13 * width)
    return layers + (hyperparameters.n_vocab + hyperparameters.n_ctx + 2) * width


def _trainable_parameters(hyperparameters: Hyperparameters, plan: Plan) -> int:
    """Return how many parameters a plan trains."""
    width, layer = hyperparameters.n_embd, _matrix_parameters(hyperparameters) + 13 * hyperparameters.n_embd
    return {
        "full": _total_parameters(hyperparameters),
        "layers": hyperparameters.n_layer * layer,
        "head": layer + 2 * width,
        "lora": hyperparameters.n_layer * _ADAPTER_WIDTHS * plan.lora_rank * width,
    }[plan.train]


def _weight_bytes(hyperparameters: Hyperparameters, plan: Plan) -> float:
    """Return the bytes of the weights as a plan keeps them, adapters included."""
    matrix_parameters, embedding_parameters = (
        hyperparameters.n_layer * _matrix_parameters(hyperparameters),
        hyperparameters.n_vocab * hyperparameters.n_embd,
    )
    # bitsandbytes adds a float32 scale for each row of 8-bit weights, and for each 64 weights of 4 bits an 8-bit scale
    # with a little more.
    matrix_bytes = {32: 4.0, 16: 2.0, 8: 1 + 4 / hyperparameters.n_embd, 4: 0.5 + 1.02 / 64}[plan.weight_bits]
    embedding_bytes = 4 if plan.weight_bits == 32 or plan.precision == "float32" else 2
    adapters = 4 * _trainable_parameters(hyperparameters, plan) if plan.train == "lora" else 0
    return (
        matrix_parameters * matrix_bytes
        + embedding_parameters * embedding_bytes
        + 4 * (_total_parameters(hyperparameters) - matrix_parameters - embedding_parameters)
        + adapters
    )


def _state_bytes(work: Workload, plan: Plan) -> float:
    """Return the bytes of the optimizer's states of one parameter.

    AdamW has two moments, in float32, or in 8 bits with a float32 scale for each 256 values. Plain gradient descent has
    none.
    """
    if work.optimizer == "sgd":
        return 0
    return 2 + 8 / 256 if plan.optimizer_bits == 8 else 8


def _activation_bytes(work: Workload, plan: Plan, embedding_gradient: int) -> float:
    """Return the bytes in memory where the forward pass ends and the backward pass begins, beyond the fixed ones.

    These are what the layers keep, plus the larger of the output layer with its loss and the backward pass of one
    layer.
    """
    hyperparameters, compute_bytes = work.hyperparameters, _precision_bytes(plan)
    hidden_values = _max_positions(work, plan) * hyperparameters.n_embd
    inner = _INNER_WIDTHS + (_QUANTIZED_WIDTHS if plan.weight_bits < 16 and compute_bytes == 2 else 0)
    layer_bytes = float(hidden_values * (4 * _FLOAT32_WIDTHS + compute_bytes * inner))
    if plan.weight_bits == 32 and compute_bytes == 2:
        # Copies of the weights in the computing precision, kept for the backward pass.
        layer_bytes += _matrix_parameters(hyperparameters) * compute_bytes
    layer_backward = float(embedding_gradient + hidden_values * compute_bytes * _BACKWARD_WIDTHS)
    if plan.weight_bits < 16:
        # The largest matrix, dequantized.
        layer_backward += _matrix_parameters(hyperparameters) / 3 * compute_bytes
    layers = 1 if plan.train == "head" else hyperparameters.n_layer
    if plan.checkpointing:
        return layers * 4 * hidden_values + max(_head_bytes(work, plan), layer_bytes + layer_backward)
    return layers * layer_bytes + max(_head_bytes(work, plan), layer_backward)


def _head_bytes(work: Workload, plan: Plan) -> float:
    """Return the bytes of the output layer and its loss, as `loss` computes them.

    These are slices of logits and of their gradient, the weight's gradient, a copy of the weight in the computing
    precision, and the hidden states with their gradients.
    """
    hyperparameters, compute_bytes = work.hyperparameters, _precision_bytes(plan)
    embedding_parameters, tokens = hyperparameters.n_vocab * hyperparameters.n_embd, _max_positions(work, plan)
    weight_copy = embedding_parameters * compute_bytes if plan.weight_bits == 32 and compute_bytes == 2 else 0
    weight_gradient = embedding_parameters * (4 + compute_bytes) if plan.train == "full" else 0
    logits = hyperparameters.n_vocab * (LOGIT_ROWS * (4 + compute_bytes) + min(tokens, GRADIENT_ROWS) * compute_bytes)
    return logits + weight_copy + weight_gradient + tokens * hyperparameters.n_embd * (8 + 2 * compute_bytes)


def _max_positions(work: Workload, plan: Plan) -> int:
    """Return the most positions that a plan computes at once."""
    return plan.rows(work.batch, work.length) * work.length


def _precision_bytes(plan: Plan) -> int:
    """Return the bytes of a number in the computing precision."""
    return 4 if plan.precision == "float32" else 2
