"""Jobs encoded in this process or in several of ray's, in the order of the jobs."""

import logging
import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from redditgen.encode.batches import Job
from redditgen.encode.encoder import Encoder, Line
from redditgen.errors import RedditgenError
from redditgen.settings import EncodeSettings

_OBJECT_STORE = 128 << 20  # bytes; a batch and its records are far smaller

Encoded = tuple[int, list[Line]]


def encoded_here(jobs: Iterable[Job], settings: EncodeSettings, only: Collection[str] | None) -> Iterator[Encoded]:
    return map(Encoder(settings, only).encode, jobs)


def encoded_by_ray(
    jobs: Iterable[Job], settings: EncodeSettings, only: Collection[str] | None, workers: int | None
) -> Iterator[Encoded]:
    with _ray(workers) as ray:
        remote = ray.remote(Encoder)
        try:
            yield from _in_order(ray, [remote.remote(settings, only) for _ in range(workers)], jobs)
        except ray.exceptions.RayError as error:
            cause = str(error).strip().splitlines()[-1]
            raise RedditgenError(f"a ray worker failed: {cause}; --workers 1 does without ray") from error


@contextmanager
def _ray(workers: int) -> Iterator[Any]:
    """ray, started if it is not running in this process, and then shut down too."""
    import ray

    if ray.is_initialized():
        yield ray
        return
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read by init; its own processes inherit it
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        ray.init(
            address="local",
            num_cpus=workers,
            object_store_memory=_OBJECT_STORE,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
        )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise RedditgenError(f"ray does not start: {error}; --workers 1 does without ray") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _in_order(ray: Any, actors: list[Any], jobs: Iterable[Job]) -> Iterator[Encoded]:
    """What the actors make of the jobs, in the order of the jobs.

    A job goes to whichever actor is free next. No more are begun while too many results wait for one before them.
    """
    numbered = enumerate(jobs)
    free = deque(actors * 2)  # each actor has its next job at hand while it works
    running: dict[Any, tuple[int, Any]] = {}
    done: dict[int, Encoded] = {}
    written = 0
    while True:
        while free and len(done) < 4 * len(actors) and (job := next(numbered, None)):
            actor = free.popleft()
            running[actor.encode.remote(job[1])] = (job[0], actor)
        if not running:
            return
        [finished], _ = ray.wait(list(running))
        number, actor = running.pop(finished)
        done[number] = ray.get(finished)
        free.append(actor)
        while written in done:
            yield done.pop(written)
            written += 1
