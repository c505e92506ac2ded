"""How much memory a finetuning takes, and the plan of one that fits: a model of it, in bytes, without torch.

What is counted: weights, gradients, the optimizer's states, what the layers keep for the way back, the logits' slice.
What stands outside is `OUTSIDE`: CUDA's context, or Python and its libraries on a CPU. The factors of activations are
counted from the operations of a layer, width for width, and checked against measured peaks (scripts/bench/memory.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from redditgen.engines.pytorch.loss import ROWS_AT_ONCE, ROWS_TOGETHER
from redditgen.errors import InputError, MissingError
from redditgen.gpt2.hyperparameters import Hyperparameters

FIXED_OVERHEAD = 500_000_000
FRAGMENTATION = 0.075  # share of the memory that allocators lose between blocks
MAX_TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 16_384}  # positions; more together are no faster
INSTALL_BITSANDBYTES = "pip install 'bitsandbytes>=0.49'"

TRAINABLE_PARTS = ("full", "layers", "head", "lora")
# For each token and layer, in widths: float32 (the layer's input and middle), and those of the computing
# precision: both norms' results, queries, keys and values, attention's result, the wide layer before and after GELU.
_RESIDUALS, _INNER = 2, 14
_ON_THE_WAY_BACK = 9  # gradients of a layer that stand together, in widths a token
_QUANTIZED = 5  # more of the inner ones where bitsandbytes' layers compute, which give float32
# What libraries allocate for themselves when they are first used, and what glibc, unless told, does not give back.
_WORKSPACE, _KEPT_BY_GLIBC = 10_000_000, 40_000_000
_RANKS = 16  # widths of A and B of a layer's four adapters together, for each rank


@dataclass(frozen=True)
class Plan:
    """How to train: what learns, how much is computed at once, and in which precision what is kept.

    full: everything; layers: all but the embeddings and the last norm; head: the last layer and the norm behind it;
    lora: adapters beside the layers' matrices. With `optimizer_bits` 8 AdamW's states take 8 bits and the gradients 16.
    `weight_bits` is of the matrices and embeddings where they don't learn.
    """

    train: str = "full"
    tokens: int | None = None
    """Positions computed at once, but one record at least; None: all of a batch. The step is the same."""
    checkpointing: bool = False
    precision: str = "float32"
    optimizer_bits: int = 32
    weight_bits: int = 32
    lora_rank: int = 16

    @property
    def saves_memory(self) -> bool:
        """Whether it costs time to take less memory."""
        return self.checkpointing or self.optimizer_bits < 32 or self.train == "lora"

    def lighter(self, rows: int, length: int) -> "Plan | None":
        """What to try where memory ran out with `rows` of a `length`: half of them at once, or else checkpointing."""
        if (together := self.rows(rows, length)) > 1:
            return replace(self, tokens=(together + 1) // 2 * length)
        return None if self.checkpointing else replace(self, checkpointing=True)

    def rows(self, rows: int, length: int) -> int:
        """How many rows of a batch are computed at once."""
        return rows if self.tokens is None else max(1, min(rows, self.tokens // length))

    def __str__(self) -> str:
        kept = f" on {self.weight_bits}-bit weights" if self.weight_bits < 32 else ""
        what = f"lora of rank {self.lora_rank}{kept}" if self.train == "lora" else self.train
        with_8_bits = ", optimizer in 8 bits" if self.optimizer_bits == 8 else ""
        checkpointing = ", layers computed twice" if self.checkpointing else ""
        at_once = "all of a batch" if self.tokens is None else f"{self.tokens} tokens"
        return f"{what}, {at_once} at once, {self.precision}{with_8_bits}{checkpointing}"


@dataclass(frozen=True)
class Workload:
    """What is to be trained where: `batch` records of at most `length` tokens, `accumulated` times a step.

    `is_shared` tells that other processes train the same network.
    """

    hyperparameters: Hyperparameters
    batch: int
    length: int
    accumulated: int = 1
    optimizer: str = "adam"
    device: str = "cuda"
    is_shared: bool = False


@dataclass(frozen=True)
class PlanRequest:
    """What the options say of the plan; None leaves it open."""

    precision: str
    train: str | None = None
    checkpointing: bool = False
    weight_bits: int | None = None
    lora_rank: int = 16
    has_bitsandbytes: bool = True


def usable_memory(memory: int) -> int:
    """What of a device's memory is there for what `predicted` counts: of 4 GB 3.2."""
    return int(memory * (1 - FRAGMENTATION)) - FIXED_OVERHEAD


def choose_plan(work: Workload, asked: PlanRequest, room: int) -> Plan:
    """The first plan that fits, of those that train most, compute most at once and keep the most bits.

    Raises InputError where none does, and MissingError where one asked for needs bitsandbytes.
    """
    _require_bitsandbytes(asked)
    tried = list(_plans(work, asked))
    for plan in tried:
        if predict_peak(work, plan) <= room:
            return plan
    least = min(tried, key=lambda plan: predict_peak(work, plan))
    needed = (predict_peak(work, least) + FIXED_OVERHEAD) / (1 - FRAGMENTATION)
    given = (room + FIXED_OVERHEAD) / (1 - FRAGMENTATION)
    raise InputError(
        f"--memory: {given / 1e9:.1f} GB hold no training of this model; the least takes "
        f"{needed / 1e9 + 0.05:.1f} GB ({least}){_with_bitsandbytes(work, asked, room)}; {_advice(work, asked, room)}"
    )


def _require_bitsandbytes(asked: PlanRequest) -> None:
    if asked.weight_bits in (4, 8) and not asked.has_bitsandbytes:
        raise MissingError(
            f"--weight-bits {asked.weight_bits}: needs bitsandbytes; install it with: {INSTALL_BITSANDBYTES}"
        )


def _with_bitsandbytes(work: Workload, asked: PlanRequest, room: int) -> str:
    """What to say if bitsandbytes is not there and would help."""
    more = replace(asked, has_bitsandbytes=True)
    helps = not asked.has_bitsandbytes and any(predict_peak(work, plan) <= room for plan in _plans(work, more))
    return f", or less with bitsandbytes: {INSTALL_BITSANDBYTES}" if helps else ""


def _advice(work: Workload, asked: PlanRequest, room: int) -> str:
    """What would fit if the options did not rule it out, the best of it; else a smaller model."""
    free = replace(asked, train="lora" if asked.train == "lora" else None, weight_bits=None)
    fitting = next((plan for plan in _plans(work, free) if predict_peak(work, plan) <= room), None)
    if fitting is None:
        return "take a smaller --model"
    weight_bits = f" --weight-bits {fitting.weight_bits}" if fitting.weight_bits < 16 else ""
    return f"--train {fitting.train}{weight_bits} fits"


def _plans(work: Workload, asked: PlanRequest) -> Iterator[Plan]:
    most = min(work.batch * work.length, max(MAX_TOKENS_AT_ONCE[work.device], work.length))
    for kind in _kinds(work, asked):
        if not asked.checkpointing:
            # Fewer tokens at once cost less time than computing the layers twice, until they are too few.
            yield from (replace(kind, tokens=some) for some in _halves(most, work.length) if 4 * some >= most)
        yield from (replace(kind, tokens=some, checkpointing=True) for some in _halves(most, work.length))


def _kinds(work: Workload, asked: PlanRequest) -> Iterator[Plan]:
    """Plans that differ in what learns and in which bits, the best first."""
    if asked.train in (None, *TRAINABLE_PARTS[:3]) and asked.weight_bits in (None, 32):
        plan = Plan(train=asked.train or "full", precision=asked.precision)
        yield plan
        # Its gradients are in 16 bits before they could be shared.
        if asked.has_bitsandbytes and work.optimizer == "adam" and not work.is_shared:
            yield replace(plan, optimizer_bits=8)
    if asked.train in (None, "lora"):
        unquantized = 32 if asked.precision == "float32" else 16
        quantized = (8, 4) if asked.has_bitsandbytes else ()
        for bits in (asked.weight_bits,) if asked.weight_bits else (unquantized, *quantized):
            yield Plan(train="lora", precision=asked.precision, weight_bits=bits, lora_rank=asked.lora_rank)


def _halves(number: int, least: int) -> Iterator[int]:
    while number > least:
        yield number
        number = (number + 1) // 2
    yield least


def predict_peak(work: Workload, plan: Plan) -> int:
    """The peak of memory in a run by a plan, without what stands `OUTSIDE`: the largest of its moments."""
    return int(max(memory_by_phase(work, plan).values()))


def memory_by_phase(work: Workload, plan: Plan) -> dict[str, float]:
    """The moments at which memory may be at its peak, with what it takes then."""
    hyperparameters, learning = work.hyperparameters, _learning(work.hyperparameters, plan)
    vocabulary = 4 * hyperparameters.n_vocab * hyperparameters.n_embd if plan.train == "full" else 0
    kept = _KEPT_BY_GLIBC if work.device == "cpu" and not plan.saves_memory else 0
    fixed = kept + _WORKSPACE + _weights(hyperparameters, plan) + learning * _state_bytes(work, plan)
    gradients = learning * (2 if plan.optimizer_bits == 8 else 4)
    is_cpu = work.device == "cpu"
    is_split = work.accumulated * work.batch * work.length > _positions(work, plan)
    found = {
        "forward": fixed + is_split * gradients + _activations(work, plan, vocabulary),
        # At the end of the way back the embedding's two gradients, as input and as output, stand beside the others.
        "backward": fixed + gradients + (1 if plan.optimizer_bits == 8 else 1 + is_split) * vocabulary,
        "update": fixed + gradients + (vocabulary * (5.5 if is_cpu else 1) if plan.optimizer_bits == 8 else 0),
    }
    if is_cpu:  # where the weights are read to and copied for the disk; bitsandbytes' kernels are for CUDA, see above
        whole = 4 * _parameters(hyperparameters)
        found |= {"loading": whole + _weights(hyperparameters, plan), "saving": fixed + whole}
    return found


def _matrices(hyperparameters: Hyperparameters) -> int:
    """Parameters of one layer's matrices."""
    return 12 * hyperparameters.n_embd**2


def _parameters(hyperparameters: Hyperparameters) -> int:
    width = hyperparameters.n_embd
    layers = hyperparameters.n_layer * (_matrices(hyperparameters) + 13 * width)
    return layers + (hyperparameters.n_vocab + hyperparameters.n_ctx + 2) * width


def _learning(hyperparameters: Hyperparameters, plan: Plan) -> int:
    """How many parameters learn."""
    width, layer = hyperparameters.n_embd, _matrices(hyperparameters) + 13 * hyperparameters.n_embd
    return {
        "full": _parameters(hyperparameters),
        "layers": hyperparameters.n_layer * layer,
        "head": layer + 2 * width,
        "lora": hyperparameters.n_layer * _RANKS * plan.lora_rank * width,
    }[plan.train]


def _weights(hyperparameters: Hyperparameters, plan: Plan) -> float:
    matrices, words = (
        hyperparameters.n_layer * _matrices(hyperparameters),
        hyperparameters.n_vocab * hyperparameters.n_embd,
    )
    # bitsandbytes has a scale for each row of 8-bit weights, and for 64 of 4 bits one of 8 bits and a little.
    each = {32: 4.0, 16: 2.0, 8: 1 + 4 / hyperparameters.n_embd, 4: 0.5 + 1.02 / 64}[plan.weight_bits]
    of_words = 4 if plan.weight_bits == 32 or plan.precision == "float32" else 2
    adapters = 4 * _learning(hyperparameters, plan) if plan.train == "lora" else 0
    return matrices * each + words * of_words + 4 * (_parameters(hyperparameters) - matrices - words) + adapters


def _state_bytes(work: Workload, plan: Plan) -> float:
    """The optimizer's states of one parameter: two moments, of 8 bits with a scale for each 256."""
    if work.optimizer == "sgd":
        return 0
    return 2 + 8 / 256 if plan.optimizer_bits == 8 else 8


def _activations(work: Workload, plan: Plan, vocabulary: int) -> float:
    """What stands at the turn from forward to back: what the layers keep, and the last layer or the one behind it."""
    hyperparameters, number = work.hyperparameters, _number_bytes(plan)
    width = _positions(work, plan) * hyperparameters.n_embd
    inner = _INNER + (_QUANTIZED if plan.weight_bits < 16 and number == 2 else 0)
    a_layer = float(width * (4 * _RESIDUALS + number * inner))
    if plan.weight_bits == 32 and number == 2:
        a_layer += _matrices(hyperparameters) * number  # copies of the weights, kept for the way back
    passing = float(vocabulary + width * number * _ON_THE_WAY_BACK)
    if plan.weight_bits < 16:
        passing += _matrices(hyperparameters) / 3 * number  # the largest matrix, dequantized
    deep = 1 if plan.train == "head" else hyperparameters.n_layer
    if plan.checkpointing:
        return deep * 4 * width + max(_head(work, plan), a_layer + passing)
    return deep * a_layer + max(_head(work, plan), passing)


def _head(work: Workload, plan: Plan) -> float:
    """The last layer and its loss: slices of logits and of their gradients, those made of them, copies of weights."""
    hyperparameters, number = work.hyperparameters, _number_bytes(plan)
    words, tokens = hyperparameters.n_vocab * hyperparameters.n_embd, _positions(work, plan)
    copy = words * number if plan.weight_bits == 32 and number == 2 else 0
    made = words * (4 + number) if plan.train == "full" else 0
    logits = hyperparameters.n_vocab * (ROWS_AT_ONCE * (4 + number) + min(tokens, ROWS_TOGETHER) * number)
    return logits + copy + made + tokens * hyperparameters.n_embd * (8 + 2 * number)


def _positions(work: Workload, plan: Plan) -> int:
    """The most that are computed at once."""
    return plan.rows(work.batch, work.length) * work.length


def _number_bytes(plan: Plan) -> int:
    return 4 if plan.precision == "float32" else 2
