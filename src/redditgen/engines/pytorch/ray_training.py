"""A finetuning by several of ray's workers, each with a GPU or a share of the CPUs; Ray Train starts and ends them.

The first worker does what a finetuning alone does: it reports, samples and saves, in folders that all nodes share. What
it says comes here by a queue, and Ctrl-C goes to it by another.
"""

import logging
import math
import os
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from logging.handlers import QueueHandler
from pathlib import Path
from typing import Any

from redditgen import __version__
from redditgen.engines.base import RayWorkers, TrainingJob
from redditgen.engines.pytorch.finetuning import TorchFinetuning
from redditgen.engines.pytorch.parallel import Ranks
from redditgen.errors import InputError, MissingError, RedditgenError, UsageError
from redditgen.runtime.progress import Progress
from redditgen.runtime.ray_cluster import cpus_per_worker, last_line, missing_module, ray_connection
from redditgen.runtime.signals import deferred_signals

_STORAGE = ".ray"  # in the run's folder; with a file there Ray Train checks that all nodes share it
_PATIENCE = 30  # seconds after which waiting for workers is told
_EVERY = 0.5  # seconds between looks at the queue

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Task:
    """What each worker is to do. `deadline` is on the clock of time.time, which nodes share."""

    job: TrainingJob
    deadline: float
    folder: Path
    said: Any
    asked: Any
    made_with: str = __version__


def finetune_with_ray(job: TrainingJob, workers: RayWorkers) -> int:
    """Train a run to `job.end` with workers, and give the step reached. Raises as torch_engine.finetune does."""
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # read when a trainer is made; workers stay where they are told to be
    cpus = max(os.cpu_count() or 1, workers.number or 1)
    storage = job.run.path.absolute() / _STORAGE
    with ray_connection(workers.address, cpus, without_ray="leaving --num-workers out") as ray:
        try:
            return _Fit(ray, job, workers).run(storage)
        finally:
            shutil.rmtree(storage, ignore_errors=True)


class _Fit:
    """One call of Ray Train, in a thread, and what its first worker says meanwhile."""

    def __init__(self, ray: Any, job: TrainingJob, workers: RayWorkers) -> None:
        from ray.util.queue import Queue

        self._ray, self._job, self._workers = ray, job, workers
        self._said, self._asked = Queue(actor_options={"num_cpus": 0}), Queue(actor_options={"num_cpus": 0})
        self._failure: BaseException | None = None
        self._error: RedditgenError | None = None
        self._reached = job.schedule.start

    def run(self, storage: Path) -> int:
        trainer = self._trainer(storage)
        fitting = threading.Thread(target=self._fit, args=[trainer], daemon=True)
        bar = Progress(
            self._job.run.path.name, unit="steps", total=self._job.schedule.end, done=self._job.schedule.start
        )
        # Ray Train calls outdated parts of ray.
        with bar as progress, deferred_signals() as interrupted, warnings.catch_warnings(action="ignore"):
            fitting.start()
            try:
                self._listen(progress, fitting, interrupted)
            except self._ray.exceptions.RayError as error:  # the queue is gone, and with it the cluster
                self._failure = self._failure or error
        if self._error:
            raise self._error from self._failure
        if self._failure:
            raise self._failed(self._failure) from self._failure
        return self._reached

    def _trainer(self, storage: Path) -> Any:
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        count, resources = _shares([node["Resources"] for node in self._ray.nodes() if node["Alive"]], self._workers)
        kind, number = next(iter(resources.items()))
        _log.info("starting %d workers of ray, each with %d %s", count, number, kind)
        deadline = time.time() + self._job.schedule.deadline - time.monotonic()
        # The clock of time.monotonic is each machine's own.
        job = replace(self._job, schedule=replace(self._job.schedule, deadline=math.inf))
        task = _Task(job, deadline, Path.cwd(), self._said, self._asked)
        return TorchTrainer(
            _work,
            train_loop_config={"task": task},
            scaling_config=ScalingConfig(num_workers=count, use_gpu="GPU" in resources, resources_per_worker=resources),
            run_config=RunConfig(storage_path=str(storage.parent), name=storage.name),
        )

    def _fit(self, trainer: Any) -> None:
        try:
            trainer.fit()
        except BaseException as error:  # raised in the main thread
            self._failure = error

    def _listen(self, progress: Progress, fitting: threading.Thread, interrupted: Callable[[], bool]) -> None:
        """Do what the queue says until Ray Train is done."""
        from ray.util.queue import Empty

        told_at, is_asked = time.monotonic() + _PATIENCE, False
        while True:
            is_last = not fitting.is_alive()
            try:
                self._take(self._said.get(timeout=_EVERY), progress)
                told_at = math.inf
            except Empty:
                if is_last:
                    return
            if interrupted() and not is_asked:
                self._asked.put("to end")
                is_asked = True
            if time.monotonic() > told_at:
                _log.info("waiting for workers: their CPUs or GPUs are others' now, or PyTorch is being loaded there")
                told_at = math.inf

    def _take(self, message: Any, progress: Progress) -> None:
        match message:
            case logging.LogRecord():
                logging.getLogger(message.name).handle(message)
            case RedditgenError():
                self._error = self._error or message
            case (int(count), str(note)):
                progress.update(count, note)
            case int(step):
                self._reached = step

    def _failed(self, failure: BaseException) -> RedditgenError:
        causes = list(getattr(failure, "worker_failures", {}).values()) or [failure]
        if name := missing_module(causes[0]):
            return MissingError(f"a node of the ray cluster has no {name}; install redditgen {__version__} there")
        run = self._job.run
        kept = f"the checkpoint of step {run.step()} is kept" if (run.path / "checkpoint").exists() else "nothing saved"
        return RedditgenError(f"{run.path}: a ray worker failed: {last_line(causes[0])}; {kept}")


def _shares(nodes: list[dict[str, float]], workers: RayWorkers) -> tuple[int, dict[str, float]]:
    """How many workers there are on these nodes, and what each gets: a GPU, or as many CPUs as all of them can have."""
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    count = workers.number or gpus or len(nodes)
    if gpus and count > gpus:
        raise UsageError(f"--num-workers {count}: ray has {gpus} GPUs, and each worker takes one")
    if gpus:
        return count, {"GPU": 1}
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    if each := cpus_per_worker(cpus, count):
        return count, {"CPU": each}
    raise UsageError(f"--num-workers {count}: ray has {sum(cpus)} CPUs, and each worker takes one")


def _work(config: dict[str, _Task]) -> None:
    """What Ray Train calls in each worker, with torch.distributed set up."""
    task = config["task"]
    try:
        _train(task)
    except RedditgenError as error:
        task.said.put(error)
        raise


def _train(task: _Task) -> None:
    from ray.train import get_context

    context = get_context()
    ranks = Ranks(context.get_world_rank(), context.get_world_size(), context.get_local_world_size())
    _go_to(task)
    deadline = time.monotonic() + task.deadline - time.time()
    with _heard(task.said) if not ranks.rank else nullcontext():
        finetuning = TorchFinetuning(
            replace(task.job, schedule=replace(task.job.schedule, deadline=deadline)),
            ranks=ranks,
            progress=lambda *_, **__: _Said(task.said),
            interrupts=lambda: _interrupts(task.asked),
        )
        if ranks.rank:
            finetuning.follow()
        else:
            task.said.put(finetuning.run())


def _go_to(task: _Task) -> None:
    """To the folder that the command was given in; raises where a node's redditgen or folders are others."""
    from ray.util import get_node_ip_address

    node = f"ray node {get_node_ip_address()}"
    if task.made_with != __version__:
        raise MissingError(f"{node}: redditgen is {__version__}, and here {task.made_with}; have the same there")
    try:
        os.chdir(task.folder)
    except OSError as error:
        raise InputError(
            f"{node}: {task.folder}: {error.strerror}; all nodes must share the folder of the run"
        ) from error


@contextmanager
def _heard(said: Any) -> Iterator[None]:
    """What is logged inside the block is said."""
    logger, handler = logging.getLogger("redditgen"), QueueHandler(said)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Said(Progress):
    """The same of steps that are shown where the command was given."""

    def __init__(self, said: Any) -> None:
        self._said = said

    def update(self, count: int, note: str = "") -> None:
        self._said.put((count, note))

    def __exit__(self, *_: object) -> None:
        pass


def _interrupts(asked: Any) -> AbstractContextManager[Callable[[], bool]]:
    return nullcontext(lambda: not asked.empty())
