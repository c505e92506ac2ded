"""The state of a run on disk: locked, begun, resumed, stopped early or finished, and what it was trained on.

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
    """Lock a run's folder against other finetunings while the block runs.

    Creates the folder where it is missing, and deletes it at the end where no checkpoint was saved in it. Raises
    RedditgenError where another process holds the lock.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    make_folder(folder)
    try:
        with exclusive_lock(folder, "finetuning this run"):
            yield
    finally:
        if missing and not (folder / "checkpoint").exists():
            (folder / INDEX_FILE).unlink(missing_ok=True)
        for path in missing:
            with suppress(OSError):  # the folder is not empty
                path.rmdir()


def is_up_to_date(settings: FinetuneSettings, run: ModelDir, name: str = FINISHED_SIDECAR) -> bool:
    """Return whether the same command finished the run, and nothing has changed it since.

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
    """Return whether the command continues an existing run.

    Raises OutputExists where a run exists that the command neither continues nor may replace.
    """
    exists = (run.path / "checkpoint").exists()
    if settings.restore_from != "latest" and exists:
        if settings.skip_existing and not _finished_sidecar(run).exists():
            return True
        if not settings.overwrite:
            raise OutputExists(
                f"{run.path}: run {settings.run} already exists; --restore-from latest goes on with it, "
                "--overwrite replaces it, --run makes another"
            )
        return False
    return exists


def has_stopped_early(settings: FinetuneSettings, run: ModelDir) -> bool:
    """Return whether --early-stop has ended the run, judged by the measurements up to its newest checkpoint."""
    if settings.early_stop is None or settings.more:
        return False
    reports = [report for report in run.metrics.reports() if report.step <= run.step()]
    return measurements_since_best(reports, after=0) >= settings.early_stop


def note_beginning(settings: FinetuneSettings, run: ModelDir, initial_model: AnyModelDir) -> None:
    """Write the sidecar of a command that starts to change the run, and delete that of a finished run.

    Logs a warning where the run continues with files that it was not trained on before.
    """
    _finished_sidecar(run).unlink(missing_ok=True)
    sidecar = sidecar_path(run.path / BEGUN_SIDECAR)
    hashes_before = input_hashes(sidecar)
    write_sidecar(run.path / BEGUN_SIDECAR, settings, inputs=_inputs(settings))
    new = [name for name, sha256 in input_hashes(sidecar).items() if sha256 not in hashes_before.values()]
    if initial_model == run and hashes_before and new:
        _log.warning(
            "run %s: goes on with what it has not learned from before, %s; "
            "titles that were held out may now be learned", settings.run, ", ".join(new),
        )  # fmt: skip


def save_title_index(
    titles: Iterable[str], settings: FinetuneSettings, run: ModelDir, initial_model: AnyModelDir
) -> None:
    """Save the index of the titles that the weights are trained on, for `generate --novel`.

    It adds `titles` to the index of the run that the weights come from, where there is one.
    """
    folder = initial_model.path
    is_trained = initial_model == run or settings.restore_from not in ("latest", "fresh")
    old_index = TitleIndex.load(folder) if is_trained and (folder / INDEX_FILE).exists() else None
    index = old_index.extended_with(titles) if old_index else TitleIndex.from_titles(titles)
    if not len(index):
        (run.path / INDEX_FILE).unlink(missing_ok=True)
    elif not (index is old_index and folder == run.path):
        index.save(run.path)


def finish(settings: FinetuneSettings, run: ModelDir) -> None:
    """Write the sidecar of a finished run: its settings, the files it was trained on, and its step."""
    write_sidecar(
        run.path / FINISHED_SIDECAR, settings, inputs=_inputs(settings), written=run.weights_file(), step=run.step()
    )


def finish_or_refuse(settings: FinetuneSettings, run: ModelDir) -> None:
    """Write the sidecar of a finished run whose command was killed after its last step.

    Raises OutputExists where --skip-existing meets a run of a different command; `is_up_to_date` has logged the
    difference.
    """
    if not _finished_sidecar(run).exists() and is_up_to_date(settings, run, BEGUN_SIDECAR):
        finish(settings, run)
    elif settings.skip_existing and any(
        sidecar_path(run.path / name).exists() for name in (FINISHED_SIDECAR, BEGUN_SIDECAR)
    ):
        raise OutputExists(
            f"{run.path}: run {settings.run} is finished; --restore-from fresh --overwrite makes it anew, "
            "--more N goes on with it, --run makes another"
        )


def _finished_sidecar(run: ModelDir) -> Path:
    """Return the path of the sidecar that a run has only while it is finished."""
    return sidecar_path(run.path / FINISHED_SIDECAR)


def _inputs(settings: FinetuneSettings) -> list[Path]:
    """Return the files that a run depends on: its dataset, and the weights of another model that it starts from."""
    paths = [path for name in (settings.dataset, settings.val) if name for path in find_files(name)]
    starts_from_other = settings.restore_from not in ("latest", "fresh")
    return [*paths, open_model(Path(settings.restore_from)).weights_file()] if starts_from_other else paths
