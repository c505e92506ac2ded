"""The lists of subreddits and words."""

import re
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redditgen.errors import InputError, MissingError, UsageError
from redditgen.files import bundled
from redditgen.titles import filter_lists
from tests.support.posts import has_word


def hits(pattern: str, *titles: str) -> list[bool]:
    """What RE2, as DuckDB has it, finds in the titles."""
    with duckdb.connect() as connection:
        return [
            connection.execute("SELECT regexp_matches(?, ?)", [title, pattern]).fetchall() == [(True,)]
            for title in titles
        ]


@pytest.mark.parametrize(
    "title",
    [
        "shit",
        "SHIT happens",
        "What the FUCKING hell",
        "motherfucker",
        "no-ass zone",
        "(ass)",
        "“ass”",
        "ass😀",
        "a blow job",
        "a blowjob",
        "a blow_job",
        "Blow-Jobs",
        "he is such a dick",
        "fuc\u212a",  # the sign for kelvin, which is a k in another case
    ],
)
def test_hits(title: str) -> None:
    assert hits(filter_lists.word_list_pattern(None), title) == [True]
    assert has_word(title)


@pytest.mark.parametrize(
    "title",
    [
        "Scunthorpe, Penistone, Sussex and Essex",
        "Classic cocktails, assassins, bass and passes",
        "A peacock, Hitchcock and a cockpit",
        "Analía does análisis",
        "Philip K. Dick and Moby Dick",
        "Dick Van Dyke",
        "John Lee Hooker",
        "Maine Coon and tit nests",
        "Therapist, grapes and drapes",
        "Titanic, titan, constitution",
        "Shiitake and Shih Tzu",
        "Cuckoo, cucumber, document",
        "Fire retardant, retardation",
        "Denuded by a nudge",
    ],
)
def test_names_and_words_that_hold_another_are_no_hits(title: str) -> None:
    assert hits(filter_lists.word_list_pattern(None), title) == [False]
    assert not has_word(title)


def test_a_list_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text(
        "\ufeff# mine\r\nfoo , bar*\r\n*baz, *qux*, =Quux\n\nbig_foot  # a yeti\n", "utf8"
    )
    pattern = filter_lists.word_list_pattern(tmp_path / "words.txt")
    assert hits(pattern, "a FOO!", "bars", "xbaz", "aquxb", "quux", "big_foot") == [True] * 6
    assert hits(pattern, "foos", "xbar", "bazx", "QUUX", "big foot", "# mine yeti") == [False] * 6


@given(st.lists(st.text(st.sampled_from("aASsſ-_ 'é\u0301😀,kK\u212adicDIC"), max_size=12), max_size=50))
@settings(max_examples=30, deadline=None)
def test_hits_are_those_of_a_search_without_expressions(titles: list[str]) -> None:
    assert hits(filter_lists.word_list_pattern(None), *titles) == [has_word(title) for title in titles]


@pytest.mark.parametrize("entry", ["a(b", "né", "a\\b", "*", "=", "**a", "a*b", "a|b", "-a"])
def test_entry_that_is_no_word(tmp_path: Path, entry: str) -> None:
    (tmp_path / "words.txt").write_text(f"fine, {entry}", encoding="utf8")
    with pytest.raises(InputError, match=rf"words\.txt: {re.escape(repr(entry))} is no word"):
        filter_lists.word_list_pattern(tmp_path / "words.txt")


def test_list_that_is_empty_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("# nothing, really\n ,\n", encoding="utf8")
    with pytest.raises(InputError, match="no words in it"):
        filter_lists.word_list_pattern(tmp_path / "words.txt")
    with pytest.raises(MissingError, match=r"nope\.txt: no such file; --words needs a list, an entry a line$"):
        filter_lists.word_list_pattern(tmp_path / "nope.txt")


def test_list_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"cats\ncaf\xe9s\n")
    for read in (
        lambda: filter_lists.word_list_pattern(tmp_path / "list.txt"),
        lambda: filter_lists.blocked_subreddits(f"{tmp_path}/list.txt", sfw=False),
    ):
        with pytest.raises(InputError) as raised:
            read()
        assert str(raised.value) == f"{tmp_path}/list.txt: line 2, byte 4 (0xe9) is not UTF-8; save the file as UTF-8"


def test_blocked_names() -> None:
    assert filter_lists.blocked_subreddits("reddit.com,Funny, r/AWW,/r/aww,,", sfw=False) == [
        "reddit.com",
        "funny",
        "aww",
    ]
    assert filter_lists.blocked_subreddits("", sfw=False) == []
    assert filter_lists.blocked_subreddits("cats", sfw=True)[0] == "cats"
    assert "gonewild" in filter_lists.blocked_subreddits("cats", sfw=True)


def test_block_list_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "block.txt").write_text("\ufeffsub_1\n\n r/Sub_2 \n# a comment\nSUB_3 # another", encoding="utf8")
    assert filter_lists.blocked_subreddits(str(tmp_path / "block.txt"), sfw=False) == ["sub_1", "sub_2", "sub_3"]


@pytest.mark.parametrize("block", ["no/such/list", "subreddits.txt", "funny,lists/a"])
def test_block_list_that_is_not_there(block: str) -> None:
    with pytest.raises(UsageError, match=r"--block.*file"):
        filter_lists.blocked_subreddits(block, sfw=True)


def test_block_list_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "block.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"block\.txt"):
        filter_lists.blocked_subreddits(str(tmp_path / "block.txt"), sfw=True)


def test_our_own_lists_are_in_order() -> None:
    """Names that can be subreddits, and nothing twice."""
    names = [
        line
        for line in bundled.path(filter_lists.NSFW_SUBREDDITS).read_text("utf8").splitlines()
        if line[:1] not in ("", "#")
    ]
    assert all(re.fullmatch(r"[a-z0-9_]{2,21}", name) for name in names)
    assert len(names) == len(set(names))
    words = re.sub(r"#.*", "", bundled.path(filter_lists.NSFW_WORDS).read_text("utf8"))
    entries = [entry.strip() for entry in re.split(r"[,\n]", words) if entry.strip()]
    assert len(entries) == len(set(entries))
