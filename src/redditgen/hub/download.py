"""Download of one of OpenAI's models: seven files, all whole and checked before the model's folder appears.

Address and names: gpt-2-simple 0.8, `download_gpt2`. What has come lies in `models/.124M.download/` until the model is
whole; the same command goes on from there.
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

# The most bytes each may have: many times OpenAI's, and for what is read in one go little enough for that. The data
# comes last, so that what is wrong with the others shows before gigabytes have come.
MAX_FILE_BYTES = {
    "checkpoint": 64 << 10,
    "hparams.json": 64 << 10,
    "encoder.json": 16 << 20,
    "vocab.bpe": 16 << 20,
    "model.ckpt.index": 1 << 20,
    "model.ckpt.meta": 64 << 20,
    "model.ckpt.data-00000-of-00001": 16 << 30,
}
_DATA = "model.ckpt.data-00000-of-00001"
_SPARE = 50 * MB  # of the disk, left for others

_log = logging.getLogger(__name__)


def download(settings: DownloadSettings) -> Path:
    """Download a model and give its folder; one that is there whole is left as it is."""
    target = settings.model_dir / settings.model
    try:
        if _is_whole(target, settings.overwrite):
            _log.info("%s: there already and whole; --overwrite downloads it anew", target)
        else:
            _download(settings, target)
    except KeyboardInterrupt as error:
        raise Interrupted(f"download of {settings.model} interrupted; the same command goes on from here") from error
    except OSError as error:
        raise InputError(f"{error.filename or target}: {error.strerror or error}; no model can be put there") from error
    return target


def _is_whole(target: Path, overwrite: bool) -> bool:
    """Whether the model is there already; raises OutputExists or InputError where something else is in its place."""
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
    """Nothing goes with an old model but what belongs to it, such as generate's copies of it."""
    foreign = [path.name for path in target.iterdir() if path.name not in MAX_FILE_BYTES]
    if foreign := sorted(name for name in foreign if not name.startswith("ctranslate2-")):
        raise OutputExists(f"{target}: holds {', '.join(foreign[:5])}, which are no model's; move them away first")


def _download(settings: DownloadSettings, target: Path) -> None:
    folder = target.with_name(f".{target.name}.download")
    with http.open_client() as client:
        remotes = _ask(client, settings)
        _announce(settings, remotes, folder, target)
        make_folder(folder)
        with exclusive_lock(folder, "downloading to it"):
            _get(client, remotes, folder)
            _check_data(folder)
            for name in MAX_FILE_BYTES:
                resumable_download.forget_version(folder / name)
            _put(folder, target, settings.overwrite)
    _log.info("%s: whole; use it with: redditgen finetune DATASET --model %s", target, settings.model)


def _ask(client: "httpx.Client", settings: DownloadSettings) -> dict[str, RemoteFile]:
    """What the server says of each file, before anything is downloaded."""
    base = http.url_below(settings.base_url, ["models", settings.model])
    _log.info("model %s: asking %s what there is to download", settings.model, http.redact_url(base))
    return {
        name: resumable_download.describe_remote_file(
            client, http.url_below(settings.base_url, ["models", settings.model, name]), limit
        )
        for name, limit in MAX_FILE_BYTES.items()
    }


def _announce(settings: DownloadSettings, remotes: dict[str, RemoteFile], folder: Path, target: Path) -> None:
    """Say what comes; raises InputError where the disk has no room for it."""
    total, left = _bytes(remotes), _bytes(remotes) - _there(remotes, folder)
    place = next(parent for parent in folder.parents if parent.exists())
    free = shutil.disk_usage(place).free
    if left and free < left + _SPARE:
        raise InputError(
            f"{target}: {(left + _SPARE) / MB:.0f} MB of disk are needed and {free / MB:.0f} MB are free; "
            "free the rest, or name a folder on another disk with --model-dir"
        )
    source = http.redact_url(http.url_below(settings.base_url, ["models", settings.model]))
    had = "" if left == total else f" ({(total - left) / MB:.1f} MB are here from an earlier try)"
    _log.info(
        "model %s: %d files, %.1f MB%s, from %s to %s", settings.model, len(remotes), total / MB, had, source, target
    )


def _bytes(remotes: dict[str, RemoteFile]) -> int:
    return sum(remote.size for remote in remotes.values())


def _there(remotes: dict[str, RemoteFile], folder: Path) -> int:
    return sum(resumable_download.downloaded_bytes(remote, folder / name) for name, remote in remotes.items())


def _get(client: "httpx.Client", remotes: dict[str, RemoteFile], folder: Path) -> None:
    done = _there(remotes, folder)
    with Progress("download", unit="MB", total=_bytes(remotes) // MB, done=done // MB) as progress:
        advance = _in_megabytes(progress, done)
        for name, remote in remotes.items():
            if name == _DATA:
                _check_new_small_files(folder)
            resumable_download.download_file(client, remote, folder / name, advance)


def _in_megabytes(progress: Progress, done: int) -> Callable[[int], None]:
    def advance(count: int) -> None:
        nonlocal done
        before, done = done, done + count
        progress.update(done // MB - before // MB)

    return advance


def _check_new_small_files(folder: Path) -> None:
    try:
        _check_small_files(folder)
    except RedditgenError as error:
        for name in MAX_FILE_BYTES:
            if name != _DATA:
                (folder / name).unlink(missing_ok=True)
        raise InputError(
            f"{error} (all but the data was deleted; the same command downloads it anew, --base-url from elsewhere)"
        ) from error


def _check_small_files(folder: Path) -> None:
    """Raise InputError or MissingError unless they are of one model."""
    model, prefix = ModelDir(folder), folder / "model.ckpt"
    model.tokenizer()
    if model.checkpoint_prefix() != prefix:
        raise InputError(f"{folder / 'checkpoint'}: names {model.checkpoint_prefix().name} and not model.ckpt")
    tf_checkpoint.read_matching_index(prefix, model.hyperparameters().tensor_shapes())


def _check_data(folder: Path) -> None:
    _log.info("checking every tensor")
    try:
        tf_checkpoint.verify_checksums(folder / "model.ckpt")
    except InputError as error:
        (folder / _DATA).unlink(missing_ok=True)
        raise InputError(f"{error} (it was deleted; the same command downloads it anew)") from error


def _put(folder: Path, target: Path, overwrite: bool) -> None:
    """Give the whole model its name; a model before it is deleted only after that."""
    before = target.with_name(f".{target.name}.replaced")
    _delete(before)
    if is_replaced := overwrite and (target.exists() or target.is_symlink()):
        target.rename(before)
    try:
        folder.rename(target)
    except BaseException:
        if is_replaced:
            before.rename(target)
        raise
    _delete(before)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
