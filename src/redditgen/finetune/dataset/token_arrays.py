"""Reads token arrays from a `.npz`, as gpt-2-simple's encode_dataset and `redditgen tokenize` write it."""

from pathlib import Path

import numpy as np

from redditgen.errors import InputError
from redditgen.files import untrusted
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.titles.record import END_TOKEN, START_TOKEN


def read_token_arrays(path: Path, tokenizer: Tokenizer) -> list[np.ndarray]:
    """Return the arrays of a `.npz`, each int32 of shape [tokens].

    Raises InputError where the file is no `.npz`, or holds an array that is not of this tokenizer's token ids.
    """
    try:
        with path.open("rb") as file:
            chunks = list(untrusted.read_arrays(file).values())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is no .npz of token arrays ({error}); make it with: redditgen tokenize") from error
    if not chunks or not all(_are_tokens(chunk, len(tokenizer)) for chunk in chunks):
        raise InputError(f"{path}: holds no tokens of this model; tokenize the text with the same --model")
    return [chunk.astype(np.int32) for chunk in chunks]


def _are_tokens(chunk: np.ndarray, vocabulary: int) -> bool:
    is_list = np.issubdtype(chunk.dtype, np.integer) and chunk.ndim == 1 and len(chunk) > 0
    return bool(is_list and 0 <= chunk.min() <= chunk.max() < vocabulary)


def decode_with_record_tokens(chunk: np.ndarray, tokenizer: Tokenizer) -> str:
    """Return tokens as text.

    In compact tokens, records are separated by the model's end token; they get their start and end tokens back.
    """
    text = tokenizer.decode(chunk.tolist())
    if tokenizer.end not in chunk:
        return text
    return "".join(f"{START_TOKEN}{piece}{END_TOKEN}" for piece in text.split(END_TOKEN) if piece)
