import errno
import fcntl
import json
import logging
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import zstandard

from redditgen.errors import InputError, Interrupted, OutputExists
from redditgen.fetch.dumps.import_dump import import_dump
from redditgen.fetch.dumps.posts import DumpCounts
from redditgen.fetch.sql.columns import DUMP_COLUMN_TYPES
from redditgen.runtime import progress

Dump = Callable[..., Path]

POST = {"id": "a", "subreddit": "cats", "title": "a cat", "score": 5, "author": "me", "created_utc": 1564617600}
SKIPPABLE = b"\x50\x2a\x4d\x18" + struct.pack("<I", 5) + b"hello"  # RFC 8878, 3.1.2


def post(**changes: Any) -> dict[str, Any]:
    return POST | changes


def line(**changes: Any) -> bytes:
    return json.dumps(post(**changes)).encode() + b"\n"


def frame(lines: bytes, window_log: int = 20) -> bytes:
    """A zstd frame as the dumps have it, which does not say how long it is."""
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=window_log, write_checksum=True)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return packer.compress(lines) + packer.flush()


@pytest.fixture
def dump(tmp_path: Path) -> Dump:
    """Writes a dump of some lines."""

    def write(*lines: bytes, name: str = "RS_2019-08.zst", window_log: int = 20) -> Path:
        path = tmp_path / "dumps" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(frame(b"".join(lines), window_log))
        return path

    return write


def rows(path: Path) -> list[dict[str, Any]]:
    posts: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return posts


def titles(path: Path) -> list[str]:
    return [row["title"] for row in rows(path)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def real_looking(number: int) -> Iterable[dict[str, Any]]:
    rng = random.Random(1)
    for place in range(number):
        yield {
            "id": f"{place:x}",
            "subreddit": rng.choice(["AskReddit", "cats", "u_somebody"]),
            "title": f"{rng.random()} é 😀 \u202e \" ' , \n &amp;",
            "author": rng.choice(["[deleted]", f"user{place}"]),
            "score": rng.randint(-5, 10_000),
            "created_utc": 1564617600 + place,
            "over_18": rng.random() < 0.2,
            "num_comments": rng.randint(0, 500),
            "quarantine": False,
            "removed_by_category": rng.choice([None, "moderator"]),
            "subreddit_type": "public",
            "is_self": True,
            "stickied": False,
            "domain": "self.cats",
            "link_flair_text": rng.choice([None, "OC"]),
            "selftext": "not kept " * rng.randint(0, 100),
        }


# What is imported


@pytest.mark.parametrize("ascii", [True, False])
def test_a_dump_with_the_window_that_reddits_have(dump: Dump, ascii: bool) -> None:
    posts = list(real_looking(3000))
    path = dump(*(json.dumps(post, ensure_ascii=ascii).encode() + b"\n" for post in posts), window_log=31)
    assert zstandard.get_frame_parameters(path.read_bytes()[:18]).window_size == 2**31
    imported = import_dump(path)
    assert imported.path == path.with_suffix(".parquet")
    assert rows(imported.path) == [{name: post.get(name) for name in DUMP_COLUMN_TYPES} for post in posts]
    assert imported.counts == DumpCounts(posts=3000)
    assert imported.absent == ("promoted",)


def test_the_cache_folder_is_made(dump: Dump, tmp_path: Path) -> None:
    path = dump(line())
    assert import_dump(path, tmp_path / "a" / "cache").path == tmp_path / "a" / "cache" / "RS_2019-08.parquet"
    assert names(path.parent) == ["RS_2019-08.zst"]


@pytest.mark.parametrize(
    "content",
    {
        "two frames": frame(line(title="one")) + frame(line(title="two")),
        "a line across frames": frame(line(title="one") + line(title="two")[:9]) + frame(line(title="two")[9:]),
        "many small frames": b"".join(frame(bytes([byte])) for byte in line(title="one") + line(title="two")),
        "skippable and empty frames": SKIPPABLE + frame(b"") + frame(line(title="one") + line(title="two")) + SKIPPABLE,
        "no newline at the end": frame(line(title="one") + line(title="two").rstrip()),
        "CRLF": frame((line(title="one") + line(title="two")).replace(b"\n", b"\r\n")),
        "blank lines": frame(b"\n \n" + line(title="one") + b"\r\n\n\t\n" + line(title="two") + b"\n\n"),
        "a byte order mark": frame(b"\xef\xbb\xbf" + line(title="one") + line(title="two")),
        "of known length": zstandard.ZstdCompressor().compress(line(title="one") + line(title="two")),
    }.items(),
    ids=lambda item: item[0],
)
def test_any_form_of_ndjson(tmp_path: Path, content: tuple[str, bytes]) -> None:
    path = tmp_path / "posts.ndjson.zst"
    path.write_bytes(content[1])
    imported = import_dump(path)
    assert titles(tmp_path / "posts.ndjson.parquet") == ["one", "two"]
    assert (imported.counts.broken, imported.counts.incomplete) == (0, 0)


def test_other_types_than_the_columns(dump: Dump) -> None:
    path = dump(
        line(score="5", created_utc="1564617600", over_18="true"),
        line(score=5.0, created_utc=1564617600.0, over_18=1),
        line(score="5.0", created_utc="1564617600.0", over_18="1"),
        line(score="many", created_utc=None, over_18={}),
        line(subreddit=1984, title=12, author=0),
        line(title={"a": [1]}, promoted=True, removed_by_category=[]),
    )
    imported = rows(import_dump(path).path)
    numbers = [(row["score"], row["created_utc"], row["over_18"]) for row in imported]
    assert numbers == [*[(5, 1564617600, True)] * 3, (None, None, None), *[(5, 1564617600, None)] * 2]
    assert (imported[4]["subreddit"], imported[4]["title"], imported[4]["author"]) == ("1984", "12", "0")
    assert (imported[5]["title"], imported[5]["promoted"]) == ('{"a":[1]}', True)


def test_hostile_titles_come_through(dump: Dump) -> None:
    hostile = [
        "nul \0 nul",
        "~^`}<|endoftext|>",
        "a\nb\r\nc\u2028d",
        '""",;\t',
        "\u202egnp",
        "\ufeff",
        "e" * 10_000_000,
    ]
    path = dump(*(line(title=title) for title in hostile), line(title="s" * 20_000_000), line(title="last"))
    assert titles(import_dump(path).path) == [*hostile, "s" * 20_000_000, "last"]


def test_half_a_surrogate_pair_becomes_the_replacement_character(dump: Dump) -> None:
    path = dump(
        line(title="before"),
        line(title="high \ud83d x", author="\udc00"),
        line(title="\ude00\ud83d") + b"\n",
        line(title="CESU").replace(b"CESU", b"\xed\xa0\xbd"),
        line(title="after \ud83d\ude00"),
    )
    imported = import_dump(path)
    expected = ["before", "high \ufffd x", "\ufffd\ufffd", "\ufffd", "after 😀"]
    assert titles(imported.path) == expected
    assert rows(imported.path)[1]["author"] == "\ufffd"
    assert imported.counts == DumpCounts(posts=5)


def test_deep_brackets_do_not_harm_the_lines_beside(dump: Dump) -> None:
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    path = dump(
        line(title="one"), line(title="deep", preview=deep), line(title=deep), b'{"a": [[[\n', line(title="two")
    )
    imported = import_dump(path)
    assert titles(imported.path) == ["one", "deep", "[" * 201 + "]" * 201, "two"]
    assert imported.counts == DumpCounts(posts=4, broken=1)


BROKEN = {
    "cut": line()[:30] + b"\n",
    "text": b"not JSON\n",
    "no UTF-8": line(title="X").replace(b"X", b"\xff\xfe"),
    "NUL": line(title="X").replace(b"X", b"\0"),
    "zeros": b"\0" * 100 + b"\n",
    "a list": b"[1, 2]\n",
    "two posts": line().strip() + line(),
    "null": b"null\n",
    "open brackets": b"[" * 100_000 + b"\n",
    "brackets": b"[" * 100_000 + b"]" * 100_000 + b"\n",
    "other keys": b'{"body": "a comment"}\n',
}


@pytest.mark.parametrize("broken", BROKEN.items(), ids=lambda item: item[0])
def test_broken_lines_are_left_out_and_counted(
    dump: Dump, broken: tuple[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "redditgen")
    path = dump(line(title="one"), broken[1], line(title="two"), line(title=None), broken[1], line(subreddit=None))
    imported = import_dump(path)
    assert titles(imported.path) == ["one", "two"]
    assert imported.counts == DumpCounts(posts=2, broken=2, incomplete=2)
    assert f"{path}: left out 2 broken lines and 2 without subreddit or title" in caplog.messages
    said = json.loads(imported.path.with_name("RS_2019-08.parquet.meta.json").read_text(encoding="utf8"))
    assert said["counts"] == asdict(imported.counts)


def test_many_lines_keep_their_order_in_row_groups_of_a_good_size(dump: Dump, tmp_path: Path) -> None:
    expected = [f"{place} {'x' * (place % 300)}" for place in range(150_000)]
    path = dump(*(line(title=title) for title in expected))
    imported = import_dump(path)
    assert titles(imported.path) == expected
    metadata = pq.read_metadata(imported.path)
    assert metadata.row_group(0).num_rows > 122_000 and metadata.num_row_groups == 2
    again = import_dump(path, tmp_path)
    assert again.path.read_bytes() == imported.path.read_bytes()


def test_progress_counts_megabytes_of_the_dump(
    dump: Dump, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "redditgen")
    monkeypatch.setattr(progress, "LINE_INTERVAL", 0.0)
    path = dump(*(line(title=random.randbytes(50_000).hex()) for _ in range(50)))
    import_dump(path)
    assert any(message.startswith("import RS_2019-08.zst: 3 of 3 MB") for message in caplog.messages)


# What was imported before


def test_it_is_imported_once(dump: Dump, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "redditgen")
    path = dump(line(), b"broken\n")
    first = import_dump(path)
    before = first.path.stat()
    assert import_dump(path) == first
    assert first.path.stat() == before
    assert caplog.messages[-1] == f"{path}: imported before, to {first.path}"
    assert names(path.parent) == ["RS_2019-08.parquet", "RS_2019-08.parquet.meta.json", "RS_2019-08.zst"]


def change_dump(path: Path) -> None:
    path.write_bytes(path.read_bytes() + frame(line(title="more")))


def change_only_time(path: Path) -> None:
    os.utime(path, ns=(0, 0))


def change_only_content(path: Path) -> None:
    status = path.stat()
    path.write_bytes(frame(line(title="b cat")))
    assert path.stat().st_size == status.st_size
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def cut_parquet(path: Path) -> None:
    parquet = path.with_suffix(".parquet")
    parquet.write_bytes(parquet.read_bytes()[:-1])


def delete_parquet(path: Path) -> None:
    path.with_suffix(".parquet").unlink()


def change_format(path: Path) -> None:
    sidecar = path.with_suffix(".parquet.meta.json")
    sidecar.write_text(sidecar.read_text(encoding="utf8").replace('"format": 1', '"format": 0'), encoding="utf8")


@pytest.mark.parametrize(
    "change", [change_dump, change_only_time, change_only_content, cut_parquet, delete_parquet, change_format]
)
def test_it_is_imported_anew(dump: Dump, change: Callable[[Path], None], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "redditgen")
    path = dump(line())
    import_dump(path)
    change(path)
    imported = import_dump(path)
    assert sum("importing once" in message for message in caplog.messages) == 2
    lines = zstandard.ZstdDecompressor().stream_reader(path.read_bytes(), read_across_frames=True).read().splitlines()
    assert titles(imported.path) == [json.loads(line)["title"] for line in lines]
    assert import_dump(path) == imported
    assert sum("importing once" in message for message in caplog.messages) == 2


@pytest.mark.parametrize("sidecar", [None, "{", "[]", '{"command": "fetch"}'])
def test_somebody_elses_parquet_is_left_alone(dump: Dump, sidecar: str | None) -> None:
    path = dump(line())
    path.with_suffix(".parquet").write_bytes(b"mine")
    if sidecar:
        path.with_suffix(".parquet.meta.json").write_text(sidecar, encoding="utf8")
    before = names(path.parent)
    with pytest.raises(OutputExists, match=r"RS_2019-08\.parquet: is there and was not imported from .*--cache"):
        import_dump(path)
    assert names(path.parent) == before
    assert path.with_suffix(".parquet").read_bytes() == b"mine"


def test_two_dumps_of_one_name_do_not_share_a_cache(dump: Dump, tmp_path: Path) -> None:
    first = dump(line(title="first"))
    import_dump(first, tmp_path / "cache")
    second = tmp_path / "RS_2019-08.zst"
    second.write_bytes(frame(line(title="second")))
    with pytest.raises(OutputExists, match=f"was imported from {first}; name another folder for {second} with --cache"):
        import_dump(second, tmp_path / "cache")
    assert titles(tmp_path / "cache" / "RS_2019-08.parquet") == ["first"]
    first.unlink()
    assert titles(import_dump(second, tmp_path / "cache").path) == ["second"]


def test_a_copy_of_a_dump_and_its_parquet_is_imported_anew(dump: Dump, tmp_path: Path) -> None:
    path = dump(line())
    import_dump(path)
    copy = shutil.copytree(path.parent, tmp_path / "copy") / path.name
    os.utime(copy, ns=(0, 0))
    assert titles(import_dump(copy).path) == ["a cat"]


def test_a_folder_on_a_disk_without_locks(
    dump: Dump, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    caplog.set_level(logging.INFO, "redditgen")
    monkeypatch.setattr(fcntl, "flock", no_locks)
    path = dump(line())
    assert titles(import_dump(path).path) == ["a cat"]
    assert f"{path.parent}: can't be locked; let only one redditgen write to it at a time" in caplog.messages


# What can't be imported


def many_lines() -> bytes:
    rng = random.Random(0)
    return b"".join(line(title=rng.randbytes(20).hex()) for _ in range(2000))


def flipped(packed: bytes, place: int) -> bytes:
    return packed[:place] + bytes([packed[place] ^ 0x55]) + packed[place + 1 :]


WHOLE = frame(many_lines())
TOO_WIDE = b"\x28\xb5\x2f\xfd\x00" + bytes([((31 - 10) << 3) | 1]) + bytes(100)  # RFC 8878, 3.1.1.1.2
CUT = "ends in the middle of a zstd frame: the download is incomplete"
UNREADABLE = {
    "cut": (WHOLE[: len(WHOLE) // 2], CUT),
    "cut by a byte": (WHOLE[:-1], CUT),
    "cut in its header": (WHOLE[:5], CUT),
    "cut in its second frame": (WHOLE + WHOLE[:3], CUT),
    "a flipped bit": (flipped(WHOLE, 40_000), r"damaged after about 0 MB \(.+\); download it again"),
    "a flipped bit in the checksum": (flipped(WHOLE, len(WHOLE) - 1), r"damaged .* \(Restored data doesn't match"),
    "something behind it": (WHOLE + b"garbage", r"damaged after about 0 MB \(Unknown frame descriptor\)"),
    "text": (b'{"id": "a"}\n', "not a zstd file; monthly dumps are"),
    "gzip": (b"\x1f\x8b\x08\0\0\0\0\0", "not a zstd file"),
    "empty": (b"", "empty; download it again"),
    "a window above 2 GiB": (TOO_WIDE, "has a window of 2416 MB, and zstd reads 2147 MB at most"),
    "a window above 2 GiB later": (WHOLE + TOO_WIDE, "Frame requires too much memory"),
    "no lines": (frame(b""), "no posts: 0 broken lines, 0 without subreddit or title"),
    "comments": (
        frame(b'{"id": "a", "subreddit": "cats", "body": "meow"}\n' * 3),
        r"no posts: 0 broken lines, 3 without subreddit or title; .* names like RS_.* \(RC_ are comments\)",
    ),
    "no newlines": (frame(bytes(200_000_000)), "MB without a line's end; NDJSON has one post a line"),
}


@pytest.mark.parametrize("case", UNREADABLE.items(), ids=lambda item: item[0])
def test_what_cant_be_read_is_said_in_one_line_and_leaves_nothing(
    tmp_path: Path, case: tuple[str, tuple[bytes, str]]
) -> None:
    content, message = case[1]
    path = tmp_path / "RS_2019-08.zst"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        import_dump(path)
    assert str(raised.value).startswith(f"{path}: ") and "\n" not in str(raised.value)
    assert names(tmp_path) == ["RS_2019-08.zst"]


def test_what_was_there_stays_when_the_dump_cant_be_read(dump: Dump) -> None:
    path = dump(line())
    parquet = import_dump(path).path
    before = parquet.read_bytes(), parquet.with_name("RS_2019-08.parquet.meta.json").read_bytes()
    path.write_bytes(WHOLE[:-1])
    with pytest.raises(InputError, match=CUT):
        import_dump(path)
    assert (parquet.read_bytes(), parquet.with_name("RS_2019-08.parquet.meta.json").read_bytes()) == before


def test_a_dump_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"RS_2019-08\.zst: No such file"):
        import_dump(tmp_path / "RS_2019-08.zst")
    (tmp_path / "RS_2019-08.zst").mkdir()
    with pytest.raises(InputError, match=r"RS_2019-08\.zst: Is a directory"):
        import_dump(tmp_path / "RS_2019-08.zst")


def test_a_cache_that_cant_be_made(dump: Dump) -> None:
    path = dump(line())
    with pytest.raises(InputError, match="can't be written: Not a directory"):
        import_dump(path, path / "cache")
    assert names(path.parent) == ["RS_2019-08.zst"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cant_be_written_to(dump: Dump) -> None:
    path = dump(line())
    path.parent.chmod(0o555)
    try:
        with pytest.raises(
            InputError, match="dumps: can't be written to; name a folder for imported dumps with --cache"
        ):
            import_dump(path)
    finally:
        path.parent.chmod(0o755)
    assert names(path.parent) == ["RS_2019-08.zst"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc")
def test_a_folder_in_which_no_file_can_be_made(dump: Dump) -> None:
    with pytest.raises(InputError, match=r"^/proc/RS_2019-08.parquet: can't be written: |^/proc: can't be written to"):
        import_dump(dump(line()), Path("/proc"))


def test_less_memory_than_the_window_is_said_before(
    dump: Dump, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "redditgen")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2 * 10**9))
    path = dump(line(), window_log=31)
    import_dump(path)
    assert f"{path}: importing once to {path.with_suffix('.parquet')}; takes up to 2.6 GB of memory" in caplog.messages
    assert f"{path}: only 2.0 GB of memory are free; close other programs if it fails" in caplog.messages
    caplog.clear()
    import_dump(dump(line(), name="small.zst", window_log=20))
    assert not any("are free" in message for message in caplog.messages)


# In a process of its own

IMPORT = """
import logging, resource, sys
from pathlib import Path
from redditgen.errors import RedditgenError
from redditgen.fetch.dumps.import_dump import import_dump
logging.basicConfig(level=logging.INFO, format="%(message)s")
kind, limit, dump, cache = sys.argv[1:]
if kind:
    import duckdb, pyarrow.parquet, zstandard
    resource.setrlimit(getattr(resource, kind), (int(limit), int(limit)))
try:
    import_dump(Path(dump), Path(cache))
except RedditgenError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def importing(dump: Path, cache: Path, limit: Sequence[object] = ("", "")) -> "subprocess.Popen[str]":
    command = [sys.executable, "-W", "error", "-c", IMPORT, *map(str, limit), str(dump), str(cache)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def long_dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose import takes some seconds."""
    path = tmp_path_factory.mktemp("long") / "RS_2019-08.zst"
    lines = b"".join(line(title=f"{number}", selftext="x" * 600) for number in range(10_000))
    path.write_bytes(frame(lines * 50))
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory hold on Linux only")
def test_too_little_memory_for_the_window(dump: Dump, tmp_path: Path) -> None:
    path = dump(line(), window_log=31)
    # No more than the window: that must fail, and all else has as much room as can be.
    with importing(path, tmp_path / "cache", ("RLIMIT_AS", 2**31)) as process:
        _, error = process.communicate(timeout=60)
    assert error.splitlines()[-1] == (
        f"InputError: {path}: not enough memory for its window; close other programs and run the same command"
    )
    assert names(tmp_path / "cache") == []


def test_no_room_on_the_disk(dump: Dump, tmp_path: Path) -> None:
    path = dump(many_lines())
    with importing(path, tmp_path / "cache", ("RLIMIT_FSIZE", 20_000)) as process:
        _, error = process.communicate(timeout=60)
    parquet = tmp_path / "cache" / "RS_2019-08.parquet"
    assert error.splitlines()[-1] == f"InputError: {parquet}: can't be written: File too large"
    assert names(tmp_path / "cache") == []


def wait_until_halfway(process: "subprocess.Popen[str]", cache: Path) -> None:
    while process.poll() is None and not sum(path.stat().st_size for path in cache.glob(".*.tmp")):
        time.sleep(0.01)
    assert process.poll() is None


@pytest.mark.slow
def test_ctrl_c_leaves_nothing(long_dump: Path, tmp_path: Path) -> None:
    with importing(long_dump, tmp_path) as process:
        wait_until_halfway(process, tmp_path)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert error.splitlines()[-1] == (
        f"Interrupted: {long_dump}: import interrupted, so nothing is kept; the same command starts anew"
    )
    assert names(tmp_path) == []


@pytest.mark.slow
def test_after_a_kill_it_ends_as_without(long_dump: Path, tmp_path: Path) -> None:
    with importing(long_dump, tmp_path / "killed") as process:
        wait_until_halfway(process, tmp_path / "killed")
        process.kill()
    assert [name[-4:] for name in names(tmp_path / "killed")] == [".tmp"]
    killed = import_dump(long_dump, tmp_path / "killed")
    uninterrupted = import_dump(long_dump, tmp_path / "uninterrupted")
    assert killed.counts == uninterrupted.counts == DumpCounts(posts=500_000)
    assert killed.path.read_bytes() == uninterrupted.path.read_bytes()
    assert names(tmp_path / "killed") == names(tmp_path / "uninterrupted")


@pytest.mark.slow
def test_a_second_import_at_the_same_time_waits_for_the_first(long_dump: Path, tmp_path: Path) -> None:
    with importing(long_dump, tmp_path) as first:
        wait_until_halfway(first, tmp_path)
        with importing(long_dump, tmp_path) as second:
            errors = [process.communicate(timeout=120)[1] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0]
    assert errors[0].splitlines()[-1].endswith(f"500000 posts imported to {tmp_path / 'RS_2019-08.parquet'}")
    assert errors[1].splitlines() == [
        f"{tmp_path}: another redditgen (process {first.pid}) is importing to it; waiting until it is done",
        f"{long_dump}: imported before, to {tmp_path / 'RS_2019-08.parquet'}",
    ]


def test_interrupted_while_it_writes(dump: Dump, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    path = dump(line())
    monkeypatch.setattr(pq.ParquetWriter, "write_table", interrupt)
    with pytest.raises(Interrupted, match="the same command starts anew"):
        import_dump(path)
    assert names(path.parent) == ["RS_2019-08.zst"]
