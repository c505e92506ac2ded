"""Files that anyone may have made: mutants of a run's, a model's and a dataset's, and some made to do harm."""

import io
import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from redditgen.engines.pytorch.lora import Adapters
from redditgen.errors import InputError, RedditgenError
from redditgen.finetune.dataset.token_arrays import read_token_arrays
from redditgen.gpt2.formats import hugging_face, sstable, tf_checkpoint
from redditgen.gpt2.formats.adapters import NO_BASE
from redditgen.gpt2.formats.hugging_face import HuggingFaceDir
from redditgen.gpt2.hyperparameters import Hyperparameters
from redditgen.gpt2.metrics import Report
from redditgen.gpt2.model_dir import ModelDir
from redditgen.gpt2.run_info import RunInfo
from redditgen.gpt2.tensor_names import copy_to_network, new_network
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.titles.novelty import INDEX_FILE, TitleIndex
from tests.support.paths import ROOT
from tests.support.untrusted_reader import KINDS, MEMORY, block, built_table

READER = ROOT / "tests/support/untrusted_reader.py"
FEW = {"tf_checkpoint": 400, "run": 150, "index": 150, "dataset": 150, "huggingface": 30}
MANY = {
    "tf_checkpoint": 5000, "run": 1500, "index": 1000, "dataset": 1000,
    "huggingface": 400, "vocabulary": 200, "shards": 200, "pickle": 300,
}  # fmt: skip


@pytest.fixture(scope="module")
def whole_run(tiny: ModelDir, titles: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything that one can have, and a dataset in tokens."""
    run = ModelDir(tmp_path_factory.mktemp("runs") / "run1")
    run.start_run(tiny, RunInfo("compact", "tiny", ("category", "keywords", "title"), {"cats": 3}, "title"))
    run.save_checkpoint(3, tiny.tensors(), {"model/wte|exp_avg": np.ones((4, 4), np.float32)})
    run.metrics.add(Report(step=3, loss=1.0, val_loss=2.0))
    TitleIndex.from_titles(titles).save(run.path)
    tokens = [np.array(encoding.ids) for encoding in tiny.tokenizer().encode(titles[:5])]
    np.savez_compressed(run.path / "titles.npz", *tokens, allow_pickle=False)
    return run.path


@pytest.fixture(scope="module")
def whole_models(tiny: ModelDir, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same model as Hugging Face's folders of several kinds."""
    folder = tmp_path_factory.mktemp("models")
    made = {kind: folder / kind for kind in ("huggingface", "vocabulary", "shards", "pickle")}
    model = new_network(tiny.hyperparameters())
    copy_to_network(tiny.tensors(), model)
    for kind, path in made.items():
        path.mkdir()
        hugging_face.write_model(path, tiny.hyperparameters(), tiny.tokenizer(), tiny.tensors())
        if kind == "vocabulary":
            (path / "tokenizer.json").unlink()
            (path / "added_tokens.json").write_text("{}", encoding="utf8")
        if kind == "shards":
            (path / "model.safetensors").unlink()
            model.save_pretrained(path, max_shard_size="40KB")
        if kind == "pickle":
            (path / "model.safetensors").unlink()
            torch.save(dict(model.state_dict()), path / "pytorch_model.bin")
    return made


def read_mutants(kind: str, whole: Path, folder: Path, count: int) -> dict[str, Any]:
    """What came of the first so many mutants; fails where one ends the process, by a signal, or takes too long."""
    shutil.copytree(whole, folder / "whole")
    calm = {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}  # threads take address space
    done = subprocess.run(
        [sys.executable, READER, kind, folder, "0", str(count)],
        env={**os.environ, **calm},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, f"mutant {(folder / 'number').read_text(encoding='utf8')}: {done.stderr[-2000:]}"
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def assert_all_read_or_refused(found: dict[str, Any]) -> None:
    came = found["came"]
    assert set(came) <= {"read", "refused"}, found["examples"]
    assert came["refused"] > 0
    assert found["peak"] < MEMORY


@pytest.mark.parametrize("kind", FEW)
def test_a_mutant_is_read_or_refused_in_one_line_and_little_memory(
    kind: str, whole_run: Path, whole_models: dict[str, Path], tmp_path: Path
) -> None:
    assert_all_read_or_refused(read_mutants(kind, whole_models.get(kind, whole_run), tmp_path, FEW[kind]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_thousands_of_mutants_are_read_or_refused_in_one_line_and_little_memory(
    kind: str, whole_run: Path, whole_models: dict[str, Path], tmp_path: Path
) -> None:
    assert_all_read_or_refused(read_mutants(kind, whole_models.get(kind, whole_run), tmp_path, MANY[kind]))


# --- What mutants rarely come to ---


@pytest.fixture
def run(whole_run: Path, tmp_path: Path) -> ModelDir:
    """A copy to break."""
    return ModelDir(Path(shutil.copytree(whole_run, tmp_path / "run1")))


@pytest.fixture
def model(whole_models: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole_models["huggingface"], tmp_path / "gpt2"))


def refusal(read: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        read()
    assert str(caught.value).isprintable()
    return str(caught.value)


def entry(*sizes: int, size: int | None = None, offset: int = 0) -> bytes:
    length = 4 * int(np.prod(sizes)) if size is None else size
    return tf_checkpoint._encoded(
        tf_checkpoint.TensorEntry("<f4", sizes, 0, offset, length, sstable.masked_crc(bytes(length)))
    )


def test_what_a_name_holds_does_not_break_the_line(tmp_path: Path) -> None:
    tf_checkpoint.write_checkpoint(tmp_path / "m", {"a\nb\x1b[31m\u2028": np.ones(1, np.float32)})
    (tmp_path / "m.data-00000-of-00001").write_bytes(b"1234")
    assert r"a\nb\x1b[31m\u2028 fails its crc32c check" in refusal(
        lambda: tf_checkpoint.verify_checksums(tmp_path / "m")
    )


_HEADER = block([(b"", tf_checkpoint._header())])
_WHERE = b"\0" + sstable.encode_varint(len(_HEADER))  # of the first block


def long_names(count: int) -> bytes:
    """A block in which each name is the one before and a letter more."""
    value = entry(1)
    entries = (
        sstable.encode_varint(n) + b"\1" + sstable.encode_varint(len(value)) + b"x" + value for n in range(count)
    )
    return b"".join(entries) + struct.pack("<II", 0, 1)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (built_table(long_names(2000)), "an entry reaches beyond its block"),
        (built_table(_HEADER, [_WHERE] * 50), "its blocks lie over each other"),
        (built_table(block([(b"", b""), (b"x", entry(*[1] * 1000, size=4))])), "a tensor has 1000 dimensions"),
        (built_table(b"\5\1\0x" + struct.pack("<II", 0, 1)), "an entry reaches beyond its block"),
        (built_table(block([(b"", b"\x12\xff\xff\xff\xff\x7f")])), "a field reaches beyond its message"),
    ],
    ids=["names", "blocks", "dimensions", "entry", "field"],
)
def test_an_index_that_asks_for_much_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "m.index").write_bytes(content)
    found = refusal(lambda: tf_checkpoint.read_index(tmp_path / "m"))
    assert "is no whole TensorFlow checkpoint index" in found
    assert said in found


def test_an_index_of_many_bytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "m.index").open("wb") as file:
        file.truncate(1 << 40)
    assert "are too many for a checkpoint index" in refusal(lambda: tf_checkpoint.read_index(tmp_path / "m"))


def test_tensors_have_bytes_of_their_own(tmp_path: Path) -> None:
    names = [f"w{number}" for number in range(3)]
    pairs = [(b"", tf_checkpoint._header()), *((name.encode(), entry(100)) for name in names)]
    (tmp_path / "m.index").write_bytes(built_table(block(pairs)))
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(1000))
    for read in (
        lambda: tf_checkpoint.read_tensors(tmp_path / "m", dict.fromkeys(names, (100,))),
        lambda: tf_checkpoint.verify_checksums(tmp_path / "m"),
    ):
        assert "is too small for its tensors (1000 bytes)" in refusal(read)


def test_a_tensor_of_no_numbers_in_huge_dimensions_is_passed_over(tmp_path: Path) -> None:
    pairs = [(b"", tf_checkpoint._header()), (b"w", entry(0, 2**62, size=0))]
    (tmp_path / "m.index").write_bytes(built_table(block(pairs)))
    (tmp_path / "m.data-00000-of-00001").write_bytes(b"")
    tf_checkpoint.verify_checksums(tmp_path / "m")


@pytest.mark.parametrize("name", ["hparams.json", "encoder.json", "vocab.bpe", "checkpoint", "redditgen.json"])
def test_a_file_that_is_far_too_large_is_not_read(run: ModelDir, name: str) -> None:
    with (run.path / name).open("wb") as file:
        file.truncate(1 << 40)
    read = {"checkpoint": run.checkpoint_prefix, "redditgen.json": run.run_info}.get(name, run.tokenizer)
    assert str(run.path / name) in refusal(read)


def test_nobody_waits_for_a_pipe(run: ModelDir) -> None:
    (run.path / "hparams.json").unlink()
    os.mkfifo(run.path / "hparams.json")
    assert "hparams.json: must be JSON with whole numbers" in refusal(run.hyperparameters)


@pytest.mark.parametrize("brackets", ["[" * 100_000, '{"a":' * 100_000])
def test_brackets_in_brackets_are_refused(run: ModelDir, model: Path, brackets: str) -> None:
    files = {
        "hparams.json": run.hyperparameters,
        "encoder.json": run.tokenizer,
        "redditgen.json": run.run_info,
        "metrics.jsonl": run.metrics.reports,
    }
    for name, read in files.items():
        before = (run.path / name).read_bytes()
        (run.path / name).write_text(f"{brackets}\n", encoding="utf8")
        assert str(run.path / name) in refusal(read)
        (run.path / name).write_bytes(before)
    for name in ("config.json", "tokenizer.json"):
        before = (model / name).read_bytes()
        (model / name).write_text(brackets, encoding="utf8")
        read_model = HuggingFaceDir(model).hyperparameters if name == "config.json" else HuggingFaceDir(model).tokenizer
        assert str(model / name) in refusal(read_model)
        (model / name).write_bytes(before)


@pytest.mark.parametrize("changes", [{"n_layer": 10**9}, {"n_layer": 1001}, {"n_vocab": 2**40}, {"n_embd": 2**30}])
def test_sizes_of_no_network_are_refused_before_its_tensors_are_named(run: ModelDir, changes: dict[str, int]) -> None:
    sizes = json.loads((run.path / "hparams.json").read_text(encoding="utf8")) | changes
    (run.path / "hparams.json").write_text(json.dumps(sizes), encoding="utf8")
    assert "sizes must be positive, at most 16777216, 1000 layers" in refusal(run.tensors)


@pytest.mark.parametrize(
    "changes",
    [
        {"categories": {"cats": "many"}},
        {"categories": {"cats": 0}},
        {"categories": {"cats": 10**400}},
        {"categories": {"cats": 1e300}},
        {"sections": ["titles"]},
        {"sections": [[]]},
        {"model": 7},
    ],
)
def test_a_mark_that_no_run_can_have_is_refused(run: ModelDir, changes: dict[str, Any]) -> None:
    content = json.loads(run.run_info_path.read_text(encoding="utf8")) | changes
    run.run_info_path.write_text(json.dumps(content), encoding="utf8")
    assert "redditgen.json: is not what redditgen writes" in refusal(run.run_info)


@pytest.mark.parametrize("value", ['"1"', "[]", "1" + "0" * 400, '{"a": 1}'])
def test_a_figure_that_is_none_is_refused(run: ModelDir, value: str) -> None:
    (run.path / "metrics.jsonl").write_text(f'{{"step": 3, "val_loss": {value}}}\n', encoding="utf8")
    assert "holds a line that is no report" in refusal(run.best)


def test_half_a_pair_in_a_vocabulary_is_refused(run: ModelDir) -> None:
    text = (run.path / "encoder.json").read_text(encoding="utf8").replace('"!"', '"\\ud800"')
    (run.path / "encoder.json").write_text(text, encoding="utf8")
    assert "encoder.json: can't be read as a vocabulary" in refusal(run.tokenizer)


@pytest.mark.parametrize(("kind", "size"), [("BF16", 2), ("F8_E4M3", 1), ("F8_E8M0", 1), ("F6_E2M3", 1), ("X", 4)])
def test_an_optimizers_state_of_types_that_numpy_has_not_is_refused(run: ModelDir, kind: str, size: int) -> None:
    header = json.dumps({"a": {"dtype": kind, "shape": [8], "data_offsets": [0, 8 * size]}}).encode()
    content = struct.pack("<Q", len(header)) + header + bytes(8 * size)
    (run.path / "optimizer-3.safetensors").write_bytes(content)
    assert "optimizer-3.safetensors: can't be read" in refusal(run.optimizer_state)


@pytest.mark.parametrize("number", [2**32 - 1, 2**31, 10**6])
def test_an_id_far_beyond_the_others_is_refused_before_those_below_it_are_listed(model: Path, number: int) -> None:
    content = json.loads((model / "tokenizer.json").read_text(encoding="utf8"))
    content["model"]["vocab"]["!"] = number
    (model / "tokenizer.json").write_text(json.dumps(content), encoding="utf8")
    said = refusal(HuggingFaceDir(model).tokenizer)
    assert "tokenizer.json: can't be read as a tokenizer (ids must be 0, 1, 2, ...)" in said


def test_a_network_larger_than_its_weights_is_not_made(model: Path) -> None:
    config = json.loads((model / "config.json").read_text(encoding="utf8")) | {"vocab_size": 1 << 24}
    (model / "config.json").write_text(json.dumps(config), encoding="utf8")
    said = refusal(HuggingFaceDir(model).tensors)
    assert "are too few for the 536" in said
    assert "parameters of config.json" in said


def test_weights_that_are_compressed_are_not_unpacked(model: Path, whole_models: dict[str, Path]) -> None:
    (model / "model.safetensors").unlink()
    with (
        zipfile.ZipFile(whole_models["pickle"] / "pytorch_model.bin") as archive,
        zipfile.ZipFile(model / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as compressed,
    ):
        for name in archive.namelist():
            compressed.writestr(name, archive.read(name) + bytes(1 << 20) * name.endswith("data.pkl"))
    assert "it is compressed, as PyTorch never does" in refusal(HuggingFaceDir(model).tensors)


# --- Arrays ---


def npy(shape: str, kind: str, content: bytes) -> bytes:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(11 + len(header)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def zipped(kind: int, **members: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return made.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (zipped(zipfile.ZIP_STORED, a=npy("(1099511627776,)", "<i8", bytes(8))), "shape disagrees with its size"),
        (zipped(zipfile.ZIP_STORED, a=npy("(-1,)", "<i8", bytes(8))), "shape disagrees with its size"),
        (zipped(zipfile.ZIP_STORED, a=npy("(1,)", "<U100000000", bytes(8))), "shape disagrees with its size"),
        (zipped(zipfile.ZIP_STORED, a=npy("((", "<i8", bytes(8))), "no whole zip archive of arrays"),
        (zipped(zipfile.ZIP_DEFLATED, a=npy("(20000000,)", "<i8", bytes(160_000_000))), "as no arrays of ours do"),
    ],
    ids=["long", "negative", "wide", "brackets", "bomb"],
)
def test_arrays_larger_than_what_is_there_are_refused(run: ModelDir, content: bytes, said: str) -> None:
    path = run.path / "titles.npz"
    path.write_bytes(content)
    (run.path / INDEX_FILE).write_bytes(content)
    assert said in refusal(lambda: read_token_arrays(path, run.tokenizer()))
    assert "is broken or of another version" in refusal(lambda: TitleIndex.load(run.path))


@pytest.mark.parametrize("text", [b"\xff" * 30, "ab\u00e9d".encode() * 6])
def test_an_index_of_titles_that_are_no_text_is_refused(run: ModelDir, text: bytes) -> None:
    index = TitleIndex.from_titles([f"title {number} abc"[:10] for number in range(3)])
    parts = index._arrays._replace(
        text=np.frombuffer(text, np.uint8), lengths=np.array([3, 3, len(text) - 6], np.uint32)
    )
    TitleIndex(parts).save(run.path)
    assert "is broken or of another version" in refusal(lambda: TitleIndex.load(run.path))


# --- Pickles ---


class Harmful:
    """Makes a file where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


def as_pickle(trace: Path) -> bytes:
    return pickle.dumps(Harmful(trace))


def as_array(trace: Path) -> bytes:
    made = io.BytesIO()
    np.save(made, np.array([Harmful(trace)], dtype=object), allow_pickle=True)
    return made.getvalue()


def as_archive(trace: Path) -> bytes:
    return zipped(zipfile.ZIP_STORED, format=as_array(trace), arr_0=as_array(trace))


def as_torch(trace: Path) -> bytes:
    made = io.BytesIO()
    torch.save({"transformer.wte.weight": Harmful(trace)}, made)
    return made.getvalue()


def read_everything(folder: Path) -> None:
    """Read a folder as a run, a dataset and a model, whatever is wrong with it."""
    run, model = ModelDir(folder), HuggingFaceDir(folder)
    for read in (
        run.hyperparameters, run.tokenizer, run.checkpoint_prefix, run.step, run.run_info,
        run.metrics.reports, run.best,
        run.tensors,
        run.optimizer_state, lambda: tf_checkpoint.verify_checksums(run.path / "model-3"),
        lambda: TitleIndex.load(folder), lambda: read_token_arrays(folder / "titles.npz", Tokenizer.load(folder)),
        lambda: put_adapters_on(folder),
        model.hyperparameters, model.tokenizer, model.tensors,
    ):  # fmt: skip
        with suppress(RedditgenError):
            read()


def put_adapters_on(folder: Path) -> None:
    """As a run that goes on does."""
    adapters = Adapters(new_network(Hyperparameters(340, 64, 32, 2, 2)), 2, NO_BASE, seed=1)
    adapters.load(folder / "adapters-3")


@pytest.mark.parametrize("form", [as_pickle, as_array, as_archive, as_torch])
def test_no_pickle_is_run_wherever_it_stands(
    run: ModelDir, model: Path, tmp_path: Path, form: Callable[[Path], bytes]
) -> None:
    trace = tmp_path / "it ran"
    for name in ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"):
        (run.path / "adapters-3").mkdir(exist_ok=True)
        (run.path / "adapters-3" / name).write_bytes(b'{"r": 2}' if name.endswith("config.json") else form(trace))
    for more in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "pytorch_model.bin.index.json"):
        (model / more).write_bytes(form(trace))
    for folder in (run.path, model):
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            before = path.read_bytes()
            path.write_bytes(form(trace))
            read_everything(folder)
            assert not trace.exists(), path
            path.write_bytes(before)
    (model / "model.safetensors").unlink()
    read_everything(model)  # pytorch_model.bin is its weights now
    assert not trace.exists()
    if form in (as_pickle, as_torch):
        torch.load(model / "pytorch_model.bin", weights_only=False) if form is as_torch else pickle.loads(form(trace))
        assert trace.exists()  # as it would have


def test_no_module_asks_for_pickles_or_a_shell() -> None:
    harmful = r"allow_pickle=True|weights_only=False|torch\.load\(|pickle\.loads?\(|shell=True|os\.(system|popen)\("
    for path in (ROOT / "src").rglob("*.py"):
        code = path.read_text(encoding="utf8")
        assert not re.search(harmful, code), path
        for loaded in re.findall(r"\bnp\.load\(.*|read_array\(.*", code):
            assert "allow_pickle=False" in loaded, path


# --- Paths that lead elsewhere ---


@pytest.mark.parametrize("written", ["..", ".", "/", "../", "x/..", "a\0b", "\x1b[2J", "..."])
def test_a_checkpoint_that_is_no_name_is_refused(run: ModelDir, written: str) -> None:
    (run.path / "checkpoint").write_text(f'model_checkpoint_path: "{written}"\n', encoding="utf8")
    for read in (run.checkpoint_prefix, run.step, run.tensors, run.weights_file):
        assert "checkpoint: names no checkpoint" in refusal(read)


@pytest.mark.parametrize("above", ["../other/", "/etc/", "../../"])
def test_a_checkpoint_in_another_folder_is_looked_for_in_the_runs(run: ModelDir, above: str) -> None:
    (run.path / "checkpoint").write_text(f'model_checkpoint_path: "{above}model-3"\n', encoding="utf8")
    assert run.checkpoint_prefix() == run.path / "model-3"
    assert set(run.tensors())


def test_a_step_of_no_digits_is_none(run: ModelDir) -> None:
    (run.path / "model-².index").write_bytes(b"")
    (run.path / f"model-{'9' * 200}.index").write_bytes(b"")
    assert run.best().step() == 3


@pytest.mark.parametrize("above", ["../elsewhere/{}", "{0}/../{0}", "./{}", "/{}", "", ".."])
def test_shards_in_another_folder_are_not_read(whole_models: dict[str, Path], tmp_path: Path, above: str) -> None:
    model = Path(shutil.copytree(whole_models["shards"], tmp_path / "gpt2"))
    shutil.copytree(model, tmp_path / "elsewhere")
    path = model / "model.safetensors.index.json"
    index = json.loads(path.read_text(encoding="utf8"))
    assert HuggingFaceDir(model).tensors()
    first, shard = next(iter(index["weight_map"].items()))
    index["weight_map"][first] = named = above.format(shard)
    path.write_text(json.dumps(index), encoding="utf8")
    assert f"it names {named}, which is not in its folder" in refusal(HuggingFaceDir(model).tensors)


def test_members_of_an_archive_are_put_nowhere(run: ModelDir, tmp_path: Path) -> None:
    path = run.path / "titles.npz"
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in ("../../outside.npy", f"{tmp_path}/outside.npy"):
            archive.writestr(name, npy("(2,)", "<i8", np.array([1, 2], "<i8").tobytes()))
    path.write_bytes(made.getvalue())
    before = sorted(tmp_path.rglob("*"))
    assert [chunk.tolist() for chunk in read_token_arrays(path, run.tokenizer())] == [[1, 2], [1, 2]]
    assert sorted(tmp_path.rglob("*")) == before
