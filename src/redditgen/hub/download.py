"""Download of one of OpenAI's models: seven files, all complete and checked before the model's folder appears.

1. Ask the server for the size and version of each file, and check that the disk has room for them.
2. Download into `models/.124M.download/`: first the small files, which must describe one model, then the weights. An
   interrupted download stays there, and the same command continues it.
3. Verify the checksum of every tensor, and rename the folder to `models/124M/`.

URL and file names are those of gpt-2-simple 0.8, `download_gpt2`.
"""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from redditgen.errors import InputError, Interrupted, OutputExists, RedditgenError
from redditgen.files.atomic import make_folder
from redditgen.files.locks import exclusive_lock
from redditgen.gpt2.formats import tf_checkpoint
from redditgen.gpt2.model_dir import ModelDir
from redditgen.runtime import http, resumable_download
from redditgen.runtime.progress import Progress
from redditgen.runtime.resumable_download import MB, RemoteFile
from redditgen.settings import DownloadSettings

if TYPE_CHECKING:
    import httpx

# The largest size accepted of each file, in bytes: many times that of OpenAI's file, but small enough for memory where
# the file is read at once. The weights come last, so that a fault in the others shows before gigabytes are downloaded.
MAX_FILE_BYTES = {
    "checkpoint": 64 << 10,
    "hparams.json": 64 << 10,
    "encoder.json": 16 << 20,
    "vocab.bpe": 16 << 20,
    "model.ckpt.index": 1 << 20,
    "model.ckpt.meta": 64 << 20,
    "model.ckpt.data-00000-of-00001": 16 << 30,
}
_WEIGHTS_FILE = "model.ckpt.data-00000-of-00001"
_DISK_RESERVE = 50 * MB  # bytes of disk that stay free for other programs

_log = logging.getLogger(__name__)


def download(settings: DownloadSettings) -> Path:
    """Download a model and return its folder. A complete model that is there already is kept.

    Raises InputError where a file is invalid or the disk is full, MissingError where the server can't be reached,
    OutputExists where the folder holds something else, RedditgenError where another process is downloading to it,
    Interrupted on Ctrl-C.
    """
    target = settings.model_dir / settings.model
    try:
        if _is_complete(target, settings.overwrite):
            _log.info("%s: there already and whole; --overwrite downloads it anew", target)
        else:
            _download_model(settings, target)
    except KeyboardInterrupt as error:
        raise Interrupted(f"download of {settings.model} interrupted; the same command goes on from here") from error
    except OSError as error:
        raise InputError(f"{error.filename or target}: {error.strerror or error}; no model can be put there") from error
    return target


def _is_complete(target: Path, overwrite: bool) -> bool:
    """Return whether the complete model is in its folder. Raises OutputExists or InputError where anything else is."""
    if not target.exists() and not target.is_symlink():
        return False
    if not target.is_dir():
        raise OutputExists(f"{target}: is no folder; move it away, or name another place with --model-dir")
    if overwrite:
        _check_replaceable(target)
        return False
    if missing := [name for name in MAX_FILE_BYTES if not (target / name).is_file()]:
        raise OutputExists(
            f"{target}: is there but lacks {', '.join(missing)}; --overwrite replaces it with a whole model"
        )
    try:
        _check_small_files(target)
        tf_checkpoint.verify_checksums(target / "model.ckpt")
    except RedditgenError as error:
        raise InputError(
            f"{target}: is there but not whole: {error}; --overwrite replaces it with a whole model"
        ) from error
    return True


def _check_replaceable(target: Path) -> None:
    """Raise OutputExists where the old model's folder holds files other than the model and generate's copies of it."""
    others = [path.name for path in target.iterdir() if path.name not in MAX_FILE_BYTES]
    if others := sorted(name for name in others if not name.startswith("ctranslate2-")):
        raise OutputExists(f"{target}: holds {', '.join(others[:5])}, which are no model's; move them away first")


def _download_model(settings: DownloadSettings, target: Path) -> None:
    folder = target.with_name(f".{target.name}.download")
    with http.open_client() as client:
        remotes = _describe_files(client, settings)
        _announce(settings, remotes, folder, target)
        make_folder(folder)
        with exclusive_lock(folder, "downloading to it"):
            _download_files(client, remotes, folder)
            _check_weights(folder)
            for name in MAX_FILE_BYTES:
                resumable_download.forget_version(folder / name)
            _move_into_place(folder, target, settings.overwrite)
    _log.info("%s: whole; use it with: redditgen finetune DATASET --model %s", target, settings.model)


def _describe_files(client: "httpx.Client", settings: DownloadSettings) -> dict[str, RemoteFile]:
    """Return the server's description of each file, before anything is downloaded."""
    base = http.url_below(settings.base_url, ["models", settings.model])
    _log.info("model %s: asking %s what there is to download", settings.model, http.redact_url(base))
    return {
        name: resumable_download.describe_remote_file(
            client, http.url_below(settings.base_url, ["models", settings.model, name]), limit
        )
        for name, limit in MAX_FILE_BYTES.items()
    }


def _announce(settings: DownloadSettings, remotes: dict[str, RemoteFile], folder: Path, target: Path) -> None:
    """Log what will be downloaded. Raises InputError where the disk has no room for it."""
    total, remaining = _total_bytes(remotes), _total_bytes(remotes) - _downloaded_bytes(remotes, folder)
    existing_parent = next(parent for parent in folder.parents if parent.exists())
    free = shutil.disk_usage(existing_parent).free
    if remaining and free < remaining + _DISK_RESERVE:
        raise InputError(
            f"{target}: {(remaining + _DISK_RESERVE) / MB:.0f} MB of disk are needed and {free / MB:.0f} MB are free; "
            "free the rest, or name a folder on another disk with --model-dir"
        )
    source = http.redact_url(http.url_below(settings.base_url, ["models", settings.model]))
    resumed = "" if remaining == total else f" ({(total - remaining) / MB:.1f} MB are here from an earlier try)"
    _log.info(
        "model %s: %d files, %.1f MB%s, from %s to %s",
        settings.model,
        len(remotes),
        total / MB,
        resumed,
        source,
        target,
    )


def _total_bytes(remotes: dict[str, RemoteFile]) -> int:
    return sum(remote.size for remote in remotes.values())


def _downloaded_bytes(remotes: dict[str, RemoteFile], folder: Path) -> int:
    return sum(resumable_download.downloaded_bytes(remote, folder / name) for name, remote in remotes.items())


def _download_files(client: "httpx.Client", remotes: dict[str, RemoteFile], folder: Path) -> None:
    done = _downloaded_bytes(remotes, folder)
    with Progress("download", unit="MB", total=_total_bytes(remotes) // MB, done=done // MB) as progress:
        advance = _megabyte_counter(progress, done)
        for name, remote in remotes.items():
            if name == _WEIGHTS_FILE:
                _check_new_small_files(folder)
            resumable_download.download_file(client, remote, folder / name, advance)


def _megabyte_counter(progress: Progress, done: int) -> Callable[[int], None]:
    """Return a function that adds a number of bytes to `done` bytes and updates the progress in megabytes."""

    def advance(count: int) -> None:
        nonlocal done
        previous, done = done, done + count
        progress.update(done // MB - previous // MB)

    return advance


def _check_new_small_files(folder: Path) -> None:
    try:
        _check_small_files(folder)
    except RedditgenError as error:
        for name in MAX_FILE_BYTES:
            if name != _WEIGHTS_FILE:
                (folder / name).unlink(missing_ok=True)
        raise InputError(
            f"{error} (all but the data was deleted; the same command downloads it anew, --base-url from elsewhere)"
        ) from error


def _check_small_files(folder: Path) -> None:
    """Raise InputError or MissingError unless the vocabulary, the hyperparameters and the index are of one model."""
    model, prefix = ModelDir(folder), folder / "model.ckpt"
    model.tokenizer()
    if model.checkpoint_prefix() != prefix:
        raise InputError(f"{folder / 'checkpoint'}: names {model.checkpoint_prefix().name} and not model.ckpt")
    tf_checkpoint.read_matching_index(prefix, model.hyperparameters().tensor_shapes())


def _check_weights(folder: Path) -> None:
    _log.info("checking every tensor")
    try:
        tf_checkpoint.verify_checksums(folder / "model.ckpt")
    except InputError as error:
        (folder / _WEIGHTS_FILE).unlink(missing_ok=True)
        raise InputError(f"{error} (it was deleted; the same command downloads it anew)") from error


def _move_into_place(folder: Path, target: Path, overwrite: bool) -> None:
    """Rename the complete folder to `target`. A replaced model is deleted after that, or restored on failure."""
    replaced = target.with_name(f".{target.name}.replaced")
    _delete(replaced)
    if is_replaced := overwrite and (target.exists() or target.is_symlink()):
        target.rename(replaced)
    try:
        folder.rename(target)
    except BaseException:
        if is_replaced:
            replaced.rename(target)
        raise
    _delete(replaced)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
