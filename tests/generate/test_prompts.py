"""What is asked: on the command line, in a file, at a terminal, by another title."""

import json
import logging
import os
import pty
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from redditgen.errors import InputError, MissingError, UsageError
from redditgen.generate.command import generate, generate_for_prompts, generate_interactively
from redditgen.generate.output import write_titles
from redditgen.generate.prompts import Prompt, PromptRequest, requests_from_settings
from redditgen.settings import GenerateSettings
from redditgen.titles.record import END_TOKEN, START_TOKEN
from tests.support.fixture_types import Generating, Redditgen, Scripted

BALL = f"{START_TOKEN}~`cats~^ball~@"
SOFA = f"{START_TOKEN}~`dogs~^sofa lazy~@"


def file(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf8")
    return path


def asks(**settings: object) -> list[PromptRequest]:
    return list(requests_from_settings(GenerateSettings(**settings)))  # type: ignore[arg-type]


# A file of prompts


def test_a_table_asks_row_by_row(generating: Generating, tmp_path: Path) -> None:
    path = file(tmp_path / "a.csv", 'n,category,keywords,note\n3,Cats,ball,x\n,dogs," Sofa, lazy!",\n2,,,\n')
    made = list(generate(generating(n=None, prompts=path)))
    assert [title.prompt for title in made] == [BALL] * 3 + [f"{START_TOKEN}~`dogs~^Sofa lazy~@"] + [
        f"{START_TOKEN}~`"
    ] * 2
    made = list(generate(generating(n=2, prompts=path)))  # what a row says goes before -n
    assert Counter(title.prompt for title in made)[f"{START_TOKEN}~`dogs~^Sofa lazy~@"] == 2
    assert len(made) == 7


def test_json_lines_ask_alike_and_keywords_may_be_a_list(generating: Generating, tmp_path: Path) -> None:
    rows = [{"category": "cats", "keywords": ["ball"], "n": 2}, {"category": "dogs", "keywords": "sofa lazy"}]
    path = file(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    made = [title.prompt for title in generate(generating(n=None, prompts=path))]
    assert made == [BALL, BALL, SOFA]


def test_what_was_generated_may_be_prompts(generating: Generating, tmp_path: Path) -> None:
    first, second = (tmp_path / name for name in ("a.csv", "b.jsonl"))
    write_titles(generating(n=5, out=first, keywords="ball"))
    write_titles(generating(n=None, out=second, prompts=first))
    wanted = [title.prompt for title in generate(generating(n=5, keywords="ball"))]
    assert [json.loads(line)["prompt"] for line in second.read_text(encoding="utf8").splitlines()] == wanted
    facts = json.loads((tmp_path / "b.jsonl.meta.json").read_text(encoding="utf8"))
    assert str(first) in facts["inputs"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", r"a\.csv: is empty; a CSV with a header line is needed"),
        ("a.csv", "category,keywords\n", r"a\.csv: holds no prompt; a row each is needed below the header"),
        ("a.csv", "categ,keywords\ncats,ball\n", r"a\.csv: column categ: is not known; did you mean category\?"),
        ("a.csv", "title\nx\n", r"a\.csv: has no column category, keywords or n; it has title"),
        ("a.csv", "category,n\ncats,1\ncats,many\n", r"a\.csv: row 2: n must be a whole number from 1, not 'many'"),
        ("a.csv", "category,n\ncats,0\n", r"a\.csv: row 1: n must be a whole number from 1, not '0'"),
        ("a.csv", "category\ncats,dogs\n", r"a\.csv: line 2 has 2 fields, the header 1"),
        ("a.jsonl", "", r"a\.jsonl: is empty; a JSON object a line is needed"),
        ("a.jsonl", '{"n": 1}\n{"n": -1}\n', r"a\.jsonl: row 2: n must be a whole number from 1, not '-1'"),
        ("a.jsonl", '{"n": 1}\n{"n"\n', r"a\.jsonl: line 2 is no JSON"),
    ],
)
def test_a_file_that_is_no_prompts_is_refused_before_any_work(
    generating: Generating, tmp_path: Path, name: str, text: str, message: str
) -> None:
    path = file(tmp_path / name, text)
    with pytest.raises(InputError, match=f"{message}[^\n]*$"):
        write_titles(generating(prompts=path, out=tmp_path / "out.csv"))
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_not_there_is_named(generating: Generating, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"a\.csv: no such file; --prompts needs a CSV or JSONL file with columns"):
        generate(generating(prompts=tmp_path / "a.csv"))


def test_a_row_that_the_run_can_not_have_is_named(generating: Generating, tmp_path: Path) -> None:
    long = " ".join(f"x{number}" for number in range(70))
    path = file(tmp_path / "a.csv", f"category,keywords\ncats,ball\ncats,{long}\n")
    with pytest.raises(UsageError, match=r"a\.csv: row 2: a prompt of \d+ tokens fills the model's context of 64: '<"):
        generate(generating(prompts=path))
    path = file(tmp_path / "a.csv", "category\ncats\nGoneWild\n")
    with pytest.raises(UsageError, match=r"a\.csv: row 2: category gonewild: is on the list .* --sfw .* --no-sfw$"):
        generate(generating(prompts=path, sfw=True))


# The command line


def test_only_one_way_to_ask() -> None:
    for options, message in (
        ({"prompts": Path("a.csv"), "category": "cats"}, "--prompts: stands for itself; leave out --category, or"),
        ({"prompts": Path("a.csv"), "prefix": "x"}, "--prompts: stands for itself; leave out --prefix, or --prompts"),
        ({"interactive": True, "keywords": "a"}, "--interactive: stands for itself; leave out --keywords"),
        ({"interactive": True, "out": Path("a.txt")}, "--interactive: writes to the terminal; leave out --out"),
        ({"keywords": "a", "keywords_from": "b"}, "--keywords-from: gives the keywords; leave out it or --keywords"),
        ({"require_keywords": True}, "--require-keywords: needs keywords"),
        ({"require_keywords": True, "prefix": "x"}, "--require-keywords: needs keywords"),
    ):
        with pytest.raises(UsageError, match=f"^{message}"):
            GenerateSettings(**options)


def test_categories_that_a_run_has_never_seen_are_warned_of(
    generating: Generating, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    assert len(list(generate(generating(n=2, category="Cat")))) == 2
    assert caplog.messages == ["category cat: this run has never seen it; near it are cats"]
    caplog.clear()
    rows = "".join(f"xyz{number}\n" for number in range(8))
    generate(generating(prompts=file(tmp_path / "a.csv", f"category\n{rows}cats\n{rows}")))
    assert caplog.messages == [
        *(f"category xyz{number}: this run has never seen it" for number in range(5)),
        "and 3 categories more that this run has never seen",
    ]


def test_keywords_of_a_title_are_those_that_encode_finds(
    generating: Generating, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        made = list(
            generate(generating(category="cats", keywords_from="A lazy cat steals dinner and plays with balls"))
        )
    found = caplog.messages[0].removeprefix("--keywords-from: ").split()
    assert {"lazy", "cat", "steal", "dinner", "balls"} < set(found)
    drawn = [tuple((title.keywords or "").split()) for title in made]
    assert all(len(set(keywords)) == 3 and set(keywords) < set(found) for keywords in drawn)
    assert len(set(drawn)) > 5
    with pytest.raises(InputError, match=r"--keywords-from: encode finds no keyword in 'it is'"):
        generate(generating(keywords_from="it is"))


def test_a_title_of_few_keywords_gives_them_all() -> None:
    assert asks(keywords_from="Cats sleep", n=2) == [PromptRequest(Prompt(None, ("Cats", "sleep"), 3), 2)]


# At a terminal


def test_a_conversation_goes_on_until_there_are_no_more_answers(
    generating: Generating, caplog: pytest.LogCaptureFixture
) -> None:
    answers = iter(["cats", "ball", "dogs", " ".join(f"x{number}" for number in range(70)), "", ""])
    questions = []

    def ask(question: str) -> str:
        questions.append(question)
        try:
            return next(answers)
        except StopIteration:
            raise EOFError from None

    made = list(generate_interactively(generating(n=2), ask))
    assert [title.prompt for title in made] == [BALL, BALL, f"{START_TOKEN}~`", f"{START_TOKEN}~`"]
    assert questions == ["category: ", "keywords: "] * 3 + ["category: "]
    assert "fills the model's context" in caplog.text  # and it went on
    assert len({title.seed for title in made}) == 2


def test_a_conversation_at_a_terminal(generating: Generating, tmp_path: Path) -> None:
    """Questions to the terminal, titles alone to standard output."""
    options = [
        "--run=trained",
        "-n1",
        "--seed=1",
        "--label",
        "--no-novel",
        f"--checkpoint-dir={generating().checkpoint_dir}",
    ]
    outer, inner = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "redditgen", "generate", "--interactive", *options],
        stdin=inner, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    os.write(outer, b"cats\nball\ndogs\n\n\x04")
    out, err = process.communicate(timeout=100)
    os.close(inner)
    os.close(outer)
    assert process.returncode == 0, err
    cat, dog = out.splitlines()
    assert (cat.startswith("[synthetic] My "), dog.startswith("[synthetic] My ")) == (True, True)
    assert err.startswith("category: keywords: category: keywords: category: ")


def test_without_a_terminal_there_is_no_conversation(redditgen: Redditgen, generating: Generating) -> None:
    done = redditgen("generate", "--interactive", "--run=trained", f"--checkpoint-dir={generating().checkpoint_dir}")
    assert done.returncode == 2
    assert "redditgen: --interactive: needs a terminal to ask at; --prompts FILE" in done.stderr
    assert done.stdout == ""


# Prompts of a program's own


def test_many_prompts_keep_their_order_over_windows(generating: Generating, engine: Scripted) -> None:
    engine(lambda prompt, place: prompt + f"{place}{END_TOKEN}" if place % 3 else prompt)
    prompts = [Prompt("cats", (f"k{number}",)) for number in range(100)]
    made = list(generate_for_prompts(prompts, generating(batch_size="4")))
    assert [title.keywords for title in made] == [f"k{number}" for number in range(100)]
