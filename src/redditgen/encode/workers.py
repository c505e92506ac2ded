"""Jobs encoded in this process or by several of ray's, in the order of the jobs."""

import logging
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from redditgen import __version__
from redditgen.encode.batches import Job
from redditgen.encode.encoder import Encoder, Line
from redditgen.encode.spacy_keywords import versions
from redditgen.errors import MissingError, RedditgenError
from redditgen.ray_cluster import connected, missing_module, one_line
from redditgen.settings import EncodeSettings

_AT_HAND = 2  # jobs of a worker: it has its next one while this process is busy
_DEATHS = 3  # of workers at the same batch; then it is the batch that kills them
_PATIENCE = 30  # seconds after which waiting for a free CPU of a cluster is told

_log = logging.getLogger(__name__)

Encoded = tuple[int, list[Line]]


def encoded_here(jobs: Iterable[Job], settings: EncodeSettings, only: Collection[str] | None) -> Generator[Encoded]:
    yield from map(Encoder(settings, only).encode, jobs)


def encoded_by_ray(
    jobs: Iterable[Job], settings: EncodeSettings, only: Collection[str] | None, workers: int | None
) -> Generator[Encoded]:
    """The same by `workers` of ray's actors, or as many as the cluster has CPUs; close it to have them end."""
    with connected(settings.ray_address, workers, otherwise="--workers 1") as ray:
        count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        actor = ray.remote(num_cpus=1, max_restarts=0)(RayWorker)
        made_with = _made_with(settings)
        pool = _Pool(ray, lambda: actor.remote(settings, only, made_with), count)
        try:
            yield from pool.encoded(jobs)
        except ray.exceptions.RayError as error:
            raise RedditgenError(f"a ray worker failed: {one_line(error)}; --workers 1 does without ray") from error
        finally:
            pool.end()


class RayWorker:
    """An Encoder as ray's actor. It returns redditgen's errors; raised, they would be ray's, with a traceback."""

    def __init__(self, settings: EncodeSettings, only: Collection[str] | None, made_with: dict[str, str]) -> None:
        """`made_with` are the versions that there are where the output is written."""
        self._settings = settings
        self._only = only
        self._made_with = made_with

    def ready(self) -> RedditgenError | None:
        """Load the model."""
        try:
            for name, version in _made_with(self._settings).items():
                if version != self._made_with.get(name):
                    raise MissingError(
                        f"{name} is {version}, and here {self._made_with.get(name)}; have the same there"
                    )
            self._encoder = Encoder(self._settings, self._only)
        except RedditgenError as error:
            return self._with_place(error)
        return None

    def encode(self, job: Job) -> Encoded | RedditgenError:
        try:
            return self._encoder.encode(job)
        except RedditgenError as error:
            return self._with_place(error)

    def _with_place(self, error: RedditgenError) -> RedditgenError:
        if not self._settings.ray_address:
            return error
        import ray

        return type(error)(f"ray node {ray.util.get_node_ip_address()}: {error}")


def _made_with(settings: EncodeSettings) -> dict[str, str]:
    return {"redditgen": __version__, **versions(settings)}


@dataclass(eq=False)
class _Worker:
    name: str
    actor: Any
    calls: dict[Any, int | None] = field(default_factory=dict)  # to numbers of jobs, oldest first; None for `ready`


class _Pool:
    """Actors and the jobs they are at. A job goes to whichever is free next, and again to another if that one dies."""

    def __init__(self, ray: Any, start: Callable[[], Any], count: int) -> None:
        self._ray = ray
        self._start = start
        errors = ray.exceptions
        self._dead = (errors.RayActorError, errors.NodeDiedError, errors.ObjectLostError, errors.OutOfMemoryError)
        self._free: deque[_Worker] = deque()
        self._jobs: dict[int, Job] = {}  # begun and not yet done
        self._again: list[int] = []  # those of them whose worker died, in order
        self._deaths: Counter[int | str] = Counter()  # at a job, or of a worker that was not ready yet
        self._workers = [self._started(f"worker {number}") for number in range(count)]

    def encoded(self, jobs: Iterable[Job]) -> Iterator[Encoded]:
        """What becomes of the jobs, in their order. Few are begun while results wait for one before them."""
        numbered = enumerate(jobs)
        done: dict[int, Encoded] = {}
        written = 0
        more = True
        while more or self._jobs:
            more = self._hand_out(numbered, 4 * len(self._workers) - len(done))
            if not self._jobs and not more:
                return
            done |= self._collected()
            while written in done:
                yield done.pop(written)
                written += 1

    def end(self) -> None:
        for worker in self._workers:
            self._kill(worker)

    def _started(self, name: str) -> _Worker:
        worker = _Worker(name, self._start())
        worker.calls[worker.actor.ready.remote()] = None
        return worker

    def _hand_out(self, new: Iterator[tuple[int, Job]], room: int) -> bool:
        """Give jobs to the workers that are free; whether there may be more of them."""
        while self._again:
            idle = next((worker for worker in self._free if not worker.calls), None)
            if idle is None:
                return True
            self._take_from_free(idle)  # it gets no other: if it dies too, it is this job that kills
            self._give(idle, self._again.pop(0))
        while self._free and room > 0:
            number, job = next(new, (None, None))
            if number is None or job is None:
                return False
            self._jobs[number] = job
            self._give(self._free.popleft(), number)
        return True

    def _give(self, worker: _Worker, number: int) -> None:
        worker.calls[worker.actor.encode.remote(self._jobs[number])] = number

    def _take_from_free(self, worker: _Worker) -> None:
        self._free = deque(other for other in self._free if other is not worker)

    def _collected(self) -> dict[int, Encoded]:
        """The next result, or nothing where a worker got ready, died, or lets wait for itself."""
        calls = {call: worker for worker in self._workers for call in worker.calls}
        is_any_ready = any(None not in worker.calls.values() for worker in self._workers)
        finished, _ = self._ray.wait(list(calls), timeout=None if is_any_ready else _PATIENCE)
        if not finished:
            _log.info("waiting for a CPU of the ray cluster that others leave free, and for spaCy to load there")
            return {}
        worker = calls[finished[0]]
        try:
            result = self._ray.get(finished[0])
        except self._dead as error:
            self._replace(worker, error)
            return {}
        return self._taken(worker, worker.calls.pop(finished[0]), result)

    def _taken(self, worker: _Worker, number: int | None, result: Any) -> dict[int, Encoded]:
        if isinstance(result, RedditgenError):
            raise result
        self._free.extend([worker] * (_AT_HAND - len(worker.calls) - self._free.count(worker)))
        if number is None:
            del self._deaths[worker.name]
            return {}
        del self._jobs[number]
        return {number: result}

    def _replace(self, worker: _Worker, error: Exception) -> None:
        """Put another in the place of a worker that died, and have its jobs done again; raises if that is no use."""
        if name := missing_module(error):
            raise MissingError(
                f"a node of the ray cluster has no {name}; install redditgen {__version__} there"
            ) from error
        numbers = [number for number in worker.calls.values() if number is not None]
        blamed: list[int] | list[str] = numbers or [worker.name]
        for at in blamed:
            self._deaths[at] += 1
            if self._deaths[at] == _DEATHS:
                raise RedditgenError(
                    f"{self._told(at)} ended {_DEATHS} ray workers: {one_line(error)}; "
                    "fewer --workers leave each more memory"
                ) from error
        _log.warning("a ray worker died; what it had to do is done by others")
        self._kill(worker)
        self._take_from_free(worker)
        self._again = sorted([*self._again, *numbers])
        self._workers[self._workers.index(worker)] = self._started(worker.name)

    def _kill(self, worker: _Worker) -> None:
        with suppress(self._ray.exceptions.RayError, ConnectionError):  # it died already, or the cluster is gone
            self._ray.kill(worker.actor)

    def _told(self, at: int | str) -> str:
        if isinstance(at, str):
            return "starting"
        rows = self._jobs[at].rows
        longest = max(len(row.source) for row in rows)
        return f"a batch of {len(rows)} texts, the longest of {longest} characters,"
