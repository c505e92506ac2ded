"""What may be a secret stands in no message, whatever it was typed into."""

import pytest

from redditgen.errors import InputError, RedditgenError
from tests.support.fixture_types import Redditgen

ADDRESS = "https://user:secret@host.example/a.parquet?key=secret"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("https://user:secret@host/a: no such file", "https://host/a: no such file"),
        ("https:/user:secret@host/a: no such file", "https:/host/a: no such file"),  # as Path writes it
        ("ray://secret@host:10001: nobody", "ray://host:10001: nobody"),
        ("gs://bucket/a?token=secret&b=1: no", "gs://bucket/a?token=***&b=1: no"),
        ("http://host/?a=1&X-Amz-Signature=secret; copy it", "http://host/?a=1&X-Amz-Signature=***; copy it"),
        ("two https://u:secret@a and http://secret@b", "two https://a and http://b"),
        ("a@b.example, C:/x@y, https://host/a@b?project=mine", "a@b.example, C:/x@y, https://host/a@b?project=mine"),
    ],
)
def test_an_address_in_a_message_has_no_secret(written: str, said: str) -> None:
    assert str(RedditgenError(written)) == said
    assert f"{InputError(written)}" == said


@pytest.mark.parametrize(
    "command",
    [
        ("fetch", "--from", ADDRESS),
        ("fetch", "--words", ADDRESS),
        ("encode", ADDRESS),
        ("decode", ADDRESS),
        ("finetune", ADDRESS),
        ("finetune", "data.txt", "--model", ADDRESS),
        ("generate", "--prompts", ADDRESS),
        ("generate", "--run", ADDRESS),
    ],
)
def test_an_address_where_a_file_should_be_named_is_not_shown_whole(
    redditgen: Redditgen, command: tuple[str, ...]
) -> None:
    done = redditgen(*command)
    assert done.returncode in (1, 2)
    assert "secret" not in done.stdout + done.stderr
    assert done.stderr.startswith("redditgen: ")
