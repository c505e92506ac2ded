"""Measures how well a run predicts held-out titles: bits per character and perplexity.

Bits per character can be compared between tokenizers and engines; perplexity, per token, can't. Both are measured as
finetune measures them during training, in float32, but for each record by itself, which the intervals need.
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

_BATCH = 32  # records in a batch


def held_out_figures(run: ModelDir, records: Sequence[Record], seed: int) -> list[Figure]:
    """Return the bits per character of the titles and the perplexity per token of the records.

    The bits of a title include those of what ends it. Intervals are over resampled titles, each with all its records.
    """
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
    """Return (nats, title_nats, tokens), three float64 arrays [records].

    `nats` is the loss of a record, `title_nats` the part of it on the title and on what ends the title, and `tokens`
    the number of tokens that the loss is summed over.
    """
    nats, title_nats, tokens = (np.zeros(len(measured)) for _ in range(3))
    batches = batches_by_length(measured.sequences.lengths, _BATCH, np.random.default_rng(0))
    for numbers in track(batches, "measuring", unit="batches", total=len(batches), at_once=1):
        inputs, targets = pad_batch(measured.sequences, numbers)
        is_counted = targets != IGNORED_TARGET
        losses = token_losses(model, inputs.to(model.device), targets.to(model.device)).double().cpu().numpy()
        rows = np.nonzero(is_counted.numpy())[0]
        is_title = title_mask(targets, measured.title_starts[numbers], measured.title_ends[numbers])[is_counted].numpy()
        nats[numbers] = np.bincount(rows, losses, len(numbers))
        title_nats[numbers] = np.bincount(rows, losses * is_title, len(numbers))
        tokens[numbers] = np.bincount(rows, minlength=len(numbers))
    return nats, title_nats, tokens
