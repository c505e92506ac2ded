import errno
import itertools
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redditgen.errors import InputError, MissingError
from redditgen.files import bundled
from redditgen.gpt2.find import find_model, find_run, open_model
from redditgen.gpt2.formats import hugging_face
from redditgen.gpt2.formats.hugging_face import HuggingFaceDir
from redditgen.gpt2.hyperparameters import Hyperparameters
from redditgen.gpt2.metrics import Report
from redditgen.gpt2.model_dir import ModelDir
from redditgen.gpt2.run_info import COMPACT_TOKENS, LITERAL_TOKENS, NO_RECORDS, RunInfo
from redditgen.titles.record import START_TOKEN
from tests.support.tiny_model import random_tensors

MARK = RunInfo(
    record_tokens=COMPACT_TOKENS, model="tiny", sections=("category", "title"), categories={"cats": 3, "日本": 1}
)


@pytest.fixture
def run(tiny: ModelDir, hyperparameters: Hyperparameters, tmp_path: Path) -> ModelDir:
    """A run at step 3."""
    made = ModelDir(tmp_path / "checkpoint/run1")
    made.start_run(tiny, MARK)
    made.save_checkpoint(3, random_tensors(hyperparameters), {"w": np.ones(2, np.float32)})
    return made


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_base_model_has_the_files_of_openais(tiny: ModelDir, hyperparameters: Hyperparameters) -> None:
    assert names(tiny.path) == {
        "checkpoint", "encoder.json", "hparams.json", "model.ckpt.data-00000-of-00001", "model.ckpt.index", "vocab.bpe",
    }  # fmt: skip
    assert (tiny.hyperparameters(), tiny.step(), tiny.run_info()) == (
        hyperparameters,
        0,
        RunInfo(record_tokens=LITERAL_TOKENS),
    )
    tensors = tiny.tensors()
    assert {name: tensor.tobytes() for name, tensor in tensors.items()} == {
        name: tensor.tobytes() for name, tensor in random_tensors(hyperparameters).items()
    }
    assert len(tiny.tokenizer()) == hyperparameters.n_vocab


def test_a_checkpoint_takes_the_place_of_the_one_before(run: ModelDir, hyperparameters: Hyperparameters) -> None:
    (run.path / "notes.txt").write_text("mine", encoding="utf8")
    others = {name: tensor + 1 for name, tensor in random_tensors(hyperparameters).items()}
    run.save_checkpoint(12, others, {"w": np.zeros(2, np.float32)})
    assert names(run.path) == {
        "checkpoint", "counter", "encoder.json", "hparams.json", "model-12.data-00000-of-00001", "model-12.index",
        "notes.txt", "optimizer-12.safetensors", "redditgen.json", "vocab.bpe",
    }  # fmt: skip
    assert (run.step(), run.checkpoint_prefix()) == (12, run.path / "model-12")
    assert (run.tensors()["model/wte"] == others["model/wte"]).all()
    assert run.optimizer_state()["w"].tolist() == [0, 0]
    assert (run.path / "counter").read_text(encoding="utf8") == "12\n"


def test_a_crash_before_the_new_checkpoint_is_named_leaves_the_old_one(
    run: ModelDir, hyperparameters: Hyperparameters
) -> None:
    old = {path.name: path.read_bytes() for path in run.path.iterdir()}
    run.save_checkpoint(4, random_tensors(hyperparameters), {})
    for name in old:  # the old files are deleted last, after `checkpoint` names the new ones
        (run.path / name).write_bytes(old[name])
    assert run.step() == 3
    assert run.optimizer_state()["w"].tolist() == [1, 1]
    assert set(run.tensors()) == set(hyperparameters.tensor_shapes())
    run.save_checkpoint(4, random_tensors(hyperparameters), {})
    assert not {name for name in names(run.path) if "-3" in name}


def test_a_run_keeps_its_mark(run: ModelDir) -> None:
    assert run.run_info() == MARK
    run.start_run(run, RunInfo(record_tokens=LITERAL_TOKENS))
    assert run.run_info() == RunInfo(record_tokens=LITERAL_TOKENS)
    assert run.step() == 3


@pytest.mark.parametrize(
    ("run_info", "opening"),
    [
        (RunInfo(), START_TOKEN),
        (RunInfo(sections=()), START_TOKEN),
        (RunInfo(sections=("category", "title")), START_TOKEN + "~`"),
        (RunInfo(sections=("title",)), START_TOKEN + "~@"),
        (RunInfo(record_tokens=NO_RECORDS, sections=()), ""),
    ],
)
def test_a_mark_knows_no_sections_from_unknown_ones_and_how_a_text_begins(
    tmp_path: Path, run_info: RunInfo, opening: str
) -> None:
    run_info.save(tmp_path / "redditgen.json")
    assert ModelDir(tmp_path).run_info() == run_info
    assert run_info.opening_prompt() == opening


def write_steps(run: ModelDir, hyperparameters: Hyperparameters, steps: list[int], keep: int) -> None:
    """Checkpoints whose last bias is their step."""
    for step in steps:
        tensors = random_tensors(hyperparameters) | {"model/ln_f/b": np.full(hyperparameters.n_embd, step, np.float32)}
        run.save_checkpoint(step, tensors, {"w": np.full(2, step, np.float32)}, keep=keep)


@pytest.mark.parametrize(
    ("keep", "kept"), [(1, [9]), (2, [7, 9]), (3, [5, 7, 9]), (0, [3, 5, 7, 9]), (9, [3, 5, 7, 9])]
)
def test_as_many_checkpoints_are_kept_as_asked(
    run: ModelDir, hyperparameters: Hyperparameters, keep: int, kept: list[int]
) -> None:
    write_steps(run, hyperparameters, [5, 7, 9], keep)
    assert {name for name in names(run.path) if "-" in name} == {
        *(f"model-{step}.index" for step in kept),
        *(f"model-{step}.data-00000-of-00001" for step in kept),
        "optimizer-9.safetensors",  # a run goes on from its newest
    }
    assert (run.path / "checkpoint").read_text(encoding="utf8").splitlines() == [
        'model_checkpoint_path: "model-9"',
        *(f'all_model_checkpoint_paths: "model-{step}"' for step in kept),
    ]
    for step in set(kept) - {3}:  # that of the fixture
        older = ModelDir(run.path, step if step < 9 else None)
        assert (older.step(), older.checkpoint_prefix()) == (step, run.path / f"model-{step}")
        assert set(older.tensors()["model/ln_f/b"].tolist()) == {step}


def test_fewer_checkpoints_are_kept_when_fewer_are_asked(run: ModelDir, hyperparameters: Hyperparameters) -> None:
    write_steps(run, hyperparameters, [5, 7, 9], 0)
    write_steps(run, hyperparameters, [11], 2)
    assert {path.stem for path in run.path.glob("model-*.index")} == {"model-9", "model-11"}


def test_what_a_lost_future_left_is_not_kept(run: ModelDir, hyperparameters: Hyperparameters) -> None:
    """Steps beyond the one saved are of before a restart from an older checkpoint."""
    write_steps(run, hyperparameters, [20, 5], 3)
    assert {path.stem for path in run.path.glob("model-*.index")} == {"model-3", "model-5"}
    assert run.step() == 5


def test_a_step_that_is_not_there_is_an_error_that_names_those_there_are(
    run: ModelDir, hyperparameters: Hyperparameters
) -> None:
    write_steps(run, hyperparameters, [5], 2)
    wanted = r"model-4\.index: not there; the run has steps 3, 5 \(finetune --max-checkpoints keeps more\)"
    for use in (ModelDir.checkpoint_prefix, ModelDir.step, ModelDir.tensors):
        with pytest.raises(MissingError, match=wanted):
            use(find_run("run1", run.path.parent, "4"))
    assert find_run("run1", run.path.parent, "3").step() == 3


def test_a_checkpoint_of_tensorflows_is_moved_in(
    run: ModelDir, hyperparameters: Hyperparameters, tmp_path: Path
) -> None:
    other = ModelDir(tmp_path / "other")
    other.start_run(run, MARK)
    write_steps(other, hyperparameters, [8], 1)
    (other.path / "model-8.meta").write_text("graph", encoding="utf8")
    run.adopt_checkpoint(8, list(other.path.glob("model-8.*")), keep=2)
    assert {name for name in names(run.path) if "-" in name} == {
        "model-3.data-00000-of-00001", "model-3.index", "model-8.data-00000-of-00001", "model-8.index", "model-8.meta",
    }  # fmt: skip
    assert (run.step(), set(run.tensors()["model/ln_f/b"].tolist())) == (8, {8})
    assert run.optimizer_state() == {}
    assert (run.path / "counter").read_text(encoding="utf8") == "8\n"
    assert not list(other.path.glob("model-8*"))


@pytest.mark.parametrize(
    "written",
    [
        'model_checkpoint_path: "model-500"\nall_model_checkpoint_paths: "model-400"\n',
        'model_checkpoint_path: "/content/checkpoint/run1/model-500"\n',
        'model_checkpoint_path: "checkpoint/run1/model-500"\r\n',
    ],
)
def test_the_newest_checkpoint_is_the_named_one_wherever_it_was_made(tmp_path: Path, written: str) -> None:
    (tmp_path / "checkpoint").write_bytes(written.encode())
    assert ModelDir(tmp_path).checkpoint_prefix() == tmp_path / "model-500"
    assert ModelDir(tmp_path).step() == 500


def test_a_folder_without_a_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"checkpoint: not there, so .* holds no checkpoint"):
        ModelDir(tmp_path).tensors()
    (tmp_path / "checkpoint").write_text("nothing\n", encoding="utf8")
    with pytest.raises(InputError, match=r"checkpoint: names no checkpoint; its first line must be"):
        ModelDir(tmp_path).step()
    (tmp_path / "checkpoint").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"checkpoint: can't be read"):
        ModelDir(tmp_path).step()


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "null",
        '{"record_tokens": "compact"}',
        '{"sections": [], "more": 1}',
        '{"sections": [], "record_tokens": "both"}',
        '{"sections": [], "categories": ["cats"]}',
        '{"sections": 1}',
    ],
)
def test_what_is_no_mark_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "redditgen.json").write_text(content, encoding="utf8")
    with pytest.raises(InputError, match=r"redditgen\.json"):
        ModelDir(tmp_path).run_info()


@pytest.mark.parametrize(
    "changes",
    [
        {"n_ctx": 0},
        {"n_layer": -1},
        {"n_head": 3},
        {"n_embd": "wide"},
        {"n_embd": None},
        {"n_vocab": float("nan")},
        {"n_vocab": float("inf")},
    ],
)
def test_sizes_that_no_model_has_are_refused(
    tmp_path: Path, hyperparameters: Hyperparameters, changes: dict[str, Any]
) -> None:
    (tmp_path / "hparams.json").write_text(json.dumps(vars(hyperparameters) | changes), encoding="utf8")
    with pytest.raises(InputError, match=r"hparams\.json: (sizes )?must be"):
        ModelDir(tmp_path).hyperparameters()


@pytest.mark.parametrize("content", ["", "[1]", "null", '{"n_vocab": 4}', '"text"'])
def test_what_are_no_hparams_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(MissingError, match=r"hparams\.json: not there"):
        ModelDir(tmp_path).hyperparameters()
    (tmp_path / "hparams.json").write_text(content, encoding="utf8")
    with pytest.raises(InputError, match=r"hparams\.json: must be JSON with whole numbers for n_vocab, n_ctx"):
        ModelDir(tmp_path).hyperparameters()


def test_a_damaged_optimizer_state_is_named_and_a_missing_one_is_empty(run: ModelDir) -> None:
    path = run.path / "optimizer-3.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"optimizer-3\.safetensors: can't be read .*; delete it to go on without it"):
        run.optimizer_state()
    path.unlink()
    assert run.optimizer_state() == {}


def test_a_model_is_found_in_its_folder_before_those_that_come_with_redditgen(model_dir: Path, tmp_path: Path) -> None:
    assert find_model("tiny", model_dir).path == model_dir / "tiny"
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini/hparams.json").write_text("{}", encoding="utf8")
    assert find_model("mini", tmp_path).path == tmp_path / "mini"


def test_verbose_says_which_model_and_which_checkpoint_were_taken(
    run: ModelDir, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini/hparams.json").write_text("{}", encoding="utf8")
    with caplog.at_level(logging.DEBUG, logger="redditgen"):
        find_model("mini", tmp_path)
        find_run("run1", run.path.parent)
    assert caplog.messages == [f"model mini: {tmp_path / 'mini'}", f"run run1: {run.path} at step 3"]


def test_a_model_is_found_by_the_path_of_its_folder(
    tiny: ModelDir, run: ModelDir, hyperparameters: Hyperparameters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_model(str(tiny.path), tmp_path) == tiny
    assert find_model(str(run.path), tmp_path) == run
    monkeypatch.chdir(run.path.parent)
    assert find_model("./run1", tmp_path) == ModelDir(Path("run1"))
    folder = tmp_path / "hf"
    folder.mkdir()
    hugging_face.write_model(folder, hyperparameters, tiny.tokenizer(), tiny.tensors())
    assert find_model("hf", tmp_path) == find_model(f"{folder}/", Path("models")) == HuggingFaceDir(folder)
    for path in (tmp_path / "gone", tmp_path):
        with pytest.raises(MissingError, match=r"is no folder of a GPT-2; it needs hparams\.json .* config\.json"):
            find_model(f"{path}/", tmp_path)
        with pytest.raises(MissingError, match=rf"^{path}: is no folder of a GPT-2"):
            open_model(path)


def test_a_run_is_started_from_a_folder_of_hugging_face(
    tiny: ModelDir, hyperparameters: Hyperparameters, tmp_path: Path
) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    hugging_face.write_model(folder, hyperparameters, tiny.tokenizer(), tiny.tensors())
    run = ModelDir(tmp_path / "checkpoint/run1")
    run.start_run(HuggingFaceDir(folder), MARK)
    assert names(run.path) == {"encoder.json", "hparams.json", "redditgen.json", "vocab.bpe"}
    assert run.hyperparameters() == hyperparameters
    assert (run.tokenizer().vocabulary, run.tokenizer().merges) == (
        tiny.tokenizer().vocabulary,
        tiny.tokenizer().merges,
    )


@pytest.mark.skipif(not bundled.path("models/mini/hparams.json").exists(), reason="no models/mini yet")
def test_mini_comes_with_redditgen_whole(tmp_path: Path) -> None:
    mini = find_model("mini", tmp_path)
    assert set(mini.tensors()) == set(mini.hyperparameters().tensor_shapes())
    assert len(mini.tokenizer()) == mini.hyperparameters().n_vocab


def test_what_is_not_found_is_an_error_that_names_what_there_is(model_dir: Path, run: ModelDir, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"model 355M: no .*355M/hparams\.json; the models there are: .*tiny"):
        find_model("355M", model_dir)
    with pytest.raises(MissingError, match=r"get it with: redditgen download 355M --model-dir .*models"):
        find_model("355M", model_dir)
    with pytest.raises(MissingError, match=r"are: mini; it is called 124M now; get it with: redditgen download 124M$"):
        find_model("117M", Path("models"))
    with pytest.raises(MissingError, match=r"the models there are: mini, tiny$"):
        find_model("no-such-model", model_dir)
    assert find_run("run1", run.path.parent) == ModelDir(run.path, 3)
    with pytest.raises(
        MissingError, match=r"run b: no .*b/checkpoint; make it with: redditgen finetune DATASET --run b .*: run1\)"
    ):
        find_run("b", run.path.parent)
    with pytest.raises(MissingError, match=r"runs there are: none"):
        find_run("b", tmp_path / "nowhere")


# Saves in a copy of the run for each moment at which a save opens, renames or deletes a file of it, and kills there.
KILLS = """
import itertools, os, shutil, signal, sys
import numpy as np
from pathlib import Path
from redditgen.gpt2.model_dir import ModelDir

def save_adapters(folder):
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "tiny"}')

def save(run, kill_at):
    seen = itertools.count(1)

    def kill(event, arguments):
        is_moment = event in ("open", "os.rename", "os.remove") and str(run.path) in str(arguments[0])
        if is_moment and next(seen) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    tensors = {name: np.full(tensor.shape, 8, np.float32) for name, tensor in run.tensors().items()}
    sys.addaudithook(kill)
    run.save_checkpoint(8, tensors, {"w": np.full(2, 8, np.float32)}, best=3, save_adapters=save_adapters)
    os._exit(0)

for number in itertools.count(1):
    run = ModelDir(Path(sys.argv[2]) / str(number))
    shutil.copytree(sys.argv[1], run.path)
    child = os.fork() or save(run, number)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code != -signal.SIGKILL:
        sys.exit(code)
"""


def test_a_save_killed_at_any_moment_leaves_the_checkpoint_before_or_the_new_one(
    run: ModelDir, hyperparameters: Hyperparameters, tmp_path: Path
) -> None:
    write_steps(run, hyperparameters, [5], 0)
    subprocess.run([sys.executable, "-c", KILLS, str(run.path), str(tmp_path / "cut")], check=True, timeout=60)
    found = []
    for cut in (ModelDir(tmp_path / "cut" / str(number)) for number in range(1, 1 + len(names(tmp_path / "cut")))):
        step = cut.step()
        found.append(step)
        assert set(cut.tensors()["model/ln_f/b"].tolist()) == {step}
        assert cut.optimizer_state()["w"].tolist() == [step] * 2
        assert (cut.adapters() is not None) == (step == 8)
        assert ModelDir(cut.path, 3).tensors()
        cut.start_run(cut, MARK)  # as when the same command goes on
        assert not list(cut.path.glob(".*.tmp"))
        assert {int(path.stem.rpartition("-")[2]) for path in cut.path.glob("model-*.index")} <= {3, 5, step}
        write_steps(cut, hyperparameters, [9], 1)
        assert {name for name in names(cut.path) if "-" in name} == {
            "model-9.data-00000-of-00001", "model-9.index", "optimizer-9.safetensors",
        }  # fmt: skip
    assert found == sorted(found)
    assert found.count(5) > 10
    assert found.count(8) > 3


def test_what_was_made_of_a_run_before_goes_with_it_and_what_others_put_there_stays(run: ModelDir) -> None:
    (run.path / "evaluation").mkdir()
    (run.path / "ctranslate2-3-int8").mkdir()
    for name in (
        "evaluation/evaluation.json",
        "evaluation/evaluation.html",
        "ctranslate2-3-int8/model.bin",
        "loss.png",
    ):
        (run.path / name).write_text("of the run before", encoding="utf8")
    (run.path / "notes.txt").write_text("mine", encoding="utf8")
    run.clear_run()
    assert names(run.path) == {"hparams.json", "encoder.json", "vocab.bpe", "notes.txt"}
    (run.path / "evaluation").mkdir()
    for name in ("evaluation.json", "notes.txt"):
        (run.path / "evaluation" / name).write_text("mine or not", encoding="utf8")
    run.clear_run()
    assert [path.name for path in (run.path / "evaluation").iterdir()] == ["notes.txt"]
    run.clear_run()


def test_a_full_disk_while_saving_leaves_the_checkpoint_before(run: ModelDir, hyperparameters: Hyperparameters) -> None:
    """At each moment at which something is to be put on the disk."""
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    settle, failed = os.fsync, 0
    for moment in itertools.count(1):
        calls = itertools.count(1)

        def sync(handle: int, calls: "itertools.count[int]" = calls, moment: int = moment) -> None:
            if next(calls) == moment:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            settle(handle)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", sync)
            try:
                run.save_checkpoint(8, random_tensors(hyperparameters), {"w": np.zeros(2, np.float32)})
            except InputError as error:
                assert "No space left on device" in str(error)
                assert "\n" not in str(error)
            else:
                break
        failed += 1
        there = {path.name: path.read_bytes() for path in run.path.iterdir()}
        assert not [name for name in there if name.endswith(".tmp")]
        if run.step() == 3:
            assert {name: there.get(name) for name in before if name != "counter"} == {
                name: text for name, text in before.items() if name != "counter"
            }
        assert set(run.tensors()) == set(hyperparameters.tensor_shapes())
    assert failed >= 8


@pytest.mark.parametrize("share", [0.02, 0.6, 1.5])
def test_a_file_that_can_not_grow_any_more_leaves_the_checkpoint_before(
    run: ModelDir, hyperparameters: Hyperparameters, share: float
) -> None:
    """A limit on the size of files, as a disk's end is one: met by the optimizer's and by the weights."""
    resource = pytest.importorskip("resource")
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    tensors = random_tensors(hyperparameters)
    size = sum(tensor.nbytes for tensor in tensors.values())
    optimizer = {"w": np.zeros(size // 4, np.float32)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * size), limits[1]))
    try:
        with pytest.raises(InputError, match=r"optimizer-8\.safetensors: can't be written|model-8: can't be written"):
            run.save_checkpoint(8, tensors | {"more": np.zeros(size, np.float32)}, optimizer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    after = {path.name: path.read_bytes() for path in run.path.iterdir()}
    assert {name: text for name, text in after.items() if "-8" not in name} == before
    assert not [name for name in after if name.startswith("model-8")]


def test_in_a_power_cut_nothing_is_named_or_deleted_before_what_takes_its_place_is_on_the_disk(
    run: ModelDir, hyperparameters: Hyperparameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file is synced before it gets its name, and its folder before the next thing relies on that."""
    done: list[str] = []
    synced: set[int] = set()

    def sync(handle: int, really: Callable[[int], None] = os.fsync) -> None:
        really(handle)
        synced.add(os.fstat(handle).st_ino)
        if os.fstat(handle).st_ino == run.path.stat().st_ino:
            done.append("folder")

    def rename(old: Path, new: Path, really: Callable[..., None] = os.replace) -> None:
        assert Path(old).stat().st_ino in synced, f"{new} is renamed before it is on the disk"
        really(old, new)
        done.append(Path(new).name)

    def unlink(path: Path, really: Callable[..., None] = os.unlink) -> None:
        really(path)
        done.append(f"without {Path(path).name}")

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", rename)
    monkeypatch.setattr(os, "unlink", unlink)
    run.save_checkpoint(8, random_tensors(hyperparameters), {"w": np.zeros(2, np.float32)})
    named = done.index("checkpoint")
    assert {"optimizer-8.safetensors", "model-8.data-00000-of-00001", "model-8.index"} < set(done[:named])
    assert done[done.index("model-8.index") + 1] == "folder"
    assert done[named + 1] == "folder"
    assert {name for name in done[:named] if name.startswith("without")} == set()
    assert {"without model-3.index", "without optimizer-3.safetensors"} <= set(done[named:])


def test_what_a_killed_process_was_writing_is_swept_away(run: ModelDir) -> None:
    for name in (".model-4.index.0a1b2c3d.77.tmp", ".metrics.jsonl.0a1b2c3d.1.tmp", ".mine.tmp", "notes.1.tmp"):
        (run.path / name).write_text("half", encoding="utf8")
    (run.path / ".adapters-4.0a1b2c3d.77.tmp").mkdir()
    (run.path / ".ctranslate2-3.0a1b2c3d.77.tmp").mkdir()  # generate may be at it
    run.start_run(run, MARK)
    assert {name for name in names(run.path) if name.endswith(".tmp")} == {
        ".mine.tmp", "notes.1.tmp", ".ctranslate2-3.0a1b2c3d.77.tmp",
    }  # fmt: skip


def measured(run: ModelDir, losses: dict[int, float]) -> None:
    for step, loss in losses.items():
        run.metrics.add(Report(step=step, val_loss=loss))


def test_the_best_checkpoint_is_kept_besides_the_newest(run: ModelDir, hyperparameters: Hyperparameters) -> None:
    measured(run, {0: 0.5, 3: 3.0, 5: 1.0, 7: 2.0, 9: 1.0})
    for step in (5, 7, 9):
        tensors = random_tensors(hyperparameters)
        run.save_checkpoint(step, tensors, {"w": np.ones(2, np.float32)}, best=run.best_step(step))
    assert {path.stem for path in run.path.glob("model-*.index")} == {"model-5", "model-9"}
    assert (run.path / "checkpoint").read_text(encoding="utf8").splitlines() == [
        'model_checkpoint_path: "model-9"',
        'all_model_checkpoint_paths: "model-5"',
        'all_model_checkpoint_paths: "model-9"',
    ]
    assert find_run("run1", run.path.parent, "best") == run.best() == ModelDir(run.path, 5)
    assert find_run("run1", run.path.parent) == ModelDir(run.path, 9)


def test_the_best_is_the_best_of_those_that_are_there_or_one_line(
    run: ModelDir, hyperparameters: Hyperparameters
) -> None:
    write_steps(run, hyperparameters, [5, 7], 2)
    wanted = r"metrics\.jsonl: has no held-out loss of a checkpoint that is there \(steps 5, 7\); finetune --keep-best"
    with pytest.raises(MissingError, match=wanted):
        find_run("run1", run.path.parent, "best")
    measured(run, {3: 1.0, 5: 3.0, 7: 2.0, 8: 0.1})
    assert run.best().step() == 7


def test_where_no_step_is_left_the_error_says_none(run: ModelDir) -> None:
    measured(run, {3: 1.0})
    (run.path / "model-3.index").unlink()
    with pytest.raises(MissingError, match=r"checkpoint that is there \(steps none\)"):
        run.best()
    with pytest.raises(MissingError, match=r"model-3\.index: not there; the run has steps none "):
        ModelDir(run.path, 3).checkpoint_prefix()
