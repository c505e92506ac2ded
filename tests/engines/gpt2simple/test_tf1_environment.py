import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from redditgen.engines.gpt2simple import interpreters, tf1_environment
from redditgen.errors import InputError, MissingError, RedditgenError
from tests.support.fixture_types import Redditgen

# A stand-in for an interpreter: makes an environment of itself, and writes down how its pip is called, and with what.
FAKE = """#!/bin/sh
case "$2 $3" in
  "-m venv") mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
  "-m pip") echo "$@" >> "{folder}/calls"; env > "{folder}/env"; {pip} ;;
  *tensorflow*) {versions} ;;
  *) echo '["{version}", "{machine}", {ensurepip}]' ;;
esac
"""
VERSIONS = {
    "tensorflow": "1.15.5",
    "gpt-2-simple": "0.7.2",
    "numpy": "1.18.5",
    "protobuf": "3.20.3",
    "python": "3.7.16",
}
HAS = "TensorFlow 1.15.5, gpt-2-simple 0.7.2, Python 3.7.16"

Fake = Callable[..., Path]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the environment is made: below a cache folder that is the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(tf1_environment.PYTHON_VARIABLE, raising=False)
    assert tf1_environment.environment_folder() == tmp_path / "cache/redditgen/tf1"
    return tf1_environment.environment_folder()


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """Writes a fake interpreter, by default one that everything goes well with."""

    def make(path: str = "fake/python3.7", **changes: str) -> Path:
        fitting = {"version": "3.7.16", "machine": "x86_64", "ensurepip": "true", "pip": "true"}
        versions = {"versions": f"echo '{json.dumps(VERSIONS)}'"}
        return script(tmp_path / path, FAKE.format(**fitting | versions | changes, folder=tmp_path))

    return make


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf8")
    path.chmod(0o755)
    return path


@pytest.fixture
def nothing_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No Python 3.7 and no uv to be found; gives the folder that PATH names first."""
    folder = tmp_path / "path"
    folder.mkdir()
    for tool in ("sh", "mkdir", "cp", "env"):
        (folder / tool).symlink_to(shutil.which(tool) or "")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    return folder


# find


def test_the_named_interpreter_is_found_the_option_before_the_variable(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_option, by_variable = fake("a/python"), fake("b/python")
    monkeypatch.setenv(tf1_environment.PYTHON_VARIABLE, str(by_variable))
    assert tf1_environment.find_python(by_option) == by_option
    assert tf1_environment.find_python() == by_variable


def test_an_interpreter_that_is_a_link_is_not_followed(fake: Fake, tmp_path: Path) -> None:
    link = tmp_path / "venv-python"
    link.symlink_to(fake())
    assert tf1_environment.find_python(link) == link


def test_a_plain_name_is_looked_for_on_path(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    python = fake("a/python3.7")
    monkeypatch.setenv("PATH", str(python.parent), prepend=os.pathsep)
    assert tf1_environment.find_python(Path("python3.7")) == python


@pytest.mark.parametrize("by", ["--tf1-python", tf1_environment.PYTHON_VARIABLE])
@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "no such file"),
        (
            "#!/bin/sh\necho 'pyenv: python3.7: command not found' >&2; echo '3.7.16' >&2; exit 127",
            "can't be run: pyenv",
        ),
        ("#!/bin/sh\nprintf 'Traceback:\\n  line\\nImportError: no json\\n\\n' >&2; exit 1", "ImportError: no json"),
        ("#!/bin/sh\nexit 3", "can't be run: it ended with 3"),
        ("#!/bin/sh\nkill -ILL $$", "TensorFlow 1.15 needs one with AVX"),
        ("#!/bin/sh\necho hello", "is no Python"),
        ("#!/no/such/shell\n", "can't be run: No such file"),
        (FAKE.replace("{version}", "3.11.7"), r"is Python 3\.11\.7, but TensorFlow 1\.15 needs 3\.7"),
        (FAKE.replace("{version}", "3.7.9").replace("{machine}", "arm64"), "is built for arm64, .* x86_64 only"),
    ],
)
def test_a_named_interpreter_that_does_not_do_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str, text: str | None, why: str
) -> None:
    path = tmp_path / "python"
    if text:
        script(path, text.replace("{machine}", "x86_64").replace("{ensurepip}", "true"))
    if by == tf1_environment.PYTHON_VARIABLE:
        monkeypatch.setenv(by, str(path))
    with pytest.raises(InputError, match=rf"^{by}: {path}: .*{why}.*redditgen doctor --install tf1$"):
        tf1_environment.find_python(path if by == "--tf1-python" else None)


def test_where_nothing_is_installed_the_message_names_the_command(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(tf1_environment.PYTHON_VARIABLE, "")
    with pytest.raises(MissingError, match=rf"{place} is not there; make it with: redditgen doctor --install tf1"):
        tf1_environment.find_python()


def test_only_a_whole_environment_is_found(fake: Fake, place: Path) -> None:
    tf1_environment.install_environment(fake())
    python, marker = place / "bin/python", place / "redditgen-whole"
    assert tf1_environment.find_python() == python
    python.unlink()
    with pytest.raises(MissingError, match=r"has lost the Python 3\.7"):
        tf1_environment.find_python()
    marker.write_text(marker.read_text(encoding="utf8")[:-1], encoding="utf8")
    with pytest.raises(MissingError, match="was made by another version of redditgen"):
        tf1_environment.find_python()
    marker.unlink()
    with pytest.raises(MissingError, match="is unfinished"):
        tf1_environment.find_python()


# check


def test_check_gives_the_versions_or_why_it_cannot_run(fake: Fake, tmp_path: Path) -> None:
    whole = tf1_environment.check_python(fake())
    assert (whole.versions, whole.reason, str(whole)) == (VERSIONS, "", HAS)
    without = tf1_environment.check_python(
        fake(versions="echo \"ModuleNotFoundError: No module named 'tensorflow'\" >&2; exit 1")
    )
    assert without.reason == "can't be run: ModuleNotFoundError: No module named 'tensorflow'"
    for name, version, why in [("tensorflow", "2.11.0", "1.15.x"), ("gpt-2-simple", "0.8.1", "0.7.x")]:
        other = tf1_environment.check_python(fake(versions=f"echo '{json.dumps({**VERSIONS, name: version})}'"))
        assert str(other) == f"has {name} {version}, not {why}"
    assert tf1_environment.check_python(tmp_path / "gone").reason == "no such file"


def test_an_interpreter_without_tensorflow_says_so() -> None:
    reason = tf1_environment.check_python(Path(sys.executable)).reason
    assert reason == "can't be run: ModuleNotFoundError: No module named 'tensorflow'"


# install


def test_install_makes_a_whole_environment_once(
    fake: Fake, place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    installed = tf1_environment.install_environment(fake(pip="echo 'Collecting six==1.17.0'"))
    assert installed.path == place / "bin/python" == tf1_environment.find_python()
    assert installed.megabytes > 0
    tools, packages = (tmp_path / "calls").read_text(encoding="utf8").splitlines()
    for call, name in [(tools, "requirements-build.txt"), (packages, "requirements.txt")]:
        assert call.startswith("-I -m pip install --require-hashes --no-deps ")
        assert call.endswith(f"gpt2simple/worker/{name}")
    announced, done = caplog.messages
    assert re.fullmatch(rf"{place}: installing with .*/python3.7; downloads 150 MB .* takes 600 MB", announced)
    assert re.fullmatch(rf"{place}: {HAS}; \d+ MB, \d+ s", done)
    assert "Collecting six" in place.with_name("tf1-install.log").read_text(encoding="utf8")

    assert tf1_environment.install_environment(fake("other", version="2.7.18")).path == installed.path
    assert "is there already" in caplog.messages[-1]
    assert len((tmp_path / "calls").read_text(encoding="utf8").splitlines()) == 2


def test_the_callers_settings_of_python_and_pip_do_not_leak_in(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaks = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_CONSTRAINT")
    kept = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT", "PIP_PROXY", "PIP_CACHE_DIR", "HTTPS_PROXY")
    for name in leaks + kept:
        monkeypatch.setenv(name, str(tmp_path))
    tf1_environment.install_environment(fake())
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text(encoding="utf8").splitlines()}
    assert names & set(leaks + kept) == set(kept)


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ({"pip": "echo 'ERROR: No matching distribution found for tensorflow'; echo; exit 1"}, "ERROR: No matching .*"),
        ({"pip": "echo 'ERROR: THESE PACKAGES DO NOT MATCH'; echo ' Expected'; exit 1"}, "ERROR: THESE PACKAGES .*"),
        (
            {"versions": "echo 'ImportError: libz.so' >&2; exit 1"},
            "was installed, but .* can't be run: ImportError: .*",
        ),
    ],
)
def test_an_installation_that_fails_leaves_nothing_that_is_found(
    fake: Fake, place: Path, broken: dict[str, str], why: str
) -> None:
    log = place.with_name("tf1-install.log")
    with pytest.raises(RedditgenError, match=rf"{why}; the whole log is {log}$"):
        tf1_environment.install_environment(fake(**broken))
    assert log.exists()
    assert not place.exists()
    with pytest.raises(MissingError):
        tf1_environment.find_python()


def test_a_half_made_environment_is_made_anew(fake: Fake, place: Path) -> None:
    left = place / "lib/half"
    left.parent.mkdir(parents=True)
    left.touch()
    tf1_environment.install_environment(fake())
    assert not left.exists()


def test_too_little_disk_is_said_before_anything_is_made(
    fake: Fake, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=400_000_000))
    with pytest.raises(RedditgenError, match=r"400 MB of disk are free and 1000 are needed"):
        tf1_environment.install_environment(fake())
    assert not place.exists()


def test_a_cache_folder_that_cannot_be_made_is_one_line(fake: Fake, tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(InputError, match=r"cache/redditgen: can't be written: "):
        tf1_environment.install_environment(fake())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_installation_ends_its_pip_and_keeps_others_out_until_then(
    fake: Fake, place: Path, tmp_path: Path, number: int, redditgen: Redditgen
) -> None:
    python = fake(pip=f"echo $$ > {tmp_path}/pid; exec sleep 100")
    command = ["doctor", "--install", "tf1", "--python", str(python)]
    with subprocess.Popen([sys.executable, "-m", "redditgen", *command], stderr=subprocess.PIPE, text=True) as process:
        try:
            while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text(encoding="utf8").strip():
                assert process.poll() is None
                time.sleep(0.05)
            second = redditgen(*command)
            assert second.returncode == 1
            assert re.fullmatch(rf"redditgen: {place}: another .* is making it; wait .*\n", second.stderr)
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, errors.splitlines()[-1]) == (
        130,
        f"redditgen: {place}: interrupted, so nothing is kept; the same command starts anew",
    )
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text(encoding="utf8")), 0)
    assert not place.exists()
    tf1_environment.install_environment(fake())
    assert tf1_environment.find_python() == place / "bin/python"


# A Python 3.7 to make it with


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"version": "3.11.7"}, r"is Python 3\.11\.7, but TensorFlow 1\.15 needs 3\.7"),
        ({"ensurepip": "false"}, "has no ensurepip; install .*"),
    ],
)
def test_a_given_python_that_does_not_do_is_refused(fake: Fake, place: Path, changes: dict[str, str], why: str) -> None:
    python = fake(**changes)
    with pytest.raises(InputError, match=rf"^--python: {python}: {why}$"):
        tf1_environment.install_environment(python)
    assert not place.exists()


def base(place: Path, fake: Path) -> bool:
    """Whether the environment was made with this fake."""
    shutil.rmtree(place, ignore_errors=True)
    tf1_environment.install_environment()
    return (place / "bin/python").read_bytes() == fake.read_bytes()


def test_pythons_are_searched_on_path_then_in_pyenv_the_newest_first(
    fake: Fake, place: Path, nothing_around: Path
) -> None:
    newest = fake("pyenv/versions/3.7.16/bin/python", machine="amd64")
    fake("pyenv/versions/3.7.9/bin/python")
    fake("pyenv/versions/3.7-dev/bin/python")
    assert base(place, newest)
    script(nothing_around / "python3.7", "#!/bin/sh\necho 'pyenv: python3.7: command not found' >&2; exit 127")
    assert base(place, newest)
    on_path = fake("path/python3.7", version="3.7.5")
    assert base(place, on_path)


def test_uv_fetches_one_where_there_is_none(
    fake: Fake, place: Path, tmp_path: Path, nothing_around: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    fetched = fake("uv/python")
    script(
        nothing_around / "uv",
        f'#!/bin/sh\necho "$@" >> {tmp_path}/uv-calls; case "$2" in find) echo warning; echo {fetched};; esac',
    )
    assert base(place, fetched)
    assert (tmp_path / "uv-calls").read_text(encoding="utf8") == "python install 3.7\npython find 3.7\n"
    assert "asking uv, which downloads one" in caplog.messages[0]


def test_where_there_is_no_python_3_7_the_message_says_what_was_searched(
    fake: Fake, place: Path, nothing_around: Path
) -> None:
    searched = "no Python 3.7: looked for python3.7 on PATH, in pyenv's versions and for uv to fetch one"
    advice = r"; install one \(pyenv install 3\.7\), or name one with --python$"
    with pytest.raises(MissingError, match=rf"^{searched}{advice}"):
        tf1_environment.install_environment()
    fake("pyenv/versions/3.7.16/bin/python", ensurepip="false")
    script(nothing_around / "uv", "#!/bin/sh\necho 'error: No download found for request: cpython-3.7'; exit 2")
    with pytest.raises(MissingError, match=rf"no ensurepip; .*uv python .*: error: No download .*{advice}"):
        tf1_environment.install_environment()
    assert not place.exists()


# The requirements


def test_every_requirement_is_pinned_and_hashed() -> None:
    tools, packages = (requirements(name) for name in ("requirements-build.txt", "requirements.txt"))
    assert packages["gpt-2-simple"] == "0.7.2"
    assert packages["tensorflow"] == "1.15.5"
    assert packages["protobuf"].startswith("3.20.")
    assert packages["numpy"].startswith("1.18.")
    assert set(tools) == {"pip", "setuptools", "wheel"}
    assert {name: packages.get(name) for name in ("setuptools", "wheel")}.items() <= tools.items()


def requirements(name: str) -> dict[str, str]:
    """Version by package; fails on any line that is not one exact version or a hash of it."""
    path = Path(tf1_environment.__file__).parent / "worker" / name
    text = re.sub(r"^#.*\n", "", path.read_text(encoding="utf8"), flags=re.MULTILINE)
    package = r"([a-z][a-z0-9-]*)==([0-9.]+)( ; sys_platform == 'win32')?( \\\n    --hash=sha256:[0-9a-f]{64})+\n"
    assert re.fullmatch(rf"({package})+", text)
    return {match[1]: match[2] for match in re.finditer(package, text)}


# The real thing


def real_python_3_7() -> Path | None:
    """A Python 3.7 of this machine."""
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    on_path = [Path(found)] if (found := shutil.which("python3.7")) else []
    candidates = [*on_path, *versions.glob("3.7.*/bin/python")]
    return next((path for path in candidates if not interpreters.why_unsuitable(path, makes_environments=True)), None)


@pytest.mark.slow
def test_the_real_environment_is_installed_and_works(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = real_python_3_7()
    if not python:
        pytest.skip("no Python 3.7 on PATH or in pyenv's versions, so TensorFlow 1.15 can't be installed")
    monkeypatch.setenv("PIP_CACHE_DIR", str(Path.home() / ".cache/pip"))
    # What would leak in ends pip, or the import of TensorFlow.
    for name in ("six.py", "numpy.py", "sitecustomize.py"):
        script(tmp_path / "poison" / name, "raise SystemExit('leaked')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "poison"))
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "target"))
    installed = tf1_environment.install_environment(python)
    assert installed.path == tf1_environment.find_python() == place / "bin/python"
    assert 400 < installed.megabytes < 900
    pinned = requirements("requirements.txt")
    assert tf1_environment.check_python(installed.path).versions == {
        "python": interpreters.run_code(python, "import json, platform; print(json.dumps(platform.python_version()))"),
        **{name: pinned[name] for name in ("tensorflow", "gpt-2-simple", "numpy", "protobuf")},
    }
    subprocess.run([installed.path, "-I", "-m", "pip", "check"], check=True)
