import csv
import json
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Redditgen, random_tensors

from redditgen.errors import InputError, MissingError, OutputExists, UsageError
from redditgen.finetune import finetune
from redditgen.generate import COLUMNS, Prompt, Title, block_seed, generate, titles, write
from redditgen.gpt2.rundir import Mark, ModelDir
from redditgen.gpt2.weights import Hparams
from redditgen.markup import MARKS, START, Record, build, has_markup
from redditgen.output import sha256
from redditgen.settings import FinetuneSettings, GenerateSettings

Generating = Callable[..., GenerateSettings]


@pytest.fixture
def generating(checkpoint_dir: Path) -> Generating:
    """Makes settings of titles by the finetuned run."""

    def make(**changes: Any) -> GenerateSettings:
        usual: dict[str, Any] = {"run": "trained", "n": 20, "seed": 1, "checkpoint_dir": checkpoint_dir}
        return GenerateSettings(**(usual | changes))

    return make


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
            title=title.title, category="cats", keywords="ball", prompt=f"{START}~`cats~^ball~@", run="trained",
            step=120, engine="torch", seed=1, synthetic=True,
        )
    )  # fmt: skip


def test_the_same_seed_gives_the_same_titles(generating: Generating) -> None:
    made = texts(generating(n=70))
    assert texts(generating(n=70)) == made
    assert texts(generating(n=70, seed=2)) != made
    assert texts(generating(n=70, keywords="door")) == texts(generating(n=70, keywords="door"))


def test_a_block_is_the_same_whatever_comes_after_it(generating: Generating) -> None:
    """Even with prompts that differ, as those with drawn categories do."""
    few, many = (list(generate(generating(n=n, batch_size=8, keywords="door"))) for n in (8, 24))
    assert [title.title for title in many[:8]] == [title.title for title in few]


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
    assert len({block_seed(seed, block) for seed in range(-5, 5) for block in range(10)}) == 100


def test_a_category_is_asked_for_as_encode_writes_it(generating: Generating) -> None:
    for typed in ("cats", "Cats", " CATS\n"):
        made = list(generate(generating(category=typed, keywords="ball")))
        assert {(title.category, title.prompt) for title in made} == {("cats", f"{START}~`cats~^ball~@")}


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
    assert title.prompt == f"{START}~`cats~^{written}~@"
    assert title.keywords == written


def test_keywords_without_a_category_draw_one_of_the_runs(generating: Generating) -> None:
    made = list(generate(generating(n=64, keywords="ball")))
    drawn = Counter(title.category for title in made)
    assert set(drawn) == {"cats", "dogs"}
    assert min(drawn.values()) > 15
    assert {title.prompt for title in made} == {f"{START}~`{category}~^ball~@" for category in drawn}


def test_without_either_the_model_chooses(generating: Generating) -> None:
    made = list(generate(generating(n=40)))
    assert {title.prompt for title in made} == {f"{START}~`"}
    assert {title.category for title in made} == {"cats", "dogs"}
    assert len({title.keywords for title in made}) > 3


def test_every_prompt_gets_its_own_title(generating: Generating) -> None:
    prompts = [Prompt("cats", ("ball",)), Prompt("dogs", ("sofa",)), Prompt()] * 10
    made = Counter(title.prompt for title in titles(prompts, generating(batch_size=7)))
    assert made == {f"{START}~`cats~^ball~@": 10, f"{START}~`dogs~^sofa~@": 10, f"{START}~`": 10}


def test_temperature_zero_gives_one_title(generating: Generating) -> None:
    assert len(set(texts(generating(category="cats", temperature=0)))) == 1


def test_a_table_holds_a_title_a_row(generating: Generating, tmp_path: Path) -> None:
    settings = generating(category="cats", keywords="ball", out=tmp_path / "new/titles.csv")
    assert write(settings) == 20
    with (tmp_path / "new/titles.csv").open(encoding="utf8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == list(COLUMNS)
    made = list(generate(settings))
    assert rows[1:] == [[str(value) for value in vars(title).values()] for title in made]
    assert rows[1][1:] == ["cats", "ball", f"{START}~`cats~^ball~@", "trained", "120", "torch", "1", "True"]


def test_json_lines_hold_the_same_under_the_same_names(generating: Generating, tmp_path: Path) -> None:
    settings = generating(out=tmp_path / "titles.jsonl")
    write(settings)
    rows = [json.loads(line) for line in (tmp_path / "titles.jsonl").read_text(encoding="utf8").splitlines()]
    assert rows == [vars(title) for title in generate(settings)]
    assert [*rows[0]] == [
        "title", "category", "keywords", "prompt", "run", "step", "engine", "seed", "synthetic",
    ]  # fmt: skip
    assert (rows[0]["seed"], rows[0]["step"], rows[0]["synthetic"]) == (1, 120, True)


def test_text_holds_a_title_a_line(generating: Generating, tmp_path: Path) -> None:
    settings = generating(out=tmp_path / "titles.txt")
    write(settings)
    assert (tmp_path / "titles.txt").read_text(encoding="utf8").splitlines() == texts(settings)


def test_a_sidecar_says_how_the_titles_were_made(generating: Generating, checkpoint_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "titles.jsonl"
    write(generating(out=out, seed=None))
    facts = json.loads((tmp_path / "titles.jsonl.meta.json").read_text(encoding="utf8"))
    assert (facts["command"], facts["counts"], facts["step"], facts["synthetic"]) == (
        "generate", {"titles": 20}, 120, True,
    )  # fmt: skip
    index = checkpoint_dir / "trained/model-120.index"
    assert facts["inputs"] == {str(index): sha256(index)}
    first = json.loads(out.read_text(encoding="utf8").splitlines()[0])
    assert facts["settings"]["seed"] == first["seed"]
    assert facts["settings"]["temperature"] == 0.7


def test_an_output_that_is_there_is_kept(generating: Generating, tmp_path: Path) -> None:
    out = tmp_path / "titles.txt"
    out.write_text("mine", encoding="utf8")
    with pytest.raises(OutputExists, match=r"titles\.txt: already exists; pass --overwrite"):
        write(generating(out=out))
    assert sorted(tmp_path.iterdir()) == [out]
    assert out.read_text(encoding="utf8") == "mine"
    assert write(generating(out=out, overwrite=True)) == 20
    assert len(out.read_text(encoding="utf8").splitlines()) == 20


def test_wrong_use_is_said_before_any_work(generating: Generating, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.txt, \.csv or \.jsonl"):
        write(generating(out=tmp_path / "titles.xlsx"))
    for changes, message in (
        ({"n": 0}, "-n must be 1 or more"),
        ({"temperature": -0.1}, "--temperature"),
        ({"top_p": 1.1}, "--top-p"),
        ({"length": 0}, "--length"),
        ({"batch_size": 0}, "--batch-size"),
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
        write(generating(run="run9", out=tmp_path / "titles.txt"))
    assert list(tmp_path.iterdir()) == []


def test_a_prompt_without_room_for_a_title_is_refused(generating: Generating) -> None:
    with pytest.raises(UsageError, match=r"a prompt of \d+ tokens fills the model's context of 64"):
        list(generate(generating(keywords=" ".join(f"x{number}" for number in range(70)))))


def untrained(tiny: ModelDir, hparams: Hparams, folder: Path, **mark: Any) -> None:
    """Make a run `noise` of random weights, which ends hardly any title."""
    run = ModelDir(folder / "noise")
    run.start(tiny, Mark(**{"record_tokens": "compact", "categories": {"cats": 1}, **mark}))
    run.write_step(1, random_tensors(hparams), {})


def test_a_run_that_ends_no_title_fails_and_says_why(
    generating: Generating, tiny: ModelDir, hparams: Hparams, tmp_path: Path
) -> None:
    untrained(tiny, hparams, tmp_path)
    noise = generating(run="noise", length=2, batch_size=8, checkpoint_dir=tmp_path, out=tmp_path / "titles.txt")
    with pytest.raises(InputError, match=r"^run noise: wrote no whole title \(\d+ did not end .* raise --length.*$"):
        list(generate(noise))
    with pytest.raises(InputError):
        write(noise)
    assert [path.name for path in tmp_path.iterdir()] == ["noise"]


def test_a_run_that_ends_few_titles_gives_these_with_a_warning(
    generating: Generating, checkpoint_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The likeliest titles, but of as many tokens at most as the shortest of them has."""
    prompts = [Prompt("cats", (keyword,)) for keyword in ("ball", "dinner", "sofa", "door")]
    tokenizer = ModelDir(checkpoint_dir / "trained").tokenizer()
    made = list(titles(prompts, generating(temperature=0)))
    lengths = [len(encoding.ids) + 1 for encoding in tokenizer.encode([title.title for title in made])]
    short = list(titles(prompts, generating(temperature=0, length=min(lengths))))
    missing = sum(length > min(lengths) for length in lengths)
    assert 0 < missing == 4 - len(short)
    assert {title.title for title in short} < {title.title for title in made}
    assert f"{missing} of 4 titles are missing: " in caplog.text


def test_sections_that_a_run_never_had_are_not_asked_for(
    generating: Generating, tiny: ModelDir, hparams: Hparams, tmp_path: Path
) -> None:
    untrained(tiny, hparams, tmp_path, sections=("title",), categories={})
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
    assert {title.prompt for title in made} == {START + MARKS["title"]}
    assert {(title.category, title.keywords) for title in made} == {(None, None)}
    assert sum(title.title in titles for title in made) > 10


def test_the_command_prints_titles_alone(redditgen: Redditgen, generating: Generating) -> None:
    settings = generating(n=3)
    done = redditgen("generate", "--run=trained", "-n3", "--seed=1", f"--checkpoint-dir={settings.checkpoint_dir}")
    assert done.returncode == 0
    assert done.stdout.splitlines() == texts(replace(settings, n=3))
    assert "Traceback" not in done.stderr
