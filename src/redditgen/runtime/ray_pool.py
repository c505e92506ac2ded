"""Jobs done by several of ray's actors, in the order of the jobs; what one that dies was at, another does again."""

import logging
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from redditgen import __version__
from redditgen.errors import MissingError, RedditgenError
from redditgen.runtime.ray_cluster import last_line, missing_module

_DEATHS = 3  # of workers at the same job; then it is the job that kills them
_PATIENCE = 30  # seconds after which waiting for a free CPU of a cluster is told

_log = logging.getLogger(__name__)

Job = TypeVar("Job")
Result = TypeVar("Result")


class RayWorker(ABC, Generic[Job, Result]):
    """Ray's actor. It returns redditgen's errors; raised, they would be ray's, with a traceback."""

    made_with: Mapping[str, str]
    """The versions that there are where the output is written."""
    is_of_cluster = True

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Of what the results depend on, as they are here."""

    @abstractmethod
    def load(self) -> None:
        """Load what the work takes."""

    @abstractmethod
    def work(self, job: Job) -> Result:
        """Do a job."""

    def ready(self) -> RedditgenError | None:
        try:
            for name, version in self.versions().items():
                if version != self.made_with.get(name):
                    raise MissingError(f"{name} is {version}, and here {self.made_with.get(name)}; have the same there")
            self.load()
        except RedditgenError as error:
            return self._with_place(error)
        return None

    def do(self, job: Job) -> Result | RedditgenError:
        try:
            return self.work(job)
        except RedditgenError as error:
            return self._with_place(error)

    def _with_place(self, error: RedditgenError) -> RedditgenError:
        if not self.is_of_cluster:
            return error
        import ray

        return type(error)(f"ray node {ray.util.get_node_ip_address()}: {error}")


@dataclass(frozen=True, kw_only=True)
class PoolMessages(Generic[Job]):
    """What messages say of a pool."""

    without_ray: str
    """What does without ray."""
    waiting_for: str
    """What lets wait for itself where no worker is ready."""
    job: Callable[[Job], str]
    remedy: str
    """What to do about a job at which workers die."""


@dataclass(eq=False)
class _Hand:
    """An actor's place in a pool."""

    name: str
    actor: Any
    calls: dict[Any, int | None] = field(default_factory=dict)  # to numbers of jobs, oldest first; None for `ready`


class RayPool(Generic[Job, Result]):
    """Actors and the jobs they are at. A job goes to whichever is free next, and again to another if that one dies."""

    def __init__(
        self, ray: Any, start: Callable[[], Any], count: int, words: PoolMessages[Job], *, jobs_per_worker: int
    ) -> None:
        """`start` starts an actor that is a Worker; `at_hand` are the jobs that it has at a time."""
        self._ray = ray
        self._start = start
        self._words = words
        self._at_hand = jobs_per_worker
        errors = ray.exceptions
        self._dead = (errors.RayActorError, errors.NodeDiedError, errors.ObjectLostError, errors.OutOfMemoryError)
        self._free: deque[_Hand] = deque()
        self._begun = 0
        self._jobs: dict[int, Job] = {}  # begun and not yet done
        self._again: list[int] = []  # those of them whose worker died, in order
        self._deaths: Counter[int | str] = Counter()  # at a job, or of a worker that was not ready yet
        self._hands = [self._started(f"worker {number}") for number in range(count)]

    def results(self, jobs: Iterable[Job]) -> Generator[Result]:
        """What becomes of the jobs, in their order. Few are begun while results wait for one before them.

        Closed before its end it forgets the others; what workers are at they still do, for nothing.
        """
        try:
            yield from self._done(iter(jobs))
        except self._ray.exceptions.RayError as error:
            without_ray = f"{self._words.without_ray} does without ray"
            raise RedditgenError(f"a ray worker failed: {last_line(error)}; {without_ray}") from error
        finally:
            self._jobs.clear()
            self._again.clear()

    def _done(self, new: Iterator[Job]) -> Iterator[Result]:
        results: dict[int, Result] = {}
        given = self._begun
        more = True
        while more or self._jobs:
            more = self._hand_out(new, 4 * len(self._hands) - len(results))
            if not self._jobs and not more:
                return
            results |= self._collected()
            while given in results:
                yield results.pop(given)
                given += 1

    def close(self) -> None:
        for hand in self._hands:
            self._kill(hand)

    def _started(self, name: str) -> _Hand:
        hand = _Hand(name, self._start())
        hand.calls[hand.actor.ready.remote()] = None
        return hand

    def _hand_out(self, new: Iterator[Job], room: int) -> bool:
        """Give jobs to the workers that are free; whether there may be more of them."""
        while self._again:
            idle = next((hand for hand in self._free if not hand.calls), None)
            if idle is None:
                return True
            self._take_from_free(idle)  # it gets no other: if it dies too, it is this job that kills
            self._give(idle, self._again.pop(0))
        while self._free and room > 0:
            try:
                self._jobs[self._begun] = next(new)
            except StopIteration:
                return False
            self._give(self._free.popleft(), self._begun)
            self._begun += 1
        return True

    def _give(self, hand: _Hand, number: int) -> None:
        hand.calls[hand.actor.do.remote(self._jobs[number])] = number

    def _take_from_free(self, hand: _Hand) -> None:
        self._free = deque(other for other in self._free if other is not hand)

    def _collected(self) -> dict[int, Result]:
        """The next result, or nothing where a worker got ready, died, or lets wait for itself."""
        calls = {call: hand for hand in self._hands for call in hand.calls}
        is_any_ready = any(None not in hand.calls.values() for hand in self._hands)
        finished, _ = self._ray.wait(list(calls), timeout=None if is_any_ready else _PATIENCE)
        if not finished:
            _log.info("waiting for %s", self._words.waiting_for)
            return {}
        hand = calls[finished[0]]
        try:
            result = self._ray.get(finished[0])
        except self._dead as error:
            self._replace(hand, error)
            return {}
        return self._taken(hand, hand.calls.pop(finished[0]), result)

    def _taken(self, hand: _Hand, number: int | None, result: Any) -> dict[int, Result]:
        if number is None:
            if isinstance(result, RedditgenError):
                self._restart(hand)  # else a later call would wait for it in vain
                raise result
            del self._deaths[hand.name]
        self._free.extend([hand] * (self._at_hand - len(hand.calls) - self._free.count(hand)))
        if number not in self._jobs:  # nor was it forgotten
            return {}
        del self._jobs[number]
        if isinstance(result, RedditgenError):
            raise result
        return {number: result}

    def _replace(self, hand: _Hand, error: Exception) -> None:
        """Put another in the place of a worker that died, and have its jobs done again; raises if that is no use."""
        if name := missing_module(error):
            raise MissingError(
                f"a node of the ray cluster has no {name}; install redditgen {__version__} there"
            ) from error
        numbers = [number for number in hand.calls.values() if number in self._jobs]
        blamed: list[int] | list[str] = numbers or [hand.name]
        for at in blamed:
            self._deaths[at] += 1
            if self._deaths[at] == _DEATHS:
                what = self._words.job(self._jobs[at]) if isinstance(at, int) else "starting"
                raise RedditgenError(
                    f"{what} ended {_DEATHS} ray workers: {last_line(error)}; {self._words.remedy}"
                ) from error
        _log.warning("a ray worker died; what it had to do is done by others")
        self._again = sorted([*self._again, *numbers])
        self._restart(hand)

    def _restart(self, hand: _Hand) -> None:
        self._kill(hand)
        self._take_from_free(hand)
        self._hands[self._hands.index(hand)] = self._started(hand.name)

    def _kill(self, hand: _Hand) -> None:
        with suppress(self._ray.exceptions.RayError, ConnectionError):  # it died already, or the cluster is gone
            self._ray.kill(hand.actor)
