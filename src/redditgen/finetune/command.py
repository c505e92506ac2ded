"""`redditgen finetune`: turns settings into a training job, which an engine carries out."""

import logging
import math
import time
from dataclasses import replace
from functools import partial

from redditgen.engines.base import (
    CheckpointOptions,
    OptimizerOptions,
    PlanOptions,
    RayWorkers,
    SampleOptions,
    Schedule,
    TrainingJob,
)
from redditgen.engines.data.dataset import Dataset
from redditgen.engines.gpt2simple import engine as gpt2simple_engine
from redditgen.engines.pytorch import engine as pytorch_engine
from redditgen.engines.pytorch.loss_plot import plot_losses
from redditgen.finetune import run_state
from redditgen.finetune.dataset.load import read_dataset
from redditgen.finetune.starting_point import StartingPoint, find_starting_point
from redditgen.gpt2.model_dir import PLOT_FILE, ModelDir
from redditgen.settings import FinetuneSettings
from redditgen.settings.options import parse_byte_count

_ENGINES = {"torch": pytorch_engine.finetune, "gpt-2-simple": gpt2simple_engine.finetune}

_log = logging.getLogger(__name__)


def finetune(settings: FinetuneSettings) -> int:
    """Train a run up to the step that the settings name, and return the step reached. A finished run is left as it is.

    Raises RedditgenError where another process finetunes the same run, where the settings don't fit the run, and where
    the dataset is missing or unusable.
    """
    run = ModelDir(settings.checkpoint_dir / settings.run)
    if settings.skip_existing and run_state.is_up_to_date(settings, run):
        return run.step()
    deadline = math.inf if settings.time_limit_seconds is None else time.monotonic() + settings.time_limit_seconds
    with run_state.locked_run(run.path):
        step = _train(settings, run, deadline)
        if settings.plot:
            plot_losses(run.metrics.reports(), run.path / PLOT_FILE)
    return step


def _train(settings: FinetuneSettings, run: ModelDir, deadline: float) -> int:
    start = find_starting_point(settings, run)
    end = start.step + settings.more if settings.more else settings.steps
    has_stopped = start.model == run and run_state.has_stopped_early(settings, run)
    if start.step >= end or has_stopped:
        run_state.finish_or_refuse(settings, run)
        state = "was stopped early" if has_stopped else "is already"
        _log.info("run %s %s at step %d; --more N goes on", settings.run, state, start.step)
        return start.step
    context = start.model.hyperparameters().n_ctx
    dataset = read_dataset(settings, start.run_info, start.model.tokenizer(), context)
    run_state.save_title_index(dataset.titles, settings, run, start.model)
    job = training_job(settings, run, start, end, deadline, replace(dataset, titles=()))
    step = _ENGINES[settings.engine](job)
    if step >= end or run_state.has_stopped_early(settings, run):
        run_state.finish(settings, run)
    return step


def training_job(
    settings: FinetuneSettings, run: ModelDir, start: StartingPoint, end: int, deadline: float, dataset: Dataset
) -> TrainingJob:
    """Convert the settings into the values that engines take.

    The job trains from `start` up to step `end`, or until `deadline` on the clock of time.monotonic.
    """
    resumes = settings.restore_from == "latest" or settings.skip_existing
    return TrainingJob(
        run=run,
        initial_model=start.model,
        dataset=dataset,
        optimizer=OptimizerOptions(
            name=settings.optimizer,
            learning_rate=settings.learning_rate,
            batch_size=settings.batch_size,
            accumulate_gradients=settings.accumulate_gradients,
            window=settings.window,
            seed=settings.seed,
        ),
        plan=PlanOptions(
            train=settings.train_mode,
            precision=settings.precision,
            memory=parse_byte_count("--memory", settings.memory) if settings.memory else None,
            memory_saving_gradients=settings.memory_saving_gradients,
            weight_bits=settings.weight_bits,
            lora_rank=settings.lora_rank,
        ),
        schedule=Schedule(
            start=start.step,
            end=end,
            deadline=deadline,
            deadline_reason=f"--time-limit {settings.time_limit}",
            val_every=settings.val_every,
            print_every=settings.print_every,
            early_stop=settings.early_stop,
            early_stop_from=start.step if settings.more else 0,
        ),
        checkpoints=CheckpointOptions(
            save_every=settings.save_every,
            max_checkpoints=settings.max_checkpoints,
            keep_best=settings.keep_best,
            plot=settings.plot,
        ),
        samples=SampleOptions(
            every=settings.sample_every,
            number=settings.sample_num,
            length=settings.sample_length,
            folder=settings.sample_dir,
        ),
        model_dir=settings.model_dir,
        ray_workers=RayWorkers(number=settings.num_workers, address=settings.ray_address)
        if settings.has_workers
        else None,
        tf1_python=settings.tf1_python,
        resume_hint="the same command" if resumes else "--restore-from latest",
        on_first_change=partial(run_state.note_beginning, settings, run, start.model),
    )
