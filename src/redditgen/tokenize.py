"""A dataset's tokens in a `.npz`, as gpt-2-simple's encode_dataset writes them, so that training begins at once."""

import logging
from collections import Counter

import numpy as np

from redditgen import dataset
from redditgen.gpt2.places import find_model
from redditgen.output import refuse_existing, whole, write_sidecar
from redditgen.settings import TokenizeSettings

_log = logging.getLogger(__name__)


def tokenize(settings: TokenizeSettings) -> dict[str, int]:
    """Write `settings.output`: an array of token ids a chunk. Gives the counts of chunks and tokens."""
    refuse_existing(settings.output, settings.overwrite)
    tokenizer = find_model(settings.model, settings.model_dir).tokenizer()
    paths = dataset.files(settings.dataset)
    chunks = list(dataset.chunks(paths, tokenizer, settings.record_tokens, settings.combine))
    with whole(settings.output) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, *chunks)
    counts = Counter(chunks=len(chunks), tokens=sum(map(len, chunks)))
    write_sidecar(settings.output, settings, inputs=paths, counts=counts)
    _log.info("%s: %d tokens in %d chunks", settings.output, counts["tokens"], counts["chunks"])
    return dict(counts)
