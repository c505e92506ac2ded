import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from redditgen import __version__
from redditgen.engines.base import Sampling
from redditgen.engines.ctranslate2.sampler import Sampler
from redditgen.errors import InputError, MissingError, OutputExists, UsageError
from redditgen.files.atomic import temporary_name
from redditgen.gpt2.find import find_model
from redditgen.gpt2.formats import tf_checkpoint
from redditgen.gpt2.formats.hugging_face import HuggingFaceDir
from redditgen.gpt2.model_dir import ModelDir
from redditgen.gpt2.run_info import LITERAL_TOKENS, NO_RECORDS, RunInfo
from redditgen.gpt2.tensor_names import copy_to_network, new_network
from redditgen.hub.export import export
from redditgen.settings import ExportSettings
from tests.support.fixture_types import Redditgen, TakesLong
from tests.support.tiny_model import random_tensors

TOKENIZER_FILES = {"tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"}
FILES = {
    "hf": TOKENIZER_FILES | {"config.json", "generation_config.json", "model.safetensors", "README.md"},
    "ct2": TOKENIZER_FILES | {"config.json", "model.bin", "vocabulary.json", "README.md"},
    "tf": {"hparams.json", "encoder.json", "vocab.bpe", "checkpoint", "model.ckpt.index"}
    | {"model.ckpt.data-00000-of-00001"},
}
GREEDY = Sampling(temperature=0, top_k=0, top_p=0, length=40)


@pytest.fixture
def trained(checkpoint_dir: Path) -> ModelDir:
    return ModelDir(checkpoint_dir / "trained")


def settings_of(run: ModelDir, out: Path, **changes: Any) -> ExportSettings:
    return ExportSettings(run=run.path.name, checkpoint_dir=run.path.parent, out=out, **changes)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def assert_equal(tensors: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(tensors) == set(expected)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name)


@pytest.mark.parametrize("to", FILES)
def test_an_export_holds_what_its_readers_need_and_says_what_it_is(trained: ModelDir, tmp_path: Path, to: str) -> None:
    out = export(settings_of(trained, tmp_path / "out", to=to))
    assert names(out) == FILES[to] | {"redditgen.meta.json"}
    assert names(tmp_path) == {"out"}
    assert len({path.stat().st_mode for path in out.iterdir()}) == 1
    meta = json.loads((out / "redditgen.meta.json").read_text(encoding="utf8"))
    assert (meta["redditgen"], meta["command"], meta["step"]) == (__version__, "export", 120)
    assert list(meta["inputs"]) == [str(trained.path / "model-120.index")]


def test_transformers_computes_what_the_run_does(trained: ModelDir, tmp_path: Path) -> None:
    out = export(settings_of(trained, tmp_path / "out"))
    ours = new_network(trained.hyperparameters()).eval()
    copy_to_network(trained.tensors(), ours)
    theirs, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    ids = tokenizer("<|endoftext|>~`cats~^happy cat~@My happy cat sleeps on the sofa<|endoftext|>", return_tensors="pt")
    assert ids["input_ids"][0, [0, -1]].tolist() == [trained.tokenizer().end] * 2
    with torch.no_grad():
        torch.testing.assert_close(theirs(**ids).logits, ours(**ids).logits, rtol=0, atol=1e-5)


def test_an_export_to_hugging_face_is_a_base_model_again(trained: ModelDir, tmp_path: Path) -> None:
    model = HuggingFaceDir(export(settings_of(trained, tmp_path / "out")))
    assert model.hyperparameters() == trained.hyperparameters()
    assert model.tokenizer().tokens() == trained.tokenizer().tokens()
    assert_equal(model.tensors(), trained.tensors())


def test_an_export_to_openais_layout_is_a_base_model_again(trained: ModelDir, tmp_path: Path) -> None:
    model = find_model(str(export(settings_of(trained, tmp_path / "out", to="tf"))), tmp_path)
    assert isinstance(model, ModelDir)
    assert model.step() == 0
    assert model.hyperparameters() == trained.hyperparameters()
    assert model.tokenizer().vocabulary == trained.tokenizer().vocabulary
    assert_equal(model.tensors(), trained.tensors())


def test_ctranslate2_writes_with_an_export_what_generate_writes(trained: ModelDir, tmp_path: Path) -> None:
    import ctranslate2
    from tokenizers import Tokenizer

    out = export(settings_of(trained, tmp_path / "out", to="ct2"))
    tokenizer, generator = Tokenizer.from_file(str(out / "tokenizer.json")), ctranslate2.Generator(str(out))
    prompts = [f"~`{kind}s~^happy {kind}~@" for kind in ("cat", "dog")]
    results = generator.generate_batch(
        [tokenizer.encode("<|endoftext|>" + prompt).tokens for prompt in prompts],
        max_length=40,
        sampling_topk=1,
        include_prompt_in_result=False,
    )
    theirs = [tokenizer.decode(result.sequences_ids[0]) for result in results]
    ours = [*Sampler(trained).sample_block(["<|startoftext|>" + prompt for prompt in prompts], GREEDY, seed=0)]
    assert [f"<|startoftext|>{p}{text}<|endoftext|>" for p, text in zip(prompts, theirs, strict=True)] == ours
    assert all("My happy" in text for text in theirs)


@pytest.mark.parametrize("to", FILES)
def test_a_base_model_is_exported_by_name_or_path(model_dir: Path, tiny: ModelDir, tmp_path: Path, to: str) -> None:
    by_name = export(ExportSettings(model="tiny", model_dir=model_dir, to=to, out=tmp_path / "name"))
    by_path = export(ExportSettings(model=str(tiny.path), to=to, out=tmp_path / "path"))
    for name in FILES[to] - {"README.md"}:
        assert (by_name / name).read_bytes() == (by_path / name).read_bytes(), name
    assert names(by_name) == FILES[to] - {"README.md"} | {"redditgen.meta.json"}
    assert not [path for path in tiny.path.iterdir() if path.is_dir()]  # no CTranslate2 model is left there


def test_a_model_from_hugging_face_becomes_one_of_openais(model_dir: Path, tiny: ModelDir, tmp_path: Path) -> None:
    there = export(ExportSettings(model="tiny", model_dir=model_dir, out=tmp_path / "hf"))
    back = ModelDir(export(ExportSettings(model=str(there), to="tf", out=tmp_path / "tf")))
    assert_equal(back.tensors(), tiny.tensors())
    assert back.tokenizer().vocabulary == tiny.tokenizer().vocabulary
    assert (there / "merges.txt").read_bytes() == (back.path / "vocab.bpe").read_bytes()


def test_an_older_step_is_exported(trained: ModelDir, tmp_path: Path) -> None:
    run = ModelDir(Path(shutil.copytree(trained.path, tmp_path / "run")))
    older, newer = trained.tensors(), random_tensors(trained.hyperparameters())
    run.save_checkpoint(130, newer, {}, keep=0)
    assert_equal(ModelDir(export(settings_of(run, tmp_path / "new", to="tf"))).tensors(), newer)
    out = export(settings_of(run, tmp_path / "old", to="tf", step="120"))
    assert_equal(ModelDir(out).tensors(), older)
    assert json.loads((out / "redditgen.meta.json").read_text(encoding="utf8"))["step"] == 120
    with pytest.raises(MissingError, match=r"model-7\.index: not there; the run has steps 120, 130"):
        export(settings_of(run, tmp_path / "none", to="tf", step="7"))
    assert names(tmp_path) == {"run", "new", "old"}


def test_what_is_missing_names_the_command_that_makes_it(trained: ModelDir, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"run run1: no .*; make it with: redditgen finetune DATASET --run run1"):
        export(ExportSettings(checkpoint_dir=trained.path.parent, out=tmp_path / "out"))
    with pytest.raises(MissingError, match=r"model nothing: no "):
        export(ExportSettings(model="nothing", model_dir=tmp_path, out=tmp_path / "out"))
    assert names(tmp_path) == set()


def test_an_export_is_replaced_only_if_asked(trained: ModelDir, tmp_path: Path) -> None:
    out = export(settings_of(trained, tmp_path / "out", to="hf"))
    with pytest.raises(OutputExists, match=r"out: already exists; pass --overwrite to replace it, or --out for"):
        export(settings_of(trained, out, to="tf"))
    assert "config.json" in names(out)
    export(settings_of(trained, out, to="tf", overwrite=True))
    assert names(out) == FILES["tf"] | {"redditgen.meta.json"}
    assert names(tmp_path) == {"out"}


def test_what_is_no_export_is_never_replaced(trained: ModelDir, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("all my work", encoding="utf8")
    (tmp_path / "file").write_text("more of it", encoding="utf8")
    for name in ("mine", "file"):
        with pytest.raises(OutputExists, match=rf"{name}: is no export of redditgen's and stays as it is"):
            export(settings_of(trained, tmp_path / name, overwrite=True))
    assert names(tmp_path) == {"mine", "file"}
    assert names(tmp_path / "mine") == {"thesis.txt"}


def test_a_damaged_run_leaves_an_older_export_as_it_is(trained: ModelDir, tmp_path: Path) -> None:
    out = export(settings_of(trained, tmp_path / "out", to="tf"))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    run = ModelDir(Path(shutil.copytree(trained.path, tmp_path / "run")))
    [data] = run.path.glob("model-120.data-*")
    data.write_bytes(data.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"model-120\.data"):
        export(settings_of(run, out, to="hf", overwrite=True))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert names(tmp_path) == {"out", "run"}


@pytest.mark.slow
@pytest.mark.parametrize(("to", "size"), [("hf", 5_000), ("hf", 50_000), ("ct2", 50_000), ("tf", 50_000)])
def test_a_disk_that_is_full_is_one_line_and_leaves_what_was_there(
    trained: ModelDir, tmp_path: Path, to: str, size: int
) -> None:
    out = export(settings_of(trained, tmp_path / "out", to="tf"))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    arguments = ["--run", "trained", "--to", to, "--checkpoint-dir", trained.path.parent, "--out", out, "--overwrite"]
    done = subprocess.run(
        [sys.executable, "-m", "redditgen", "export", *map(str, arguments)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert re.fullmatch(r"redditgen: .*out.*: can't be written: .*\n", done.stderr), done.stderr
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert names(tmp_path) == {"out"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"run": "a", "model": "b"}, "--model: is exported instead of a run"),
        ({"model": "b", "step": "3"}, "--step: base models have none"),
        ({"to": "onnx"}, "--to must be hf or ct2 or tf, not 'onnx'"),
        ({"run": "../a"}, "--run must be a plain folder name"),
        ({"step": "-1"}, "--step must be a number, 0 or more, or best"),
        ({"out": Path()}, "--out must name a folder"),
        ({"out": Path("a/..")}, "--out must name a folder"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        ExportSettings(**options)


def test_exports_have_names_of_their_own() -> None:
    assert ExportSettings().output == Path("exports/run1-hf")
    assert ExportSettings(run="mine", to="ct2").output == Path("exports/mine-ct2")
    assert ExportSettings(model="models/124M/", to="tf").output == Path("exports/124M-tf")


def test_the_command_says_where_the_export_is(redditgen: Redditgen, trained: ModelDir, tmp_path: Path) -> None:
    arguments = ["--run", "trained", "--to", "tf", "--checkpoint-dir", trained.path.parent]
    done = redditgen("export", *arguments)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "exports/trained-tf: run trained at step 120 in OpenAI's layout\n"
    assert names(tmp_path / "exports/trained-tf") == FILES["tf"] | {"redditgen.meta.json"}
    again = redditgen("export", *arguments)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == (
        "redditgen: exports/trained-tf: already exists; pass --overwrite to replace it, or --out for another name\n"
    )


MARKS = {
    "compact": None,  # as it is
    "literal": RunInfo(
        record_tokens=LITERAL_TOKENS, sections=("category", "keywords", "title"), categories={"dogs": 1}
    ),
    "plain": RunInfo(record_tokens=NO_RECORDS),
}


@pytest.mark.slow
@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("to", ["hf", "ct2"])
def test_the_snippet_of_the_model_card_works(trained: ModelDir, tmp_path: Path, to: str, mark: str) -> None:
    run = ModelDir(Path(shutil.copytree(trained.path, tmp_path / "run")))
    if changed := MARKS[mark]:
        changed.save(run.run_info_path)
    out = export(settings_of(run, tmp_path / "out", to=to))
    [snippet] = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(encoding="utf8"), re.DOTALL)
    greedy, changes = re.subn("top_?k=40", lambda match: match[0].replace("40", "1"), snippet)  # as it is, it draws
    assert changes == 1
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", greedy], cwd=out, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n")
    if mark == "compact":
        assert done.stdout.startswith("My ")


SIMPLE = """\
import json, sys
import gpt_2_simple as gpt2

folder, name, prefix, result = sys.argv[1:]
session = gpt2.start_tf_sess()
where = {"model_name": name, "model_dir": folder}
gpt2.load_gpt2(session, **where)
texts = gpt2.generate(session, prefix=prefix, top_k=1, length=20, return_as_list=True, **where)
with open(result, "w", encoding="utf8") as file:
    json.dump(texts, file)
"""


@pytest.mark.slow
@pytest.mark.tf1
def test_plain_gpt_2_simple_writes_with_an_export_what_we_write(
    trained: ModelDir, tf1_python: Path, tmp_path: Path
) -> None:
    out = export(settings_of(trained, tmp_path / "models/mine", to="tf"))
    prefix, result = "~`cats~^happy cat~@My", tmp_path / "texts.json"
    done = subprocess.run(
        [str(tf1_python), "-c", SIMPLE, str(out.parent), out.name, prefix, str(result)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    [theirs] = json.loads(result.read_text(encoding="utf8"))
    how = Sampling(temperature=0, top_k=0, top_p=0, length=20)
    [ours] = Sampler(ModelDir(out)).sample_block([prefix], how, seed=0)
    assert theirs.partition("<|endoftext|>")[0] == ours.partition("<|endoftext|>")[0]
    assert len(ours) > len(prefix) + 10


def test_what_a_killed_export_set_aside_comes_back(trained: ModelDir, tmp_path: Path) -> None:
    out = export(settings_of(trained, tmp_path / "out", to="tf"))
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    own = temporary_name(out, "old")
    aside = out.rename(own.with_name(own.name.replace(f".{os.getpid()}.", f".{ended.pid}.")))
    with pytest.raises(OutputExists):
        export(settings_of(trained, out, to="tf"))
    assert names(tmp_path) == {"out"}
    out.rename(aside)
    export(settings_of(trained, out, to="tf", overwrite=True))
    assert names(tmp_path) == {"out"}
    aside.mkdir()
    export(settings_of(trained, out, to="tf", skip_existing=True))
    assert names(tmp_path) == {"out"}


def test_a_long_export_says_that_it_goes_on(
    trained: ModelDir, tmp_path: Path, takes_long: TakesLong, caplog: pytest.LogCaptureFixture
) -> None:
    takes_long(tf_checkpoint, "write_checkpoint")
    out = export(settings_of(trained, tmp_path / "out", to="tf"))
    assert re.fullmatch(rf"exporting to {out} goes on, \d+ s", caplog.messages[0])
