"""How well a run predicts held-out titles: bits a character, which tokenizers and engines share, and perplexity.

Measured as finetune measures on its way, in float32, and record by record, for intervals.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from redditgen.evaluation.measures import HELD_OUT, Figure, by_title, ratio
from redditgen.gpt2.batches import IGNORED, batches, in_title, padded
from redditgen.gpt2.device import best_device
from redditgen.gpt2.examples import Examples, examples
from redditgen.gpt2.loss import token_losses
from redditgen.gpt2.memory import Plan
from redditgen.gpt2.networks import loaded
from redditgen.gpt2.rundir import ModelDir
from redditgen.markup import Record
from redditgen.progress import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import GPT2LMHeadModel

    Column = NDArray[np.float64]

_BATCH = 32  # records


def predicted(run: ModelDir, records: Sequence[Record], seed: int) -> list[Figure]:
    """Bits a character of the titles, their end included, and perplexity a token of the records; by title."""
    hparams = run.hparams()
    measured = examples(records, run.tokenizer(), run.mark().record_tokens, hparams.n_ctx)
    model = loaded(hparams, run.tensors(), Plan(), best_device())
    model.eval()
    titles = [record.title or "" for record in records]
    nats, title_nats, tokens = by_title(titles, *record_losses(model, measured))
    [chars] = by_title(titles, measured.title_chars.astype(np.float64))
    bits, perplexity = ratio(title_nats / math.log(2), chars, seed), map(math.exp, ratio(nats, tokens, seed))
    return [
        Figure(name, value, len(chars), HELD_OUT, None, low, high)
        for name, (value, low, high) in (("bits_per_char", bits), ("perplexity", perplexity))
    ]


def record_losses(model: "GPT2LMHeadModel", measured: Examples) -> "tuple[Column, Column, Column]":
    """Of each record: nats, those of its title and what ends it, and tokens."""
    nats, title_nats, tokens = (np.zeros(len(measured)) for _ in range(3))
    parts = batches(measured.sequences.lengths, _BATCH, np.random.default_rng(0))
    for numbers in counted(parts, "measuring", unit="batches", total=len(parts), at_once=1):
        inputs, targets = padded(measured.sequences, numbers)
        counts = targets != IGNORED
        losses = token_losses(model, inputs.to(model.device), targets.to(model.device)).double().cpu().numpy()
        rows = np.nonzero(counts.numpy())[0]
        is_title = in_title(targets, measured.title_starts[numbers], measured.title_ends[numbers])[counts].numpy()
        nats[numbers] = np.bincount(rows, losses, len(numbers))
        title_nats[numbers] = np.bincount(rows, losses * is_title, len(numbers))
        tokens[numbers] = np.bincount(rows, minlength=len(numbers))
    return nats, title_nats, tokens
