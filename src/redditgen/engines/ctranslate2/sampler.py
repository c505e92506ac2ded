"""Sampling with CTranslate2, from a model directory's own weights.

Prompts run in fixed blocks, as many side by side as there are cores; each block has a generator and a seed of its own.
So the same seed and block size give the same texts, and a block can be made again without those before it.
"""

import logging
import os
import random
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from threading import Lock
from typing import Any

from redditgen.engines.base import AUTO, Sampling, cache_bytes, cut_after_end_token
from redditgen.engines.data.examples import longest_prompt_length, tokenize_prompts
from redditgen.gpt2.formats.ctranslate2_model import FLOAT32, INT8, find_or_build_model
from redditgen.gpt2.model_dir import ModelDir
from redditgen.gpt2.run_info import COMPACT_TOKENS
from redditgen.runtime.memory import available_memory, trim_heap
from redditgen.titles.record import END_TOKEN

_ROWS_MIN = 16  # rows of a block; fewer are slow
_SEEDING = Lock()  # CTranslate2 has one seed for the whole process

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Block:
    """Prompts that are continued together; what becomes of them depends on nothing else."""

    places: list[int]
    """Where they stand among all prompts."""
    prompts: list[str]
    seed: int


class Sampler:
    """Continues prompts with a run's newest weights, kept in `precision`."""

    def __init__(self, model: ModelDir, precision: str = FLOAT32) -> None:
        self._hparams = model.hyperparameters()
        self._tokenizer = model.tokenizer()
        self._tokens = self._tokenizer.tokens()
        self._record_tokens = model.run_info().record_tokens
        self._folder = find_or_build_model(model, precision)
        _log.debug("%s: as %s for CTranslate2 in %s", model.path, precision, self._folder)

    def blocks(self, prompts: Sequence[str], size: int, sampling: Sampling, seed: int) -> Generator[str]:
        """The texts of any number of prompts, in order; blocks that have not begun when it is closed never do."""
        blocks = self.cut(prompts, size, seed)

        def texts(block: Block) -> list[str]:
            return list(self.continued(block.prompts, sampling, block.seed))

        at_once = self._at_once(size, sampling)
        _log.debug("CTranslate2 writes %d blocks of %d, %d side by side", len(blocks), size, at_once)
        pool = ThreadPoolExecutor(at_once)
        try:
            yield from texts_in_order(blocks, pool.map(texts, blocks))
        finally:
            pool.shutdown(cancel_futures=True)
            trim_heap()

    def _at_once(self, size: int, sampling: Sampling) -> int:
        """How many blocks are made side by side: one a core, if the memory has room for them."""
        each = (self._folder / "model.bin").stat().st_size + cache_bytes(self._hparams, size, sampling.length)
        return max(1, min(os.cpu_count() or 1, available_memory() // each))

    def cut(self, prompts: Sequence[str], size: int, seed: int) -> list[Block]:
        """Blocks of at most `size` prompts of like length, in the order in which `in_order` needs them.

        Rows of one length begin to write at once, where a shorter one would wait until the longest has been read.
        """
        lengths = list(map(len, tokenize_prompts(list(prompts), self._tokenizer, self._record_tokens)))
        order = iter(sorted(range(len(prompts)), key=lengths.__getitem__))
        numbered = enumerate(list(islice(order, rows)) for rows in _sizes(len(prompts), size))
        blocks = [Block(rows, [prompts[row] for row in rows], block_seed(seed, number)) for number, rows in numbered]
        return sorted(blocks, key=lambda block: min(block.places))

    def continued(self, prompts: Sequence[str], sampling: Sampling, seed: int) -> Iterator[str]:
        """Sample one block: yield each prompt with what the model writes after it, through the end token.

        Prompts are starts of records. A text that reaches `sampling.length` tokens has no end token. Raises UsageError
        for a prompt that leaves no room in the context.
        """
        ids = tokenize_prompts(list(prompts), self._tokenizer, self._record_tokens)
        room = self._hparams.n_ctx - longest_prompt_length(ids, prompts, self._hparams.n_ctx)
        results = self._generator(seed).generate_batch(
            [[self._tokens[i] for i in row] for row in ids],
            max_length=min(sampling.length, room),
            include_prompt_in_result=False,
            return_end_token=True,
            **self._stopping(len(ids)),
            **_options(sampling, len(self._tokens)),
        )
        for prompt, result in zip(prompts, results, strict=True):
            yield prompt + self._text(result.sequences_ids[0])

    def _generator(self, seed: int) -> Any:
        """CTranslate2's Generator, with a thread of its own, which reads the seed when it draws first.

        Cores write more with a block each than with a share of each product of matrices.
        """
        import ctranslate2

        generator = ctranslate2.Generator(str(self._folder), inter_threads=1, intra_threads=1)
        with _SEEDING:
            ctranslate2.set_random_seed(seed)
            generator.generate_batch([[END_TOKEN]], max_length=1, sampling_topk=2)
        return generator

    def _stopping(self, rows: int) -> dict[str, Any]:
        """How CTranslate2 knows an end: the one token, or, where the end token stands in pieces, their text."""
        end = {"end_token": END_TOKEN}
        if self._record_tokens == COMPACT_TOKENS:
            return end
        tails = [""] * rows

        def ended(step: Any) -> bool:
            tails[step.batch_id] = (tails[step.batch_id] + self._tokenizer.decode([step.token_id]))[
                -2 * len(END_TOKEN) :
            ]
            return END_TOKEN in tails[step.batch_id]

        return {**end, "callback": ended}

    def _text(self, ids: list[int]) -> str:
        ended = bool(ids) and ids[-1] == self._tokenizer.end
        text = self._tokenizer.decode(ids[:-1] if ended else ids)
        return text + END_TOKEN if ended else cut_after_end_token(text)


def _sizes(rows: int, size: int) -> list[int]:
    """Of the blocks that some rows are cut into: about equal, and as many as keep four cores busy, if not too small."""
    least = -(-rows // size)
    blocks = max(least, min(-(-least // 4) * 4, rows // _ROWS_MIN))
    return [(rows + block) // blocks for block in range(blocks)]


def texts_in_order(blocks: Sequence[Block], made: Iterable[Iterable[str]]) -> Iterator[str]:
    """The texts of blocks that were cut, in the order of the prompts, each as soon as those before it are there."""
    texts: dict[int, str] = {}
    place = 0
    for block, of_block in zip(blocks, made, strict=True):
        texts |= zip(block.places, of_block, strict=True)
        while place in texts:
            yield texts.pop(place)
            place += 1


def choose_precision(asked: str) -> str:
    """What the weights are kept in: int8 is about twice as fast on a CPU, and costs mini 0.001 bits per character."""
    return INT8 if asked == AUTO else asked


def block_seed(seed: int, block: int) -> int:
    """A block's own seed, so that it does not depend on those before it."""
    return random.Random(f"{seed}:{block}").randrange(2**31)


def _options(sampling: Sampling, vocabulary: int) -> dict[str, Any]:
    penalty = {"repetition_penalty": sampling.repetition_penalty}
    if sampling.temperature == 0:
        return {**penalty, "sampling_topk": 1}
    return {
        **penalty,
        "sampling_temperature": sampling.temperature,
        "sampling_topk": sampling.top_k or vocabulary,
        "sampling_topp": sampling.top_p or 1.0,
    }
