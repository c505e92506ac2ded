"""A dataset's tokens in a `.npz`, as gpt-2-simple's encode_dataset writes them, so that training begins at once."""

import logging
from collections import Counter

import numpy as np

from redditgen import dataset
from redditgen.gpt2.places import find_model
from redditgen.locks import writing_alone
from redditgen.output import refuse_existing, whole
from redditgen.progress import going_on
from redditgen.settings import TokenizeSettings
from redditgen.sidecar import BESIDES, made_before, write_sidecar

_log = logging.getLogger(__name__)


def tokenize(settings: TokenizeSettings) -> dict[str, int]:
    """Write `settings.output`: an array of token ids a chunk. Gives the counts of chunks and tokens."""
    out, model = settings.output, find_model(settings.model, settings.model_dir)
    paths = dataset.files(settings.dataset)
    if settings.skip_existing and (before := made_before(out, settings, inputs=paths, but=BESIDES)):
        return dict(before["counts"])
    with writing_alone(out), going_on(f"tokenizing {settings.dataset}"):
        refuse_existing(out, settings.overwrite)
        chunks = list(dataset.chunks(paths, model.tokenizer(), settings.record_tokens, settings.combine))
        counts = Counter(chunks=len(chunks), tokens=sum(map(len, chunks)))
        with whole(out) as temporary:
            with temporary.open("wb") as file:
                np.savez_compressed(file, *chunks)
            write_sidecar(out, settings, inputs=paths, written=temporary, counts=counts)
    _log.info("%s: %d tokens in %d chunks", out, counts["tokens"], counts["chunks"])
    return dict(counts)
