"""A file from a server: resumed where an earlier try stopped, and checked against what the server says of it.

HTTP: RFC 9110, ranges in section 14. OpenAI's files lie in Azure's blob storage, which answers nameless callers by its
version of 2009: ranges only with both ends, ETags without quotation marks, no If-Range. So both ends are always named,
and the version that an answer bears counts, whatever its status.

Beside each file that grows lies `<name>.version`, the ETag of what it is a part of.
"""

import base64
import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from redditgen.errors import InputError, MissingError
from redditgen.runtime.http import RetryPolicy, TransientError, open_response, redact_url

if TYPE_CHECKING:
    import httpx

MB = 10**6  # bytes

_ENOUGH = 1 << 20  # bytes; where this many more have come, the tries are counted anew
_PARTIAL = re.compile(r"bytes ([0-9]+)-[0-9]+/([0-9]+)")


@dataclass(frozen=True)
class RemoteFile:
    """A file as the server describes it: bytes, ETag (else when it was changed, else ''), MD5 in base64 (or '')."""

    url: "httpx.URL"
    size: int
    version: str
    md5: str


def describe_remote_file(client: "httpx.Client", url: "httpx.URL", limit: int) -> RemoteFile:
    """What the server says of a file, which may have at most `limit` bytes."""
    patience = RetryPolicy()
    while True:
        try:
            remote = _asked(client, url)
            break
        except TransientError as failure:
            message = f"{failure}; check the connection and --base-url, then run the same command again"
            if not failure.connected:
                raise MissingError(message) from failure
            patience.wait(failure, message)
    if not 0 < remote.size <= limit:
        raise InputError(
            f"{redact_url(url)}: has {remote.size} bytes and should have from 1 to {limit}; "
            "name another place with --base-url"
        )
    return remote


def downloaded_bytes(remote: RemoteFile, path: Path) -> int:
    """How many bytes of the file are there already from an earlier try."""
    try:
        size, version = path.stat().st_size, _version_path(path).read_text(encoding="utf8")
    except (OSError, UnicodeDecodeError):
        return 0
    return size if version and version == remote.version and size <= remote.size else 0


def download_file(client: "httpx.Client", remote: RemoteFile, path: Path, advance: Callable[[int], None]) -> None:
    """Download what is not there yet, and check the whole; `advance` is told how many bytes came.

    Raises MissingError where it comes to no end, and a part stays; raises InputError where the file is not what the
    server said, and deletes it.
    """
    try:
        if not downloaded_bytes(remote, path):
            path.unlink(missing_ok=True)
        _check_md5(_got(client, remote, path, advance), path)
    except OSError as error:
        raise InputError(
            f"{path}: can't be written: {error.strerror or error}; once that is mended the same command goes on"
        ) from error


def forget_version(path: Path) -> None:
    """Delete what is remembered of a file that is whole."""
    _version_path(path).unlink(missing_ok=True)


def _version_path(path: Path) -> Path:
    return path.with_name(path.name + ".version")


def _got(client: "httpx.Client", remote: RemoteFile, path: Path, advance: Callable[[int], None]) -> RemoteFile:
    """Append until the file is whole, and give the version that it is of."""
    patience, farthest = RetryPolicy(), _size(path)
    while _size(path) < remote.size:
        try:
            remote = _append(client, remote, path, advance)
        except TransientError as failure:
            size = _size(path)
            if size - farthest >= _ENOUGH:
                patience, farthest = RetryPolicy(), size
            far = f"{path.name}: {size / MB:.1f} of {remote.size / MB:.1f} MB are there"
            patience.wait(failure, f"{failure}; {far}; the same command goes on from here")
    return remote


def _append(client: "httpx.Client", remote: RemoteFile, path: Path, advance: Callable[[int], None]) -> RemoteFile:
    # Without a version nobody can say that the rest belongs to what is there.
    start = _size(path) if remote.version else 0
    headers = _range(remote, start) if start else {}
    with open_response(client, "GET", remote.url, {200, 206, 416}, **headers) as response:
        if response.status_code == 200:
            remote, start = _of_same_size(remote, _described(response, remote.url)), 0
        elif not _is_the_rest(response, remote, start):
            advance(-_size(path))
            path.unlink(missing_ok=True)
            raise TransientError(
                f"{redact_url(remote.url)}: the server can't go on with the part that is here; it starts anew"
            )
        if not start:
            advance(-_size(path))
            path.write_bytes(b"")
            _version_path(path).write_text(remote.version, encoding="utf8")
        _write(response, path, remote, advance)
    return remote


def _range(remote: RemoteFile, start: int) -> dict[str, str]:
    headers = {"Range": f"bytes={start}-{remote.size - 1}"}
    # If-Range must not hold a weak ETag (RFC 9110, 13.1.5).
    return headers if remote.version.startswith("W/") else headers | {"If-Range": remote.version}


def _of_same_size(remote: RemoteFile, now: RemoteFile) -> RemoteFile:
    if now.size != remote.size:
        raise InputError(
            f"{redact_url(remote.url)}: had {remote.size} bytes when asked and has {now.size} now; "
            "run the same command again, or name another place with --base-url"
        )
    return now


def _is_the_rest(response: "httpx.Response", remote: RemoteFile, start: int) -> bool:
    """Whether a partial answer goes on where the part of the same version ends."""
    place = _PARTIAL.fullmatch(response.headers.get("content-range", ""))
    if response.status_code != 206 or not place or _version(response) != remote.version:
        return False
    return (int(place[1]), int(place[2])) == (start, remote.size)


def _write(response: "httpx.Response", path: Path, remote: RemoteFile, advance: Callable[[int], None]) -> None:
    left = remote.size - _size(path)
    with path.open("ab") as file:
        for chunk in response.iter_raw():
            if len(chunk) > left:
                raise TransientError(f"{redact_url(remote.url)}: the server sends more than it said")
            file.write(chunk)
            left -= len(chunk)
            advance(len(chunk))
        file.flush()
        os.fsync(file.fileno())
    if left:
        raise TransientError(f"{redact_url(remote.url)}: the server sent less than it said")


def _check_md5(remote: RemoteFile, path: Path) -> None:
    if not remote.md5:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()
    if base64.b64encode(digest).decode() != remote.md5:
        path.unlink()
        raise InputError(
            f"{redact_url(remote.url)}: what came fails the check against the server's MD5 and was deleted; "
            "run the same command again to download it anew"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _asked(client: "httpx.Client", url: "httpx.URL") -> RemoteFile:
    with open_response(client, "HEAD", url, {200, 405, 501}) as response:
        if response.status_code == 200 and "content-length" in response.headers:
            return _described(response, url)
    with open_response(client, "GET", url, {200}) as response:
        return _described(response, url)


def _described(response: "httpx.Response", url: "httpx.URL") -> RemoteFile:
    headers = response.headers
    if headers.get("content-encoding", "identity") != "identity":
        raise InputError(f"{redact_url(url)}: comes compressed, though asked for as it is; name another --base-url")
    length = headers.get("content-length", "")
    if not length.isdecimal():
        raise InputError(f"{redact_url(url)}: the server does not say how long it is; name another --base-url")
    return RemoteFile(url, int(length), _version(response), headers.get("content-md5", "").strip())


def _version(response: "httpx.Response") -> str:
    version: str = response.headers.get("etag") or response.headers.get("last-modified", "")
    return version if version.isascii() else ""  # it has to go back in a header
