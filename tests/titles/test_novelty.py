import errno
import itertools
import random
import string
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from redditgen.errors import InputError, MissingError
from redditgen.titles.minhash import BANDS, ROWS, band_keys
from redditgen.titles.near_copies import differ_in_key_words, jaccard_similarity, trigrams
from redditgen.titles.novelty import INDEX_FILE, CopyMatch, TitleIndex, normalise_title

_KEY_WORDS = """
garden river window telescope kitchen penguin blue quiet rusty sudden lantern bakery winter journey pocket mirror
thunder orchard velvet copper sailor meadow whisper puzzle anchor basket candle desert ember forest glacier harbor
island jungle kettle ladder magnet needle ocean parrot quarry ribbon saddle timber umbrella
"""
WORDS = _KEY_WORDS.split()
SMALL = ["the", "a", "of", "in", "on", "with", "my", "and", "to", "from"]


def titles_of(words: int, number: int, seed: int = 0) -> list[str]:
    """Titles of this many key words, each with a small word before it."""
    rng = random.Random(seed)
    return [" ".join(f"{rng.choice(SMALL)} {word}" for word in rng.sample(WORDS, words)) for _ in range(number)]


def brute_force(title: str, titles: list[str], threshold: float) -> float | None:
    """The similarity of the nearest near copy, looking at every title."""
    text = normalise_title(title)
    near = [
        found
        for other in map(normalise_title, titles)
        if (found := jaccard_similarity(trigrams(text), trigrams(other))) >= threshold
        and not differ_in_key_words(text, other)
    ]
    return max(near, default=None)


# What is a copy


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What's your  favourite MOVIE?", "whats your favourite movie"),
        ("Don’t look down…", "dont look down"),
        ("Don´t look down", "don't look down"),
        ("[Serious] Why, though?", "serious - why though"),
        ("ｆｕｌｌ ｗｉｄｔｈ", "Full Width"),
        ("A café in Zürich", "a cafe\u0301 in zu\u0308rich"),
        ("I love it ❤\ufe0f\N{ZERO WIDTH JOINER}🔥", "I love it"),
        ("STRASSE", "straße"),
        ("new\u00a0line\nor\ttab", "new line or tab"),
    ],
)
def test_case_punctuation_and_spelling_of_characters_make_no_other_title(one: str, other: str) -> None:
    assert normalise_title(one) == normalise_title(other)
    match = TitleIndex.from_titles(["something else", other]).find_copy(one)
    assert match == CopyMatch("exact", 1.0, other)


@pytest.mark.parametrize("title", ["!!!", "🎉", "❤\ufe0f", "¯\\_(ツ)_/¯", "हिन्दी में", "x", "^", "\ud800"])
def test_a_title_of_any_characters_is_its_own_copy_and_no_other(title: str) -> None:
    assert normalise_title(title)
    match = TitleIndex.from_titles(["?", title]).find_copy(title)
    assert match == CopyMatch("exact", 1.0, title)
    assert TitleIndex.from_titles(["?", "a title"]).find_copy(title) is None


def test_marks_of_a_letter_count() -> None:
    assert normalise_title("की") != normalise_title("क")


NEAR = [
    ("If animals could talk, which would be the rudest?", "If animals could talk, which would be rudest?"),
    ("What is the loneliest thing you have ever done?", "What is the loneliest thing youve ever done"),
    ("What motivates you to keep on living", "What motivates you to keep living?"),
    ("My telescope pictures of Saturn last night", "My telescpoe pictures of Saturn last night"),
    ("What is your favorite song right now?", "What is your favourite song right now?"),
    ("What superpower would you like to have for a week", "What super power would you like to have for a week"),
    ("[Serious] What are you struggling with right now?", "What are you struggling with right now?"),
    (
        "If you were arrested with zero explanation, what would your friends assume you had done?",
        "If you were arrested with no explanation, what would your friends assume you had done?",
    ),
    (
        "Our old neighbour left a note at the door and a basket of apples for the whole street",
        "Our old neighbour left a note at the door and a basket of cherries for the whole street",
    ),
]


@pytest.mark.parametrize(("one", "other"), [*NEAR, *((other, one) for one, other in NEAR)])
def test_a_typo_a_small_word_and_one_word_of_a_long_title_make_a_near_copy(one: str, other: str) -> None:
    match = TitleIndex.from_titles(["What else is there?", other]).find_copy(one)
    assert match is not None
    assert (match.kind, match.title) == ("near", other)
    assert match.similarity == jaccard_similarity(trigrams(normalise_title(one)), trigrams(normalise_title(other)))


PATTERNS = [
    ("What is your favorite color?", "What is your favorite movie?"),
    ("TIL that cats can swim", "TIL that dogs can swim"),
    ("What's the worst advice you've ever been given?", "What's the best advice you've ever been given?"),
    (
        "What is the wisest thing someone has ever said to you?",
        "What is the nicest thing someone has ever said to you?",
    ),
    ("What is your favorite movie quote of all time?", "What is your favorite movie of all time?"),
    ("Women of Reddit, what do you never tell anyone?", "Men of Reddit, what do you never tell anyone?"),
    ("What are some legal things that should be illegal?", "What are some things that should be illegal?"),
    ("If this gets 512 upvotes I'll double the ringo", "If this gets 256 upvotes I'll double the ringo"),
    ("Rate my setup", "Rate my setups please"),
]


@pytest.mark.parametrize(("one", "other"), [*PATTERNS, *((other, one) for one, other in PATTERNS)])
def test_short_titles_of_one_pattern_are_no_copies(one: str, other: str) -> None:
    assert TitleIndex.from_titles([other]).find_copy(one) is None


def test_the_key_words_part_what_the_characters_do_not() -> None:
    one, other = map(normalise_title, PATTERNS[2])
    assert jaccard_similarity(trigrams(one), trigrams(other)) >= 0.8
    assert differ_in_key_words(one, other)


def test_a_long_title_may_differ_in_one_key_word_in_twelve() -> None:
    title = "winter garden river window telescope kitchen penguin lantern bakery journey pocket"  # of 11 words
    for words, is_other in ((f"{title}", True), (f"{title} mirror", False)):
        assert differ_in_key_words(words, words.replace("penguin", "saddle")) is is_other
    assert differ_in_key_words(
        f"{title} mirror", f"{title} mirror".replace("penguin", "saddle").replace("river", "sea")
    )


def test_of_several_near_copies_the_most_similar_is_told_and_of_these_the_first() -> None:
    title = "my old neighbour left a note at the door and a basket of apples for the whole street"
    nearest = title.replace("the door", "his door")
    index = TitleIndex.from_titles(
        [title.replace("apples", "cherries"), nearest, nearest.replace("his", "hiss"), title + "s"]
    )
    match = index.find_copy(title)
    assert match is not None
    assert match.title == title + "s"
    again = TitleIndex.from_titles(["yes yes yes yes", "yes yes yes yes yes"]).find_copy("yes yes yes")
    assert again == CopyMatch("near", 1.0, "yes yes yes yes")


@given(st.text(), st.text(max_size=3).filter(lambda text: not any(char.isalnum() for char in text)), st.booleans())
def test_a_title_copies_itself_however_it_is_written(title: str, around: str, upper: bool) -> None:
    assume(any(char.isalnum() for char in title))
    # A mark belongs to the letter before it; a lone cedilla is a blank and a mark.
    assume(not any(unicodedata.category(char)[0] in "NM" for char in unicodedata.normalize("NFKC", around)))
    other = f"{around} {title} {around}"
    if upper and title.upper().casefold() == title.casefold():
        other = other.upper()
    match = TitleIndex.from_titles([title]).find_copy(other)
    assert match == CopyMatch("exact", 1.0, title)


@given(st.text())
def test_normalising_once_is_enough(title: str) -> None:
    once = normalise_title(title)
    assert normalise_title(once) == once
    assert once == once.strip()


TITLE = st.lists(st.sampled_from([*WORDS, *SMALL, "gardens", "gardne", "rivers"]), min_size=1, max_size=14).map(
    " ".join
)


@given(TITLE, TITLE)
def test_similarity_and_key_words_are_symmetric(one: str, other: str) -> None:
    assert jaccard_similarity(trigrams(one), trigrams(other)) == jaccard_similarity(trigrams(other), trigrams(one))
    assert differ_in_key_words(one, other) == differ_in_key_words(other, one)
    assert jaccard_similarity(trigrams(one), trigrams(one)) == 1
    assert not differ_in_key_words(one, one)


@given(st.lists(TITLE, max_size=30), TITLE, st.floats(0.5, 1))
def test_what_is_found_is_what_brute_force_finds(titles: list[str], title: str, threshold: float) -> None:
    """Nothing false is found; what is missed, the next tests count."""
    match = TitleIndex.from_titles(titles).find_copy(title, threshold)
    if match is None:
        assert title not in titles
    elif match.kind == "exact":
        assert match.title == title
    else:
        assert match.similarity == jaccard_similarity(trigrams(title), trigrams(match.title)) >= threshold
        assert not differ_in_key_words(title, match.title)
        best = brute_force(title, titles, threshold)
        assert best is not None and match.similarity <= best


# How many of them are found


def perturbed(titles: list[str], seed: int) -> Iterator[str]:
    """Each title with typos and other small words, as many as leave it just similar enough."""
    rng = random.Random(seed)
    for title in titles:
        words = title.split()
        for place in rng.sample(range(len(words)), rng.randint(1, 4)):
            if words[place] in SMALL:
                words[place] = rng.choice(SMALL)
            else:
                at = rng.randrange(1, len(words[place]))
                words[place] = words[place][:at] + rng.choice(string.ascii_lowercase) + words[place][at:]
        yield " ".join(words)


def test_near_copies_are_found_as_often_as_the_bands_promise() -> None:
    titles = titles_of(7, 1500)
    index = TitleIndex.from_titles(titles)
    expected = found = 0.0
    similarities = []
    for title, other in zip(titles, perturbed(titles, seed=1), strict=True):
        share = jaccard_similarity(trigrams(title), trigrams(other))
        if 0.8 <= share < 0.9 and other != title and not differ_in_key_words(title, other):
            similarities.append(share)
            found += index.find_copy(other) is not None
            expected += 1 - (1 - share**ROWS) ** BANDS
    assert len(similarities) > 400
    assert min(similarities) < 0.82
    assert found >= 0.985 * len(similarities)
    assert found == pytest.approx(expected, abs=0.01 * len(similarities))


def test_a_key_is_shared_as_often_as_four_runs_in_common_are_met() -> None:
    one, other = "the quiet river of winter and the rusty kettle", "the quiet river of winter and a copper kettle"
    share = jaccard_similarity(trigrams(one), trigrams(other))
    assert 0.55 < share < 0.75
    rng = random.Random(0)
    same = total = 0
    for _ in range(400):  # other letters are other hashes
        letters = dict(zip(string.ascii_lowercase, rng.sample(string.ascii_letters, 26), strict=True))
        first, second = ("".join(letters.get(char, char) for char in text) for text in (one, other))
        both = band_keys([first, second])
        same += int((both[:, 0] == both[:, 1]).sum())
        total += BANDS
    assert same / total == pytest.approx(share**ROWS, abs=0.03)


def test_keys_are_of_the_text_alone() -> None:
    texts = [normalise_title(title) for title in [*titles_of(3, 20), "x", "é", "日本"]]
    together = band_keys(texts)
    assert together.shape == (BANDS, len(texts))
    assert all(np.array_equal(together[:, [at]], band_keys([text])) for at, text in enumerate(texts))
    assert band_keys(["a garden"]).ravel().tolist()[:2] == FIRST_KEYS  # files of an earlier version go on to be read


FIRST_KEYS = [3061862348, 111755597]


# The index


def test_an_index_holds_each_title_once_as_it_was_first_written() -> None:
    index = TitleIndex.from_titles(
        iter(["A Title!", "another", "a title", "", "  ", "another", "Ünïcode 🎉\nin two lines"])
    )
    assert list(index) == ["A Title!", "another", "Ünïcode 🎉\nin two lines"]
    assert len(index) == 3


def test_an_empty_index_finds_nothing() -> None:
    assert TitleIndex.from_titles([]).find_copy("a title") is None
    assert TitleIndex.from_titles(["a title"]).find_copy(" \n") is None
    assert len(TitleIndex.from_titles(["", " "])) == 0


def test_more_titles_come_behind_those_that_are_there(tmp_path: Path) -> None:
    titles = titles_of(5, 1400)  # more than are hashed at a time
    first = TitleIndex.from_titles(titles[:600])
    both = first.extended_with(itertools.chain(titles[100:], titles[:300]))
    assert list(both) == list(dict.fromkeys(titles))
    assert first.extended_with(titles[:600]) is first
    for name, index in (("grown", both), ("at once", TitleIndex.from_titles(titles))):
        index.save(tmp_path / name)
    assert (tmp_path / "grown" / INDEX_FILE).read_bytes() == (tmp_path / "at once" / INDEX_FILE).read_bytes()


@given(st.lists(st.text(alphabet=st.characters(), max_size=20), max_size=20), st.text(max_size=20))
def test_an_index_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, titles: list[str], title: str
) -> None:
    folder = tmp_path_factory.mktemp("run")
    index = TitleIndex.from_titles(titles)
    index.save(folder)
    again = TitleIndex.load(folder)
    assert list(again) == list(index)
    assert [again.find_copy(one) for one in (*titles, title)] == [index.find_copy(one) for one in (*titles, title)]
    several = [*titles, "", title, " "]
    assert list(index.find_copies(several)) == [index.find_copy(one) for one in several]
    assert [path.name for path in folder.iterdir()] == [INDEX_FILE]


def test_a_missing_index_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=rf"{INDEX_FILE}: no such file; `redditgen finetune`"):
        TitleIndex.load(tmp_path)


def saved(folder: Path) -> Path:
    TitleIndex.from_titles(titles_of(4, 30)).save(folder)
    return folder / INDEX_FILE


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04", b"\x93NUMPY"])
def test_a_broken_index_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / INDEX_FILE).write_bytes(content)
    with pytest.raises(InputError, match=r"is broken or of another version; delete it, and `redditgen finetune`") as e:
        TitleIndex.load(tmp_path)
    assert "\n" not in str(e.value)


@given(st.randoms(use_true_random=False))
def test_whatever_breaks_an_index_it_is_refused_or_reads_the_same(
    tmp_path_factory: pytest.TempPathFactory, rng: random.Random
) -> None:
    path = saved(tmp_path_factory.mktemp("run"))
    titles = list(TitleIndex.load(path.parent))
    content = bytearray(path.read_bytes())
    if rng.random() < 0.3:
        del content[rng.randrange(len(content)) :]
    for _ in range(rng.randint(1, 3) if content else 0):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    try:
        again = TitleIndex.load(path.parent)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert list(again) == titles


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 0},
        {"owners": np.full(30 * BANDS, 30, np.uint32)},
        {"sizes": np.zeros(29, np.uint32)},
        {"lengths": np.ones(30, np.uint32)},
        {"keys": np.zeros(30 * BANDS, np.uint64)},
        {"text": np.array(["a pickle", None], object)},
    ],
)
def test_an_index_of_other_arrays_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = saved(tmp_path)
    with np.load(path) as arrays:
        content = {**arrays, **changes}
    with path.open("wb") as file:
        np.savez(file, **content)
    with pytest.raises(InputError, match="is broken or of another version"):
        TitleIndex.load(tmp_path)


def test_a_folder_in_the_place_of_an_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / INDEX_FILE).mkdir()
    with pytest.raises(InputError, match="can't be read"):
        TitleIndex.load(tmp_path)


def test_a_full_disk_leaves_the_index_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path)
    before = path.read_bytes()

    def full(file: IO[bytes], **arrays: Any) -> None:
        file.write(b"PK")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(InputError, match=rf"{INDEX_FILE}: can't be written: No space left on device"):
        TitleIndex.from_titles(["a title"]).save(tmp_path)
    assert path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [INDEX_FILE]
