import json
import os
import re
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redditgen.errors import InputError, MissingError, OutputExists, UsageError
from redditgen.files.atomic import file_sha256
from redditgen.finetune.command import finetune
from redditgen.finetune.tokenize import tokenize
from redditgen.gpt2.model_dir import ModelDir
from redditgen.settings import FinetuneSettings, TokenizeSettings
from redditgen.titles.record import END_TOKEN, START_TOKEN, Record, build
from tests.support.fixture_types import Settings, TakesLong

Tokenizing = Callable[..., TokenizeSettings]

UPSTREAM = """
import sys
import gpt_2_simple as gpt2
for combine, path, out in zip(*[iter(sys.argv[3:])] * 3):
    gpt2.encode_dataset(path, model_dir=sys.argv[1], model_name=sys.argv[2], out_path=out, combine=int(combine))
"""


@pytest.fixture
def tokenizing(dataset: Path, model_dir: Path, tmp_path: Path) -> Tokenizing:
    """Makes settings of `tiny`'s tokens of the titles."""

    def make(**changes: Any) -> TokenizeSettings:
        usual: dict[str, Any] = {"dataset": dataset, "out": tmp_path / "a.npz", "model": "tiny", "model_dir": model_dir}
        return TokenizeSettings(**(usual | changes))

    return make


def arrays(path: Path) -> list[list[int]]:
    with np.load(path, allow_pickle=False) as content:
        assert content.files == [f"arr_{number}" for number in range(len(content.files))]
        return [content[name].tolist() for name in content.files]


def test_literal_tokens_are_those_of_the_text(tokenizing: Tokenizing, dataset: Path, tiny: ModelDir) -> None:
    settings = tokenizing()
    counts = tokenize(settings)
    [ids] = arrays(settings.output)
    assert tiny.tokenizer().decode(ids) == dataset.read_text(encoding="utf8") + END_TOKEN
    assert tiny.tokenizer().end not in ids
    assert counts == {"chunks": 1, "tokens": len(ids)}


def test_compact_tokens_are_those_of_the_records(tokenizing: Tokenizing, dataset: Path, tiny: ModelDir) -> None:
    settings, end = tokenizing(record_tokens="compact"), tiny.tokenizer().end
    counts = tokenize(settings)
    [ids] = arrays(settings.output)
    assert (ids[0], ids[-1], ids.count(end)) == (end, end, 2 * 320)
    text = dataset.read_text(encoding="utf8").replace("\n", "")
    assert tiny.tokenizer().decode(ids) == text.replace(START_TOKEN, END_TOKEN)
    assert counts["tokens"] == len(ids)


def test_the_sidecar_says_how_the_tokens_were_made(tokenizing: Tokenizing, dataset: Path, tmp_path: Path) -> None:
    counts = tokenize(tokenizing())
    facts = json.loads((tmp_path / "a.npz.meta.json").read_text(encoding="utf8"))
    assert (facts["command"], facts["counts"]) == ("tokenize", counts)
    assert facts["inputs"] == {str(dataset): file_sha256(dataset)}
    assert facts["settings"]["model"] == "tiny"


def test_the_tokens_are_compressed_and_need_no_pickle(tokenizing: Tokenizing, tmp_path: Path) -> None:
    tokenize(tokenizing())
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_DEFLATED}
    assert (tmp_path / "a.npz").stat().st_size < 20_000


def learned(settings: FinetuneSettings) -> tuple[object, ...]:
    """What a run measured and its weights, bit for bit."""
    run = ModelDir(settings.checkpoint_dir / settings.run)
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text(encoding="utf8").splitlines()]
    for line in lines:
        for measured in ("seconds", "tokens_per_second", "titles_per_second", "memory_bytes"):
            del line[measured]
    return lines, {name: tensor.tobytes() for name, tensor in run.tensors().items()}, run.run_info()


@pytest.mark.parametrize("in_file", ["literal", "compact"])
@pytest.mark.parametrize("in_run", ["literal", "compact"])
def test_training_on_tokens_is_training_on_their_text(
    tokenizing: Tokenizing, finetuning: Settings, in_file: str, in_run: str
) -> None:
    tokens = tokenizing(record_tokens=in_file)
    tokenize(tokens)
    of_text = finetuning(run="text", record_tokens=in_run)
    of_tokens = finetuning(run="tokens", record_tokens=in_run, dataset=tokens.output)
    for settings in (of_text, of_tokens):
        assert finetune(settings) == 6
    assert learned(of_tokens) == learned(of_text)


def test_training_on_tokens_of_a_table_is_training_on_its_titles(
    tokenizing: Tokenizing, finetuning: Settings, titles: list[str], tmp_path: Path
) -> None:
    table = tmp_path / "titles.csv"
    table.write_text("title\n" + "".join(f'"{title}"\n' for title in titles), encoding="utf8")
    of_text = finetuning(run="text", dataset=table)
    finetune(of_text)
    for record_tokens in ("literal", "compact"):
        tokenize(tokenizing(dataset=table, record_tokens=record_tokens, overwrite=True))
        of_tokens = finetuning(run=record_tokens, dataset=tmp_path / "a.npz")
        finetune(of_tokens)
        assert learned(of_tokens) == learned(of_text)


def test_training_on_tokens_of_plain_text_is_training_on_it(
    tokenizing: Tokenizing, finetuning: Settings, titles: list[str], tmp_path: Path
) -> None:
    """In several chunks, so that both must be the same ones."""
    folder = tmp_path / "plain"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.txt").write_text("\r\n".join(titles[number * 40 : number * 40 + 40]), encoding="utf8")
    tokens = tokenizing(dataset=folder, combine=2000)
    assert tokenize(tokens)["chunks"] == 2
    of_text = finetuning(run="text", dataset=folder, combine=2000, window=24)
    of_tokens = finetuning(run="tokens", dataset=tokens.output, window=24)
    for settings in (of_text, of_tokens):
        finetune(settings)
    assert learned(of_tokens) == learned(of_text)


def test_tokens_of_another_kind_are_made_of_tokens(tokenizing: Tokenizing, tmp_path: Path, dataset: Path) -> None:
    """Compact ones are spelled out, literal ones are kept as they are."""
    text = "".join(build(Record(title=title)) for title in ("One", "Two"))
    (tmp_path / "a.txt").write_text(text, encoding="utf8")
    made = {}
    for kind in ("literal", "compact"):
        made[kind] = tokenizing(dataset=tmp_path / "a.txt", record_tokens=kind, out=tmp_path / f"{kind}.npz", combine=1)
        tokenize(made[kind])
    for source in ("literal", "compact"):
        for kind in ("literal", "compact"):
            again = tokenizing(dataset=tmp_path / f"{source}.npz", record_tokens=kind, overwrite=True)
            tokenize(again)
            assert arrays(again.output) == arrays(made[kind].output), (source, kind)


@pytest.mark.parametrize(
    ("path", "output"),
    [
        ("data/titles.txt", "data/titles.npz"),
        ("titles", "titles.npz"),
        ("data/", "data.npz"),
        ("a[1].txt", "a[1].npz"),
    ],
)
def test_the_output_is_named_after_the_dataset(path: str, output: str) -> None:
    assert TokenizeSettings(dataset=Path(path)).output == Path(output)


@pytest.mark.parametrize("path", ["data/*.txt", "a?.txt", ".", "..", "/"])
def test_what_names_no_file_needs_an_output(path: str) -> None:
    with pytest.raises(UsageError, match=r"^--out: is needed, since .* is no name for a file$"):
        TokenizeSettings(dataset=Path(path))
    assert TokenizeSettings(dataset=Path(path), out=Path("b.npz")).output == Path("b.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"combine": 0}, "--combine must be 1 or more, not 0"),
        ({"record_tokens": "both"}, "--record-tokens must be literal or compact, not 'both'"),
        ({"out": Path("tokens.txt")}, r"--out must end in \.npz, not tokens\.txt"),
    ],
)
def test_wrong_settings_are_refused(tokenizing: Tokenizing, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tokenizing(**changes)


def test_nothing_is_written_where_something_is_wrong(tokenizing: Tokenizing, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n", encoding="utf8")
    (tmp_path / "plain.txt").write_text("no record", encoding="utf8")
    (tmp_path / "two.csv").write_text("a,b\n", encoding="utf8")
    before = sorted(tmp_path.iterdir())
    for changes, kind, message in (
        ({"dataset": tmp_path / "gone.txt"}, MissingError, r"gone\.txt: no such file"),
        ({"dataset": tmp_path / "empty.txt"}, InputError, r"empty\.txt: is empty"),
        ({"dataset": tmp_path / "plain.txt", "record_tokens": "compact"}, InputError, r"plain\.txt: holds no record"),
        ({"dataset": tmp_path / "two.csv"}, InputError, r"two\.csv, line 1: has 2 columns"),
        ({"model": "none"}, MissingError, r"model none: no .*none/hparams\.json; the models there are: .*tiny"),
        ({"model": "./none"}, MissingError, r"none: is no folder of a GPT-2"),
    ):
        with pytest.raises(kind, match=message):
            tokenize(tokenizing(**changes))
    assert sorted(tmp_path.iterdir()) == before


def test_an_output_that_is_there_is_kept(tokenizing: Tokenizing, tmp_path: Path) -> None:
    settings = tokenizing()
    settings.output.write_text("mine", encoding="utf8")
    with pytest.raises(OutputExists, match=r"a\.npz: already exists; pass --overwrite"):
        tokenize(settings)
    assert settings.output.read_text(encoding="utf8") == "mine"
    tokenize(tokenizing(overwrite=True))
    assert arrays(settings.output)


@pytest.mark.slow
@pytest.mark.tf1
def test_the_tokens_are_those_of_gpt_2_simples_own_encode_dataset(
    tokenizing: Tokenizing, dataset: Path, titles: list[str], model_dir: Path, tf1_python: Path, tmp_path: Path
) -> None:
    """Of records, plain text, a table with a header, and a folder of one kind."""
    plain, table, folder = tmp_path / "plain.txt", tmp_path / "titles.csv", tmp_path / "folder"
    plain.write_text("Ünïcödé 日本 🎉\r\n" + "  two  blanks\n" * 30, encoding="utf8", newline="")
    table.write_text("title\n" + "".join(f'"{title}, ""quoted"""\n' for title in titles), encoding="utf8")
    folder.mkdir()
    (folder / "one.txt").write_text("Of one file only, since gpt-2-simple has them in any order.\n", encoding="utf8")
    cases = [(path, combine) for path in (dataset, plain, table, folder) for combine in (50_000, 10)]
    arguments = [(combine, path, tmp_path / f"{n}.npz") for n, (path, combine) in enumerate(cases)]
    flat = [str(argument) for three in arguments for argument in three]
    subprocess.run(
        [tf1_python, "-c", UPSTREAM, str(model_dir), "tiny", *flat],
        cwd=tmp_path, env={**os.environ, "PYTHONUTF8": "1"}, check=True, capture_output=True, timeout=200,
    )  # fmt: skip
    for combine, path, out in arguments:
        tokenize(tokenizing(dataset=path, combine=combine, overwrite=True))
        assert arrays(tmp_path / "a.npz") == arrays(out), (path, combine)


def test_long_tokenizing_says_that_it_goes_on(
    tokenizing: Tokenizing, takes_long: TakesLong, caplog: pytest.LogCaptureFixture
) -> None:
    takes_long(np, "savez_compressed")
    settings = tokenizing()
    tokenize(settings)
    assert re.fullmatch(rf"tokenizing {settings.dataset} goes on, \d+ s", caplog.messages[0])
