import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redditgen.errors import InputError, MissingError
from redditgen.gpt2.model_dir import ModelDir
from redditgen.gpt2.tokenizer import Tokenizer, train_tokenizer
from redditgen.titles.record import END_TOKEN, START_TOKEN
from tests.support.paths import OPENAI

TEXTS = ["the cat sleeps", "the dog sleeps on the sofa", "the cat on the sofa"] * 3


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 270)


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    [encoding] = tokenizer.encode([text])
    return list(encoding.ids)


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.text(st.characters(codec="utf8")) | st.sampled_from([END_TOKEN, START_TOKEN, " ", "\n"])).map("".join)
)
def test_any_text_survives(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(ids_of(tokenizer, text)) == text


@given(st.text(st.characters(codec="utf8"), min_size=1))
def test_offsets_are_the_characters_of_each_token(tokenizer: Tokenizer, text: str) -> None:
    [encoding] = tokenizer.encode([text])
    assert encoding.offsets[0][0] == 0
    assert encoding.offsets[-1][1] == len(text)
    whole = [(token, span) for token, span in zip(encoding.ids, encoding.offsets, strict=True) if text.isascii()]
    assert all(tokenizer.decode([token]) == text[start:end] for token, (start, end) in whole)


def test_training_gives_as_many_tokens_as_asked_and_the_end_token_last(tokenizer: Tokenizer) -> None:
    assert len(tokenizer) == len(tokenizer.tokens()) == 270
    assert sorted(tokenizer.vocabulary.values()) == list(range(270))
    assert tokenizer.tokens()[-1] == END_TOKEN
    assert tokenizer.end == 269
    assert len(tokenizer.merges) == 270 - 256 - 1


def test_training_learns_what_is_frequent(tokenizer: Tokenizer) -> None:
    assert len(ids_of(tokenizer, "the the")) < len(ids_of(tokenizer, "xqz xqz"))
    assert [len(encoding.ids) for encoding in tokenizer.encode(["xqz", "", "the"])] == [3, 0, 1]


def test_training_is_repeatable() -> None:
    again = train_tokenizer(TEXTS, 270)
    assert (again.vocabulary, again.merges) == (
        train_tokenizer(TEXTS, 270).vocabulary,
        train_tokenizer(TEXTS, 270).merges,
    )


def test_what_is_saved_is_loaded(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.vocabulary, loaded.merges) == (tokenizer.vocabulary, tokenizer.merges)
    text = "the cat's sofa é 🎉"
    assert ids_of(loaded, text) == ids_of(tokenizer, text)
    loaded.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder.json", "vocab.bpe"]


def test_the_end_token_in_a_text_is_split_and_its_id_is_decoded(tokenizer: Tokenizer) -> None:
    ids = ids_of(tokenizer, f"the{END_TOKEN}")
    assert tokenizer.end not in ids
    assert len(ids) > 5
    assert tokenizer.decode([tokenizer.end]) == END_TOKEN


def test_half_a_character_becomes_a_replacement_character(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(ids_of(tokenizer, "é")[:1]) == "\ufffd"


@pytest.mark.skipif(not OPENAI.exists(), reason=f"no {OPENAI}")
def test_gpt_2s_own_vocabulary_gives_gpt_2s_ids(tmp_path: Path) -> None:
    tokenizer = ModelDir(OPENAI).tokenizer()
    assert ids_of(tokenizer, "Hello world") == [15496, 995]
    assert ids_of(tokenizer, "<|startoftext|>") == [27, 91, 9688, 1659, 5239, 91, 29]
    assert ids_of(tokenizer, END_TOKEN) == [27, 91, 437, 1659, 5239, 91, 29]
    assert (len(tokenizer), tokenizer.end) == (50257, 50256)
    tokenizer.save(tmp_path)
    assert (tmp_path / "vocab.bpe").read_bytes() == (OPENAI / "vocab.bpe").read_bytes()
    assert json.loads((tmp_path / "encoder.json").read_bytes()) == json.loads((OPENAI / "encoder.json").read_bytes())


@pytest.mark.parametrize("name", ["encoder.json", "vocab.bpe"])
def test_a_missing_file_is_named(tokenizer: Tokenizer, tmp_path: Path, name: str) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(MissingError, match=f"{name}: not there"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[1, 2]", "must map tokens to the ids 0, 1, 2"),
        ({"a": 0, "b": 2, END_TOKEN: 3}, "must map tokens to the ids 0, 1, 2"),
        ({"a": 0, "b": 0, END_TOKEN: 1}, "must map tokens to the ids 0, 1, 2"),
        ({"a": 0, "b": "1", END_TOKEN: 2}, "must map tokens to the ids 0, 1, 2"),
        ({"a": 0, "b": None, END_TOKEN: 2}, "must map tokens to the ids 0, 1, 2"),
        ({"a": 0, "b": 1}, "is not the vocabulary of a GPT-2"),
    ],
)
def test_what_is_no_vocabulary_is_refused(tokenizer: Tokenizer, tmp_path: Path, content: Any, message: str) -> None:
    tokenizer.save(tmp_path)
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "encoder.json").write_text(text, encoding="utf8")
    with pytest.raises(InputError, match=rf"encoder\.json: .*{message}"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["one"], r"vocab\.bpe, line 2: a merge is two tokens with a blank between, not 'one'"),
        (["t h", "a b c"], r"vocab\.bpe, line 3: a merge is two tokens with a blank between, not 'a b c'"),
        (["zz qq"], r"vocab\.bpe"),
        (["q z"], r"vocab\.bpe"),
    ],
)
def test_what_are_no_merges_of_the_vocabulary_is_refused(
    tokenizer: Tokenizer, tmp_path: Path, lines: list[str], message: str
) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / "vocab.bpe").write_text("\n".join(["#version: 0.2", *lines, ""]), encoding="utf8")
    with pytest.raises(InputError, match=message):
        Tokenizer.load(tmp_path)


def test_bytes_that_are_no_text_are_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for name in ("encoder.json", "vocab.bpe"):
        tokenizer.save(tmp_path)
        (tmp_path / name).write_bytes(b"caf\xe9")
        with pytest.raises(InputError, match=rf"{name}: can't be read: byte 4 \(0xe9\) is not UTF-8$"):
            Tokenizer.load(tmp_path)
