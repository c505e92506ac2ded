import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from redditgen.errors import InputError, MissingError
from redditgen.gpt2.formats import hugging_face, hugging_face_tokenizer
from redditgen.gpt2.model_dir import ModelDir
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.titles.record import END_TOKEN, START_TOKEN
from tests.support.paths import OPENAI

NEW, OLD = "tokenizer.json", ("vocab.json", "merges.txt")
Content = dict[str, Any]


@pytest.fixture(scope="module")
def written(tiny: ModelDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    hugging_face.write_model(folder, tiny.hyperparameters(), tiny.tokenizer(), tiny.tensors())
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(written, tmp_path / "gpt2"))


@pytest.fixture(scope="module")
def theirs(written: Path) -> Any:
    return AutoTokenizer.from_pretrained(written)


@pytest.fixture(scope="module")
def ours(tiny: ModelDir) -> Tokenizer:
    return tiny.tokenizer()


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.text(st.characters(codec="utf8")) | st.sampled_from([START_TOKEN, " ", "\n", "My cat"])).map("".join)
)
def test_transformers_tokenizes_any_text_as_we_do(theirs: Any, ours: Tokenizer, text: str) -> None:
    [encoding] = ours.encode([text])
    assert theirs(text)["input_ids"] == encoding.ids
    assert theirs.decode(encoding.ids) == ours.decode(encoding.ids) == text


def test_the_end_token_is_one_for_transformers_as_in_compact_records(theirs: Any, ours: Tokenizer) -> None:
    [encoding] = ours.encode(["~`cats~^"])
    assert theirs(f"{END_TOKEN}~`cats~^{END_TOKEN}")["input_ids"] == [ours.end, *encoding.ids, ours.end]
    assert (theirs.bos_token, theirs.eos_token, theirs.pad_token) == (END_TOKEN, END_TOKEN, None)
    assert (len(theirs), theirs.model_max_length) == (340, 64)


def test_both_layouts_are_read_and_the_whole_one_first(folder: Path, ours: Tokenizer) -> None:
    for path in (folder / NEW, folder / OLD[0]):
        file, tokenizer = hugging_face_tokenizer.read_tokenizer(folder)
        assert file == path
        assert (tokenizer.tokens(), tokenizer.merges) == (ours.tokens(), ours.merges)
        path.unlink()


@pytest.mark.skipif(not OPENAI.exists(), reason=f"no {OPENAI}")
def test_openais_files_under_their_other_names_are_read(tmp_path: Path) -> None:
    shutil.copy(OPENAI / "encoder.json", tmp_path / "vocab.json")
    shutil.copy(OPENAI / "vocab.bpe", tmp_path / "merges.txt")
    _, tokenizer = hugging_face_tokenizer.read_tokenizer(tmp_path)
    assert [encoding.ids for encoding in tokenizer.encode(["Hello world"])] == [[15496, 995]]
    hugging_face_tokenizer.write_tokenizer(tmp_path, tokenizer, 1024)
    assert AutoTokenizer.from_pretrained(tmp_path)("Hello world")["input_ids"] == [15496, 995]
    assert (tmp_path / "merges.txt").read_bytes() == (OPENAI / "vocab.bpe").read_bytes()


def test_a_tokenizer_as_older_ones_are_written_is_read(folder: Path, ours: Tokenizer) -> None:
    """That of the hub's GPT-2, for one."""

    def make_older(content: Content) -> None:
        model = content["model"]
        model["merges"] = [" ".join(pair) for pair in model["merges"]]
        for key in ("type", "byte_fallback", "ignore_merges"):
            del model[key]
        del content["pre_tokenizer"]["use_regex"]
        content["post_processor"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False}

    change(folder / NEW, make_older)
    _, tokenizer = hugging_face_tokenizer.read_tokenizer(folder)
    assert (tokenizer.tokens(), tokenizer.merges) == (ours.tokens(), ours.merges)


def test_tokens_that_were_added_later_count(folder: Path, written: Path) -> None:
    more = AutoTokenizer.from_pretrained(written)
    more.add_special_tokens({"pad_token": "<|pad|>"})
    more.save_pretrained(folder)
    _, tokenizer = hugging_face_tokenizer.read_tokenizer(folder)
    assert tokenizer.tokens()[-2:] == [END_TOKEN, "<|pad|>"]
    (folder / NEW).unlink()
    (folder / "added_tokens.json").write_text('{"<|pad|>": 340}', encoding="utf8")
    _, tokenizer = hugging_face_tokenizer.read_tokenizer(folder)
    assert tokenizer.tokens()[-2:] == [END_TOKEN, "<|pad|>"]


def change(path: Path, edit: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text(encoding="utf8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf8")


def refusal(folder: Path, name: str) -> str:
    with pytest.raises(InputError) as caught:
        hugging_face_tokenizer.read_tokenizer(folder)
    said = str(caught.value)
    assert said.startswith(f"{folder / name}")
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    "edit",
    [
        lambda content: content.update(normalizer={"type": "Lowercase"}),
        lambda content: content.update(pre_tokenizer=None),
        lambda content: content.update(pre_tokenizer={"type": "Whitespace"}),
        lambda content: content["pre_tokenizer"].update(add_prefix_space=True),
        lambda content: content["pre_tokenizer"].update(use_regex=False),
        lambda content: content["model"].update(ignore_merges=True),
        lambda content: content.update(model={"type": "WordLevel", "vocab": {END_TOKEN: 0}, "unk_token": END_TOKEN}),
    ],
)
def test_another_kind_of_tokenizer_is_refused(folder: Path, edit: Callable[[Content], None]) -> None:
    change(folder / NEW, edit)
    assert "is no byte-level BPE as GPT-2's" in refusal(folder, NEW)


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"\xff\xfe", b'{"model": {"type": "BPE"}}'])
def test_a_damaged_tokenizer_is_named(folder: Path, content: bytes) -> None:
    (folder / NEW).write_bytes(content)
    assert "can't be read as a tokenizer" in refusal(folder, NEW)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda vocabulary: vocabulary.pop(END_TOKEN), "holds no <|endoftext|>"),
        (lambda vocabulary: vocabulary.update(more=400), "must map tokens to the ids 0, 1, 2"),
        (lambda vocabulary: vocabulary.update(more=0), "must map tokens to the ids 0, 1, 2"),
        (lambda vocabulary: vocabulary.update(words=vocabulary.pop("é")), "lacks 1 of the 256 bytes"),
        (lambda vocabulary: vocabulary.update(words=vocabulary.pop("do")), "the merges are not of this vocabulary"),
        (lambda vocabulary: vocabulary.update(e="1"), "must map tokens to the ids 0, 1, 2"),
    ],
)
def test_what_is_no_vocabulary_is_refused(folder: Path, edit: Callable[[Any], Any], message: str) -> None:
    (folder / NEW).unlink()
    change(folder / OLD[0], edit)
    assert message in refusal(folder, OLD[0])


@pytest.mark.parametrize("name", OLD)
def test_bytes_that_are_no_text_are_refused(folder: Path, name: str) -> None:
    (folder / NEW).unlink()
    (folder / name).write_bytes(b"\xff\xfe\n\x00")
    assert "can't be read" in refusal(folder, OLD[0])


@pytest.mark.parametrize("content", ["[]", '{"more": "340"}', "{"])
def test_damaged_added_tokens_are_named(folder: Path, content: str) -> None:
    (folder / NEW).unlink()
    (folder / "added_tokens.json").write_text(content, encoding="utf8")
    assert "added_tokens.json" in refusal(folder, "")


@pytest.mark.parametrize("name", OLD)
def test_a_folder_without_a_tokenizer_says_where_to_get_it(folder: Path, name: str) -> None:
    (folder / NEW).unlink()
    (folder / name).unlink()
    with pytest.raises(
        MissingError, match=r"holds neither tokenizer\.json nor vocab\.json with merges\.txt; copy them"
    ):
        hugging_face_tokenizer.read_tokenizer(folder)
