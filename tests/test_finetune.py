import csv
import json
import logging
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Settings

from redditgen.errors import InputError, Interrupted, MissingError, OutputExists, RedditgenError, UsageError
from redditgen.finetune import finetune
from redditgen.gpt2.dataset import is_held_out
from redditgen.gpt2.rundir import ModelDir
from redditgen.markup import END, START, Record, build, parse
from redditgen.records import records
from redditgen.settings import FinetuneSettings

KEYS = ["step", "loss", "val_loss", "val_bits_per_char", "tokens", "seconds", "lr"]


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
    assert sorted(content(run.path)) == [
        "checkpoint", "counter", "encoder.json", "hparams.json", "metrics.jsonl", "model-6.data-00000-of-00001",
        "model-6.index", "optimizer-6.safetensors", "redditgen.json", "vocab.bpe",
    ]  # fmt: skip
    assert (run.path / "checkpoint").read_text(encoding="utf8").startswith('model_checkpoint_path: "model-6"\n')
    assert (run.path / "counter").read_text(encoding="utf8") == "6\n"
    for name in ("hparams.json", "encoder.json", "vocab.bpe"):
        assert (run.path / name).read_bytes() == (tiny.path / name).read_bytes()
    mark = run.mark()
    assert (mark.record_tokens, mark.model, mark.sections) == ("compact", "tiny", ("category", "keywords", "title"))
    assert mark.categories == {"cats": 160, "dogs": 160}


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
    kept = sum(not is_held_out(record.title or "", 0.1, 0) for record in records(dataset))
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
    kept = [record for record in records(settings.dataset) if not is_held_out(record.title or "", 0.1, 0)]
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_an_interruption_says_to_be_saved_is_saved(finetuning: Settings, number: signal.Signals) -> None:
    settings, handler_before = finetuning(save_every=0), signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"saved at step \d") as raised:
        interrupted_at(3, settings, number)
    step = run_of(settings).step()
    assert f"step {step};" in str(raised.value)
    assert 3 <= step < 6
    assert [line["step"] for line in metrics(run_of(settings))] == list(range(step + 1))
    assert finetune(settings) == 6
    assert signal.getsignal(number) is handler_before


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
        if name not in ("dataset", "overwrite") and value is not None
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
    assert "run run1 is at step 6 already; --more N goes on" in caplog.text


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


@pytest.mark.parametrize("option", ["run", "model"])
@pytest.mark.parametrize("name", ["..", ".", "a/b", "/tmp"])
def test_a_run_or_model_is_a_folder_in_its_folder(finetuning: Settings, option: str, name: str) -> None:
    with pytest.raises(UsageError, match=f"--{option} must be a plain folder name"):
        finetuning(**{option: name})


def test_a_run_keeps_its_record_tokens_and_its_model(finetuning: Settings) -> None:
    settings = finetuning(record_tokens="literal")
    finetune(settings)
    with pytest.raises(UsageError, match=r"--record-tokens: run run1 has literal ones and keeps them"):
        finetune(replace(settings, record_tokens="compact", more=2))
    with pytest.raises(UsageError, match=r"--model: run run1 began from tiny; start another run for 124M"):
        finetune(replace(settings, model="124M", more=2))
    assert finetune(replace(settings, record_tokens=None, model=None, more=2)) == 8
    assert run_of(settings).mark().record_tokens == "literal"


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
    assert run_of(settings).mark().sections == ("category", "keywords", "title")
    assert [line["step"] for line in metrics(run_of(settings))] == [7, 8]


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
    with pytest.raises(InputError, match=r"encoder\.json: holds 341 tokens but hparams\.json says 340"):
        finetune(finetuning(model_dir=tmp_path / "models"))


def test_a_dataset_that_is_none_is_an_error_and_no_run_is_begun(finetuning: Settings, tmp_path: Path) -> None:
    no_record, table = tmp_path / "no.txt", tmp_path / "titles.csv"
    no_record.write_text("just text\n", encoding="utf8")
    with table.open("w", encoding="utf8", newline="") as file:
        csv.writer(file).writerows([("subreddit", "title"), ("cats", "A cat")])
    for path, kind, message in (
        (tmp_path / "gone.txt", MissingError, r"gone\.txt: no such file; `redditgen encode`"),
        (no_record, InputError, r"no\.txt: holds no record"),
        (table, InputError, r"titles\.csv: holds no record"),
        (tmp_path, InputError, r"can't be read: Is a directory"),
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
    assert {line["val_loss"] for line in metrics(run_of(settings))} == {None}


def test_records_longer_than_the_context_are_cut_with_a_warning(
    finetuning: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "long.txt"
    path.write_text("".join(build(Record(title=f"{number} " + "z" * 200)) for number in range(30)), encoding="utf8")
    assert finetune(finetuning(dataset=path)) == 6
    assert "records are longer than 64 tokens and were cut" in caplog.text


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
    assert all(line.startswith(f"{START}~`") and line.count(END) <= 1 for line in lines)
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
