"""Downloads files over HTTP, resuming where an earlier try stopped, and checks their size and MD5.

A partial file is appended to with range requests (RFC 9110, section 14). Next to it is `<name>.version`, the ETag of
the remote file that it is a part of; if the remote file has changed, the download starts again.

OpenAI's files are in Azure's blob storage, which answers anonymous requests by version 2009 of its protocol: ranges
need both ends, ETags have no quotation marks, and If-Range is not supported. So requests always name both ends of a
range, and the version in each response is compared, whatever its status.
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

_ENOUGH = 1 << 20  # bytes; after this much progress, the retries are counted from the start
_CONTENT_RANGE = re.compile(r"bytes ([0-9]+)-[0-9]+/([0-9]+)")


@dataclass(frozen=True)
class RemoteFile:
    """A file as the server describes it.

    `size` is in bytes. `version` is the ETag, or else the Last-Modified date, or else ''. `md5` is in base64, or ''.
    """

    url: "httpx.URL"
    size: int
    version: str
    md5: str


def describe_remote_file(client: "httpx.Client", url: "httpx.URL", limit: int) -> RemoteFile:
    """Ask the server for a file's size, version and MD5.

    Raises MissingError where the server can't be reached or does not have the file, InputError where the file is empty
    or has more than `limit` bytes.
    """
    retries = RetryPolicy()
    while True:
        try:
            remote = _request_description(client, url)
            break
        except TransientError as failure:
            message = f"{failure}; check the connection and --base-url, then run the same command again"
            if not failure.connected:
                raise MissingError(message) from failure
            retries.wait(failure, message)
    if not 0 < remote.size <= limit:
        raise InputError(
            f"{redact_url(url)}: has {remote.size} bytes and should have from 1 to {limit}; "
            "name another place with --base-url"
        )
    return remote


def downloaded_bytes(remote: RemoteFile, path: Path) -> int:
    """Return how many bytes of the file's current version an earlier try left at `path`."""
    try:
        size, version = path.stat().st_size, _version_path(path).read_text(encoding="utf8")
    except (OSError, UnicodeDecodeError):
        return 0
    return size if version and version == remote.version and size <= remote.size else 0


def download_file(client: "httpx.Client", remote: RemoteFile, path: Path, advance: Callable[[int], None]) -> None:
    """Download the rest of a file to `path` and check its MD5. Calls `advance` with the number of bytes of each chunk.

    The number is negative where bytes are discarded. Raises MissingError where the download can't be completed; the
    part is kept for the next call. Raises InputError where `path` can't be written, where the size of the file on the
    server changes, or where the MD5 is not the announced one; in the last case the file is deleted.
    """
    try:
        if not downloaded_bytes(remote, path):
            path.unlink(missing_ok=True)
        _check_md5(_download_rest(client, remote, path, advance), path)
    except OSError as error:
        raise InputError(
            f"{path}: can't be written: {error.strerror or error}; once that is mended the same command goes on"
        ) from error


def forget_version(path: Path) -> None:
    """Delete the version file of a file that is complete."""
    _version_path(path).unlink(missing_ok=True)


def _version_path(path: Path) -> Path:
    return path.with_name(path.name + ".version")


def _download_rest(
    client: "httpx.Client", remote: RemoteFile, path: Path, advance: Callable[[int], None]
) -> RemoteFile:
    """Append to the file until it is complete, with retries; return the description of the version downloaded."""
    retries, counted_from = RetryPolicy(), _size(path)
    while _size(path) < remote.size:
        try:
            remote = _append_missing(client, remote, path, advance)
        except TransientError as failure:
            size = _size(path)
            if size - counted_from >= _ENOUGH:
                retries, counted_from = RetryPolicy(), size
            progress = f"{path.name}: {size / MB:.1f} of {remote.size / MB:.1f} MB are there"
            retries.wait(failure, f"{failure}; {progress}; the same command goes on from here")
    return remote


def _append_missing(
    client: "httpx.Client", remote: RemoteFile, path: Path, advance: Callable[[int], None]
) -> RemoteFile:
    """Request the missing bytes and append them. Raises TransientError where the connection or the server fails."""
    # Without a version it is unknown whether the rest belongs to the same file as the part.
    start = _size(path) if remote.version else 0
    headers = _range_headers(remote, start) if start else {}
    with open_response(client, "GET", remote.url, {200, 206, 416}, **headers) as response:
        if response.status_code == 200:
            remote, start = _check_same_size(remote, _read_description(response, remote.url)), 0
        elif not _continues_at(response, remote, start):
            advance(-_size(path))
            path.unlink(missing_ok=True)
            raise TransientError(
                f"{redact_url(remote.url)}: the server can't go on with the part that is here; it starts anew"
            )
        if not start:
            advance(-_size(path))
            path.write_bytes(b"")
            _version_path(path).write_text(remote.version, encoding="utf8")
        _append_body(response, path, remote, advance)
    return remote


def _range_headers(remote: RemoteFile, start: int) -> dict[str, str]:
    headers = {"Range": f"bytes={start}-{remote.size - 1}"}
    # If-Range must not hold a weak ETag (RFC 9110, 13.1.5).
    return headers if remote.version.startswith("W/") else headers | {"If-Range": remote.version}


def _check_same_size(remote: RemoteFile, now: RemoteFile) -> RemoteFile:
    """Return the new description of a file. Raises InputError where its size has changed."""
    if now.size != remote.size:
        raise InputError(
            f"{redact_url(remote.url)}: had {remote.size} bytes when asked and has {now.size} now; "
            "run the same command again, or name another place with --base-url"
        )
    return now


def _continues_at(response: "httpx.Response", remote: RemoteFile, start: int) -> bool:
    """Return whether a partial response is of the same version and continues at byte `start`."""
    content_range = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    if response.status_code != 206 or not content_range or _read_version(response) != remote.version:
        return False
    return (int(content_range[1]), int(content_range[2])) == (start, remote.size)


def _append_body(response: "httpx.Response", path: Path, remote: RemoteFile, advance: Callable[[int], None]) -> None:
    """Append the body of a response to the file and flush it to the disk.

    Raises TransientError where the body is longer or shorter than the missing part.
    """
    remaining = remote.size - _size(path)
    with path.open("ab") as file:
        for chunk in response.iter_raw():
            if len(chunk) > remaining:
                raise TransientError(f"{redact_url(remote.url)}: the server sends more than it said")
            file.write(chunk)
            remaining -= len(chunk)
            advance(len(chunk))
        file.flush()
        os.fsync(file.fileno())
    if remaining:
        raise TransientError(f"{redact_url(remote.url)}: the server sent less than it said")


def _check_md5(remote: RemoteFile, path: Path) -> None:
    """Delete the file and raise InputError if its MD5 is not the one that the server announced."""
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


def _request_description(client: "httpx.Client", url: "httpx.URL") -> RemoteFile:
    """Request a file's description with HEAD, or with GET where the server does not support HEAD."""
    with open_response(client, "HEAD", url, {200, 405, 501}) as response:
        if response.status_code == 200 and "content-length" in response.headers:
            return _read_description(response, url)
    with open_response(client, "GET", url, {200}) as response:
        return _read_description(response, url)


def _read_description(response: "httpx.Response", url: "httpx.URL") -> RemoteFile:
    """Read a file's description from the headers of a response. Raises InputError where they don't give its size."""
    headers = response.headers
    if headers.get("content-encoding", "identity") != "identity":
        raise InputError(f"{redact_url(url)}: comes compressed, though asked for as it is; name another --base-url")
    length = headers.get("content-length", "")
    if not length.isdecimal():
        raise InputError(f"{redact_url(url)}: the server does not say how long it is; name another --base-url")
    return RemoteFile(url, int(length), _read_version(response), headers.get("content-md5", "").strip())


def _read_version(response: "httpx.Response") -> str:
    version: str = response.headers.get("etag") or response.headers.get("last-modified", "")
    return version if version.isascii() else ""  # it is sent back in a header
