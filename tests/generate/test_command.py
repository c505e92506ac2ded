import csv
import json
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from redditgen.errors import InputError, MissingError, OutputExists, UsageError
from redditgen.files.atomic import file_sha256
from redditgen.finetune.command import finetune
from redditgen.generate.command import generate, generate_for_prompts
from redditgen.generate.output import write_titles
from redditgen.generate.prompts import Prompt
from redditgen.generate.title import TITLE_COLUMNS, Title
from redditgen.gpt2.hyperparameters import Hyperparameters
from redditgen.gpt2.model_dir import ModelDir
from redditgen.gpt2.run_info import RunInfo
from redditgen.gpt2.tokenizer import train_tokenizer
from redditgen.settings import FinetuneSettings, GenerateSettings
from redditgen.titles.record import DELIMITERS, END_TOKEN, START_TOKEN, Record, build, has_markup
from tests.support.fixture_types import Generating, Redditgen, Scripted, Settings
from tests.support.tiny_model import random_tensors


def texts(settings: GenerateSettings) -> list[str]:
    return [title.title for title in generate(settings)]


def test_as_many_titles_as_asked_and_each_is_one(generating: Generating, titles: list[str]) -> None:
    for n in (1, 20, 70):  # 70 are more than a block
        made = texts(generating(n=n))
        assert len(made) == n
        assert all(text.strip() and not has_markup(text) for text in made)
    known = sum(text in titles for text in made)
    assert known > 35  # it has learned those titles and no others
    assert len(set(made)) > 20


def test_each_title_says_where_it_comes_from(generating: Generating) -> None:
    [title] = generate(generating(n=1, category="cats", keywords="ball"))
    assert title.title.startswith("My ")
    assert vars(title) == vars(
        Title(
            title=title.title, category="cats", keywords="ball", prompt=f"{START_TOKEN}~`cats~^ball~@", run="trained",
            step=120, engine="torch", seed=1, synthetic=True,
        )
    )  # fmt: skip


def test_the_same_seed_gives_the_same_titles(generating: Generating) -> None:
    made = texts(generating(n=70))
    assert texts(generating(n=70)) == made
    assert texts(generating(n=70, seed=2)) != made
    assert texts(generating(n=70, keywords="door")) == texts(generating(n=70, keywords="door"))


def test_a_block_is_the_same_whatever_comes_after_it(generating: Generating) -> None:
    """And so is a window, of eight blocks, with prompts that differ, as those with drawn categories do."""
    few, many = (texts(generating(n=n, batch_size="8")) for n in (8, 24))
    assert many[:8] == few
    few, many = (texts(generating(n=n, batch_size="2", keywords="door")) for n in (16, 40))
    assert many[:16] == few


def test_without_a_seed_titles_differ_and_can_be_made_again(
    generating: Generating, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        first, second = (list(generate(generating(seed=None))) for _ in range(2))
    assert [title.title for title in first] != [title.title for title in second]
    assert f"--seed {first[0].seed} makes these titles again" in caplog.text
    assert list(generate(generating(seed=first[0].seed))) == first


def test_a_negative_seed_is_a_seed(generating: Generating) -> None:
    assert texts(generating(seed=-5)) == texts(generating(seed=-5)) != texts(generating(seed=5))


def test_a_category_is_asked_for_as_encode_writes_it(generating: Generating) -> None:
    for typed in ("cats", "Cats", " CATS\n"):
        made = list(generate(generating(category=typed, keywords="ball")))
        assert {(title.category, title.prompt) for title in made} == {("cats", f"{START_TOKEN}~`cats~^ball~@")}


def test_categories_and_keywords_are_followed(generating: Generating) -> None:
    for category, animal in (("cats", "cat"), ("dogs", "dog")):
        made = list(generate(generating(category=category, keywords=f"happy {animal}")))
        assert {title.category for title in made} == {category}
        assert sum(title.title.startswith(f"My happy {animal} ") for title in made) > 10


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        ("lazy cat", "lazy cat"),
        ("lazy, cat,,  ball", "lazy cat ball"),
        ("lazy,cat lazy", "lazy cat"),
        ("What's new? ~@ !!", "What-s new"),
        ("", ""),
    ],
)
def test_keywords_stand_between_blanks_or_commas(generating: Generating, typed: str, written: str) -> None:
    [title] = generate(generating(n=1, category="cats", keywords=typed, temperature=0))
    assert title.prompt == f"{START_TOKEN}~`cats~^{written}~@"
    assert title.keywords == written


def test_keywords_without_a_category_draw_one_of_the_runs(generating: Generating) -> None:
    made = list(generate(generating(n=64, keywords="ball")))
    drawn = Counter(title.category for title in made)
    assert set(drawn) == {"cats", "dogs"}
    assert min(drawn.values()) > 15
    assert {title.prompt for title in made} == {f"{START_TOKEN}~`{category}~^ball~@" for category in drawn}


def test_without_either_the_model_chooses(generating: Generating) -> None:
    made = list(generate(generating(n=40)))
    assert {title.prompt for title in made} == {f"{START_TOKEN}~`"}
    assert {title.category for title in made} == {"cats", "dogs"}
    assert len({title.keywords for title in made}) > 3


def test_a_run_that_has_learned_titles_alone_is_asked_for_a_category_of_its_own(
    generating: Generating, finetuning: Settings, dynamic: Path, tmp_path: Path, titles: list[str]
) -> None:
    finetune(finetuning(dataset=dynamic, run="by_title", steps=120, batch_size=32, learning_rate=0.02))
    settings = generating(run="by_title", n=40, checkpoint_dir=tmp_path / "checkpoint")
    made = list(generate(settings))
    drawn = Counter(title.category for title in made)
    assert set(drawn) == {"cats", "dogs"} and min(drawn.values()) > 10
    assert {title.prompt for title in made} == {f"{START_TOKEN}~`{category}~^~@" for category in drawn}
    assert sum(title.title in titles for title in made) > 20
    assert {title.category for title in generate(replace(settings, category="cats"))} == {"cats"}


def test_every_prompt_gets_its_own_title(generating: Generating) -> None:
    prompts = [Prompt("cats", ("ball",)), Prompt("dogs", ("sofa",)), Prompt()] * 10
    made = Counter(title.prompt for title in generate_for_prompts(prompts, generating(batch_size="7")))
    assert made == {f"{START_TOKEN}~`cats~^ball~@": 10, f"{START_TOKEN}~`dogs~^sofa~@": 10, f"{START_TOKEN}~`": 10}


def test_temperature_zero_gives_one_title(generating: Generating) -> None:
    assert len(set(texts(generating(category="cats", temperature=0)))) == 1


def test_a_table_holds_a_title_a_row(generating: Generating, tmp_path: Path) -> None:
    settings = generating(category="cats", keywords="ball", out=tmp_path / "new/titles.csv")
    assert write_titles(settings) == 20
    with (tmp_path / "new/titles.csv").open(encoding="utf8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == list(TITLE_COLUMNS)
    made = list(generate(settings))
    assert rows[1:] == [[str(value) for value in vars(title).values()] for title in made]
    assert rows[1][1:] == ["cats", "ball", f"{START_TOKEN}~`cats~^ball~@", "trained", "120", "torch", "1", "True"]


def test_json_lines_hold_the_same_under_the_same_names(generating: Generating, tmp_path: Path) -> None:
    settings = generating(out=tmp_path / "titles.jsonl")
    write_titles(settings)
    rows = [json.loads(line) for line in (tmp_path / "titles.jsonl").read_text(encoding="utf8").splitlines()]
    assert rows == [vars(title) for title in generate(settings)]
    assert [*rows[0]] == [
        "title", "category", "keywords", "prompt", "run", "step", "engine", "seed", "synthetic",
    ]  # fmt: skip
    assert (rows[0]["seed"], rows[0]["step"], rows[0]["synthetic"]) == (1, 120, True)


def test_text_holds_a_title_a_line(generating: Generating, tmp_path: Path) -> None:
    settings = generating(out=tmp_path / "titles.txt")
    write_titles(settings)
    assert (tmp_path / "titles.txt").read_text(encoding="utf8").splitlines() == texts(settings)


def test_a_sidecar_says_how_the_titles_were_made(generating: Generating, checkpoint_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "titles.jsonl"
    write_titles(generating(out=out, seed=None))
    facts = json.loads((tmp_path / "titles.jsonl.meta.json").read_text(encoding="utf8"))
    assert (facts["command"], facts["step"], facts["synthetic"]) == ("generate", 120, True)
    assert (facts["batch_size"], facts["precision"]) == (128, "int8")
    counts = facts["counts"]
    assert counts["titles"] == 20
    assert counts["samples"] == sum(counts.values()) - counts["samples"]
    index = checkpoint_dir / "trained/model-120.index"
    assert facts["inputs"] == {str(index): file_sha256(index)}
    first = json.loads(out.read_text(encoding="utf8").splitlines()[0])
    assert facts["settings"]["seed"] == first["seed"]
    assert facts["settings"]["temperature"] == 0.7


def test_an_output_that_is_there_is_kept(generating: Generating, tmp_path: Path) -> None:
    out = tmp_path / "titles.txt"
    out.write_text("mine", encoding="utf8")
    with pytest.raises(OutputExists, match=r"titles\.txt: already exists; pass --overwrite"):
        write_titles(generating(out=out))
    assert sorted(tmp_path.iterdir()) == [out]
    assert out.read_text(encoding="utf8") == "mine"
    assert write_titles(generating(out=out, overwrite=True)) == 20
    assert len(out.read_text(encoding="utf8").splitlines()) == 20


def test_wrong_use_is_said_before_any_work(generating: Generating, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.txt, \.csv or \.jsonl"):
        write_titles(generating(out=tmp_path / "titles.xlsx"))
    for changes, message in (
        ({"n": 0}, "-n must be 1 or more"),
        ({"temperature": -0.1}, "--temperature"),
        ({"top_p": 1.1}, "--top-p"),
        ({"length": 0}, "--length"),
        ({"batch_size": "0"}, "--batch-size must be auto or a number from 1, not '0'"),
        ({"precision": "int4"}, "--precision must be auto or float32 or int8"),
        ({"repetition_penalty": 0.0}, "--repetition-penalty must be above 0"),
        ({"max_tries": 0}, "--max-tries"),
        ({"min_words": 5, "max_words": 4}, "--max-words must not be below --min-words"),
        ({"novel_threshold": 1.1}, "--novel-threshold"),
        ({"engine": "gpt-2-simple", "precision": "int8"}, "--precision int8: gpt-2-simple computes in float32 alone"),
        ({"engine": "gpt-2-simple", "repetition_penalty": 1.2}, "--repetition-penalty: gpt-2-simple has none"),
    ):
        with pytest.raises(UsageError, match=message):
            generating(**changes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../run1", "..", ".", ""])
def test_a_run_is_a_folder_in_its_folder(generating: Generating, name: str) -> None:
    with pytest.raises(UsageError, match="--run must be a plain folder name"):
        generating(run=name)


def test_an_unknown_run_is_an_error_that_names_those_there_are(generating: Generating, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"run run9: no .*run9/checkpoint; make it with: .*trained"):
        list(generate(generating(run="run9")))
    with pytest.raises(MissingError, match=r"runs there are: none"):
        list(generate(generating(checkpoint_dir=tmp_path)))
    with pytest.raises(MissingError, match="run9"):
        write_titles(generating(run="run9", out=tmp_path / "titles.txt"))
    assert list(tmp_path.iterdir()) == []


def test_a_prompt_without_room_for_a_title_is_refused(generating: Generating) -> None:
    with pytest.raises(
        UsageError, match=r"^a prompt of \d+ tokens fills the model's context of 64: '<\|sta.*x0 x1.*'\.\.\.$"
    ):
        list(generate(generating(keywords=" ".join(f"x{number}" for number in range(70)))))


def untrained(tiny: ModelDir, hyperparameters: Hyperparameters, folder: Path, **run_info: Any) -> None:
    """Make a run `noise` of random weights, which ends hardly any title."""
    run = ModelDir(folder / "noise")
    run.start_run(tiny, RunInfo(**{"record_tokens": "compact", "categories": {"cats": 1}, **run_info}))
    run.save_checkpoint(1, random_tensors(hyperparameters), {})


def test_a_run_that_ends_no_title_fails_and_says_why(
    generating: Generating, tiny: ModelDir, hyperparameters: Hyperparameters, tmp_path: Path
) -> None:
    untrained(tiny, hyperparameters, tmp_path)
    noise = generating(run="noise", length=2, batch_size="8", checkpoint_dir=tmp_path, out=tmp_path / "titles.txt")
    with pytest.raises(
        InputError, match=r"^run noise: wrote no whole title that is wanted \(\d+ did not end .* raise --length.*$"
    ):
        list(generate(noise))
    with pytest.raises(InputError):
        write_titles(noise)
    assert [path.name for path in tmp_path.iterdir()] == ["noise"]


def test_a_run_that_ends_few_titles_gives_these_with_a_warning(
    generating: Generating, checkpoint_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The likeliest titles, but of as many tokens at most as the shortest of them has."""
    prompts = [Prompt("cats", (keyword,)) for keyword in ("ball", "dinner", "sofa", "door")]
    tokenizer = ModelDir(checkpoint_dir / "trained").tokenizer()
    made = list(generate_for_prompts(prompts, generating(temperature=0, max_tries=1)))
    lengths = [len(encoding.ids) + 1 for encoding in tokenizer.encode([title.title for title in made])]
    short = list(generate_for_prompts(prompts, generating(temperature=0, length=min(lengths))))
    missing = sum(length > min(lengths) for length in lengths)
    assert 0 < missing == 4 - len(short)
    assert {title.title for title in short} < {title.title for title in made}
    assert f"{missing} of 4 titles are missing: " in caplog.text


def test_sections_that_a_run_never_had_are_not_asked_for(
    generating: Generating, tiny: ModelDir, hyperparameters: Hyperparameters, tmp_path: Path
) -> None:
    untrained(tiny, hyperparameters, tmp_path, sections=("title",), categories={})
    for option in ("category", "keywords"):
        with pytest.raises(UsageError, match=f"--{option}: the records of this run have no {option}"):
            list(generate(generating(run="noise", checkpoint_dir=tmp_path, **{option: "cats"})))


def test_a_run_of_titles_alone_writes_titles(
    generating: Generating, titles: list[str], model_dir: Path, tmp_path: Path
) -> None:
    dataset = tmp_path / "plain.txt"
    dataset.write_text("".join(build(Record(title=title)) + "\n" for title in titles), encoding="utf8")
    finetune(
        FinetuneSettings(
            dataset=dataset, model="tiny", run="plain", steps=60, learning_rate=0.02, sample_every=0,
            model_dir=model_dir, checkpoint_dir=tmp_path, precision="float32",
        )
    )  # fmt: skip
    made = list(generate(generating(run="plain", checkpoint_dir=tmp_path)))
    assert {title.prompt for title in made} == {START_TOKEN + DELIMITERS["title"]}
    assert {(title.category, title.keywords) for title in made} == {(None, None)}
    assert sum(title.title in titles for title in made) > 10


# Runs of other things than records with sections


@pytest.fixture(scope="module")
def other_runs(titles: list[str], hyperparameters: Hyperparameters, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `table`, of titles alone, `plain`, of plain text, and `foreign`, of records, without our redditgen.json.

    Of a model whose vocabulary, as GPT-2's and mini's, has no token that reaches from the start token into a delimiter.
    """
    folder = tmp_path_factory.mktemp("other")
    vocabulary = train_tokenizer(
        [*titles, *[START_TOKEN, END_TOKEN, *DELIMITERS.values(), "cats", "dogs"] * 20], hyperparameters.n_vocab
    )
    ModelDir(folder / "model").write_base(hyperparameters, vocabulary, random_tensors(hyperparameters))
    (folder / "table.csv").write_text("title\n" + "".join(f'"{title}"\n' for title in titles), encoding="utf8")
    (folder / "plain.txt").write_text("".join(f"{title}\n" for title in titles), encoding="utf8")
    records = [Record(category="cats" if "cat" in title else "dogs", keywords="", title=title) for title in titles]
    (folder / "foreign.txt").write_text("".join(build(record) + "\n" for record in records), encoding="utf8")
    for name, changes in (
        ("table.csv", {}),
        ("plain.txt", {"window": 48}),
        ("foreign.txt", {"record_tokens": "literal", "batch_size": 16, "loss_on": "record"}),
    ):
        usual: dict[str, Any] = {
            "model": "model", "steps": 80, "learning_rate": 0.02, "sample_every": 0, "precision": "float32",
            "print_every": 0, "model_dir": folder, "checkpoint_dir": folder,
        }  # fmt: skip
        finetune(FinetuneSettings(**(usual | {"dataset": folder / name, "run": Path(name).stem} | changes)))
    ModelDir(folder / "foreign").run_info_path.unlink()
    return folder


def test_a_run_of_a_table_writes_titles(generating: Generating, other_runs: Path, titles: list[str]) -> None:
    made = list(generate(generating(run="table", checkpoint_dir=other_runs)))
    assert len(made) == 20
    assert {title.prompt for title in made} == {START_TOKEN}
    assert {(title.category, title.keywords) for title in made} == {(None, None)}
    assert sum(title.title in titles for title in made) > 10


@pytest.mark.parametrize("run", ["table", "plain"])
@pytest.mark.parametrize("option", ["category", "keywords"])
def test_runs_without_sections_are_asked_for_none(
    generating: Generating, other_runs: Path, run: str, option: str, tmp_path: Path
) -> None:
    out = tmp_path / "titles.csv"
    settings = generating(run=run, checkpoint_dir=other_runs, out=out, **{option: "cats"})
    for use in (write_titles, lambda settings: list(generate(settings))):
        with pytest.raises(UsageError, match=f"^--{option}: the records of this run have no {option}; encode"):
            use(settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("run", ["table", "plain"])
@pytest.mark.parametrize("asked", [{"keywords": ""}, {"keywords": " , "}, {"category": ""}])
def test_asking_for_nothing_of_a_run_without_sections_is_not_asking(
    generating: Generating, other_runs: Path, run: str, asked: dict[str, str]
) -> None:
    made = list(generate(generating(run=run, n=5, checkpoint_dir=other_runs, **asked)))
    assert made == list(generate(generating(run=run, n=5, checkpoint_dir=other_runs)))


def test_a_foreign_run_writes_records_and_may_be_asked_for_sections(generating: Generating, other_runs: Path) -> None:
    made = list(generate(generating(run="foreign", checkpoint_dir=other_runs)))
    assert {title.prompt for title in made} == {START_TOKEN}
    assert {title.category for title in made} == {"cats", "dogs"}
    asked = list(generate(generating(run="foreign", checkpoint_dir=other_runs, category="cats")))
    assert {title.prompt for title in asked} == {f"{START_TOKEN}~`cats~^~@"}
    assert {title.category for title in asked} == {"cats"}


def test_a_run_of_plain_text_writes_text_as_it_comes(
    generating: Generating, other_runs: Path, titles: list[str]
) -> None:
    made = list(generate(generating(run="plain", n=6, checkpoint_dir=other_runs)))
    assert [(title.prompt, title.category, title.keywords, title.synthetic) for title in made] == [
        ("", None, None, True)
    ] * 6
    lines = [line for title in made for line in title.title.splitlines()[1:-1]]  # the first and the last are in parts
    assert len(lines) > 3
    assert sum(line in titles for line in lines) > len(lines) / 2
    [asked] = generate(generating(run="plain", n=1, checkpoint_dir=other_runs, prefix="My happy dog", temperature=0))
    assert f"My happy dog{asked.title}".splitlines()[0] in titles


# A prefix of the user's own

CATS = f"{START_TOKEN}~`cats~^ball~@"


def test_a_prefix_of_a_record_is_gone_on_from(generating: Generating, titles: list[str]) -> None:
    """Cut at the end token and without the prefix, it is the title."""
    made = list(generate(generating(prefix=CATS)))
    assert [title.title for title in made] == texts(generating(category="cats", keywords="ball"))
    assert {(title.prompt, title.category, title.keywords, title.seed) for title in made} == {(CATS, None, None, 1)}
    assert len(made) == 20


@pytest.mark.parametrize("prefix", [CATS, f"{START_TOKEN}~`dogs", "~@My", "My happy", ""])
def test_any_prefix_may_be_written_with_its_text(generating: Generating, prefix: str) -> None:
    without = texts(generating(prefix=prefix, n=6))
    assert texts(generating(prefix=prefix, n=6, include_prefix=True)) == [prefix + text for text in without]
    assert len(without) == 6  # none is left out for what it holds


def test_an_empty_prefix_begins_where_records_do(generating: Generating) -> None:
    """At the model's end token, which in a compact run is also the start token."""
    assert texts(generating(prefix="", n=8)) == texts(generating(prefix=START_TOKEN, n=8))
    assert all(text.startswith("~`") for text in texts(generating(prefix="", n=8)))


def test_a_text_is_cut_where_it_is_asked_to_be(generating: Generating) -> None:
    whole = texts(generating(prefix=START_TOKEN, truncate="", n=8))
    assert all(text.startswith("~`") and text.count(END_TOKEN) == 1 and text.endswith(END_TOKEN) for text in whole)
    assert texts(generating(prefix=START_TOKEN, n=8)) == [text.removesuffix(END_TOKEN) for text in whole]
    assert texts(generating(prefix=START_TOKEN, truncate="~@", n=8)) == [text.partition("~@")[0] for text in whole]
    assert texts(generating(prefix=START_TOKEN, truncate="zzz", n=8)) == whole
    assert texts(generating(prefix=CATS, truncate="~@", include_prefix=True, n=1))[0].startswith(CATS)


def test_a_text_that_does_not_end_is_kept_as_it_is(generating: Generating) -> None:
    made = texts(generating(prefix=CATS, length=3, n=5))
    assert len(made) == 5
    assert all(0 < len(text) < 30 for text in made)


@pytest.mark.parametrize("asked", [{"category": "cats"}, {"keywords": "ball"}, {"keywords": ""}])
def test_a_prefix_stands_for_itself(generating: Generating, asked: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"^--prefix: stands for itself; leave out --\w+, or --prefix$"):
        generating(prefix="My", **asked)


def test_texts_of_a_prefix_are_written_with_it(generating: Generating, tmp_path: Path) -> None:
    settings = generating(prefix=CATS, include_prefix=True, out=tmp_path / "a.jsonl", n=3)
    assert write_titles(settings) == 3
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf8").splitlines()]
    assert rows == [vars(title) for title in generate(settings)]
    assert {row["prompt"] for row in rows} == {CATS}


# A delimiter


def test_a_delimiter_stands_behind_each_title_of_a_text(generating: Generating, tmp_path: Path) -> None:
    settings = generating(n=3, out=tmp_path / "a.txt", sample_delim="====\n")
    write_titles(settings)
    wanted = "".join(f"{text}\n====\n" for text in texts(settings))
    assert (tmp_path / "a.txt").read_text(encoding="utf8") == wanted
    for name in ("a.csv", "a.jsonl"):
        write_titles(generating(n=3, out=tmp_path / name, sample_delim="====\n"))
        assert "====" not in (tmp_path / name).read_text(encoding="utf8")


def test_line_breaks_stay_where_a_delimiter_says_what_belongs_together(
    generating: Generating, other_runs: Path, tmp_path: Path
) -> None:
    usual: dict[str, Any] = {"run": "plain", "n": 4, "checkpoint_dir": other_runs}
    made = texts(generating(**usual))
    assert sum("\n" in text for text in made) > 2
    write_titles(generating(**usual, out=tmp_path / "a.txt", sample_delim="--\n"))
    assert (tmp_path / "a.txt").read_text(encoding="utf8") == "".join(f"{text}\n--\n" for text in made)
    write_titles(generating(**usual, out=tmp_path / "b.txt"))
    assert len((tmp_path / "b.txt").read_text(encoding="utf8").splitlines()) == 4


def test_the_command_prints_the_delimiter(redditgen: Redditgen, generating: Generating) -> None:
    settings = generating(n=3)
    options = ["-n3", "--seed=1", f"--checkpoint-dir={settings.checkpoint_dir}", "--sample-delim=~~\n"]
    done = redditgen("generate", "--run=trained", "--no-novel", "--no-unique", "--no-sfw", *options)
    assert (done.returncode, done.stdout) == (0, "".join(f"{text}\n~~\n" for text in texts(settings)))


# Older checkpoints


def test_an_older_checkpoint_writes_its_own_titles(
    generating: Generating, dataset: Path, model_dir: Path, tmp_path: Path
) -> None:
    finetune(
        FinetuneSettings(
            dataset=dataset, model="tiny", steps=120, learning_rate=0.02, sample_every=0, save_every=40,
            max_checkpoints=3, precision="float32", model_dir=model_dir, checkpoint_dir=tmp_path,
        )
    )  # fmt: skip
    made = {}
    for step in ("80", None, "120"):
        out = tmp_path / f"{step}.jsonl"
        settings = generating(run="run1", step=step, checkpoint_dir=tmp_path, out=out)
        write_titles(settings)
        made[step] = [json.loads(line) for line in out.read_text(encoding="utf8").splitlines()]
        facts = json.loads((tmp_path / f"{step}.jsonl.meta.json").read_text(encoding="utf8"))
        at = int(step or 120)
        assert facts["step"] == at
        assert list(facts["inputs"]) == [str(tmp_path / f"run1/model-{at}.index")]
        assert {row["step"] for row in made[step]} == {at}
    assert made[None] == made["120"] != made["80"]
    with pytest.raises(
        MissingError, match=r"model-60\.index: not there; the run has steps 40, 80, 120 \(finetune --max"
    ):
        write_titles(generating(run="run1", step="60", checkpoint_dir=tmp_path, out=tmp_path / "60.jsonl"))
    with pytest.raises(MissingError, match=r"model-60\.index: not there"):
        list(generate(generating(run="run1", step="60", checkpoint_dir=tmp_path)))
    assert not list(tmp_path.glob("*60*"))


# The engine


def test_a_text_that_is_no_title_is_drawn_again(
    generating: Generating, engine: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    """From another seed in each round, and the titles keep the order in which they were asked for."""
    bad = {1: "", 3: END_TOKEN, 5: f"~@{END_TOKEN}"}  # by place; 5 is the second one's again
    scripted = engine(lambda prompt, place: prompt + bad.get(place, f"{place}{END_TOKEN}"))
    prompts = [Prompt("cats", (letter,)) for letter in "abcde"]
    with caplog.at_level(logging.INFO):
        made = list(generate_for_prompts(prompts, generating()))
    assert [title.keywords for title in made] == list("abcde")
    assert [title.title for title in made] == ["0", "6", "2", "7", "4"]
    of = {letter: f"{START_TOKEN}~`cats~^{letter}~@" for letter in "abcde"}
    # Two texts for each that is missing, of which one was none.
    assert [asked for asked, _ in scripted.asked] == [list(of.values()), [of["b"]] * 2 + [of["d"]] * 2]
    assert len({seed for _, seed in scripted.asked}) == 2
    assert {title.seed for title in made} == {1}
    assert scripted.closed == 2
    assert "drawn again: 1 did not end, 1 were no record, 1 were empty" in caplog.text


@pytest.mark.parametrize(("n", "size", "asked"), [(1, 64, 10), (20, 8, 80), (20, 64, 200), (500, 8, 80)])
def test_generation_is_given_up_after_ten_blocks_without_a_title(
    generating: Generating, engine: Scripted, n: int, size: int, asked: int
) -> None:
    scripted = engine(lambda prompt, place: prompt)
    with pytest.raises(InputError, match=rf"wrote no whole title that is wanted \({asked} did not end within 100 tok"):
        list(generate(generating(n=n, batch_size=str(size))))
    assert asked <= scripted.given < asked + size
    assert scripted.closed == len(scripted.asked)


def test_a_title_now_and_then_is_patience_enough(generating: Generating, engine: Scripted) -> None:
    engine(lambda prompt, place: prompt + f"cats~^~@{place}{END_TOKEN}" if place % 30 == 29 else prompt)
    made = list(generate(generating(n=10, batch_size="4")))
    assert [title.title for title in made] == [str(29 + 30 * number) for number in range(10)]


def test_what_is_missing_when_generation_is_given_up_is_counted(
    generating: Generating, engine: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    scripted = engine(lambda prompt, place: prompt + f"cats~^~@{place}{END_TOKEN}" if place < 7 else prompt)
    made = list(generate(generating(n=100, batch_size="4")))
    assert [title.title for title in made] == list("0123456")
    assert "93 of 100 titles are missing: 40 did not end; raise --length" in caplog.text
    assert scripted.given < 60


@pytest.mark.parametrize("asked", [{}, {"prefix": "My"}])
def test_the_engine_stops_when_nobody_asks_for_more(
    generating: Generating, engine: Scripted, asked: dict[str, Any]
) -> None:
    scripted = engine(lambda prompt, place: prompt + f"cats~^~@{place}{END_TOKEN}")
    made = generate(generating(n=50, batch_size="8", **asked))
    assert (next(made).step, scripted.given, scripted.closed) == (120, 8, 0)
    made.close()  # type: ignore[attr-defined]  # a generator
    assert (scripted.given, scripted.closed) == (8, 1)


def test_a_record_of_another_kind_is_no_title(
    generating: Generating, engine: Scripted, other_runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a run with sections one without marks, and of one of titles alone one with marks."""
    engine(
        lambda prompt, place: f"{START_TOKEN}A title{END_TOKEN}" if place == 0 else f"{START_TOKEN}~@Another{END_TOKEN}"
    )
    with caplog.at_level(logging.INFO):
        assert texts(generating(n=2)) == ["Another", "Another"]
    assert "drawn again: 1 were no record" in caplog.text
    engine(
        lambda prompt, place: f"{START_TOKEN}~@A title{END_TOKEN}" if place == 0 else f"{START_TOKEN}Another{END_TOKEN}"
    )
    assert texts(generating(n=2, run="table", checkpoint_dir=other_runs)) == ["Another", "Another"]
    engine(lambda prompt, place: f"{START_TOKEN}~@Marked{END_TOKEN}" if place == 0 else f"{START_TOKEN}Not{END_TOKEN}")
    assert texts(generating(n=2, run="foreign", checkpoint_dir=other_runs)) == ["Marked", "Not"]


def test_an_unknown_engine_is_named(generating: Generating) -> None:
    with pytest.raises(UsageError, match=r"^--engine must be torch or gpt-2-simple, not 'tensorflow'$"):
        generating(engine="tensorflow")


def test_the_command_prints_titles_alone(redditgen: Redditgen, generating: Generating) -> None:
    settings = generating(n=3)
    options = [
        "-n3",
        "--seed=1",
        "--no-novel",
        "--no-unique",
        "--no-sfw",
        f"--checkpoint-dir={settings.checkpoint_dir}",
    ]
    done = redditgen("generate", "--run=trained", *options)
    assert done.returncode == 0
    assert done.stdout.splitlines() == texts(replace(settings, n=3))
    assert "Traceback" not in done.stderr
