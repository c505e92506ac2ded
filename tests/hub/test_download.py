"""Downloads from a real server on this machine (mirror.py)."""

import base64
import errno
import fcntl
import json
import logging
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from redditgen.errors import InputError, Interrupted, MissingError, OutputExists, RedditgenError, UsageError
from redditgen.gpt2.find import find_model
from redditgen.gpt2.formats import tf_checkpoint
from redditgen.gpt2.hyperparameters import Hyperparameters
from redditgen.gpt2.model_dir import ModelDir
from redditgen.hub.download import MAX_FILE_BYTES, download
from redditgen.runtime import http
from redditgen.settings import DownloadSettings
from tests.support.fixture_types import Redditgen
from tests.support.local_server import serving
from tests.support.model_mirror import Mirror, md5

DATA = "model.ckpt.data-00000-of-00001"
SMALL = [name for name in MAX_FILE_BYTES if name != DATA]
SOME = 20_000  # bytes, less than the data has

Download = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("no_proxy")


@pytest.fixture
def served(tiny: ModelDir) -> dict[str, bytes]:
    files = {
        path.name: path.read_bytes() for path in tiny.path.iterdir() if path.is_file() and path.name in MAX_FILE_BYTES
    }
    return files | {"model.ckpt.meta": b"a graph that nobody reads"}


@pytest.fixture
def mirror(served: dict[str, bytes]) -> Iterator[Mirror]:
    with serving(Mirror(served)) as server:
        yield server


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What would have been waited, in seconds, in this process."""
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    return waited


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def get(mirror: Mirror, models: Path, caplog: pytest.LogCaptureFixture) -> Download:
    """Downloads 124M from the mirror."""
    caplog.set_level(logging.INFO, logger="redditgen")

    def download_it(**changes: Any) -> Path:
        usual: dict[str, Any] = {"model": "124M", "base_url": mirror.url, "model_dir": models}
        return download(DownloadSettings(**(usual | changes)))

    return download_it


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_whole(models: Path, served: dict[str, bytes]) -> None:
    assert [path.name for path in models.iterdir()] == ["124M"]
    assert contents(models / "124M") == served


def assert_nothing_there(models: Path) -> None:
    """No model, and at most the folder of what has come."""
    assert {path.name for path in models.glob("*")} <= {".124M.download"}


# --- What goes well ---


def test_a_model_is_downloaded_whole(
    get: Download, models: Path, served: dict[str, bytes], hyperparameters: Hyperparameters
) -> None:
    assert get() == models / "124M"
    assert_whole(models, served)
    model = find_model("124M", models)
    assert model.hyperparameters() == hyperparameters
    assert set(model.tensors()) == set(hyperparameters.tensor_shapes())


def test_what_comes_from_where_and_how_much_is_said_before_it_comes(
    get: Download, mirror: Mirror, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mirror.first[DATA] = [403]  # HEAD
    with pytest.raises(MissingError):
        get()
    assert caplog.messages == [f"model 124M: asking {mirror.url}/models/124M what there is to download"]
    assert not models.exists()
    mirror.first["checkpoint"] = [0, 403]
    with pytest.raises(MissingError):
        get()
    size = sum(map(len, mirror.files.values())) / 1e6
    said = f"model 124M: 7 files, {size:.1f} MB, from {mirror.url}/models/124M to {models / '124M'}"
    assert caplog.messages[2:] == [said]


def test_a_whole_model_is_left_alone(get: Download, mirror: Mirror, caplog: pytest.LogCaptureFixture) -> None:
    before = get().stat()
    mirror.requests.clear()
    caplog.clear()
    assert get().stat() == before
    assert mirror.requests == []
    assert re.fullmatch(r".*/124M: there already and whole; --overwrite downloads it anew", caplog.messages[-1])


def test_overwrite_replaces_a_model(get: Download, mirror: Mirror, models: Path, served: dict[str, bytes]) -> None:
    old = get()
    (old / "model.ckpt.meta").write_bytes(b"old")
    (old / "ctranslate2-0").mkdir()
    get(overwrite=True)
    assert_whole(models, served)
    assert mirror.sent[DATA] == 2 * len(served[DATA])


def test_overwrite_that_fails_keeps_the_model(get: Download, mirror: Mirror) -> None:
    before = contents(get())
    mirror.headers[DATA] = {"Content-MD5": md5(b"other")}
    with pytest.raises(InputError, match="MD5"):
        get(overwrite=True)
    assert contents(get()) == before


def test_overwrite_deletes_nothing_that_is_not_the_models(get: Download, mirror: Mirror) -> None:
    (get() / "notes.txt").write_text("mine", encoding="utf8")
    mirror.requests.clear()
    with pytest.raises(OutputExists, match=r"/124M: holds notes\.txt, which are no model's; move them away first"):
        get(overwrite=True)
    assert mirror.requests == []


def test_overwrite_of_a_link_leaves_what_it_leads_to(
    get: Download, models: Path, served: dict[str, bytes], tmp_path: Path
) -> None:
    elsewhere = shutil.move(get(), tmp_path / "elsewhere")
    (models / "124M").symlink_to(elsewhere)
    get(overwrite=True)
    assert not (models / "124M").is_symlink()
    assert_whole(models, served)
    assert contents(Path(elsewhere)) == served


def test_overwrite_that_can_put_nothing_there_keeps_the_model(
    get: Download, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rename = contents(get()), Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name == ".124M.download":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(InputError, match=r"\.124M\.download: Input/output error; no model can be put there"):
        get(overwrite=True)
    assert contents(models / "124M") == before


def test_overwrite_clears_away_what_an_ended_one_left(get: Download, models: Path) -> None:
    shutil.copytree(get(), models / ".124M.replaced")
    get(overwrite=True)
    assert [path.name for path in models.iterdir()] == ["124M"]


# --- What is there already and is no whole model ---


def test_a_partial_model_is_refused_with_what_it_lacks(
    get: Download, mirror: Mirror, models: Path, served: dict[str, bytes]
) -> None:
    (models / "124M").mkdir(parents=True)
    (models / "124M/hparams.json").write_bytes(served["hparams.json"])
    with pytest.raises(OutputExists, match=r"/124M: is there but lacks checkpoint, encoder\.json, .*--overwrite"):
        get()
    assert mirror.requests == []
    get(overwrite=True)
    assert_whole(models, served)


def test_a_damaged_model_is_refused_with_the_tensors_name(get: Download, mirror: Mirror) -> None:
    flip(get() / DATA, 4)
    mirror.requests.clear()
    with pytest.raises(InputError, match=r"124M: is there but not whole: .*model/h0/attn/c_attn/b fails .*--overwrite"):
        get()
    assert mirror.requests == []


def test_a_file_in_the_models_place_is_refused(get: Download, mirror: Mirror, models: Path) -> None:
    models.mkdir()
    (models / "124M").write_text("mine", encoding="utf8")
    for overwrite in (False, True):
        with pytest.raises(OutputExists, match=r"/124M: is no folder; .*--model-dir"):
            get(overwrite=overwrite)
    assert (mirror.requests, (models / "124M").read_text(encoding="utf8")) == ([], "mine")


def test_a_link_that_leads_nowhere_is_refused(get: Download, mirror: Mirror, models: Path) -> None:
    models.mkdir()
    (models / "124M").symlink_to("gone")
    with pytest.raises(OutputExists, match=r"/124M: is no folder; .*--model-dir"):
        get()
    assert mirror.requests == []


def test_a_file_in_the_model_folders_place_is_refused(get: Download, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf8")
    with pytest.raises(InputError, match=r"file.*: can't be written"):
        get(model_dir=tmp_path / "file")


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


# --- Broken connections ---


def test_a_connection_that_breaks_is_resumed(
    get: Download, mirror: Mirror, models: Path, served: dict[str, bytes], waits: list[float]
) -> None:
    mirror.cuts[DATA] = [SOME, 1, 0]
    get()
    assert_whole(models, served)
    last = len(served[DATA]) - 1
    assert mirror.asked("GET", DATA) == ["", *(f"bytes={n}-{last}" for n in (SOME, SOME + 1, SOME + 1))]
    assert mirror.sent[DATA] == len(served[DATA])
    assert waits == [1, 2, 4]


def test_a_connection_that_breaks_forever_is_an_error_and_the_same_command_goes_on(
    get: Download, mirror: Mirror, models: Path, served: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    mirror.cuts[DATA] = [SOME, 0, 0, 0]
    size = len(served[DATA]) / 1e6
    far = rf"{DATA}: 0\.0 of {size:.1f} MB are there; the same command goes on from here"
    with pytest.raises(MissingError, match=rf"{mirror.url}/models/124M/{DATA}: peer closed .*; {far}"):
        get()
    assert_nothing_there(models)
    assert (models / ".124M.download" / DATA).read_bytes() == served[DATA][:SOME]
    mirror.requests.clear()
    get()
    assert_whole(models, served)
    assert mirror.asked("GET", DATA) == [f"bytes={SOME}-{len(served[DATA]) - 1}"]
    assert [mirror.asked("GET", name) for name in SMALL] == [[]] * 6
    assert mirror.sent == {name: len(content) for name, content in served.items()}
    assert re.search(r"7 files, .* MB \(0\.\d MB are here from an earlier try\), from", caplog.text)


def test_tries_that_bring_much_are_not_counted(
    get: Download, mirror: Mirror, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redditgen.runtime.resumable_download._ENOUGH", 1000)
    mirror.cuts[DATA] = [1000] * 12
    get()
    assert_whole(models, mirror.files)


@pytest.mark.parametrize(
    ("behaviour", "is_resumed"),
    [
        ({"knows_if_range": False, "usual_headers": {"ETag": "0x8D77F60A95D3D1C"}}, True),  # Azure
        ({"usual_headers": {"Content-MD5": ""}}, True),  # nginx
        ({"usual_headers": {"ETag": 'W/"weak"', "Content-MD5": ""}}, True),
        ({"knows_ranges": False}, False),
        (
            {"knows_ranges": False, "usual_headers": {"ETag": "", "Last-Modified": "Mon, 01 Jan 2024 10:00:00 GMT"}},
            False,
        ),
        ({"usual_headers": {"ETag": '"\xe9"'}}, False),  # can't be sent back
        ({"knows_head": False}, True),
    ],
)
def test_a_download_goes_on_with_servers_of_any_kind(
    get: Download, mirror: Mirror, models: Path, behaviour: dict[str, Any], is_resumed: bool
) -> None:
    for name, value in behaviour.items():
        setattr(mirror, name, value)
    mirror.cuts[DATA] = [*[0] * (not mirror.knows_head), SOME, 0, 0, 0]
    with pytest.raises(MissingError, match="the same command goes on"):
        get()
    assert_nothing_there(models)
    mirror.sent.clear()
    get()
    assert_whole(models, mirror.files)
    probes = 0 if mirror.knows_head else len(mirror.files[DATA])  # asks with a GET, which it leaves
    assert mirror.sent[DATA] - probes == len(mirror.files[DATA]) - is_resumed * SOME


def test_a_part_of_an_unknown_version_is_not_gone_on_with(get: Download, mirror: Mirror, models: Path) -> None:
    mirror.usual_headers = {"ETag": "", "Content-MD5": ""}
    mirror.cuts[DATA] = [SOME]
    get()
    assert_whole(models, mirror.files)
    assert mirror.asked("GET", DATA) == ["", ""]


def test_a_part_of_another_version_is_not_gone_on_with(get: Download, mirror: Mirror, models: Path) -> None:
    mirror.cuts[DATA] = [SOME, 0, 0, 0]
    mirror.headers[DATA] = {"ETag": '"other"'}
    with pytest.raises(MissingError):
        get()
    assert (models / ".124M.download" / DATA).stat().st_size == SOME
    mirror.headers.clear()
    mirror.requests.clear()
    get()
    assert mirror.asked("GET", DATA) == [""]
    assert_whole(models, mirror.files)


@pytest.mark.parametrize("knows_if_range", [True, False])
def test_a_file_that_changes_between_two_tries_is_begun_anew(
    get: Download, mirror: Mirror, models: Path, monkeypatch: pytest.MonkeyPatch, knows_if_range: bool
) -> None:
    good, mirror.files[DATA] = mirror.files[DATA], bytes(len(mirror.files[DATA]))
    mirror.knows_if_range = knows_if_range
    mirror.cuts[DATA] = [SOME]
    monkeypatch.setattr("time.sleep", lambda seconds: mirror.files.update({DATA: good}))
    get()
    assert_whole(models, mirror.files)
    assert mirror.asked("GET", DATA) == ["", f"bytes={SOME}-{len(good) - 1}", *[""] * (not knows_if_range)]


@pytest.mark.parametrize("knows_if_range", [True, False])
def test_a_file_that_changes_its_size_is_an_error(
    get: Download, mirror: Mirror, models: Path, monkeypatch: pytest.MonkeyPatch, knows_if_range: bool
) -> None:
    good = mirror.files[DATA]
    mirror.knows_if_range = knows_if_range
    mirror.cuts[DATA] = [SOME]
    monkeypatch.setattr("time.sleep", lambda seconds: mirror.files.update({DATA: good + b"x"}))
    with pytest.raises(InputError, match=rf"{DATA}: had {len(good)} bytes when asked and has {len(good) + 1} now; run"):
        get()
    assert_nothing_there(models)
    mirror.files[DATA] = good
    get()
    assert_whole(models, mirror.files)


@pytest.mark.parametrize(
    "lies",
    [{"Content-Range": "bytes 0-9/10"}, {"Content-Range": ""}, {"ETag": '"other"'}],
)
def test_a_part_that_is_not_the_rest_is_not_taken(
    get: Download, mirror: Mirror, models: Path, lies: dict[str, str]
) -> None:
    mirror.cuts[DATA] = [SOME]
    mirror.headers["206"] = lies
    get()
    assert_whole(models, mirror.files)
    assert [span[:6] for span in mirror.asked("GET", DATA)] == ["", "bytes=", ""]


def test_more_than_the_rest_is_not_taken(get: Download, mirror: Mirror, models: Path) -> None:
    mirror.cuts[DATA] = [SOME]
    mirror.behind = b"more"
    with pytest.raises(
        MissingError, match=rf"{DATA}: the server sends more than it said; .*; the same command goes on"
    ):
        get()
    assert_nothing_there(models)
    assert (models / ".124M.download" / DATA).stat().st_size <= len(mirror.files[DATA])
    mirror.behind = b""
    get()
    assert_whole(models, mirror.files)


def test_less_than_the_rest_is_asked_for_on(get: Download, mirror: Mirror, models: Path) -> None:
    mirror.cuts[DATA] = [len(mirror.files[DATA]) - SOME]
    mirror.most = SOME // 3
    with pytest.raises(MissingError, match=rf"{DATA}: the server sent less than it said; .*; the same command goes on"):
        get()
    get()
    assert_whole(models, mirror.files)
    assert mirror.sent[DATA] == len(mirror.files[DATA])


def test_nothing_at_all_of_the_rest_ends_the_tries(get: Download, mirror: Mirror, models: Path) -> None:
    mirror.cuts[DATA] = [SOME]
    mirror.most = 0
    with pytest.raises(MissingError, match=r"the server sent less than it said"):
        get()
    assert_nothing_there(models)


def test_a_server_that_finds_the_range_wrong_is_asked_for_the_whole(
    get: Download, mirror: Mirror, models: Path
) -> None:
    mirror.cuts[DATA] = [SOME]
    mirror.first[DATA] = [0, 0, 416]
    get()
    assert_whole(models, mirror.files)
    assert [span[:6] for span in mirror.asked("GET", DATA)] == ["", "bytes=", ""]


def test_a_server_that_stalls_is_given_up(
    get: Download, mirror: Mirror, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_READ", 0.2)
    mirror.halt_at = (DATA, SOME)
    with pytest.raises(MissingError, match=rf"{DATA}: .*timed out; {DATA}: .* MB are there; the same command goes on"):
        get()
    mirror.halt_at = ("", 0)
    mirror.go_on()
    monkeypatch.undo()
    monkeypatch.setenv("NO_PROXY", "*")
    get()
    assert_whole(models, mirror.files)


# --- Wrong files ---


@pytest.mark.parametrize("name", ["encoder.json", DATA])
def test_a_wrong_md5_deletes_the_file_and_the_next_try_gets_it_anew(
    get: Download, mirror: Mirror, models: Path, name: str
) -> None:
    mirror.headers[name] = {"Content-MD5": md5(b"other")}
    with pytest.raises(InputError, match=rf"/124M/{name}: what came fails the check against the server's MD5 and was"):
        get()
    assert_nothing_there(models)
    assert not (models / ".124M.download" / name).exists()
    mirror.headers.clear()
    get()
    assert_whole(models, mirror.files)
    assert mirror.sent == {key: len(value) * (1 + (key == name)) for key, value in mirror.files.items()}


def test_the_md5_of_a_resumed_file_is_that_of_the_whole(get: Download, mirror: Mirror, models: Path) -> None:
    mirror.cuts[DATA] = [SOME]
    good = mirror.files[DATA]
    mirror.headers[DATA] = {"ETag": '"same"', "Content-MD5": md5(good)}
    mirror.files[DATA] = bytes([good[0] ^ 1]) + good[1:]
    with pytest.raises(InputError, match="MD5"):
        get()
    mirror.files[DATA] = good
    get()
    assert_whole(models, mirror.files)


@pytest.mark.parametrize("tensor", ["model/h0/attn/c_attn/b", "model/wte"])
def test_damaged_data_is_named_with_its_tensor_and_deleted(
    get: Download, mirror: Mirror, models: Path, tensor: str, tiny: ModelDir
) -> None:
    good = mirror.files[DATA]
    at = tf_checkpoint.read_index(tiny.checkpoint_prefix())[0][tensor].offset
    mirror.files[DATA] = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
    said = rf"{DATA}: {tensor} fails its crc32c check.* \(it was deleted; the same command downloads it anew\)"
    with pytest.raises(InputError, match=said):
        get()
    assert_nothing_there(models)
    assert not (models / ".124M.download" / DATA).exists()
    mirror.files[DATA] = good
    mirror.requests.clear()
    get()
    assert_whole(models, mirror.files)
    assert {name for method, name, _ in mirror.requests if method == "GET"} == {DATA}


def test_data_that_is_too_short_on_the_server_is_named_with_the_tensor(
    get: Download, mirror: Mirror, models: Path
) -> None:
    mirror.files[DATA] = mirror.files[DATA][:-1]
    with pytest.raises(InputError, match=rf"{DATA}: ends before model/wte does .*\(it was deleted"):
        get()
    assert_nothing_there(models)


def _changed(served: dict[str, bytes], **sizes: Any) -> bytes:
    return json.dumps(json.loads(served["hparams.json"]) | sizes).encode()


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("hparams.json", lambda s: _changed(s, n_ctx=32), r"index: model/wpe is \[64, 32\] but hparams\.json asks for"),
        ("hparams.json", lambda s: _changed(s, n_layer=3), r"index: holds no tensor model/h2/ln_1/g"),
        ("hparams.json", lambda s: _changed(s, n_layer=10**12), r"hparams\.json: sizes must be positive, at most"),
        ("hparams.json", lambda s: _changed(s, n_vocab=7), r"encoder\.json: holds 340 tokens but hparams\.json says 7"),
        ("hparams.json", lambda s: b"[" * 60_000, r"hparams\.json: must be JSON with whole numbers"),
        ("encoder.json", lambda s: b"[" * 60_000, r"encoder\.json: is no JSON \(has too many brackets"),
        ("encoder.json", lambda s: b"<html>", r"encoder\.json: is no JSON"),
        ("vocab.bpe", lambda s: b"#version\na b c\n", r"vocab\.bpe, line 2: a merge is two tokens"),
        ("model.ckpt.index", lambda s: b"x" + s["model.ckpt.index"][1:], r"is no whole TensorFlow checkpoint index"),
        ("checkpoint", lambda s: b'model_checkpoint_path: "model-7"', r"names model-7 and not model\.ckpt"),
        ("checkpoint", lambda s: b'model_checkpoint_path: "../.."', r"checkpoint: names no checkpoint"),
    ],
)
def test_files_that_disagree_are_found_before_the_data_comes(
    get: Download, mirror: Mirror, models: Path, name: str, make: Callable[[dict[str, bytes]], bytes], said: str
) -> None:
    good, mirror.files[name] = mirror.files[name], make(mirror.files)
    mirror.usual_headers = {"ETag": '"always the same"', "Content-MD5": ""}
    with pytest.raises(InputError, match=rf"{said}.*\(all but the data was deleted; the same command downloads it"):
        get()
    assert_nothing_there(models)
    assert mirror.asked("GET", DATA) == []
    mirror.files[name] = good
    get()
    assert_whole(models, mirror.files)


@pytest.mark.parametrize("size", ["", "0", "65537", "99999999999999999999"])
def test_a_file_of_a_senseless_size_is_not_downloaded(get: Download, mirror: Mirror, models: Path, size: str) -> None:
    mirror.headers["hparams.json"] = {"Content-Length": size}
    said = r"has \d+ bytes and should have from 1 to 65536" if size else "the server does not say how long it is"
    with pytest.raises(InputError, match=rf"/hparams\.json: {said}"):
        get()
    assert mirror.sent["encoder.json"] == 0
    assert not models.exists()


def test_a_compressed_file_is_not_taken(get: Download, mirror: Mirror, models: Path) -> None:
    mirror.usual_headers = {"Content-Encoding": "gzip"}
    with pytest.raises(InputError, match="/checkpoint: comes compressed"):
        get()
    assert not models.exists()


# --- Servers that answer otherwise, or not at all ---


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (404, r"not there \(404\); check --base-url, below which models/NAME/ must lie"),
        (403, r"not allowed \(403\); check --base-url"),
        (400, r"an unexpected answer \(400\); check --base-url"),
    ],
)
def test_a_refusal_is_said_at_once(
    get: Download, mirror: Mirror, models: Path, status: int, said: str, waits: list[float]
) -> None:
    mirror.first["vocab.bpe"] = [status]
    with pytest.raises(MissingError, match=rf"{mirror.url}/models/124M/vocab\.bpe: {said}"):
        get()
    assert (waits, mirror.got_nothing, models.exists()) == ([], True, False)
    get()
    assert_whole(models, mirror.files)


def test_a_busy_server_is_asked_again(get: Download, mirror: Mirror, models: Path, waits: list[float]) -> None:
    mirror.first = {"checkpoint": [503, 500], DATA: [0, 429, -1]}
    mirror.retry_after = "3"
    get()
    assert_whole(models, mirror.files)
    assert waits == [3, 3, 3, 2]


def test_a_server_that_stays_busy_is_given_up(get: Download, mirror: Mirror, models: Path, waits: list[float]) -> None:
    mirror.first["checkpoint"] = [503] * 4
    said = r"/checkpoint: the server is busy or out of order \(503\); check .*, then run the same command again"
    with pytest.raises(MissingError, match=said):
        get()
    assert (waits, mirror.got_nothing, models.exists()) == ([1, 2, 4], True, False)
    get()
    assert_whole(models, mirror.files)


def test_nobody_waits_for_minutes(get: Download, mirror: Mirror, waits: list[float]) -> None:
    mirror.first[DATA] = [0, 503]
    mirror.retry_after = "600"
    with pytest.raises(MissingError, match=rf"asks to wait 600 s; {DATA}: .*; the same command goes on from here"):
        get()
    assert waits == []


def test_redirects_are_followed(get: Download, mirror: Mirror, models: Path) -> None:
    mirror.redirects = {f"/old/models/124M/{name}": f"/gpt-2/models/124M/{name}" for name in MAX_FILE_BYTES}
    mirror.cuts[DATA] = [SOME]
    get(base_url=mirror.url.replace("gpt-2", "old/"))
    assert_whole(models, mirror.files)


@pytest.mark.parametrize("where", ["/old/models/124M/checkpoint", "ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_redirects_that_lead_nowhere_are_an_error(get: Download, mirror: Mirror, models: Path, where: str) -> None:
    mirror.redirects["/old/models/124M/checkpoint"] = where
    with pytest.raises(MissingError, match=r"/old/models/124M/checkpoint: .*; check the connection, the proxy and"):
        get(base_url=mirror.url.replace("gpt-2", "old"))
    assert not models.exists()


def _unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:{unused}", r"\[Errno 111\] Connection refused"),
        ("http://no-such-host.invalid", r"\[Errno -\d+\] .*"),
        ("https://127.0.0.1:{port}", r"\[SSL.*\] .*"),
    ],
)
def test_no_connection_is_one_line_with_the_address(
    get: Download, mirror: Mirror, models: Path, waits: list[float], url: str, said: str
) -> None:
    url = url.format(unused=_unused_port(), port=mirror.server_address[1])
    remedy = "check the connection and --base-url, then run the same command again"
    with pytest.raises(MissingError, match=rf"^{url}/models/124M/checkpoint: {said}; {remedy}$"):
        get(base_url=url)
    assert (waits, models.exists()) == ([], False)


@pytest.mark.parametrize("url", ["ftp://mirror.example.org", "/srv/mirror", "https://", "http:///x", ""])
def test_other_addresses_are_wrong_usage(url: str) -> None:
    with pytest.raises(UsageError, match="--base-url must begin with https:// or http:// and name a server"):
        DownloadSettings(model="124M", base_url=url)


@pytest.mark.parametrize("url", ["http://user:secret@[::1", "http://user:secret@host:port", "http://a\nsecret"])
def test_an_address_that_is_none_is_wrong_usage_and_not_shown(get: Download, models: Path, url: str) -> None:
    with pytest.raises(UsageError, match="--base-url is no address; it must be like https://") as caught:
        get(base_url=url)
    assert "secret" not in str(caught.value)
    assert not models.exists()


@pytest.mark.parametrize("model", ["117M", "124m", "", "../124M"])
def test_other_models_are_wrong_usage(model: str) -> None:
    with pytest.raises(UsageError, match="MODEL must be 124M or 355M or 774M or 1558M, not"):
        DownloadSettings(model=model)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "SSL_CERT_FILE"])
def test_a_wrong_environment_is_said(get: Download, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv(name, "gopher://user:secret@nowhere")
    with pytest.raises(UsageError, match=rf"names a proxy .*{name}.*correct or unset it") as caught:
        get()
    assert "secret" not in str(caught.value)


def test_credentials_are_sent_and_never_shown(
    get: Download, mirror: Mirror, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = mirror.url.replace("http://", "http://user:secret@") + "?sig=secret"
    mirror.first = {"checkpoint": [503], "vocab.bpe": [403], DATA: [0]}
    with pytest.raises(MissingError) as caught:
        get(base_url=url)
    mirror.cuts[DATA] = [SOME, 0, 0, 0]
    with pytest.raises(MissingError) as again:
        get(base_url=url)
    mirror.headers[DATA] = {"Content-MD5": md5(b"other")}
    with pytest.raises(InputError) as wrong:
        get(base_url=url)
    logged = [record.getMessage() for record in caplog.records]
    said = "\n".join([*logged, *(str(info.value) for info in (caught, again, wrong))])
    assert "secret" not in said
    assert said.count(f"{mirror.url}/models/124M") >= 5
    assert mirror.credentials == {"Basic " + base64.b64encode(b"user:secret").decode(), "sig=secret"}


# --- The disk, and other processes ---


def test_a_full_disk_is_seen_before_anything_is_written(
    get: Download, mirror: Mirror, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(models.parent)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=7_000_000))
        with pytest.raises(InputError, match=r"/124M: 50 MB of disk are needed and 7 MB are free; .*--model-dir"):
            get()
    assert (mirror.got_nothing, models.exists()) == (True, False)
    get()
    assert_whole(models, mirror.files)


def test_a_second_download_at_the_same_time_is_refused(get: Download, mirror: Mirror, models: Path) -> None:
    folder = models / ".124M.download"
    folder.mkdir(parents=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(RedditgenError, match=r"\.124M\.download: another redditgen .*is downloading to it; wait"):
            get()
    finally:
        os.close(handle)
    assert mirror.got_nothing
    get()
    assert_whole(models, mirror.files)


def command(mirror: Mirror) -> list[str]:
    return [sys.executable, "-m", "redditgen", "download", "124M", "--base-url", mirror.url]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_ended_process_leaves_what_came_and_the_same_command_goes_on(
    get: Download, mirror: Mirror, models: Path, tmp_path: Path, number: signal.Signals
) -> None:
    mirror.halt_at = (DATA, SOME)
    with subprocess.Popen(command(mirror), cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert mirror.halted.wait(60)
        part = models / ".124M.download" / DATA
        while not part.exists() or part.stat().st_size < SOME // 2:
            assert process.poll() is None
            threading.Event().wait(0.01)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    if number == signal.SIGINT:
        assert said.splitlines()[-1] == ("redditgen: download of 124M interrupted; the same command goes on from here")
        assert "Traceback" not in said
    assert_nothing_there(models)
    came = part.stat().st_size
    mirror.halt_at = ("", 0)
    mirror.go_on()
    mirror.requests.clear()
    mirror.sent.clear()
    get()
    assert_whole(models, mirror.files)
    assert mirror.sent == {DATA: len(mirror.files[DATA]) - came}


def test_ctrl_c_in_this_process_is_ours(get: Download, monkeypatch: pytest.MonkeyPatch, mirror: Mirror) -> None:
    mirror.first["checkpoint"] = [503]

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    with pytest.raises(Interrupted, match="download of 124M interrupted; the same command goes on from here"):
        get()


def test_a_disk_that_takes_no_more_is_an_error_and_the_same_command_goes_on(
    get: Download, mirror: Mirror, models: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        command(mirror),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (SOME, SOME)),
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"redditgen: models/.124M.download/{DATA}: can't be written: File too large; "
        "once that is mended the same command goes on"
    )
    assert_nothing_there(models)
    mirror.sent.clear()
    get()
    assert_whole(models, mirror.files)
    assert mirror.sent == {DATA: len(mirror.files[DATA]) - SOME}


def test_the_command_says_what_it_does_and_exits_0(
    redditgen: Redditgen, mirror: Mirror, models: Path, served: dict[str, bytes]
) -> None:
    done = redditgen("download", "124M", "--base-url", mirror.url)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines() == [
        f"model 124M: asking {mirror.url}/models/124M what there is to download",
        f"model 124M: 7 files, 0.2 MB, from {mirror.url}/models/124M to models/124M",
        "checking every tensor",
        "models/124M: whole; use it with: redditgen finetune DATASET --model 124M",
    ]
    assert_whole(models, served)
    again = redditgen("download", "124M", "--base-url", mirror.url)
    said = "models/124M: there already and whole; --overwrite downloads it anew\n"
    assert (again.returncode, again.stdout, again.stderr) == (0, "", said)


def test_an_error_is_one_line_and_its_exit_code(redditgen: Redditgen, mirror: Mirror) -> None:
    missing = redditgen("download", "355M", "--base-url", mirror.url)
    assert (missing.returncode, missing.stdout) == (1, "")
    assert re.fullmatch(
        r"model 355M: asking .*\nredditgen: .*/models/355M/checkpoint: not there \(404\); .*\n", missing.stderr
    )
    wrong = redditgen("download", "1.5B")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "redditgen: MODEL must be 124M or 355M or 774M or 1558M, not '1.5B'\n"


def test_what_has_come_of_a_download_is_no_model(get: Download, mirror: Mirror, models: Path) -> None:
    mirror.cuts[DATA] = [SOME, 0, 0, 0]
    with pytest.raises(MissingError):
        get()
    with pytest.raises(RedditgenError, match=r"the models there are: mini$"):
        find_model("tiny", models)


@pytest.mark.parametrize(
    ("name", "folder", "said"),
    [
        ("124M", "models", "; get it with: redditgen download 124M"),
        ("1558M", "my models", "; get it with: redditgen download 1558M --model-dir 'my models'"),
        ("117M", "models", "; it is called 124M now; get it with: redditgen download 124M"),
        ("other", "models", ""),
    ],
)
def test_a_model_that_is_not_there_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, folder: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    message = re.escape(f"model {name}: no {folder}/{name}/hparams.json; the models there are: mini{said}")
    with pytest.raises(MissingError, match=f"^{message}$"):
        find_model(name, Path(folder))
