"""Reads and writes a tokenizer's files in Hugging Face's layout: tokenizer.json, or vocab.json and merges.txt.

vocab.json has the content of OpenAI's `encoder.json`, and merges.txt that of `vocab.bpe`; added_tokens.json, where
there is one, maps tokens that were added later to their ids. tokenizer.json holds all of these and the rules by which
text is split.
"""

import json
from pathlib import Path
from typing import Any

from redditgen.errors import InputError, MissingError
from redditgen.files import untrusted
from redditgen.gpt2.tokenizer import MAX_FILE_BYTES, Tokenizer, first_line
from redditgen.titles.record import END_TOKEN


def read_tokenizer(folder: Path) -> tuple[Path, Tokenizer]:
    """Read a folder's tokenizer; return it after the path of its file, which is vocab.json where there are two.

    Raises MissingError where there is no tokenizer, and InputError where it is not a byte-level BPE as GPT-2's.
    """
    combined, vocabulary, merges = (folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt"))
    if combined.exists():  # read first, as in transformers, since only this file always has the added tokens
        return combined, _build_tokenizer(combined, *_read_tokenizer_json(combined))
    if vocabulary.exists() and merges.exists():
        return vocabulary, _build_tokenizer(vocabulary, *_read_vocabulary_and_merges(vocabulary, merges))
    raise MissingError(
        f"{folder}: holds neither tokenizer.json nor vocab.json with merges.txt; copy them from the model that it was "
        "finetuned from (OpenAI's encoder.json is a vocab.json, vocab.bpe a merges.txt; aitextgen.tokenizer.json a "
        "tokenizer.json)"
    )


def write_tokenizer(folder: Path, tokenizer: Tokenizer, context: int) -> None:
    """Write tokenizer.json and tokenizer_config.json, and vocab.json and merges.txt for older readers.

    `context` is the model's context in tokens. Raises OSError where a file can't be written.
    """
    from transformers import GPT2Tokenizer

    # transformers declares the merges as strings, but passes them on to tokenizers, which takes pairs.
    merges: Any = tokenizer.merges
    theirs = GPT2Tokenizer(
        vocab=tokenizer.vocabulary, merges=merges, model_max_length=context, clean_up_tokenization_spaces=False
    )
    try:
        theirs.save_pretrained(folder)
        theirs.backend_tokenizer.model.save(str(folder))
    except OSError:
        raise
    except Exception as error:  # tokenizers has no exception class of its own
        raise OSError(f"{error}") from error


def _read_tokenizer_json(path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Read a tokenizer.json; return the vocabulary, with added tokens, and the merges."""
    from tokenizers import Tokenizer as Backend

    try:
        text = untrusted.read_text(path, MAX_FILE_BYTES)
        _check_ids(untrusted.parse_json(text), len(text))
        content = json.loads(Backend.from_str(text).to_str())
    except Exception as error:  # tokenizers has no exception class of its own
        raise InputError(f"{path}: can't be read as a tokenizer ({first_line(error)}); copy it anew") from error
    model, pre_tokenizer = content["model"], content["pre_tokenizer"] or {}
    is_byte_level = (
        pre_tokenizer.get("type") == "ByteLevel"
        and pre_tokenizer["use_regex"]
        and not pre_tokenizer["add_prefix_space"]
    )
    is_plain = model["type"] == "BPE" and not any(
        [content["normalizer"], model["continuing_subword_prefix"], model["end_of_word_suffix"], model["ignore_merges"]]
    )
    if not (is_byte_level and is_plain):
        raise InputError(f"{path}: is no byte-level BPE as GPT-2's, so texts would become other tokens; can't be read")
    added = {token["content"]: token["id"] for token in content["added_tokens"]}
    return model["vocab"] | added, [(left, right) for left, right in model["merges"]]


def _check_ids(content: Any, size: int) -> None:
    """Raise an exception where an id is larger than `size`, the number of characters in the file.

    tokenizers lists every id that is missing below the largest one, which would take any amount of memory.
    """
    tokens = [token["id"] for token in content.get("added_tokens", ())]
    vocabulary = content["model"]["vocab"]
    tokens += vocabulary.values() if isinstance(vocabulary, dict) else ()
    if not all(type(number) is int and 0 <= number <= size for number in tokens):
        raise ValueError("ids must be 0, 1, 2, ...")


def _read_vocabulary_and_merges(path: Path, merges_path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Read a vocab.json and a merges.txt; return the vocabulary, with added tokens, and the merges."""
    from tokenizers.models import BPE

    try:
        for file in (path, merges_path):
            untrusted.check_size(file, MAX_FILE_BYTES)
        vocabulary, merges = BPE.read_file(str(path), str(merges_path))
    except Exception as error:  # tokenizers has no exception class of its own
        reason = first_line(error)
        raise InputError(f"{path} and {merges_path.name}: can't be read ({reason}); copy them anew") from error
    return vocabulary | _read_added_tokens(path.with_name("added_tokens.json")), merges


def _read_added_tokens(path: Path) -> dict[str, int]:
    added = read_json_object(path) if path.exists() else {}
    if not all(type(number) is int for number in added.values()):
        raise InputError(f"{path}: must map tokens to ids; copy it anew from the model's source")
    return added


def _build_tokenizer(path: Path, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    """Return a tokenizer; raises InputError, which names `path`, where it is not one of GPT-2's kind."""
    from tokenizers.pre_tokenizers import ByteLevel

    by_id = sorted(vocabulary.items(), key=lambda item: item[1])
    if [number for _, number in by_id] != list(range(len(by_id))):
        raise InputError(f"{path}: must map tokens to the ids 0, 1, 2, ...; copy it anew from the model's source")
    if END_TOKEN not in vocabulary:
        raise InputError(f"{path}: holds no {END_TOKEN}, so it is not the vocabulary of a GPT-2")
    if lacking := set(ByteLevel.alphabet()) - vocabulary.keys():
        raise InputError(f"{path}: lacks {len(lacking)} of the 256 bytes, so it is no byte-level BPE as GPT-2's")
    try:
        return Tokenizer(dict(by_id), merges)
    except Exception as error:  # tokenizers has no exception class of its own
        raise InputError(
            f"{path}: the merges are not of this vocabulary ({first_line(error)}); take both from one model"
        ) from error


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises MissingError where there is no such file, InputError where it is anything else."""
    try:
        content = untrusted.read_json(path, MAX_FILE_BYTES)
    except FileNotFoundError as error:
        raise MissingError(f"{path}: not there, and a Hugging Face folder needs it") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: can't be read as JSON ({error}); copy it anew from the model's source") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a JSON object; copy it anew from the model's source")
    return content
