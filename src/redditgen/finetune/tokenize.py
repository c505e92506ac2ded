"""`redditgen tokenize`: writes a dataset's tokens to a `.npz`, so that training begins at once.

The file holds one array of token ids a chunk of text, as gpt-2-simple's encode_dataset writes it.
"""

import logging
from collections import Counter

import numpy as np

from redditgen.files.atomic import atomic_write, refuse_existing
from redditgen.files.locks import locked_output
from redditgen.files.sidecar import IGNORED_SETTINGS, find_up_to_date, write_sidecar
from redditgen.finetune.dataset.plain_text import read_token_chunks
from redditgen.finetune.dataset.record_files import find_files
from redditgen.gpt2.find import find_model
from redditgen.runtime.progress import heartbeat
from redditgen.settings import TokenizeSettings

_log = logging.getLogger(__name__)


def tokenize(settings: TokenizeSettings) -> dict[str, int]:
    """Write `settings.output`, with a sidecar, and return the counts of chunks and tokens.

    Raises OutputExists where it exists and may not be replaced, and RedditgenError where the model or the dataset is
    missing or unusable.
    """
    out, model = settings.output, find_model(settings.model, settings.model_dir)
    paths = find_files(settings.dataset)
    if settings.skip_existing and (sidecar := find_up_to_date(out, settings, inputs=paths, ignoring=IGNORED_SETTINGS)):
        return dict(sidecar["counts"])
    with locked_output(out), heartbeat(f"tokenizing {settings.dataset}"):
        refuse_existing(out, settings.overwrite)
        chunks = list(read_token_chunks(paths, model.tokenizer(), settings.record_tokens, settings.combine))
        counts = Counter(chunks=len(chunks), tokens=sum(map(len, chunks)))
        with atomic_write(out) as temporary:
            with temporary.open("wb") as file:
                np.savez_compressed(file, *chunks)
            write_sidecar(out, settings, inputs=paths, written=temporary, counts=counts)
    _log.info("%s: %d tokens in %d chunks", out, counts["tokens"], counts["chunks"])
    return dict(counts)
