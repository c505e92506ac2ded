"""A pool of ray actors that carries out jobs and returns the results in the order of the jobs.

A job goes to the next free actor. When an actor dies, another is started in its place and the jobs that it had are done
again, each alone on an actor; so a job that kills its actor is found out, and fails after three deaths. New jobs are
begun only while fewer than four results per actor wait for the result of an earlier job, so that memory does not grow
with the number of jobs.
"""

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

_MAX_DEATHS = 3  # workers that may die at the same job; then the job is taken for the cause
_WAITING_INTERVAL = 30  # seconds between log lines while no worker is ready

_log = logging.getLogger(__name__)

Job = TypeVar("Job")
Result = TypeVar("Result")


class RayWorker(ABC, Generic[Job, Result]):
    """The base class of the actors in a pool.

    Actors return redditgen's errors instead of raising them: ray would wrap a raised error in one of its own, with a
    traceback.
    """

    package_versions: Mapping[str, str]
    """The versions of the packages that the results depend on, on the machine that writes the output."""
    is_on_cluster = True
    """Whether the actor runs on a cluster, so that its errors should name the node."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Return the versions, on the actor's node, of the packages that the results depend on."""

    @abstractmethod
    def load(self) -> None:
        """Load models and whatever else `work` needs."""

    @abstractmethod
    def work(self, job: Job) -> Result:
        """Carry out a job. Errors of redditgen that it raises are returned to the pool."""

    def ready(self) -> RedditgenError | None:
        """Check the versions and load; return the error if that fails. The pool calls it before any job."""
        try:
            for name, version in self.versions().items():
                if version != self.package_versions.get(name):
                    raise MissingError(
                        f"{name} is {version}, and here {self.package_versions.get(name)}; have the same there"
                    )
            self.load()
        except RedditgenError as error:
            return self._with_node_address(error)
        return None

    def do(self, job: Job) -> Result | RedditgenError:
        """Carry out a job; return its result or its error."""
        try:
            return self.work(job)
        except RedditgenError as error:
            return self._with_node_address(error)

    def _with_node_address(self, error: RedditgenError) -> RedditgenError:
        if not self.is_on_cluster:
            return error
        import ray

        return type(error)(f"ray node {ray.util.get_node_ip_address()}: {error}")


@dataclass(frozen=True, kw_only=True)
class PoolMessages(Generic[Job]):
    """Phrases for the log lines and errors of a pool."""

    without_ray: str
    """How to do without ray, as the subject of "... does without ray"."""
    waiting_for: str
    """What the pool is waiting for while no worker is ready, after "waiting for"."""
    job: Callable[[Job], str]
    """Describes a job, as the subject of "... ended 3 ray workers"."""
    remedy: str
    """What the user can do about a job at which workers die."""


@dataclass(eq=False)
class _Slot:
    """A place in the pool, with the actor that fills it now and the calls that the actor has not answered."""

    name: str
    actor: Any
    # The number of each call's job, oldest call first; None for a call of `ready`.
    calls: dict[Any, int | None] = field(default_factory=dict)


class RayPool(Generic[Job, Result]):
    """Actors that carry out jobs, and the jobs that are begun. The module's docstring describes the algorithm."""

    def __init__(
        self, ray: Any, start: Callable[[], Any], count: int, words: PoolMessages[Job], *, jobs_per_worker: int
    ) -> None:
        """Start `count` actors.

        `start` starts an actor of a RayWorker and returns its handle. `jobs_per_worker` is how many jobs an actor is
        given at a time, so that it need not wait for the next one.
        """
        self._ray = ray
        self._start_actor = start
        self._messages = words
        self._jobs_per_worker = jobs_per_worker
        errors = ray.exceptions
        self._death_errors = (
            errors.RayActorError,
            errors.NodeDiedError,
            errors.ObjectLostError,
            errors.OutOfMemoryError,
        )
        self._free: deque[_Slot] = deque()  # a slot once for each further job that it can take
        self._next_job_number = 0
        self._jobs: dict[int, Job] = {}  # begun and not done, by number
        self._retries: list[int] = []  # numbers of those whose worker died, ascending
        # Deaths of workers by job number, or by the name of the slot for workers that were not ready yet.
        self._deaths: Counter[int | str] = Counter()
        self._slots = [self._start_slot(f"worker {number}") for number in range(count)]

    def results(self, jobs: Iterable[Job]) -> Generator[Result]:
        """Yield the results of jobs in the order of the jobs.

        Reads only as many jobs ahead as the actors need. If the generator is closed early, the remaining jobs are
        dropped; the actors still finish the jobs that they have begun, and their results are ignored. Raises
        RedditgenError where a job fails, where it ends three actors, or where ray fails.
        """
        try:
            yield from self._ordered_results(iter(jobs))
        except self._ray.exceptions.RayError as error:
            without_ray = f"{self._messages.without_ray} does without ray"
            raise RedditgenError(f"a ray worker failed: {last_line(error)}; {without_ray}") from error
        finally:
            self._jobs.clear()
            self._retries.clear()

    def _ordered_results(self, new_jobs: Iterator[Job]) -> Iterator[Result]:
        results: dict[int, Result] = {}  # those that wait for the result of an earlier job
        next_result = self._next_job_number
        has_more = True
        while has_more or self._jobs:
            has_more = self._assign_jobs(new_jobs, 4 * len(self._slots) - len(results))
            if not self._jobs and not has_more:
                return
            results |= self._collect_result()
            while next_result in results:
                yield results.pop(next_result)
                next_result += 1

    def close(self) -> None:
        """End all actors."""
        for slot in self._slots:
            self._kill(slot)

    def _start_slot(self, name: str) -> _Slot:
        slot = _Slot(name, self._start_actor())
        slot.calls[slot.actor.ready.remote()] = None
        return slot

    def _assign_jobs(self, new_jobs: Iterator[Job], room: int) -> bool:
        """Assign jobs to free workers; return whether there may be more jobs.

        Jobs whose worker died come first. New jobs are assigned only if `room`, the number of further results that may
        wait for an earlier one, is positive.
        """
        while self._retries:
            idle = next((slot for slot in self._free if not slot.calls), None)
            if idle is None:
                return True
            self._remove_from_free(idle)  # it gets no other job, so that its death would be due to this one
            self._assign(idle, self._retries.pop(0))
        while self._free and room > 0:
            try:
                self._jobs[self._next_job_number] = next(new_jobs)
            except StopIteration:
                return False
            self._assign(self._free.popleft(), self._next_job_number)
            self._next_job_number += 1
        return True

    def _assign(self, slot: _Slot, number: int) -> None:
        slot.calls[slot.actor.do.remote(self._jobs[number])] = number

    def _remove_from_free(self, slot: _Slot) -> None:
        self._free = deque(other for other in self._free if other is not slot)

    def _collect_result(self) -> dict[int, Result]:
        """Wait for a call to end; return its result by job number.

        Returns nothing where a worker became ready or died, or where none became ready in time, which is logged.
        """
        calls = {call: slot for slot in self._slots for call in slot.calls}
        is_any_ready = any(None not in slot.calls.values() for slot in self._slots)
        finished, _ = self._ray.wait(list(calls), timeout=None if is_any_ready else _WAITING_INTERVAL)
        if not finished:
            _log.info("waiting for %s", self._messages.waiting_for)
            return {}
        slot = calls[finished[0]]
        try:
            result = self._ray.get(finished[0])
        except self._death_errors as error:
            self._replace_dead_worker(slot, error)
            return {}
        return self._accept_result(slot, slot.calls.pop(finished[0]), result)

    def _accept_result(self, slot: _Slot, number: int | None, result: Any) -> dict[int, Result]:
        """Mark a worker as free after a call; return the result of its job by number, if it had one.

        Raises the error that the call returned, if it returned one.
        """
        if number is None:
            if isinstance(result, RedditgenError):
                self._restart(slot)  # or else the next call of `results` would wait for a worker that never gets ready
                raise result
            del self._deaths[slot.name]
        self._free.extend([slot] * (self._jobs_per_worker - len(slot.calls) - self._free.count(slot)))
        if number not in self._jobs:  # a call of `ready`, or a job that was dropped
            return {}
        del self._jobs[number]
        if isinstance(result, RedditgenError):
            raise result
        return {number: result}

    def _replace_dead_worker(self, slot: _Slot, error: Exception) -> None:
        """Start another worker in place of one that died, and queue its jobs again.

        Raises MissingError where its node lacks a module, RedditgenError where a job, or the start, has ended three
        workers.
        """
        if name := missing_module(error):
            raise MissingError(
                f"a node of the ray cluster has no {name}; install redditgen {__version__} there"
            ) from error
        numbers = [number for number in slot.calls.values() if number in self._jobs]
        suspects: list[int] | list[str] = numbers or [slot.name]
        for suspect in suspects:
            self._deaths[suspect] += 1
            if self._deaths[suspect] == _MAX_DEATHS:
                cause = self._messages.job(self._jobs[suspect]) if isinstance(suspect, int) else "starting"
                raise RedditgenError(
                    f"{cause} ended {_MAX_DEATHS} ray workers: {last_line(error)}; {self._messages.remedy}"
                ) from error
        _log.warning("a ray worker died; what it had to do is done by others")
        self._retries = sorted([*self._retries, *numbers])
        self._restart(slot)

    def _restart(self, slot: _Slot) -> None:
        self._kill(slot)
        self._remove_from_free(slot)
        self._slots[self._slots.index(slot)] = self._start_slot(slot.name)

    def _kill(self, slot: _Slot) -> None:
        with suppress(self._ray.exceptions.RayError, ConnectionError):  # it is dead already, or the cluster is gone
            self._ray.kill(slot.actor)
