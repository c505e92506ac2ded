"""The dataset of a training: tokenized records or a stream of tokens, and the held-out records."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from redditgen.engines.data.examples import DynamicExamples, Examples
from redditgen.engines.data.token_stream import TokenStream
from redditgen.gpt2.run_info import RunInfo


@dataclass(frozen=True)
class Dataset:
    """Tokens to train on, as records or as a stream, the held-out records, and the run info of the run to train."""

    source: Path
    """The file, folder or pattern that the dataset was read from, for messages."""
    train: Examples | DynamicExamples | TokenStream
    held_out: Examples
    """Records that are not trained on; empty where none are held out."""
    run_info: RunInfo
    titles: Collection[str] = ()
    """The distinct titles of all records, held-out ones included; empty for plain text."""
