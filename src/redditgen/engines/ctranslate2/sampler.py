"""Samples texts with CTranslate2 from the weights in a model directory.

1. Prompts are sorted by length and split into blocks.
2. Blocks are sampled at the same time, one per core where memory allows. Each has a generator with one thread, and a
   seed of its own that depends only on the given seed and the block's number. So the same seed and block size yield
   the same texts, and a block can be sampled again without those before it.
3. Texts are yielded in the order of the prompts.

Memory: per core the weights, and the keys and values of one block.
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

_MIN_ROWS = 16  # of a block; smaller blocks are slow
_SEED_LOCK = Lock()  # CTranslate2 has one seed for the whole process, which only one block may use at a time

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Block:
    """Prompts that are sampled together; their texts depend on nothing but them and the seed."""

    indices: list[int]
    """The prompts' indices among all prompts."""
    prompts: list[str]
    seed: int


class Sampler:
    """Continues prompts with the weights of a model directory, converted to `precision` (FLOAT32 or INT8)."""

    def __init__(self, model: ModelDir, precision: str = FLOAT32) -> None:
        self._hyperparameters = model.hyperparameters()
        self._tokenizer = model.tokenizer()
        self._tokens = self._tokenizer.tokens()
        self._record_tokens = model.run_info().record_tokens
        self._folder = find_or_build_model(model, precision)
        _log.debug("%s: as %s for CTranslate2 in %s", model.path, precision, self._folder)

    def sample(self, prompts: Sequence[str], size: int, sampling: Sampling, seed: int) -> Generator[str]:
        """Sample prompts in blocks of at most `size`, and yield their texts in order.

        Closing the generator drops the blocks that have not started.
        """
        blocks = self.split_into_blocks(prompts, size, seed)

        def sample_block(block: Block) -> list[str]:
            return list(self.sample_block(block.prompts, sampling, block.seed))

        concurrent = self._concurrent_blocks(size, sampling)
        _log.debug("CTranslate2 writes %d blocks of %d, %d side by side", len(blocks), size, concurrent)
        pool = ThreadPoolExecutor(concurrent)
        try:
            yield from texts_in_order(blocks, pool.map(sample_block, blocks))
        finally:
            pool.shutdown(cancel_futures=True)
            trim_heap()

    def _concurrent_blocks(self, size: int, sampling: Sampling) -> int:
        """Return how many blocks are sampled at the same time: one per core, or fewer where memory is short."""
        block_bytes = (self._folder / "model.bin").stat().st_size + cache_bytes(
            self._hyperparameters, size, sampling.length
        )
        return max(1, min(os.cpu_count() or 1, available_memory() // block_bytes))

    def split_into_blocks(self, prompts: Sequence[str], size: int, seed: int) -> list[Block]:
        """Split prompts into blocks of at most `size`, of similar length, in the order that `texts_in_order` needs.

        Prompts of equal length start to be continued at the same time; a shorter one would wait until the longest in
        its block has been read.
        """
        lengths = list(map(len, tokenize_prompts(list(prompts), self._tokenizer, self._record_tokens)))
        order = iter(sorted(range(len(prompts)), key=lengths.__getitem__))
        numbered = enumerate(list(islice(order, rows)) for rows in _block_sizes(len(prompts), size))
        blocks = [Block(rows, [prompts[row] for row in rows], block_seed(seed, number)) for number, rows in numbered]
        return sorted(blocks, key=lambda block: min(block.indices))

    def sample_block(self, prompts: Sequence[str], sampling: Sampling, seed: int) -> Iterator[str]:
        """Sample one block: yield each prompt with the text that the model writes after it, through the end token.

        Prompts are starts of records. A text of `sampling.length` tokens may lack the end token. Raises UsageError for
        a prompt that leaves no room in the context.
        """
        ids = tokenize_prompts(list(prompts), self._tokenizer, self._record_tokens)
        room = self._hyperparameters.n_ctx - longest_prompt_length(ids, prompts, self._hyperparameters.n_ctx)
        results = self._new_generator(seed).generate_batch(
            [[self._tokens[i] for i in row] for row in ids],
            max_length=min(sampling.length, room),
            include_prompt_in_result=False,
            return_end_token=True,
            **self._end_options(len(ids)),
            **_sampling_options(sampling, len(self._tokens)),
        )
        for prompt, result in zip(prompts, results, strict=True):
            yield prompt + self._text(result.sequences_ids[0])

    def _new_generator(self, seed: int) -> Any:
        """Return a CTranslate2 generator with one thread, which samples with `seed`.

        The thread reads the process's seed when it first samples, which it therefore does here, under a lock. One
        thread per block yields more texts per second than several threads that share each matrix product.
        """
        import ctranslate2

        generator = ctranslate2.Generator(str(self._folder), inter_threads=1, intra_threads=1)
        with _SEED_LOCK:
            ctranslate2.set_random_seed(seed)
            generator.generate_batch([[END_TOKEN]], max_length=1, sampling_topk=2)
        return generator

    def _end_options(self, rows: int) -> dict[str, Any]:
        """Return the options by which CTranslate2 recognizes the end of each of `rows` texts.

        With compact tokens it is the end token's id. With literal tokens the end token is several ids, so a callback
        searches the last characters of each row's text for it.
        """
        end = {"end_token": END_TOKEN}
        if self._record_tokens == COMPACT_TOKENS:
            return end
        tails = [""] * rows

        def has_ended(step: Any) -> bool:
            tails[step.batch_id] = (tails[step.batch_id] + self._tokenizer.decode([step.token_id]))[
                -2 * len(END_TOKEN) :
            ]
            return END_TOKEN in tails[step.batch_id]

        return {**end, "callback": has_ended}

    def _text(self, ids: list[int]) -> str:
        ended = bool(ids) and ids[-1] == self._tokenizer.end
        text = self._tokenizer.decode(ids[:-1] if ended else ids)
        return text + END_TOKEN if ended else cut_after_end_token(text)


def _block_sizes(rows: int, size: int) -> list[int]:
    """Return the sizes of the blocks into which `rows` prompts are split: at most `size`, and equal or one apart.

    The number of blocks is a multiple of four, so that four cores stay busy, unless blocks would become too small.
    """
    least = -(-rows // size)
    blocks = max(least, min(-(-least // 4) * 4, rows // _MIN_ROWS))
    return [(rows + block) // blocks for block in range(blocks)]


def texts_in_order(blocks: Sequence[Block], results: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yield the texts of `blocks` in the order of the prompts, each as soon as it and all before it are sampled.

    `results` yields the texts of each block, in the order of `blocks`.
    """
    texts: dict[int, str] = {}
    next_index = 0
    for block, block_texts in zip(blocks, results, strict=True):
        texts |= zip(block.indices, block_texts, strict=True)
        while next_index in texts:
            yield texts.pop(next_index)
            next_index += 1


def choose_precision(requested: str) -> str:
    """Return the precision that the weights are converted to: the one requested, or INT8 for `auto`.

    int8 is about twice as fast as float32 on a CPU, and costs the model mini 0.001 bits per character.
    """
    return INT8 if requested == AUTO else requested


def block_seed(seed: int, block: int) -> int:
    """Return the seed of the block with this number, which does not depend on the blocks before it."""
    return random.Random(f"{seed}:{block}").randrange(2**31)


def _sampling_options(sampling: Sampling, vocabulary: int) -> dict[str, Any]:
    """Return CTranslate2's sampling options; `vocabulary` is the number of tokens, which as top k means all."""
    penalty = {"repetition_penalty": sampling.repetition_penalty}
    if sampling.temperature == 0:
        return {**penalty, "sampling_topk": 1}
    return {
        **penalty,
        "sampling_temperature": sampling.temperature,
        "sampling_topk": sampling.top_k or vocabulary,
        "sampling_topp": sampling.top_p or 1.0,
    }
