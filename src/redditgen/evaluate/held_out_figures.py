"""How well a run predicts held-out titles: bits a character, which tokenizers and engines share, and perplexity.

Measured as finetune measures on its way, in float32, and record by record, for intervals.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from redditgen.engines.data.batches import IGNORED_TARGET, batches_by_length, pad_batch, title_mask
from redditgen.engines.data.examples import Examples, tokenize_records
from redditgen.engines.pytorch.device import best_device
from redditgen.engines.pytorch.loss import token_losses
from redditgen.engines.pytorch.memory_plan import Plan
from redditgen.engines.pytorch.network import load_network
from redditgen.evaluate.statistics import HELD_OUT, Figure, ratio_with_interval, sum_by_title
from redditgen.gpt2.model_dir import ModelDir
from redditgen.runtime.progress import track
from redditgen.titles.record import Record

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import GPT2LMHeadModel

    Column = NDArray[np.float64]

_BATCH = 32  # records


def held_out_figures(run: ModelDir, records: Sequence[Record], seed: int) -> list[Figure]:
    """Bits a character of the titles, their end included, and perplexity a token of the records; by title."""
    hyperparameters = run.hyperparameters()
    measured = tokenize_records(records, run.tokenizer(), run.run_info().record_tokens, hyperparameters.n_ctx)
    model = load_network(hyperparameters, run.tensors(), Plan(), best_device())
    model.eval()
    titles = [record.title or "" for record in records]
    nats, title_nats, tokens = sum_by_title(titles, *record_losses(model, measured))
    [chars] = sum_by_title(titles, measured.title_chars.astype(np.float64))
    bits, perplexity = (
        ratio_with_interval(title_nats / math.log(2), chars, seed),
        map(math.exp, ratio_with_interval(nats, tokens, seed)),
    )
    return [
        Figure(name, value, len(chars), HELD_OUT, None, low, high)
        for name, (value, low, high) in (("bits_per_char", bits), ("perplexity", perplexity))
    ]


def record_losses(model: "GPT2LMHeadModel", measured: Examples) -> "tuple[Column, Column, Column]":
    """Of each record: nats, those of its title and what ends it, and tokens."""
    nats, title_nats, tokens = (np.zeros(len(measured)) for _ in range(3))
    parts = batches_by_length(measured.sequences.lengths, _BATCH, np.random.default_rng(0))
    for numbers in track(parts, "measuring", unit="batches", total=len(parts), at_once=1):
        inputs, targets = pad_batch(measured.sequences, numbers)
        counts = targets != IGNORED_TARGET
        losses = token_losses(model, inputs.to(model.device), targets.to(model.device)).double().cpu().numpy()
        rows = np.nonzero(counts.numpy())[0]
        is_title = title_mask(targets, measured.title_starts[numbers], measured.title_ends[numbers])[counts].numpy()
        nats[numbers] = np.bincount(rows, losses, len(numbers))
        title_nats[numbers] = np.bincount(rows, losses * is_title, len(numbers))
        tokens[numbers] = np.bincount(rows, minlength=len(numbers))
    return nats, title_nats, tokens
