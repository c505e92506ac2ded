import csv
import json
import logging
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redditgen.errors import InputError, Interrupted, MissingError, OutputExists, RedditgenError, UsageError
from redditgen.finetune.command import finetune
from redditgen.gpt2.formats import hugging_face
from redditgen.gpt2.model_dir import ModelDir
from redditgen.settings import FinetuneSettings
from redditgen.titles.record import END_TOKEN, START_TOKEN, Record, build, parse
from redditgen.titles.record_reader import read_records
from redditgen.titles.splits import is_held_out
from tests.support.fixture_types import Settings

KEYS = [
    "step", "loss", "val_loss", "val_bits_per_char", "tokens", "seconds", "lr", "tokens_per_second",
    "titles_per_second", "memory_bytes",
]  # fmt: skip


def run_of(settings: FinetuneSettings) -> ModelDir:
    return ModelDir(settings.checkpoint_dir / settings.run)


def metrics(run: ModelDir) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text(encoding="utf8").splitlines()]


def learned(run: ModelDir) -> tuple[object, ...]:
    """What two runs must have in common to be the same one: step, weights, optimizer and losses, bit for bit."""
    losses = [(line["step"], line["loss"], line["val_loss"], line["val_bits_per_char"]) for line in metrics(run)]
    tensors = {name: tensor.tobytes() for name, tensor in (run.tensors() | run.optimizer_state()).items()}
    return run.step(), losses, tensors


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_holds_the_files_of_gpt_2_simple_and_a_few_of_ours(finetuning: Settings, tiny: ModelDir) -> None:
    settings = finetuning()
    assert finetune(settings) == 6
    run = run_of(settings)
    assert sorted(name for name in content(run.path) if not name.startswith("events.out.tfevents.")) == [
        "begun.meta.json", "checkpoint", "counter", "encoder.json", "finetune.meta.json", "hparams.json",
        "metrics.jsonl", "model-6.data-00000-of-00001", "model-6.index", "optimizer-6.safetensors", "redditgen.json",
        "training_titles.npz", "vocab.bpe",
    ]  # fmt: skip
    assert (run.path / "checkpoint").read_text(encoding="utf8").startswith('model_checkpoint_path: "model-6"\n')
    assert (run.path / "counter").read_text(encoding="utf8") == "6\n"
    for name in ("hparams.json", "encoder.json", "vocab.bpe"):
        assert (run.path / name).read_bytes() == (tiny.path / name).read_bytes()
    run_info = run.run_info()
    assert (run_info.record_tokens, run_info.model, run_info.sections) == (
        "compact",
        "tiny",
        ("category", "keywords", "title"),
    )
    assert run_info.categories == {"cats": 160, "dogs": 160}


def test_the_base_model_is_left_as_it_is(finetuning: Settings, tiny: ModelDir) -> None:
    before = content(tiny.path)
    finetune(finetuning())
    assert content(tiny.path) == before


def test_each_report_is_a_line_with_every_key(finetuning: Settings) -> None:
    settings = finetuning(steps=7, print_every=3, val_every=2, learning_rate=0.01)
    finetune(settings)
    lines = metrics(run_of(settings))
    assert [list(line) for line in lines] == [KEYS] * len(lines)
    assert [line["step"] for line in lines] == [0, 2, 3, 4, 6, 7]
    assert [line["step"] for line in lines if line["val_loss"] is not None] == [0, 2, 4, 6, 7]
    assert [line["step"] for line in lines if line["loss"] is None] == [0]
    assert all((line["val_loss"] is None) == (line["val_bits_per_char"] is None) for line in lines)
    assert lines[2]["lr"] == pytest.approx(0.01 * 3 / 20)
    tokens, seconds = [line["tokens"] for line in lines], [line["seconds"] for line in lines]
    assert (tokens[0], sorted(set(tokens)), sorted(seconds)) == (0, tokens, seconds)


def test_a_loss_is_the_mean_since_the_report_before(finetuning: Settings) -> None:
    each, every_third = finetuning(run="each"), finetuning(run="third", print_every=3)
    finetune(each)
    finetune(every_third)
    losses = [line["loss"] for line in metrics(run_of(each))][1:]
    wanted = [sum(losses[:3]) / 3, sum(losses[3:]) / 3]
    assert [line["loss"] for line in metrics(run_of(every_third))][1:] == [pytest.approx(loss) for loss in wanted]


def test_each_epoch_holds_the_same_records_in_another_order(finetuning: Settings, dataset: Path) -> None:
    """With steps too small to learn anything, a batch's loss says what is in it."""
    kept = sum(not is_held_out(record.title or "", 0.1, 0) for record in read_records(dataset))
    epoch = -(-kept // 8)
    settings = finetuning(steps=2 * epoch, learning_rate=1e-12)
    finetune(settings)
    lines = metrics(run_of(settings))
    tokens = np.diff([line["tokens"] for line in lines])
    losses = np.array([line["loss"] for line in lines[1:]]) * tokens
    assert tokens[:epoch].sum() == tokens[epoch:].sum()
    assert losses[:epoch].sum() == pytest.approx(losses[epoch:].sum(), rel=1e-5)
    assert losses[:epoch].tolist() != pytest.approx(losses[epoch:].tolist(), rel=1e-4)


def test_a_run_learns(checkpoint_dir: Path) -> None:
    lines = metrics(ModelDir(checkpoint_dir / "trained"))
    assert lines[-1]["val_loss"] < lines[0]["val_loss"] / 3
    assert lines[-1]["val_bits_per_char"] < lines[0]["val_bits_per_char"] / 3
    assert lines[-1]["loss"] < lines[1]["loss"] / 3


def test_no_title_is_on_both_sides_of_the_split(
    finetuning: Settings, titles: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    held_out = [title for title in titles if is_held_out(title, 0.1, seed=0)]
    assert 5 < len(held_out) < 30
    assert held_out != [title for title in titles if is_held_out(title, 0.1, seed=1)]
    with caplog.at_level(logging.INFO):
        finetune(finetuning())
    kept = len(titles) - len(held_out)
    assert f"{2 * kept} records to train on, {2 * len(held_out)} held out" in caplog.text


def test_what_is_learned_says_nothing_about_the_held_out_titles(finetuning: Settings, tmp_path: Path) -> None:
    """Other held-out titles, same weights: they are not trained on."""
    settings = finetuning()
    without = tmp_path / "without.txt"
    kept = [record for record in read_records(settings.dataset) if not is_held_out(record.title or "", 0.1, 0)]
    without.write_text("".join(build(record) + "\n" for record in kept), encoding="utf8")
    finetune(settings)
    finetune(replace(settings, dataset=without, run="without"))
    assert learned(run_of(settings))[2] == learned(run_of(replace(settings, run="without")))[2]


def test_the_same_settings_make_the_same_run_and_another_seed_another(finetuning: Settings) -> None:
    first, second, other = finetuning(run="a"), finetuning(run="b"), finetuning(run="c", seed=1)
    for settings in (first, second, other):
        finetune(settings)
    assert learned(run_of(first)) == learned(run_of(second))
    assert learned(run_of(first))[2] != learned(run_of(other))[2]


def test_a_negative_seed_is_a_seed_or_is_refused(finetuning: Settings) -> None:
    try:
        assert finetune(finetuning(seed=-1)) == 6
    except UsageError as error:
        assert "--seed" in str(error)


def test_steps_made_in_two_commands_are_those_of_one(finetuning: Settings) -> None:
    """Across the end of an epoch, and with the learning rate of the whole."""
    whole, halves = finetuning(run="whole", steps=80), finetuning(run="halves", steps=80, save_every=50)
    finetune(whole)
    with pytest.raises(Interrupted):
        interrupted_at(50, halves)
    assert finetune(halves) == 80
    assert learned(run_of(halves)) == learned(run_of(whole))


class _AtStep(logging.Handler):
    """Raises a signal when a step is reported."""

    def __init__(self, step: int, number: signal.Signals) -> None:
        super().__init__()
        self.step, self.number = step, number

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith(f"[{self.step} |"):
            signal.raise_signal(self.number)


def interrupted_at(step: int, settings: FinetuneSettings, number: signal.Signals = signal.SIGINT) -> None:
    """Finetune with a signal that comes while a step is being reported."""
    logger, handler = logging.getLogger("redditgen"), _AtStep(step, number)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        finetune(settings)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_an_interruption_says_to_be_saved_is_saved(
    finetuning: Settings, hangup: None, number: signal.Signals
) -> None:
    settings, handler_before = finetuning(save_every=0), signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"saved at step \d") as raised:
        interrupted_at(3, settings, number)
    step = run_of(settings).step()
    assert f"step {step};" in str(raised.value)
    assert 3 <= step < 6
    assert [line["step"] for line in metrics(run_of(settings))] == list(range(step + 1))
    assert finetune(settings) == 6
    assert signal.getsignal(number) is handler_before


def test_an_interruption_names_the_way_on_also_after_a_fresh_start(finetuning: Settings) -> None:
    """The same command would start anew."""
    with pytest.raises(Interrupted, match=r"saved at step \d; --restore-from latest goes on from there"):
        interrupted_at(3, finetuning(restore_from="fresh"))


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_command_ends_as_if_nothing_had_happened(finetuning: Settings) -> None:
    settings = finetuning(steps=400)
    said = []
    with subprocess.Popen(command_line(settings), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr and process.stdout
        for line in process.stderr:
            said.append(line)
            if line.startswith("[5 |"):
                process.send_signal(signal.SIGINT)
        assert process.stdout.read() == ""
    run = run_of(settings)
    assert process.returncode == 130
    assert 5 <= run.step() < 400
    assert said[-1] == f"redditgen: {run.path}: saved at step {run.step()}; the same command goes on from there\n"
    assert not any("Traceback" in line for line in said)
    assert finetune(settings) == 400
    finetune(replace(settings, run="uninterrupted"))
    assert learned(run) == learned(run_of(replace(settings, run="uninterrupted")))


def command_line(settings: FinetuneSettings) -> list[str]:
    options = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in asdict(settings).items()
        if name != "dataset" and value is not None and not isinstance(value, bool)
    ]
    return [sys.executable, "-m", "redditgen", "finetune", str(settings.dataset), *options]


def test_a_killed_run_goes_on_from_its_last_checkpoint(finetuning: Settings) -> None:
    """Reports after the checkpoint, and a line cut in two, are of steps that come again."""
    settings = finetuning(steps=8, save_every=5)
    finetune(replace(settings, run="whole"))
    with pytest.raises(Interrupted):
        interrupted_at(4, settings)
    with (run_of(settings).path / "metrics.jsonl").open("a", encoding="utf8") as file:
        file.write('{"step": 6, "loss": 1.0}\n{"step": 7, "lo')
    assert finetune(settings) == 8
    assert learned(run_of(settings)) == learned(run_of(replace(settings, run="whole")))


def test_a_finished_run_is_left_as_it_is(finetuning: Settings, caplog: pytest.LogCaptureFixture) -> None:
    settings = finetuning()
    finetune(settings)
    before = content(settings.checkpoint_dir)
    with caplog.at_level(logging.INFO):
        assert finetune(replace(settings, dataset=Path("gone.txt"))) == 6
        assert finetune(replace(settings, steps=2)) == 6
    assert content(settings.checkpoint_dir) == before
    assert "run run1 is already at step 6; --more N goes on" in caplog.text


def test_more_steps_are_added_to_those_there_are(finetuning: Settings) -> None:
    settings = finetuning(more=2)
    assert finetune(settings) == 2
    assert finetune(settings) == 4
    assert [line["step"] for line in metrics(run_of(settings))] == [0, 1, 2, 3, 4]
    assert sorted(path.name for path in run_of(settings).path.glob("model-*")) == [
        "model-4.data-00000-of-00001",
        "model-4.index",
    ]


def test_a_fresh_start_keeps_a_run_that_is_there_unless_told_otherwise(finetuning: Settings) -> None:
    settings = finetuning(restore_from="fresh")
    finetune(settings)
    first, before = learned(run_of(settings)), content(settings.checkpoint_dir)
    with pytest.raises(OutputExists, match=r"run run1 already exists; --restore-from latest .* --overwrite .* --run"):
        finetune(settings)
    assert content(settings.checkpoint_dir) == before
    assert finetune(replace(settings, steps=4, overwrite=True)) == 4
    assert learned(run_of(settings))[0] == 4
    assert finetune(replace(settings, overwrite=True)) == 6
    assert learned(run_of(settings)) == first


def test_a_failed_replacement_leaves_the_run(finetuning: Settings) -> None:
    settings = finetuning(restore_from="fresh", overwrite=True)
    finetune(settings)
    before = content(settings.checkpoint_dir)
    for changes in ({"model": "none"}, {"dataset": Path("gone.txt")}):
        with pytest.raises(MissingError):
            finetune(replace(settings, **changes))
    assert content(settings.checkpoint_dir) == before


def test_a_folder_that_is_no_run_is_not_emptied(finetuning: Settings) -> None:
    settings = finetuning(run="notes")
    notes = settings.checkpoint_dir / "notes" / "mine.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("keep", encoding="utf8")
    try:
        finetune(settings)
    except RedditgenError as error:
        assert "notes" in str(error)
    assert notes.read_text(encoding="utf8") == "keep"


def test_a_base_model_taken_for_a_run_is_not_destroyed(finetuning: Settings, tiny: ModelDir, tmp_path: Path) -> None:
    shutil.copytree(tiny.path, tmp_path / "models/tiny")
    before = content(tmp_path / "models")
    try:
        finetune(finetuning(checkpoint_dir=tmp_path / "models", run="tiny"))
    except RedditgenError as error:
        assert "tiny" in str(error)
    after = content(tmp_path / "models")
    assert {name: after.get(name) for name in before if name != "tiny/checkpoint"} == {
        name: text for name, text in before.items() if name != "tiny/checkpoint"
    }


def test_a_checkpoint_of_another_model_is_refused_and_kept(finetuning: Settings) -> None:
    settings = finetuning()
    finetune(settings)
    run = run_of(settings)
    replace(run.hyperparameters(), n_embd=64).save(run.path / "hparams.json")
    before = content(run.path)
    with pytest.raises(InputError, match=rf"^{run.path}/model-6.index: model/wte is .*hparams.json asks for") as error:
        finetune(replace(settings, more=1))
    assert "\n" not in str(error.value)
    assert content(run.path) == before


@pytest.mark.parametrize("name", ["..", ".", "a/b", "/tmp", ""])
def test_a_run_is_a_folder_in_its_folder(finetuning: Settings, name: str) -> None:
    with pytest.raises(UsageError, match="--run must be a plain folder name"):
        finetuning(run=name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine": "gpt2-simple"}, "--engine must be torch or gpt-2-simple, not 'gpt2-simple'"),
        ({"optimizer": "adamw"}, "--optimizer must be adam or sgd, not 'adamw'"),
        ({"record_tokens": "none"}, "--record-tokens must be compact or literal, not 'none'"),
        ({"window": 1}, "--window must be 2 or more, not 1"),
        ({"batch_size": 0}, "--batch-size must be 1 or more, not 0"),
        ({"accumulate_gradients": 0}, "--accumulate-gradients must be 1 or more, not 0"),
        ({"max_checkpoints": -1}, "--max-checkpoints must be 0 or more, not -1"),
        ({"combine": 0}, "--combine must be 1 or more, not 0"),
    ],
)
def test_a_setting_out_of_range_is_named(finetuning: Settings, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}$"):
        finetuning(**changes)


def test_a_run_keeps_its_record_tokens_and_its_model(finetuning: Settings) -> None:
    settings = finetuning(record_tokens="literal")
    finetune(settings)
    with pytest.raises(UsageError, match=r"--record-tokens: run run1 has literal ones and keeps them"):
        finetune(replace(settings, record_tokens="compact", more=2))
    with pytest.raises(UsageError, match=r"--model: run run1 began from tiny; start another run for 124M"):
        finetune(replace(settings, model="124M", more=2))
    assert finetune(replace(settings, record_tokens=None, model=None, more=2)) == 8
    assert run_of(settings).run_info().record_tokens == "literal"


def test_literal_records_have_more_tokens(finetuning: Settings) -> None:
    compact, literal = finetuning(run="compact"), finetuning(run="literal", record_tokens="literal")
    finetune(compact)
    finetune(literal)
    tokens = [metrics(run_of(settings))[-1]["tokens"] for settings in (compact, literal)]
    assert tokens[0] < tokens[1]


def test_a_run_without_our_mark_goes_on_with_literal_tokens(finetuning: Settings) -> None:
    """As one made by gpt-2-simple, which saves no optimizer state either."""
    settings = finetuning(record_tokens="literal")
    finetune(settings)
    for name in ("redditgen.json", "optimizer-6.safetensors", "metrics.jsonl"):
        (run_of(settings).path / name).unlink()
    with pytest.raises(UsageError, match="has literal ones"):
        finetune(replace(settings, record_tokens="compact", more=2))
    assert finetune(replace(settings, record_tokens=None, model=None, more=2)) == 8
    assert run_of(settings).run_info().sections == ("category", "keywords", "title")
    assert [line["step"] for line in metrics(run_of(settings))] == [7, 8]


def test_batches_of_a_step_are_those_of_so_many_steps(finetuning: Settings) -> None:
    """At a rate too small to learn anything, a step of two batches has the mean loss of two steps of one."""
    one, two = (
        finetuning(run=str(number), steps=steps, accumulate_gradients=number, learning_rate=1e-12)
        for number, steps in ((1, 40), (2, 20))
    )
    for settings in (one, two):
        finetune(settings)
    lines, pairs = (metrics(run_of(settings))[1:] for settings in (one, two))
    tokens = np.diff([0] + [line["tokens"] for line in lines])
    nats = tokens * [line["loss"] for line in lines]
    assert [line["tokens"] for line in pairs] == [line["tokens"] for line in lines[1::2]]
    wanted = nats.reshape(-1, 2).sum(1) / tokens.reshape(-1, 2).sum(1)
    assert [line["loss"] for line in pairs] == pytest.approx(wanted.tolist(), rel=1e-5)


@pytest.fixture
def plain_text(titles: list[str], tmp_path: Path) -> Path:
    path = tmp_path / "plain.txt"
    path.write_text("".join(f"{title}\n" for title in titles), encoding="utf8")
    return path


@pytest.mark.parametrize("kind", ["records", "windows"])
@pytest.mark.parametrize("changes", [{}, {"accumulate_gradients": 2}, {"optimizer": "sgd", "learning_rate": 0.1}])
def test_whatever_is_learned_two_commands_are_one(
    finetuning: Settings, plain_text: Path, kind: str, changes: dict[str, Any]
) -> None:
    """Of records across the end of an epoch, which is at step 18 with two batches a step."""
    given = changes | ({"dataset": plain_text, "window": 24} if kind == "windows" else {})
    whole, halves = finetuning(run="whole", steps=24, **given), finetuning(run="halves", steps=24, **given)
    finetune(whole)
    for step in (5, 19):
        with pytest.raises(Interrupted):
            interrupted_at(step, halves)
    assert finetune(halves) == 24
    assert learned(run_of(halves)) == learned(run_of(whole))


def test_plain_text_is_learned_in_windows(
    finetuning: Settings, plain_text: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = finetuning(dataset=plain_text, window=24, steps=60, learning_rate=0.02, print_every=20, sample_every=60)
    with caplog.at_level(logging.INFO):
        finetune(settings)
    run, lines = run_of(settings), metrics(run_of(settings))
    assert [line["tokens"] for line in lines] == [0, 20 * 8 * 23, 40 * 8 * 23, 60 * 8 * 23]
    assert lines[-1]["val_loss"] < lines[0]["val_loss"] / 2
    assert lines[-1]["val_bits_per_char"] < lines[0]["val_bits_per_char"] / 2
    assert (run.run_info().record_tokens, run.run_info().sections, run.run_info().categories) == ("none", (), {})
    assert "plain.txt: holds no record, so it is learned as plain text" in caplog.text
    sample = (settings.sample_dir / "run1/samples-60").read_text(encoding="utf8")
    assert len(sample) > 40
    assert START_TOKEN not in sample


def test_the_window_and_the_seed_make_another_run_of_plain_text(finetuning: Settings, plain_text: Path) -> None:
    usual = finetuning(dataset=plain_text, window=24)
    runs = [usual, *(replace(usual, run=name, **changes) for name, changes in WINDOWS.items())]
    for settings in runs:
        finetune(settings)
    weights = [learned(run_of(settings))[2] for settings in runs]
    assert weights[0] == weights[1]
    assert weights[0] not in weights[2:]
    assert len({metrics(run_of(settings))[0]["val_loss"] for settings in runs[:2]}) == 1


WINDOWS: dict[str, dict[str, Any]] = {"same": {}, "seed": {"seed": 1}, "window": {"window": 23}}


def test_a_run_of_records_never_goes_on_with_plain_text_nor_the_other_way(
    finetuning: Settings, plain_text: Path
) -> None:
    records_first, plain_first = finetuning(run="records"), finetuning(run="plain", dataset=plain_text, window=24)
    for settings in (records_first, plain_first):
        finetune(settings)
    before = content(records_first.checkpoint_dir)
    with pytest.raises(UsageError, match=r"plain\.txt: is plain text, which run records never saw; start another run"):
        finetune(replace(records_first, dataset=plain_text, more=2))
    with pytest.raises(UsageError, match=r"titles_encoded\.txt: is records, which run plain never saw"):
        finetune(replace(plain_first, dataset=records_first.dataset, more=2))
    assert content(records_first.checkpoint_dir) == before


def test_a_run_of_plain_text_has_no_record_tokens_to_contradict(finetuning: Settings, plain_text: Path) -> None:
    """Given on the command line, they mean nothing, each time."""
    settings = finetuning(dataset=plain_text, window=24, record_tokens="compact")
    finetune(settings)
    assert finetune(replace(settings, more=2)) == 8


def test_a_table_of_titles_is_learned_as_records_without_marks(
    finetuning: Settings, titles: list[str], tmp_path: Path
) -> None:
    table = tmp_path / "titles.csv"
    table.write_text("title\n" + "".join(f'"{title}"\n' for title in titles), encoding="utf8")
    settings = finetuning(dataset=table, steps=60, learning_rate=0.02, sample_every=60, sample_num=4, batch_size=32)
    finetune(settings)
    run_info = run_of(settings).run_info()
    assert (run_info.record_tokens, run_info.sections, run_info.categories) == ("compact", (), {})
    lines = (settings.sample_dir / "run1/samples-60").read_text(encoding="utf8").splitlines()
    found = [record for line in lines if (record := parse(line))]
    assert len(found) > 1
    assert not any(record.has_sections for record in found)
    assert all((record.title or "").startswith("My ") for record in found)


def test_only_the_layers_of_a_run_change_where_only_they_shall(finetuning: Settings, tiny: ModelDir) -> None:
    settings = finetuning(only_train_transformer_layers=True, memory_saving_gradients=True)
    finetune(settings)
    before, after = tiny.tensors(), run_of(settings).tensors()
    kept = {name for name in before if before[name].tobytes() == after[name].tobytes()}
    assert kept == {"model/wte", "model/wpe", "model/ln_f/g", "model/ln_f/b"}
    finetune(replace(settings, only_train_transformer_layers=False, more=2))
    changed = run_of(settings).tensors()
    assert not {name for name in before if before[name].tobytes() == changed[name].tobytes()}


def test_the_optimizer_may_change_from_command_to_command(finetuning: Settings) -> None:
    settings = finetuning(steps=2, learning_rate=1e-3)
    for step, optimizer in ((2, "adam"), (4, "sgd"), (6, "adam"), (8, "sgd"), (10, "sgd")):
        assert finetune(replace(settings, steps=step, optimizer=optimizer)) == step
        assert bool(run_of(settings).optimizer_state()) == (optimizer == "adam")
    rates = [line["lr"] for line in metrics(run_of(settings))]
    assert {rates[step] for step in (3, 4, 7, 8, 9, 10)} == {1e-3}
    assert max(rates[step] for step in (1, 2, 5, 6)) < 1e-3


@pytest.mark.parametrize(("keep", "kept"), [(1, [10]), (3, [6, 8, 10]), (0, [2, 4, 6, 8, 10])])
def test_as_many_checkpoints_are_kept_as_asked_and_each_is_whole(
    finetuning: Settings, keep: int, kept: list[int]
) -> None:
    settings = finetuning(steps=10, save_every=2, max_checkpoints=keep, learning_rate=0.02)
    finetune(settings)
    run = run_of(settings)
    assert sorted(int(path.stem.partition("-")[2]) for path in run.path.glob("model-*.index")) == kept
    finetune(replace(settings, run="until6", steps=10, save_every=6, max_checkpoints=2))
    if 6 in kept:
        older, wanted = ModelDir(run.path, 6), ModelDir(run_of(replace(settings, run="until6")).path, 6)
        assert (older.tensors()["model/wte"] == wanted.tensors()["model/wte"]).all()


def test_a_run_starts_from_the_weights_of_another(finetuning: Settings) -> None:
    first = finetuning(run="first", steps=30, learning_rate=0.02, record_tokens="literal")
    finetune(first)
    before = content(run_of(first).path)
    second = finetuning(run="second", model=None, restore_from=str(run_of(first).path), learning_rate=0.02)
    assert finetune(second) == 6
    assert content(run_of(first).path) == before
    lines = metrics(run_of(second))
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4, 5, 6]
    assert lines[0]["val_loss"] == metrics(run_of(first))[-1]["val_loss"]
    run_info = run_of(second).run_info()
    assert (run_info.record_tokens, run_info.model, run_info.categories) == (
        "literal",
        "tiny",
        {"cats": 160, "dogs": 160},
    )
    assert run_of(second).hyperparameters() == run_of(first).hyperparameters()
    finetune(replace(second, restore_from="latest", more=2))
    assert run_of(second).step() == 8
    with pytest.raises(UsageError, match=r"--record-tokens: the run in .*first has literal ones and keeps them"):
        finetune(replace(second, run="third", record_tokens="compact"))
    assert not (second.checkpoint_dir / "third").exists()


def test_a_run_starts_from_the_path_of_a_model_as_from_its_name(
    finetuning: Settings, tiny: ModelDir, tmp_path: Path
) -> None:
    by_name, hf = finetuning(run="name"), tmp_path / "hf"
    hf.mkdir()
    hugging_face.write_model(hf, tiny.hyperparameters(), tiny.tokenizer(), tiny.tensors())
    finetune(by_name)
    wanted = learned(run_of(by_name))
    places = {"path": tiny.path, "hf": hf}
    for name, place in places.items():
        for run, changes in (
            (f"model-{name}", {"model": str(place)}),
            (f"from-{name}", {"model": None, "restore_from": str(place)}),
        ):
            settings = finetuning(run=run, **changes)
            finetune(settings)
            assert learned(run_of(settings)) == wanted, run
            assert run_of(settings).run_info().model == str(place)
            assert run_of(settings).tokenizer().vocabulary == tiny.tokenizer().vocabulary
            assert finetune(replace(settings, restore_from="latest", more=1)) == 7


def test_a_run_starts_from_another_runs_folder_as_its_model(finetuning: Settings) -> None:
    """As a model it brings its weights alone: records may be read otherwise."""
    first = finetuning(run="first", record_tokens="literal")
    finetune(first)
    second = finetuning(run="second", model=str(run_of(first).path))
    finetune(second)
    assert run_of(second).run_info().record_tokens == "compact"


def test_a_run_of_records_starts_from_one_of_plain_text_and_the_other_way(
    finetuning: Settings, plain_text: Path
) -> None:
    """A new run: only its weights are another's."""
    plain = finetuning(run="plain", dataset=plain_text, window=24)
    finetune(plain)
    for name, given, wanted in (("a", None, "compact"), ("b", "literal", "literal")):
        settings = finetuning(run=name, restore_from=str(run_of(plain).path), record_tokens=given)
        finetune(settings)
        run_info = run_of(settings).run_info()
        assert (run_info.record_tokens, run_info.sections) == (wanted, ("category", "keywords", "title"))
        assert run_info.model == "tiny"
    back = replace(plain, run="back", restore_from=str(settings.checkpoint_dir / "b"))
    finetune(back)
    assert run_of(back).run_info() == run_of(plain).run_info()


def test_where_a_run_can_not_start_nothing_is_begun(finetuning: Settings, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place in ("empty", "gone"):
        settings = finetuning(restore_from=str(tmp_path / place))
        with pytest.raises(
            MissingError, match=rf"{place}: is no folder of a GPT-2; it needs hparams\.json .* config\.json"
        ):
            finetune(settings)
        with pytest.raises(MissingError, match=rf"{place}: is no folder of a GPT-2"):
            finetune(replace(settings, restore_from="latest", model=str(tmp_path / place)))
        assert not settings.checkpoint_dir.exists()
    with pytest.raises(MissingError, match=r"^newest: is no folder of a GPT-2"):
        finetune(finetuning(restore_from="newest"))


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_is_not_its_own_start(finetuning: Settings, tmp_path: Path, overwrite: bool) -> None:
    settings = finetuning()
    finetune(settings)
    before = content(settings.checkpoint_dir)
    link = tmp_path / "link"
    link.symlink_to(run_of(settings).path)
    for place in (run_of(settings).path, run_of(settings).path / "../run1", link):
        message = r"--restore-from: .* is the run itself; latest goes on with it" if overwrite else "already exists"
        with pytest.raises(UsageError if overwrite else OutputExists, match=message):
            finetune(replace(settings, restore_from=str(place), overwrite=overwrite))
    assert content(settings.checkpoint_dir) == before


def test_a_start_from_elsewhere_keeps_a_run_that_is_there_unless_told_otherwise(
    finetuning: Settings, tiny: ModelDir
) -> None:
    settings = finetuning(restore_from=str(tiny.path), model=None)
    finetune(settings)
    first, before = learned(run_of(settings)), content(settings.checkpoint_dir)
    with pytest.raises(OutputExists, match=r"run run1 already exists; --restore-from latest .* --overwrite .* --run"):
        finetune(settings)
    assert content(settings.checkpoint_dir) == before
    finetune(replace(settings, steps=3, overwrite=True))
    assert run_of(settings).step() == 3
    finetune(replace(settings, overwrite=True))
    assert learned(run_of(settings)) == first


def test_a_run_remembers_the_model_it_began_from_by_what_it_was_called(finetuning: Settings, tiny: ModelDir) -> None:
    settings = finetuning(model=str(tiny.path))
    finetune(settings)
    with pytest.raises(UsageError, match=rf"--model: run run1 began from {tiny.path}; start another run for mini"):
        finetune(replace(settings, model="mini", more=2))
    assert finetune(replace(settings, more=2)) == 8


def test_an_unknown_model_is_an_error_that_names_those_there_are(finetuning: Settings, model_dir: Path) -> None:
    with pytest.raises(MissingError, match=r"model 124M: no .*124M/hparams\.json; the models there are: .*tiny"):
        finetune(finetuning(model="124M"))


@pytest.mark.parametrize(
    "name", ["encoder.json", "vocab.bpe", "checkpoint", "model.ckpt.index", "model.ckpt.data-00000-of-00001"]
)
def test_a_missing_file_of_the_model_is_named(finetuning: Settings, tiny: ModelDir, tmp_path: Path, name: str) -> None:
    shutil.copytree(tiny.path, tmp_path / "models/tiny")
    (tmp_path / "models/tiny" / name).unlink()
    settings = finetuning(model_dir=tmp_path / "models")
    with pytest.raises(MissingError, match=f"tiny/{name}: not there"):
        finetune(settings)
    assert not settings.checkpoint_dir.exists()


def test_a_vocabulary_of_another_size_is_refused(finetuning: Settings, tiny: ModelDir, tmp_path: Path) -> None:
    shutil.copytree(tiny.path, tmp_path / "models/tiny")
    path = tmp_path / "models/tiny/encoder.json"
    vocabulary = json.loads(path.read_text(encoding="utf8"))
    path.write_text(json.dumps(vocabulary | {"more": len(vocabulary)}), encoding="utf8")
    wanted = r"encoder\.json: holds 341 tokens but hparams\.json says 340; take both from the same model$"
    with pytest.raises(InputError, match=wanted):
        finetune(finetuning(model_dir=tmp_path / "models"))


def test_a_dataset_that_is_none_is_an_error_and_no_run_is_begun(finetuning: Settings, tmp_path: Path) -> None:
    short, table, broken = tmp_path / "short.txt", tmp_path / "titles.csv", tmp_path / "a.npz"
    short.write_text("just text\n", encoding="utf8")
    broken.write_bytes(b"PK")
    with table.open("w", encoding="utf8", newline="") as file:
        csv.writer(file).writerows([("subreddit", "title"), ("cats", "A cat")])
    for path, kind, message in (
        (tmp_path / "gone.txt", MissingError, r"gone\.txt: no such file; `redditgen encode`"),
        (
            short,
            InputError,
            r"short\.txt: its longest text has \d+ tokens to train on, and a window 64; lower --window",
        ),
        (table, InputError, r"titles\.csv, line 1: has 2 columns, .* redditgen encode .*titles\.csv$"),
        (broken, InputError, r"a\.npz: is no \.npz of token arrays"),
        (tmp_path, InputError, r"a\.npz: is no \.npz of token arrays"),
    ):
        settings = finetuning(dataset=path)
        with pytest.raises(kind, match=message):
            finetune(settings)
        assert not settings.checkpoint_dir.exists()


def test_a_few_titles_are_enough_but_none_is_held_out(
    finetuning: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "one.txt"
    path.write_text(build(Record(title="One title")), encoding="utf8")
    settings = finetuning(dataset=path)
    assert finetune(settings) == 6
    assert "too few titles to hold any out" in caplog.text
    assert "1 records are fewer than a batch of 8; each step learns from all of them" in caplog.text
    assert {line["val_loss"] for line in metrics(run_of(settings))} == {None}


def test_records_longer_than_the_context_are_cut_with_a_warning(
    finetuning: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "long.txt"
    path.write_text("".join(build(Record(title=f"{number} " + "z" * 200)) for number in range(30)), encoding="utf8")
    assert finetune(finetuning(dataset=path)) == 6
    assert "records are longer than 64 tokens and were cut" in caplog.text


def test_an_unfinished_run_of_anothers_weights_is_gone_on_with_and_a_finished_one_skipped(
    finetuning: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first = finetuning(run="first")
    finetune(first)
    settings = finetuning(model=None, restore_from=str(run_of(first).path), skip_existing=True, seed=3, save_every=2)
    finetune(replace(settings, run="whole"))
    with pytest.raises(Interrupted, match=r"saved at step \d; the same command goes on from there$"):
        interrupted_at(3, settings)
    assert finetune(settings) == 6
    assert learned(run_of(settings)) == learned(run_of(replace(settings, run="whole")))
    there = run_of(settings).weights_file().stat().st_mtime_ns
    assert finetune(replace(settings, plot=True, print_every=5)) == 6
    assert caplog.messages[-1] == f"{run_of(settings).path}: is there already, made of the same; skipped"
    finetune(replace(first, more=1))
    with pytest.raises(OutputExists, match=r"run1: run run1 already exists; .*--overwrite replaces it"):
        finetune(settings)
    assert re.search(r"run1: not skipped, since .*first/model-6\.index has changed$", caplog.messages[-1])
    assert run_of(settings).weights_file().stat().st_mtime_ns == there
    assert finetune(replace(settings, overwrite=True)) == 6
    assert run_of(settings).weights_file().stat().st_mtime_ns > there


def test_more_steps_are_skipped_once_they_are_done(finetuning: Settings) -> None:
    settings = finetuning(skip_existing=True)
    finetune(settings)
    assert [finetune(replace(settings, more=2)) for _ in range(3)] == [8, 8, 8]
    with pytest.raises(OutputExists, match=r"run1: run run1 is finished; --restore-from fresh --overwrite makes it"):
        finetune(settings)


@pytest.mark.parametrize("loss_on", ["record", "title"])
def test_a_run_with_new_keywords_every_epoch_goes_on_as_if_it_had_not_stopped(
    finetuning: Settings, dynamic: Path, loss_on: str
) -> None:
    """It stops in the third of 4 epochs."""
    settings = finetuning(dataset=dynamic, steps=70, save_every=45, loss_on=loss_on, min_keywords=1)
    finetune(replace(settings, run="whole"))
    with pytest.raises(Interrupted):
        interrupted_at(50, settings)
    assert finetune(settings) == 70
    assert learned(run_of(settings)) == learned(run_of(replace(settings, run="whole")))


def test_each_epoch_of_a_dynamic_dataset_has_other_keywords(finetuning: Settings, dynamic: Path) -> None:
    """With steps too small to learn anything, an epoch's loss says what is in it."""
    settings = finetuning(dataset=dynamic, steps=2, batch_size=1000, learning_rate=1e-12, val_fraction=0.0)
    finetune(settings)
    first, second = (line["loss"] for line in metrics(run_of(settings)))
    assert abs(first - second) > 1e-4
    finetune(replace(settings, run="none", max_keywords=0))
    first, second = (line["loss"] for line in metrics(run_of(replace(settings, run="none"))))
    assert first == pytest.approx(second, rel=1e-5)


@pytest.mark.slow
@pytest.mark.tf1
def test_gpt_2_simple_draws_once(
    finetuning: Settings, dynamic: Path, tf1_python: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = finetuning(dataset=dynamic, engine="gpt-2-simple", tf1_python=tf1_python, steps=2, window=32)
    assert finetune(settings) == 2
    assert "titles.jsonl: gpt-2-simple draws the keywords once, not anew every epoch" in caplog.text
    assert run_of(settings).run_info().sections == ("category", "keywords", "title")


def test_with_the_loss_on_titles_only_they_are_learned(finetuning: Settings, dataset: Path) -> None:
    """The category, a token or two before the title, stays as improbable as it was."""
    settings = finetuning(steps=60, learning_rate=0.02, batch_size=32, print_every=20)
    by_title = replace(settings, run="title", loss_on="title")
    finetune(settings)
    finetune(by_title)
    assert [run_of(each).run_info().loss_on for each in (settings, by_title)] == ["record", "title"]
    on_record, on_title = metrics(run_of(settings))[-1], metrics(run_of(by_title))[-1]
    assert on_title["tokens"] == on_record["tokens"]
    start = metrics(run_of(settings))[0]
    assert on_title["val_bits_per_char"] < start["val_bits_per_char"] / 3
    assert on_title["val_loss"] > on_record["val_loss"] * 1.5
    assert metrics(run_of(by_title))[0]["val_loss"] == start["val_loss"]  # what is measured is the same


def test_a_step_without_a_title_in_it_changes_nothing(finetuning: Settings, tmp_path: Path) -> None:
    """The context ends before the title of the only record."""
    path = tmp_path / "long.txt"
    path.write_text(build(Record(category="z" * 100, title="T")), encoding="utf8")
    settings = finetuning(dataset=path, loss_on="title", steps=2)
    assert finetune(settings) == 2
    assert [line["loss"] for line in metrics(run_of(settings))] == [0, 0]


def test_titles_of_another_file_are_measured(finetuning: Settings, dataset: Path, tmp_path: Path) -> None:
    lines = dataset.read_text(encoding="utf8").splitlines(keepends=True)
    titles = dict.fromkeys((parse(line.strip()) or Record()).title for line in lines)
    held_out = set(list(titles)[:20])
    parts: dict[bool, list[str]] = {True: [], False: []}
    for line in lines:
        parts[(parse(line.strip()) or Record()).title in held_out].append(line)
    train, val = tmp_path / "train.txt", tmp_path / "val.txt"
    train.write_text("".join(parts[False]), encoding="utf8")
    val.write_text("".join(parts[True]), encoding="utf8")
    apart, both = finetuning(dataset=train, val=val), finetuning(run="both", val=val)
    finetune(apart)
    finetune(both)
    assert learned(run_of(apart)) == learned(run_of(both))
    assert metrics(run_of(apart))[-1]["val_loss"] is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss_on": "body"}, "--loss-on must be record or title, not 'body'"),
        ({"loss_on": "title", "engine": "gpt-2-simple"}, "--loss-on title: gpt-2-simple learns all of each record"),
        ({"min_keywords": -1}, "--min-keywords must be 0 or more, not -1"),
        ({"min_keywords": 4}, "--max-keywords must not be below --min-keywords"),
        ({"max_keywords": -1}, "--max-keywords must not be below --min-keywords"),
    ],
)
def test_what_can_not_be_learned_is_refused(finetuning: Settings, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        finetuning(**changes)


@pytest.mark.parametrize("record_tokens", ["compact", "literal"])
def test_samples_are_written(finetuning: Settings, record_tokens: str) -> None:
    settings = finetuning(
        steps=60, sample_every=30, sample_num=3, learning_rate=0.02, batch_size=32, record_tokens=record_tokens
    )
    finetune(settings)
    folder = settings.sample_dir / "run1"
    assert sorted(content(folder)) == ["samples-30", "samples-60"]
    lines = (folder / "samples-60").read_text(encoding="utf8").splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"{START_TOKEN}~`") and line.count(END_TOKEN) <= 1 for line in lines)
    found = [record for line in lines if (record := parse(line))]
    assert len(found) >= 2
    assert {record.category for record in found} <= {"cats", "dogs"}


def test_samples_do_not_change_what_is_learned(finetuning: Settings) -> None:
    without, with_samples = finetuning(run="without"), finetuning(run="with", sample_every=2)
    finetune(without)
    finetune(with_samples)
    assert learned(run_of(without)) == learned(run_of(with_samples))


@pytest.mark.parametrize("changes", [{"sample_num": 0}, {"sample_length": 0}])
def test_samples_of_nothing_are_none_or_refused(finetuning: Settings, changes: dict[str, int]) -> None:
    try:
        settings = finetuning(sample_every=3, **changes)
    except UsageError as error:
        assert "--sample-" in str(error)
    else:
        assert finetune(settings) == 6


def test_a_checkpoint_folder_that_can_not_be_written_is_named(finetuning: Settings) -> None:
    settings = finetuning()
    settings.checkpoint_dir.write_text("not a folder", encoding="utf8")
    with pytest.raises(InputError, match=r"checkpoint/run1.*: can't be written"):
        finetune(settings)


def test_nothing_is_reported_before_the_first_step_where_nothing_is_held_out(finetuning: Settings) -> None:
    settings = finetuning(val_fraction=0.0)
    finetune(settings)
    assert [line["step"] for line in metrics(run_of(settings))] == [1, 2, 3, 4, 5, 6]


def test_a_run_that_goes_on_with_another_dataset_says_so(
    finetuning: Settings, dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = tmp_path / "own.txt"
    shutil.copy(dataset, own)
    settings = finetuning(dataset=own, steps=2)
    finetune(settings)
    finetune(replace(settings, dataset=dataset, more=1))  # the same titles under another name
    assert "has not learned from before" not in caplog.text
    own.write_text("".join(own.read_text(encoding="utf8").splitlines(keepends=True)[40:]), encoding="utf8")
    finetune(replace(settings, more=1))
    assert f"run run1: goes on with what it has not learned from before, {own}; titles that were" in caplog.text


def test_a_run_killed_behind_its_last_checkpoint_is_finished_by_the_same_command_alone(
    finetuning: Settings, dataset: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.txt"
    shutil.copy(dataset, own)
    settings = finetuning(dataset=own, steps=2, skip_existing=True)
    finetune(settings)
    finished = run_of(settings).path / "finetune.meta.json"
    said = finished.read_bytes()
    finished.unlink()
    assert finetune(settings) == 2
    assert finished.read_bytes() == said
    finished.unlink()
    own.write_text(own.read_text(encoding="utf8") * 2, encoding="utf8")
    with pytest.raises(OutputExists, match="run run1 is finished"):
        finetune(settings)
    assert not finished.exists()
