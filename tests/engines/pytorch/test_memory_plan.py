import logging
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from redditgen.engines.pytorch import planning
from redditgen.engines.pytorch.memory_plan import (
    TRAINABLE_PARTS,
    Plan,
    PlanRequest,
    Workload,
    choose_plan,
    memory_by_phase,
    predict_peak,
    usable_memory,
)
from redditgen.errors import InputError, MissingError, UsageError
from redditgen.finetune.command import finetune
from redditgen.gpt2.hyperparameters import Hyperparameters
from redditgen.gpt2.model_dir import ModelDir
from redditgen.settings.options import parse_byte_count
from tests.engines.pytorch.test_training import batch, training
from tests.support.fixture_types import Redditgen, Settings
from tests.support.paths import ROOT
from tests.support.tiny_model import random_tensors

SIZES = {"124M": (768, 12, 12), "355M": (1024, 16, 24), "774M": (1280, 20, 36), "1558M": (1600, 25, 48)}
GB = 1_000_000_000


def work(name: str, **changes: Any) -> Workload:
    width, heads, layers = SIZES[name]
    return replace(Workload(Hyperparameters(50257, 1024, width, heads, layers), batch=32, length=64), **changes)


@pytest.mark.parametrize("name", SIZES)
def test_every_gpt_2_trains_on_a_card_of_4_gb_in_either_precision(name: str) -> None:
    for precision in ("bfloat16", "float16"):
        plan = choose_plan(work(name), PlanRequest(precision), usable_memory(4 * GB))
        assert predict_peak(work(name), plan) <= 3.2 * GB
        assert plan.precision == precision
        assert (plan.train, plan.optimizer_bits) == {"124M": ("full", 32), "355M": ("full", 8)}.get(name, ("lora", 32))


def test_4_gb_leave_3_2_for_tensors() -> None:
    assert usable_memory(4 * GB) == pytest.approx(3.2 * GB)


def test_with_room_for_all_nothing_is_given_up() -> None:
    plan = choose_plan(work("1558M"), PlanRequest("float32"), 200 * GB)
    assert plan == Plan(train="full", tokens=2048, precision="float32")


def test_less_memory_never_trains_more() -> None:
    """What learns, then the bits of what does not, then the tokens at once, go down with the memory."""
    ranks = []
    for tenths in range(120, 12, -2):
        try:
            plan = choose_plan(work("355M"), PlanRequest("bfloat16"), usable_memory(tenths * GB // 10))
        except InputError:
            break
        ranks.append((plan.train == "full", plan.optimizer_bits, plan.weight_bits, -plan.checkpointing, plan.tokens))
    assert ranks == sorted(ranks, reverse=True)
    assert len(set(ranks)) > 8


def test_a_plan_keeps_to_what_is_asked() -> None:
    for train, checkpointing, bits in product((None, *TRAINABLE_PARTS), (False, True), (None, 4)):
        if bits and train not in (None, "lora"):
            continue
        asked = PlanRequest("bfloat16", train=train, checkpointing=checkpointing, weight_bits=bits, lora_rank=3)
        plan = choose_plan(work("124M"), asked, usable_memory(8 * GB))
        assert plan.train == (train or ("lora" if bits else "full"))
        assert plan.checkpointing >= checkpointing
        assert plan.weight_bits == (bits or (16 if train == "lora" else 32))
        assert plan.lora_rank == (3 if plan.train == "lora" else 16)


def test_more_of_anything_takes_more() -> None:
    plan, small = Plan(tokens=512, precision="bfloat16"), work("124M")
    least = predict_peak(small, plan)
    for heavier in (replace(small, length=1024), replace(small, hyperparameters=work("355M").hyperparameters)):
        assert predict_peak(heavier, plan) > least
    assert predict_peak(small, replace(plan, tokens=1024)) > least
    for lighter in (
        replace(plan, checkpointing=True),
        replace(plan, optimizer_bits=8),
        replace(plan, train="layers"),
        replace(plan, train="head"),
    ):
        assert predict_peak(small, lighter) < least
    assert predict_peak(replace(small, optimizer="sgd"), plan) < least


def test_weights_gradients_and_states_are_counted_to_the_parameter() -> None:
    """Of 124M: 124,439,808 parameters of 4 bytes, and as many gradients and states."""
    parameters = 124_439_808
    one_token = replace(work("124M"), batch=1, length=1)
    by_hand = 16 * parameters + 4 * 50257 * 768
    assert memory_by_phase(one_token, Plan())["backward"] == pytest.approx(by_hand, rel=0.01)
    light = memory_by_phase(one_token, Plan(optimizer_bits=8))["update"]
    assert light == pytest.approx((4 + 2 + 2 + 8 / 256) * parameters + 4 * 50257 * 768, rel=0.02)


@pytest.mark.parametrize("has_bitsandbytes", [True, False])
def test_what_fits_nowhere_says_what_would_be_needed(has_bitsandbytes: bool) -> None:
    asked = PlanRequest("bfloat16", has_bitsandbytes=has_bitsandbytes)
    with pytest.raises(
        InputError, match=r"^--memory: 1\.0 GB hold no training of this model; the least takes"
    ) as error:
        choose_plan(work("1558M"), asked, usable_memory(GB))
    needed = float(str(error.value).partition("takes ")[2].partition(" GB")[0])
    assert predict_peak(
        work("1558M"), choose_plan(work("1558M"), asked, usable_memory(int(needed * GB)))
    ) <= usable_memory(int(needed * GB))
    with pytest.raises(InputError):
        choose_plan(work("1558M"), asked, usable_memory(int((needed - 0.15) * GB)))
    assert "\n" not in str(error.value)


def test_without_bitsandbytes_its_command_is_named_where_it_would_help() -> None:
    asked = PlanRequest("bfloat16", has_bitsandbytes=False)
    with pytest.raises(InputError, match=r"or less with bitsandbytes: pip install 'bitsandbytes>=0\.49'"):
        choose_plan(work("1558M"), asked, usable_memory(3 * GB))
    with pytest.raises(MissingError, match=r"^--weight-bits 4: needs bitsandbytes; install it with: pip install"):
        choose_plan(work("1558M"), replace(asked, weight_bits=4), usable_memory(30 * GB))


@pytest.mark.parametrize(
    ("given", "memory", "advice"),
    [
        ({"train": "full"}, 8.0, "--train lora fits"),
        ({"train": "layers"}, 4.0, "--train lora --weight-bits 8 fits"),
        ({"train": "full", "weight_bits": 32}, 4.0, "--train lora --weight-bits 8 fits"),
        ({"train": "lora", "weight_bits": 16}, 4.0, "--train lora --weight-bits 8 fits"),
        ({"train": "lora", "weight_bits": 16}, 2.4, "--train lora --weight-bits 4 fits"),
        ({"train": "lora", "weight_bits": 16}, 1.0, "take a smaller --model"),
        ({}, 1.0, "take a smaller --model"),
    ],
)
def test_where_the_options_leave_no_plan_those_are_named_that_would(
    given: dict[str, Any], memory: float, advice: str
) -> None:
    with pytest.raises(InputError, match=rf"\); {advice}$"):
        choose_plan(work("1558M"), replace(PlanRequest("bfloat16"), **given), usable_memory(int(memory * GB)))


def test_a_lighter_plan_halves_the_records_and_then_computes_twice() -> None:
    steps = []
    lighter = Plan().lighter(rows=5, length=10)
    while lighter:
        steps.append((lighter.tokens, lighter.checkpointing))
        lighter = lighter.lighter(rows=5, length=10)
    assert steps == [(30, False), (20, False), (10, False), (10, True)]


def test_a_record_of_many_tokens_takes_none_of_the_others_along() -> None:
    """Rows are counted by their own length, and one is computed whatever its length."""
    plan = Plan(tokens=2048)
    assert [plan.rows(32, length) for length in (20, 64, 65, 369, 1024, 4096)] == [32, 32, 31, 5, 2, 1]
    assert Plan().rows(32, 1024) == 32


def test_no_more_is_computed_at_once_than_makes_it_faster() -> None:
    assert choose_plan(work("124M", length=512, device="cpu"), PlanRequest("float32"), 200 * GB).tokens == 2048
    assert (
        choose_plan(work("124M", length=1024, batch=1, device="cpu"), PlanRequest("float32"), 200 * GB).tokens == 1024
    )


@pytest.mark.parametrize(
    ("text", "count"),
    [("4GB", 4 * GB), ("1.5 GiB", 1610612736), ("500m", 500_000_000), ("1000", 1000), ("7B", 7), ("2tb", 2 * 10**12)],
)
def test_amounts_are_read(text: str, count: int) -> None:
    assert parse_byte_count("--memory", text) == count


@pytest.mark.parametrize("text", ["", "much", "GB", "-1GB", "0", "4 G B", "4ib", "4 Gbit", "1e9", "1,5GB", "٥GB"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--memory must be an amount like 4GB"):
        parse_byte_count("--memory", text)


def test_the_plan_is_said_before_the_first_step(finetuning: Settings, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        finetune(finetuning(memory="4GB"))
    lines = [record.getMessage() for record in caplog.records]
    [plan] = [line for line in lines if line.startswith("plan: ")]
    assert plan == "plan: full, 224 tokens at once, float32; at most 0.6 GB of 4.0 GB by --memory"
    assert lines.index(plan) < next(number for number, line in enumerate(lines) if line.startswith("[0 |"))


def test_a_plan_of_fewer_records_at_once_makes_the_same_run(
    finetuning: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, split = finetuning(run="usual"), finetuning(run="split")
    finetune(usual)
    chosen_plan = planning.plan_for_job
    monkeypatch.setattr(planning, "plan_for_job", lambda *given: replace(chosen_plan(*given), tokens=60))
    finetune(split)
    losses = [
        [report.loss for report in ModelDir(settings.checkpoint_dir / settings.run).metrics.reports()][1:]
        for settings in (usual, split)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory": "lots"}, "--memory must be an amount like 4GB, not 'lots'"),
        ({"train": "half"}, "--train must be auto or full or layers or head or lora, not 'half'"),
        ({"weight_bits": 3}, "--weight-bits must be 4, 8, 16 or 32, not 3"),
        ({"lora_rank": 0, "train": "lora"}, "--lora-rank must be 1 or more, not 0"),
        ({"lora_rank": 8, "train": "full"}, "--lora-rank is for --train lora"),
        ({"weight_bits": 8, "train": "head"}, "--weight-bits is for --train lora"),
        ({"train": "full", "only_train_transformer_layers": True}, "is --train layers; leave out --train full"),
        ({"train": "lora", "engine": "gpt-2-simple"}, "gpt-2-simple trains full or layers"),
        ({"memory": "4GB", "engine": "gpt-2-simple"}, "gpt-2-simple trains full or layers"),
    ],
)
def test_options_that_make_no_plan_are_refused(finetuning: Settings, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        finetuning(**changes)
    assert message in str(error.value)


@pytest.mark.slow
def test_too_little_memory_is_one_line_and_leaves_nothing_behind(
    redditgen: Redditgen, dataset: Path, model_dir: Path, tmp_path: Path
) -> None:
    done = redditgen("finetune", dataset, "--model=tiny", "--model-dir", model_dir, "--memory=400MB")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("redditgen: --memory: 0.4 GB hold no training of this model; the least takes 0.6 GB (")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "checkpoint").exists()


OUT_OF_MEMORY = """
import logging, resource, sys
sys.path.insert(0, sys.argv[1])
from functools import partial
from pathlib import Path
import torch
from tests.support.tiny_model import random_tensors
from redditgen.engines.pytorch.memory_plan import Plan
from redditgen.engines.pytorch.training import Training
from redditgen.gpt2.hyperparameters import Hyperparameters

logging.basicConfig(level=logging.WARNING, format="%(message)s")
hyperparameters = Hyperparameters(340, 256, 64, 2, 6)
tokens = torch.arange(64 * 257).reshape(64, 257) % 340
batch = tokens[:, :-1], tokens[:, 1:]

def training(plan):
    return Training(hyperparameters, partial(random_tensors, hyperparameters), rate=1e-3, end=10, plan=plan)

wanted = [training(Plan(tokens=8 * 256)).step(1, batch)]
limited = training(Plan())
limited.step(1, (batch[0][:1], batch[1][:1]))
[line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmSize")]
room = int(line.split()[1]) * 1024 + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (room, room))
found = training(Plan())
losses = [found.step(1, batch)]
assert abs(losses[0] - wanted[0]) < 1e-5, (losses, wanted)
print(found.plan)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory so")
def test_where_memory_runs_out_the_same_step_goes_on_with_less_at_once() -> None:
    """A real limit: 150 MB more than the process has, where all rows at once take some 700 MB."""
    done = out_of_memory(150_000_000)
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert said[0] == (
        "memory ran out with full, all of a batch at once, float32; going on with full, 8192 tokens at once, float32"
    )
    assert f"going on with {done.stdout.strip()}" in said[-1]


def test_where_there_is_no_memory_for_one_record_the_error_says_what_to_do(
    hyperparameters: Hyperparameters, caplog: pytest.LogCaptureFixture
) -> None:
    trained, before = training(hyperparameters), random_tensors(hyperparameters)

    def run_out(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    cast("torch.nn.Module", trained.model).register_forward_pre_hook(run_out)
    cast("torch.nn.Module", trained.model.transformer).register_forward_pre_hook(run_out)
    with pytest.raises(
        InputError, match=r"^memory ran out with one record at a time and the layers computed twice; pass"
    ):
        trained.step(1, batch(0, hyperparameters))
    assert [record.getMessage().partition("going on with ")[2] for record in caplog.records] == [
        "full, 22 tokens at once, float32",
        "full, 11 tokens at once, float32",
        "full, 11 tokens at once, float32, layers computed twice",
    ]
    assert all((tensor == before[name]).all() for name, tensor in trained.tensors().items())


def test_other_errors_are_not_taken_for_a_lack_of_memory(hyperparameters: Hyperparameters) -> None:
    trained = training(hyperparameters)
    inputs, targets = batch(0, hyperparameters)
    with pytest.raises(IndexError, match="out of range"):
        trained.step(1, (inputs + hyperparameters.n_vocab, targets))
    assert trained.plan == Plan()


def out_of_memory(more: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY, str(ROOT), str(more)],
        capture_output=True,
        text=True,
        timeout=200,
    )
