"""GPT-2's byte-level BPE, read from and written to a model directory's `encoder.json` and `vocab.bpe`.

The file formats are those of openai/gpt-2, `src/encoder.py`. `encoder.json` maps each token to its id; each byte of a
token is written as one printable character. `vocab.bpe` holds a version line, then one merge per line, in order of
priority. The last id is that of `<|endoftext|>`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from redditgen.errors import InputError, MissingError
from redditgen.files import untrusted
from redditgen.titles.record import END_TOKEN

if TYPE_CHECKING:
    from tokenizers import Encoding

_VERSION_LINE = "#version: 0.2"
MAX_FILE_BYTES = 16 << 20  # of each file; GPT-2's have 1.04 and 0.46 MB


class Tokenizer:
    """Converts text to token ids and back."""

    def __init__(self, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> None:
        from tokenizers import Tokenizer as Backend
        from tokenizers import decoders, models, pre_tokenizers

        self.vocabulary = vocabulary
        self.merges = merges
        self.end = vocabulary[END_TOKEN]
        self._backend = Backend(models.BPE(vocab=vocabulary, merges=merges))
        self._backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._backend.decoder = decoders.ByteLevel()

    def __len__(self) -> int:
        return len(self.vocabulary)

    def encode(self, texts: Sequence[str]) -> "list[Encoding]":
        """Tokenize texts; `<|endoftext|>` in them is split into several tokens, as in gpt-2-simple.

        Each encoding holds `ids` and `offsets`, the characters [start, end) that each token covers.
        """
        return self._backend.encode_batch(list(texts))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids; bytes that are not UTF-8 become U+FFFD."""
        return self._backend.decode(list(ids), skip_special_tokens=False)

    def tokens(self) -> list[str]:
        """Return the tokens in the order of their ids, as `encoder.json` writes them."""
        return sorted(self.vocabulary, key=self.vocabulary.__getitem__)

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Read `encoder.json` and `vocab.bpe`; raises MissingError or InputError that names the file."""
        vocabulary, merges = _read_vocabulary(folder / "encoder.json"), _read_merges(folder / "vocab.bpe")
        for left, right in merges:
            if not vocabulary.keys() >= {left, right, left + right}:
                raise InputError(
                    f"{folder / 'vocab.bpe'}: merges {left} and {right}, which encoder.json does not know; "
                    "take both from the same model"
                )
        try:
            return cls(vocabulary, merges)
        except Exception as error:  # tokenizers has no exception class of its own
            raise InputError(
                f"{folder / 'encoder.json'}: can't be read as a vocabulary ({first_line(error)}); "
                "copy it anew from the model's source"
            ) from error

    def save(self, folder: Path) -> None:
        """Write `encoder.json` and `vocab.bpe`; raises OSError where they can't be written."""
        (folder / "encoder.json").write_text(json.dumps(self.vocabulary), encoding="utf8")
        lines = [_VERSION_LINE, *(f"{left} {right}" for left, right in self.merges)]
        (folder / "vocab.bpe").write_text("\n".join(lines) + "\n", encoding="utf8")


def train_tokenizer(texts: Sequence[str], size: int) -> Tokenizer:
    """Train a tokenizer with `size` tokens: the 256 bytes, the merges learned from `texts`, and `<|endoftext|>`."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers, trainers

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size - 1, initial_alphabet=alphabet, show_progress=False)
    )
    model = json.loads(backend.to_str())["model"]
    vocabulary: dict[str, int] = {**model["vocab"], END_TOKEN: len(model["vocab"])}
    return Tokenizer(vocabulary, [(left, right) for left, right in model["merges"]])


def _read_vocabulary(path: Path) -> dict[str, int]:
    try:
        vocabulary: dict[str, int] = untrusted.parse_json(_read_file(path))
    except ValueError as error:
        raise InputError(f"{path}: is no JSON ({error}); copy it anew from the model's source") from error
    are_ids = isinstance(vocabulary, dict) and all(type(number) is int for number in vocabulary.values())
    if not are_ids or sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise InputError(f"{path}: must map tokens to the ids 0, 1, 2, ...; copy it anew from the model's source")
    if END_TOKEN not in vocabulary:
        raise InputError(f"{path}: holds no {END_TOKEN}, so it is not the vocabulary of a GPT-2")
    return vocabulary


def _read_merges(path: Path) -> list[tuple[str, str]]:
    merges = []
    for number, line in enumerate(_read_file(path).split("\n")[1:], start=2):
        match line.split(" "):
            case [left, right]:
                merges.append((left, right))
            case [""]:
                continue
            case _:
                raise InputError(f"{path}, line {number}: a merge is two tokens with a blank between, not {line!r}")
    return merges


def first_line(error: Exception) -> str:
    """Return the first line of an error's message; tokenizers' further lines are about its own code."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _read_file(path: Path) -> str:
    try:
        return untrusted.read_text(path, MAX_FILE_BYTES)
    except FileNotFoundError as error:
        raise MissingError(f"{path}: not there, and a model directory needs it") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: can't be read: {error}") from error
