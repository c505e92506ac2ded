"""Training in several ray workers, each with a GPU or a share of the CPUs, which Ray Train starts and ends.

The first worker does what a training in one process does: it reports, samples and saves, in folders that all nodes
share. The others take the same steps (see `parallel`). Two queues connect the first worker with the command: one brings
its log records, progress, errors and last step, and the other takes the request to save and end after Ctrl-C.
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

_STORAGE_FOLDER = ".ray"  # in the run's folder; with a file in it, Ray Train checks that all nodes share that folder
_WAITING_NOTICE_AFTER = 30  # seconds without a message from the workers, after which the log says so
_POLL_INTERVAL = 0.5  # seconds to wait for a message at a time

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Task:
    """What each worker gets from the command."""

    job: TrainingJob
    deadline: float
    """The deadline on the clock of time.time, which the nodes share; that of the job's schedule is infinite."""
    folder: Path
    """The command's working folder."""
    messages: Any
    """The ray queue of the first worker's messages."""
    stop_requests: Any
    """The ray queue that holds an item once the training is to save and end."""
    version: str = __version__
    """The command's version of redditgen."""


def finetune_with_ray(job: TrainingJob, workers: RayWorkers) -> int:
    """Train a run with ray workers, and return the step reached.

    Raises the errors of `engine.finetune`; UsageError where the cluster has too few GPUs or CPUs for the workers;
    MissingError where ray, or a node's redditgen of this version, is missing; RedditgenError where a worker fails.
    """
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # read when a trainer is created; workers stay in the folder they enter
    cpus = max(os.cpu_count() or 1, workers.number or 1)
    storage = job.run.path.absolute() / _STORAGE_FOLDER
    with ray_connection(workers.address, cpus, without_ray="leaving --num-workers out") as ray:
        try:
            return _RayTraining(ray, job, workers).run(storage)
        finally:
            shutil.rmtree(storage, ignore_errors=True)


class _RayTraining:
    """A call of Ray Train, in a thread of its own, while the main thread handles the first worker's messages."""

    def __init__(self, ray: Any, job: TrainingJob, workers: RayWorkers) -> None:
        from ray.util.queue import Queue

        self._ray, self._job, self._workers = ray, job, workers
        self._messages, self._stop_requests = Queue(actor_options={"num_cpus": 0}), Queue(actor_options={"num_cpus": 0})
        self._failure: BaseException | None = None
        self._error: RedditgenError | None = None
        self._last_step = job.schedule.start

    def run(self, storage: Path) -> int:
        """Train, with Ray Train's files in `storage`, and return the step reached."""
        trainer = self._trainer(storage)
        trainer_thread = threading.Thread(target=self._run_trainer, args=[trainer], daemon=True)
        bar = Progress(
            self._job.run.path.name, unit="steps", total=self._job.schedule.end, done=self._job.schedule.start
        )
        # Ray Train calls deprecated functions of ray.
        with bar as progress, deferred_signals() as interrupted, warnings.catch_warnings(action="ignore"):
            trainer_thread.start()
            try:
                self._handle_messages(progress, trainer_thread, interrupted)
            except self._ray.exceptions.RayError as error:  # the queue is gone, and the cluster with it
                self._failure = self._failure or error
        if self._error:
            raise self._error from self._failure
        if self._failure:
            raise self._worker_error(self._failure) from self._failure
        return self._last_step

    def _trainer(self, storage: Path) -> Any:
        """Return the trainer of Ray Train, with the workers and the task that it starts them with."""
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        count, resources = _shares([node["Resources"] for node in self._ray.nodes() if node["Alive"]], self._workers)
        kind, number = next(iter(resources.items()))
        _log.info("starting %d workers of ray, each with %d %s", count, number, kind)
        deadline = time.time() + self._job.schedule.deadline - time.monotonic()
        # Each machine's time.monotonic has its own zero, so the job's own deadline means nothing to a worker.
        job = replace(self._job, schedule=replace(self._job.schedule, deadline=math.inf))
        task = _Task(job, deadline, Path.cwd(), self._messages, self._stop_requests)
        return TorchTrainer(
            _run_worker,
            train_loop_config={"task": task},
            scaling_config=ScalingConfig(num_workers=count, use_gpu="GPU" in resources, resources_per_worker=resources),
            run_config=RunConfig(storage_path=str(storage.parent), name=storage.name),
        )

    def _run_trainer(self, trainer: Any) -> None:
        try:
            trainer.fit()
        except BaseException as error:  # the main thread raises it
            self._failure = error

    def _handle_messages(
        self, progress: Progress, trainer_thread: threading.Thread, interrupted: Callable[[], bool]
    ) -> None:
        """Handle messages until Ray Train has ended, and request the end of the training once it is interrupted."""
        from ray.util.queue import Empty

        notice_at, has_requested_stop = time.monotonic() + _WAITING_NOTICE_AFTER, False
        while True:
            is_last = not trainer_thread.is_alive()
            try:
                self._handle_message(self._messages.get(timeout=_POLL_INTERVAL), progress)
                notice_at = math.inf
            except Empty:
                if is_last:
                    return
            if interrupted() and not has_requested_stop:
                self._stop_requests.put("to end")
                has_requested_stop = True
            if time.monotonic() > notice_at:
                _log.info("waiting for workers: their CPUs or GPUs are others' now, or PyTorch is being loaded there")
                notice_at = math.inf

    def _handle_message(self, message: Any, progress: Progress) -> None:
        """Handle a message of the first worker: a log record, an error, progress, or the last step."""
        match message:
            case logging.LogRecord():
                logging.getLogger(message.name).handle(message)
            case RedditgenError():
                self._error = self._error or message
            case (int(count), str(note)):
                progress.update(count, note)
            case int(step):
                self._last_step = step

    def _worker_error(self, failure: BaseException) -> RedditgenError:
        """Return the error to raise for an exception of Ray Train."""
        causes = list(getattr(failure, "worker_failures", {}).values()) or [failure]
        if name := missing_module(causes[0]):
            return MissingError(f"a node of the ray cluster has no {name}; install redditgen {__version__} there")
        run = self._job.run
        kept = f"the checkpoint of step {run.step()} is kept" if (run.path / "checkpoint").exists() else "nothing saved"
        return RedditgenError(f"{run.path}: a ray worker failed: {last_line(causes[0])}; {kept}")


def _shares(nodes: list[dict[str, float]], workers: RayWorkers) -> tuple[int, dict[str, float]]:
    """Return the number of workers, and the resources of each: one GPU, or as many CPUs as every worker can have.

    `nodes` are ray's resources of each node. Without a number asked for, there is one worker for each GPU, or, without
    GPUs, for each node. Raises UsageError where there are fewer GPUs or CPUs than workers.
    """
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


def _run_worker(config: dict[str, _Task]) -> None:
    """Train in a worker, and send the error that ends it; Ray Train calls this, with torch.distributed set up."""
    task = config["task"]
    try:
        _train_as_rank(task)
    except RedditgenError as error:
        task.messages.put(error)
        raise


def _train_as_rank(task: _Task) -> None:
    """Train as the process of this worker's rank; the first one also sends its log records and the last step."""
    from ray.train import get_context

    context = get_context()
    ranks = Ranks(context.get_world_rank(), context.get_world_size(), context.get_local_world_size())
    _enter_folder(task)
    deadline = time.monotonic() + task.deadline - time.time()
    with _logs_sent_to(task.messages) if not ranks.rank else nullcontext():
        finetuning = TorchFinetuning(
            replace(task.job, schedule=replace(task.job.schedule, deadline=deadline)),
            ranks=ranks,
            progress=lambda *_, **__: _SentProgress(task.messages),
            interrupts=lambda: _stop_requested(task.stop_requests),
        )
        if ranks.rank:
            finetuning.follow()
        else:
            task.messages.put(finetuning.run())


def _enter_folder(task: _Task) -> None:
    """Enter the command's working folder.

    Raises MissingError where the node has another version of redditgen, and InputError where it lacks the folder.
    """
    from ray.util import get_node_ip_address

    node = f"ray node {get_node_ip_address()}"
    if task.version != __version__:
        raise MissingError(f"{node}: redditgen is {__version__}, and here {task.version}; have the same there")
    try:
        os.chdir(task.folder)
    except OSError as error:
        raise InputError(
            f"{node}: {task.folder}: {error.strerror}; all nodes must share the folder of the run"
        ) from error


@contextmanager
def _logs_sent_to(messages: Any) -> Iterator[None]:
    """Send what is logged inside the block to a queue."""
    logger, handler = logging.getLogger("redditgen"), QueueHandler(messages)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _SentProgress(Progress):
    """Sends progress to a queue instead of showing it; the command shows it."""

    def __init__(self, messages: Any) -> None:
        self._messages = messages

    def update(self, count: int, note: str = "") -> None:
        self._messages.put((count, note))

    def __exit__(self, *_: object) -> None:
        pass


def _stop_requested(stop_requests: Any) -> AbstractContextManager[Callable[[], bool]]:
    """Return a context whose function tells whether the command has requested the end of the training."""
    return nullcontext(lambda: not stop_requests.empty())
