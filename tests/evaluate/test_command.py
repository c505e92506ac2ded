"""evaluate: figures against brute force, the same for a seed, and what is written."""

import json
import math
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redditgen.engines.data.examples import tokenize_records
from redditgen.engines.pytorch.device import best_device
from redditgen.engines.pytorch.memory_plan import Plan
from redditgen.engines.pytorch.network import load_network
from redditgen.engines.pytorch.training import measure_held_out_loss as measured_at_once
from redditgen.errors import InputError, MissingError, OutputExists, UsageError
from redditgen.evaluate import command, held_out_figures, statistics, title_figures
from redditgen.evaluate.samples import Sample, draw_samples
from redditgen.evaluate.table import format_text_table, table_rows
from redditgen.files.atomic import file_sha256
from redditgen.finetune.dataset.load import read_dataset, read_held_out_records
from redditgen.gpt2.model_dir import ModelDir
from redditgen.settings import EvaluateSettings
from redditgen.titles.novelty import TitleIndex
from redditgen.titles.record import END_TOKEN, Record, build
from tests.support.fixture_types import Redditgen, Scripted

Evaluating = Callable[..., EvaluateSettings]


@pytest.fixture
def evaluating(checkpoint_dir: Path, dataset: Path, tmp_path: Path) -> Evaluating:
    """Makes settings of an evaluation of the run `trained`, with the titles that its finetuning held out."""

    def make(**changes: Any) -> EvaluateSettings:
        usual: dict[str, Any] = {
            "run": "trained", "against": dataset, "val_fraction": 0.1, "n": 60,
            "out": tmp_path / "evaluation", "checkpoint_dir": checkpoint_dir,
        }  # fmt: skip
        return EvaluateSettings(**(usual | changes))

    return make


@pytest.fixture
def run(checkpoint_dir: Path) -> ModelDir:
    return ModelDir(checkpoint_dir / "trained")


def value(figures: list[statistics.Figure], name: str, of: str = "generated", keywords: int | None = None) -> float:
    [found] = [one.value for one in figures if (one.name, one.of, one.keywords) == (name, of, keywords)]
    return found


def test_means_and_intervals_are_those_of_resampled_titles() -> None:
    values = [0.0, 1.0, 1.0, 0.5]
    figure = statistics.mean_figure("some", values, seed=3)
    rng = np.random.default_rng(3)
    drawn = [sum(values[at] for at in rng.integers(4, size=4)) / 4 for _ in range(1000)]
    assert figure.value == 0.625
    assert (figure.low, figure.high) == tuple(np.percentile(drawn, (2.5, 97.5)))
    assert figure.number == 4


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    figures = [statistics.mean_figure("some", rng.random(200) < 0.3, seed=seed) for seed in range(100)]
    held = sum((one.low or 0) <= 0.3 <= (one.high or 0) for one in figures)
    assert 88 <= held <= 100


def test_records_of_one_title_are_drawn_together() -> None:
    sum_over_ranks = statistics.sum_by_title(["a", "b", "a"], np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 5.0]))
    assert [column.tolist() for column in sum_over_ranks] == [[4.0, 2.0], [6.0, 1.0]]


def test_variety_by_hand() -> None:
    titles = ["My cat sleeps", "my cat, sleeps!", "A cat", "Dogs"]
    assert statistics.duplicate_share(titles) == 0.25
    assert statistics.distinct_ngrams(titles, 1) == 5 / 9  # my cat sleeps a dogs
    assert statistics.distinct_ngrams(titles, 2) == 3 / 5
    assert statistics.distinct_ngrams(["one"], 2) == 0


def test_the_distance_of_distributions_by_brute_force() -> None:
    rng = random.Random(0)
    some, others = [rng.randrange(3, 12) for _ in range(40)], [rng.randrange(5, 20) for _ in range(70)]
    brute = max(abs(sum(one <= at for one in some) / 40 - sum(one <= at for one in others) / 70) for at in range(25))
    assert statistics.kolmogorov_smirnov(some, others) == pytest.approx(brute)
    assert statistics.kolmogorov_smirnov(some, some) == 0


def test_figures_of_titles_by_hand(run: ModelDir, evaluating: Evaluating) -> None:
    samples = [
        Sample("cats", ("old", "cat"), title="My old cats sleep"),
        Sample("cats", ("sofa",), title="My cat sleeps"),
        Sample("dogs", ("dog",), title="A dog on the porn sofa"),
        Sample("dogs", (), title="A dog on the porn sofa"),
        Sample("dogs", ("ball",), fault="unfinished"),
    ]
    judge = replace(
        title_figures.TitleChecks.load(evaluating(), run), index=TitleIndex.from_titles(["My old cats sleep!", "Other"])
    )
    found = title_figures.all_title_figures(samples, ["One two", "One two three four"], judge, 0)
    assert value(found, "ended") == value(found, "whole") == 0.8
    assert value(found, "keyword_hits") == pytest.approx(2 / 3)
    assert value(found, "keyword_hits", keywords=1) == 0.5
    assert value(found, "keyword_hits", keywords=2) == value(found, "all_keywords_held", keywords=2) == 1
    assert (value(found, "copies"), value(found, "near_copies"), value(found, "novel")) == (0.25, 0, 0.75)
    assert (value(found, "unsafe"), value(found, "unsafe", "held-out")) == (0.5, 0)
    assert value(found, "duplicates") == 0.25
    assert (value(found, "distinct_1"), value(found, "distinct_1", "held-out")) == (6 / 7, 4 / 6)  # two titles each
    assert value(found, "words") == 4.75
    assert value(found, "words_p50", "held-out") == 3


def test_held_out_figures_are_those_that_finetune_measures(run: ModelDir, evaluating: Evaluating) -> None:
    records = read_held_out_records(evaluating().finetune_settings, run.run_info(), run.tokenizer())
    tokenized = tokenize_records(records, run.tokenizer(), run.run_info().record_tokens, run.hyperparameters().n_ctx)
    model = load_network(run.hyperparameters(), run.tensors(), Plan(), best_device())
    model.eval()
    at_once = measured_at_once(model, tokenized, 7)
    found = held_out_figures.held_out_figures(run, records, 0)
    assert value(found, "bits_per_char", "held-out") == pytest.approx(at_once.bits_per_char, rel=1e-5)
    assert value(found, "perplexity", "held-out") == pytest.approx(math.exp(at_once.loss), rel=1e-5)
    assert at_once.bits_per_char == pytest.approx(run.metrics.reports()[-1].val_bits_per_char, rel=1e-4)
    for figure in found:
        assert figure.low is not None and figure.high is not None
        assert figure.low <= figure.value <= figure.high
        assert figure.number == len({record.title for record in records})


@pytest.mark.parametrize("way", ["--against", "dynamic", "--val"])
def test_the_records_are_those_that_finetune_holds_out(
    way: str, run: ModelDir, evaluating: Evaluating, dataset: Path, tmp_path: Path
) -> None:
    settings = evaluating(seed=3)
    finetuned = settings.finetune_settings
    if way == "dynamic":
        lines = [{"category": "cats", "keywords": ["a", "b", "c"], "title": f"Title {n}"} for n in range(50)]
        path = tmp_path / "titles.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf8")
        settings = evaluating(seed=3, against=path, val_fraction=0.3, min_keywords=1, max_keywords=2)
        finetuned = settings.finetune_settings
    elif way == "--val":
        path = tmp_path / "val.txt"
        path.write_text(build(Record(category="cats", keywords="nap", title="A nap")) + "\n", encoding="utf8")
        settings = evaluating(seed=3, against=None, val=path)
        finetuned = replace(settings.finetune_settings, dataset=dataset)
    run_info, tokenizer, context = run.run_info(), run.tokenizer(), run.hyperparameters().n_ctx
    found = tokenize_records(
        read_held_out_records(settings.finetune_settings, run_info, tokenizer),
        tokenizer,
        run_info.record_tokens,
        context,
    )
    measured = read_dataset(finetuned, run_info, tokenizer, context).held_out
    assert len(found) > 0
    assert found.sequences.ids.tolist() == measured.sequences.ids.tolist()


def test_prompts_are_those_of_records_each_as_often(run: ModelDir, evaluating: Evaluating) -> None:
    records = [Record(category="cats", keywords=word, title=word) for word in ("old", "tiny", "old lazy")]
    samples = draw_samples(evaluating().generate_settings, run, records, 7, seed=1)
    asked = [sample.keywords for sample in samples]
    assert len(samples) == 7
    assert {asked.count(one) for one in [("old",), ("tiny",), ("old", "lazy")]} == {2, 3}
    too_long = [Record(category="cats", keywords="old " * 60, title="x")]
    assert len(draw_samples(evaluating().generate_settings, run, [*records, *too_long], 3, seed=1)) == 3
    with pytest.raises(InputError, match="every prompt fills its context"):
        draw_samples(evaluating().generate_settings, run, too_long, 3, seed=1)


def test_the_same_seed_gives_the_same_evaluation(evaluating: Evaluating) -> None:
    first, again, other = (command.evaluate(evaluating(sample_seed=seed)) for seed in (1, 1, 2))
    assert first.content() == again.content()
    assert first.content()["titles"] != other.content()["titles"]
    assert value(list(first.figures), "bits_per_char", "held-out") == value(
        list(other.figures), "bits_per_char", "held-out"
    )


def test_what_is_written_holds_all_figures(evaluating: Evaluating, run: ModelDir) -> None:
    settings = evaluating()
    made = command.write_evaluation(settings)
    content = json.loads((settings.output / "evaluation.json").read_text(encoding="utf8"))
    assert [statistics.Figure(**figure) for figure in content["figures"]] == list(made.figures)
    assert content["step"] == run.step()
    assert content["counts"]["texts"] == 60
    assert all(title["synthetic"] for title in content["titles"])
    frame = made.frame()
    assert len(frame) == len(made.figures)
    assert frame.set_index(["name", "of"]).loc[("bits_per_char", "held-out"), "value"] == made.figures[0].value
    assert len(format_text_table(made.figures).splitlines()) == 1 + len(list(table_rows(made.figures)))


def test_what_the_figures_depend_on_is_named(evaluating: Evaluating, run: ModelDir, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("kitten\n", encoding="utf8")
    settings = evaluating(n=5, words=words)
    wanted = [settings.against, words, run.path / f"model-{run.step()}.index", run.path / "training_titles.npz"]
    assert command.evaluate(settings).inputs == {str(path): file_sha256(path) for path in wanted if path}


def test_titles_that_finetune_did_not_hold_out_are_warned_of(
    evaluating: Evaluating, caplog: pytest.LogCaptureFixture
) -> None:
    command.evaluate(evaluating(n=5))
    assert "other titles were held out" not in caplog.text
    command.evaluate(evaluating(n=5, seed=1))
    assert re.search(r"run trained: finetune measured [0-9.]+ bits per character at this step, and here", caplog.text)


def test_without_an_index_all_but_novelty_is_measured(
    evaluating: Evaluating, checkpoint_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(checkpoint_dir, tmp_path / "copy")
    (tmp_path / "copy/trained/training_titles.npz").unlink()
    found = command.evaluate(evaluating(checkpoint_dir=tmp_path / "copy", n=20)).figures
    assert "novelty is not measured" in caplog.text
    assert {"copies", "novel"} & {figure.name for figure in found} == set()


def test_the_command_prints_the_table(
    redditgen: Redditgen, dataset: Path, checkpoint_dir: Path, tmp_path: Path
) -> None:
    arguments = ("evaluate", "--run", "trained", "--checkpoint-dir", checkpoint_dir, "--val-fraction", 0.1, "-n", 30)
    done = redditgen(*arguments, "--against", dataset, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("measure")
    assert "bits per character of held-out titles" in done.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["evaluation.html", "evaluation.json"]


def test_bad_input_is_refused_and_nothing_written(evaluating: Evaluating, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"^run nope: no .*checkpoint; make it with: redditgen finetune"):
        command.write_evaluation(evaluating(run="nope"))
    with pytest.raises(InputError, match=r"no title in it is held out by --seed 0 --val-fraction 1e-09; raise"):
        command.write_evaluation(evaluating(val_fraction=1e-9))
    with pytest.raises(UsageError, match=r"^--against: is needed: the dataset that run trained was finetuned on"):
        evaluating(against=None)
    with pytest.raises(UsageError, match=r"^--val: is measured instead of --against; leave out one$"):
        evaluating(val=tmp_path / "val.txt")
    with pytest.raises(UsageError, match=r"^--max-keywords: .* was not made by encode --dynamic"):
        command.write_evaluation(evaluating(max_keywords=2))
    with pytest.raises(UsageError, match=r"^-n must be 1 or more, not 0$"):
        evaluating(n=0)
    with pytest.raises(UsageError, match=r"^--precision must be"):
        evaluating(precision="float64")
    with pytest.raises(MissingError, match=r"nolist\.txt: no such file; --words needs a list"):
        command.write_evaluation(evaluating(words=tmp_path / "nolist.txt"))
    plain = tmp_path / "plain.txt"
    plain.write_text("Once upon a time\n", encoding="utf8")
    with pytest.raises(InputError, match=r"plain\.txt: holds no record to measure on; `redditgen encode`"):
        command.write_evaluation(evaluating(against=plain))
    with pytest.raises(UsageError, match=r"^--out: .*plain\.txt is a file; name a folder$"):
        command.write_evaluation(evaluating(out=plain))
    assert not evaluating().output.exists()


def test_a_folder_that_can_not_be_written_to_is_found_before_any_work(
    evaluating: Evaluating, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)  # root may write anywhere
    with pytest.raises(InputError, match=rf"evaluation\.json: can't be written: {tmp_path} may not be written to"):
        command.write_evaluation(evaluating(run="nope"))
    assert list(tmp_path.iterdir()) == []


def test_an_evaluation_that_is_there_stays(evaluating: Evaluating) -> None:
    settings = evaluating()
    settings.output.mkdir()
    there = settings.output / "evaluation.json"
    there.write_text("{}", encoding="utf8")
    with pytest.raises(OutputExists, match=r"evaluation\.json: already exists; pass --overwrite"):
        command.write_evaluation(settings)
    assert there.read_text(encoding="utf8") == "{}"
    command.write_evaluation(evaluating(overwrite=True, n=10))
    assert json.loads(there.read_text(encoding="utf8"))["command"] == "evaluate"


def test_an_evaluation_with_a_page_of_another_is_made_again(
    evaluating: Evaluating, caplog: pytest.LogCaptureFixture
) -> None:
    settings = evaluating(n=10)
    command.write_evaluation(settings)
    assert command.is_up_to_date(settings)
    (settings.output / "evaluation.html").write_text("what a kill between the two files has left", encoding="utf8")
    assert not command.is_up_to_date(settings)
    assert "not skipped, since page was " in caplog.text


def test_a_run_that_writes_no_title_is_said_to(evaluating: Evaluating, engine: Scripted) -> None:
    engine(lambda prompt, number: prompt + "and so on")
    with pytest.raises(InputError, match=r"none of 60 texts is a whole title \(60 unfinished\); finetune for longer"):
        command.write_evaluation(evaluating())
    assert not evaluating().output.exists()


class Page(HTMLParser):
    """What stands in a page: its elements, which are open, what they load, and the text of the titles' elements."""

    VOID = frozenset({"meta", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.titles: list[str] = []
        self.marks = 0
        self._is_title = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        given = {name: said or "" for name, said in attrs}
        self.loaded += [said for name, said in given.items() if name.rpartition(":")[2] in ("src", "href", "action")]
        self.ids += [said for name, said in given.items() if name == "id"]
        self.marks += given.get("class") == "mark"
        if given.get("class") == "title":
            self._is_title = True
            self.titles.append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._is_title = False

    def handle_data(self, data: str) -> None:
        if self._is_title:
            self.titles[-1] += data


def test_the_page_stands_alone(evaluating: Evaluating) -> None:
    settings = evaluating()
    made = command.write_evaluation(settings)
    text = (settings.output / "evaluation.html").read_text(encoding="utf8")
    page = Page(text)
    assert page.open == []
    assert page.titles == [sample.title for sample in made.titles[:30]]
    assert len(page.titles) == page.marks == 30
    assert page.seen.count("svg") == 2
    assert "script" not in page.seen
    assert all(address.startswith("#") or address == "data:," for address in page.loaded)
    assert not re.search("https?:|@import", text)
    assert len(page.ids) == len(set(page.ids))
    assert {address[1:] for address in page.loaded if address.startswith("#")} <= set(page.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(page.ids)
    for row in table_rows(made.figures):
        assert f"<td>{row.value}</td>" in text


def test_the_page_is_the_same_for_the_same_figures(evaluating: Evaluating, tmp_path: Path) -> None:
    command.write_evaluation(evaluating(n=10, out=tmp_path / "one"))
    command.write_evaluation(evaluating(n=10, out=tmp_path / "two"))
    assert (tmp_path / "one/evaluation.html").read_bytes() == (tmp_path / "two/evaluation.html").read_bytes()


def test_titles_and_categories_are_escaped(
    evaluating: Evaluating, engine: Scripted, dataset: Path, tmp_path: Path
) -> None:
    hostile = "<script>alert('1')</script> & \"more\""
    engine(lambda prompt, number: f"{prompt}{hostile}{END_TOKEN}")
    lines = [build(Record(category="<b>x", keywords="<i>", title="Some title")) + "\n"]
    val = tmp_path / "val.txt"
    val.write_text("".join(lines), encoding="utf8")
    settings = evaluating(against=None, val=val, n=3)
    command.write_evaluation(settings)
    page = Page((settings.output / "evaluation.html").read_text(encoding="utf8"))
    assert page.titles == [hostile] * 3
    assert {"script", "b", "i"} & set(page.seen) == set()
