"""The life of a run on disk: locked, begun, resumed, stopped early, finished, and what it was made of.

checkpoint/run1/begun.meta.json      sidecar of the command that last started to change the run
checkpoint/run1/finetune.meta.json   sidecar of a finished run; it is absent while the run is unfinished
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from redditgen.errors import OutputExists
from redditgen.files.atomic import make_folder
from redditgen.files.locks import exclusive_lock
from redditgen.files.sidecar import find_up_to_date, input_hashes, sidecar_path, write_sidecar
from redditgen.finetune.dataset.record_files import find_files
from redditgen.gpt2.find import open_model
from redditgen.gpt2.metrics import measurements_since_best
from redditgen.gpt2.model_dir import BEGUN_SIDECAR, FINISHED_SIDECAR, AnyModelDir, ModelDir
from redditgen.settings import FinetuneSettings
from redditgen.titles.novelty import INDEX_FILE, TitleIndex

# Settings that do not change the weights.
_IGNORED_SETTINGS = (
    "overwrite", "skip_existing", "plot", "print_every", "sample_every", "sample_num", "sample_length", "sample_dir",
    "max_checkpoints", "time_limit", "num_workers", "ray_address", "tf1_python",
)  # fmt: skip

_log = logging.getLogger(__name__)


@contextmanager
def locked_run(folder: Path) -> Iterator[None]:
    """Keep other finetunings out of a run's folder while the block runs.

    The folder is made where it is missing, and deleted again at the end where nothing was saved in it.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    make_folder(folder)
    try:
        with exclusive_lock(folder, "finetuning this run"):
            yield
    finally:
        if missing and not (folder / "checkpoint").exists():
            (folder / INDEX_FILE).unlink(missing_ok=True)
        for place in missing:
            with suppress(OSError):  # of a folder that is not empty
                place.rmdir()


def is_up_to_date(settings: FinetuneSettings, run: ModelDir, name: str = FINISHED_SIDECAR) -> bool:
    """Whether the same command finished the run, and nothing has changed it since.

    With `name` BEGUN_SIDECAR: whether the same command was the last one that started to change the run.
    """
    if not (sidecar := sidecar_path(run.path / name)).exists():
        return False
    found = find_up_to_date(
        run.path,
        settings,
        inputs=_inputs(settings),
        ignoring=_IGNORED_SETTINGS,
        written=run.weights_file(),
        sidecar=sidecar,
    )
    return found is not None


def is_resumed(settings: FinetuneSettings, run: ModelDir) -> bool:
    """Whether the command continues the run that is there; raises OutputExists where it may not replace that run."""
    exists = (run.path / "checkpoint").exists()
    if settings.restore_from != "latest" and exists:
        if settings.skip_existing and not _finished(run).exists():
            return True
        if not settings.overwrite:
            raise OutputExists(
                f"{run.path}: run {settings.run} already exists; --restore-from latest goes on with it, "
                "--overwrite replaces it, --run makes another"
            )
        return False
    return exists


def has_stopped_early(settings: FinetuneSettings, run: ModelDir) -> bool:
    """Whether --early-stop has ended the run, judged by the measurements up to its newest checkpoint."""
    if settings.early_stop is None or settings.more:
        return False
    reports = [report for report in run.metrics.reports() if report.step <= run.step()]
    return measurements_since_best(reports, after=0) >= settings.early_stop


def note_beginning(settings: FinetuneSettings, run: ModelDir, initial_model: AnyModelDir) -> None:
    """Write down what the run is trained on from now on, and warn where that differs from what it was trained on."""
    _finished(run).unlink(missing_ok=True)
    sidecar = sidecar_path(run.path / BEGUN_SIDECAR)
    before = input_hashes(sidecar)
    write_sidecar(run.path / BEGUN_SIDECAR, settings, inputs=_inputs(settings))
    new = [name for name, found in input_hashes(sidecar).items() if found not in before.values()]
    if initial_model == run and before and new:
        _log.warning(
            "run %s: goes on with what it has not learned from before, %s; "
            "titles that were held out may now be learned", settings.run, ", ".join(new),
        )  # fmt: skip


def save_title_index(
    titles: Iterable[str], settings: FinetuneSettings, run: ModelDir, initial_model: AnyModelDir
) -> None:
    """Save the index of the titles that the weights have learned from, for `generate --novel`."""
    folder = initial_model.path
    has_learned = initial_model == run or settings.restore_from not in ("latest", "fresh")
    before = TitleIndex.load(folder) if has_learned and (folder / INDEX_FILE).exists() else None
    index = before.extended(titles) if before else TitleIndex.from_titles(titles)
    if not len(index):
        (run.path / INDEX_FILE).unlink(missing_ok=True)
    elif not (index is before and folder == run.path):
        index.save(run.path)


def finish(settings: FinetuneSettings, run: ModelDir) -> None:
    """Write the sidecar that says the run is finished, and of what it was made."""
    write_sidecar(
        run.path / FINISHED_SIDECAR, settings, inputs=_inputs(settings), written=run.weights_file(), step=run.step()
    )


def finish_or_refuse(settings: FinetuneSettings, run: ModelDir) -> None:
    """Finish a run whose command was killed after its last step.

    Raises OutputExists where --skip-existing meets a run that another command made; `is_up_to_date` has logged in what
    it differs.
    """
    if not _finished(run).exists() and is_up_to_date(settings, run, BEGUN_SIDECAR):
        finish(settings, run)
    elif settings.skip_existing and any(
        sidecar_path(run.path / name).exists() for name in (FINISHED_SIDECAR, BEGUN_SIDECAR)
    ):
        raise OutputExists(
            f"{run.path}: run {settings.run} is finished; --restore-from fresh --overwrite makes it anew, "
            "--more N goes on with it, --run makes another"
        )


def _finished(run: ModelDir) -> Path:
    """The sidecar that a run has as long as it is finished."""
    return sidecar_path(run.path / FINISHED_SIDECAR)


def _inputs(settings: FinetuneSettings) -> list[Path]:
    """The files that a run is made of: what it is trained on, and the weights of another run."""
    paths = [path for name in (settings.dataset, settings.val) if name for path in find_files(name)]
    starts_from_other = settings.restore_from not in ("latest", "fresh")
    return [*paths, open_model(Path(settings.restore_from)).weights_file()] if starts_from_other else paths
