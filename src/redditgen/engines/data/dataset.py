"""What an engine trains on: tokenized records or a stream of tokens, and the records that are held out."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from redditgen.engines.data.examples import DynamicExamples, Examples
from redditgen.engines.data.token_stream import TokenStream
from redditgen.gpt2.run_info import RunInfo


@dataclass(frozen=True)
class Dataset:
    """Tokens to train on, as records or as a stream, the held-out records, and the run info of the trained run."""

    source: Path
    """The file, folder or pattern that it was read from, for messages."""
    train: Examples | DynamicExamples | TokenStream
    held_out: Examples
    run_info: RunInfo
    titles: Collection[str] = ()
    """The titles of all records, the held-out ones too, each once; plain text has none."""
