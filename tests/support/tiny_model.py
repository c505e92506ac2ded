"""A GPT-2 small enough for tests, and the records that it is finetuned on."""

from collections.abc import Iterator
from itertools import product

import numpy as np

from redditgen.gpt2.hyperparameters import Hyperparameters
from redditgen.titles.record import Record

N_VOCAB, N_CTX = 340, 64


def example_records() -> Iterator[Record]:
    """160 titles, each twice, with other keywords the second time."""
    adjectives = ("old", "lazy", "tiny", "happy", "fluffy")
    doings = ("sleeps on the sofa", "plays with a ball", "steals my dinner", "waits at the door")
    ends = ("", " again", " every day", ", what now?")
    for (category, animal), adjective, doing, end in product(
        (("cats", "cat"), ("dogs", "dog")), adjectives, doings, ends
    ):
        title = f"My {adjective} {animal} {doing}{end}"
        for keywords in (f"{adjective} {animal}", doing.split()[-1]):
            yield Record(category=category, keywords=keywords, title=title)


def random_tensors(hyperparameters: Hyperparameters) -> dict[str, np.ndarray]:
    """Weights as an untrained network has them, but large enough that its predictions differ clearly."""
    rng = np.random.default_rng(0)
    shapes = hyperparameters.tensor_shapes()
    tensors = {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
    return tensors | {name: 1 + tensor for name, tensor in tensors.items() if name.endswith("/g")}
