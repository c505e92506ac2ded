import json
from pathlib import Path

import pytest

from redditgen.errors import InputError
from redditgen.gpt2.metrics import MetricsFile, Report, best_report, measurements_since_best


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def reports(*losses: float | None) -> list[Report]:
    """Of steps 0, 10, 20 and so on, with these held-out losses."""
    return [Report(step=10 * number, val_loss=loss) for number, loss in enumerate(losses)]


def test_reports_are_read_as_they_were_written(path: Path) -> None:
    written = [Report(step=0, val_loss=2.5), Report(step=1, loss=3.0, tokens=7, titles_per_second=1.5)]
    for report in written:
        MetricsFile(path).add(report)
    assert MetricsFile(path).reports() == written
    assert MetricsFile(path.with_name("gone")).reports() == []


def test_reports_of_other_versions_are_read(path: Path) -> None:
    """With fewer keys, and with more."""
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0, "of_tomorrow": 3}\n', encoding="utf8")
    assert MetricsFile(path).reports() == [Report(step=1, loss=2.0), Report(step=2, loss=1.0)]


def test_a_line_that_was_cut_in_two_is_no_report(path: Path) -> None:
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo', encoding="utf8")
    assert [report.step for report in MetricsFile(path).reports()] == [1]
    MetricsFile(path).delete_after(5)
    assert path.read_text(encoding="utf8") == '{"step": 1, "loss": 2.0}\n'


def test_later_reports_are_cut_and_the_others_stay_byte_for_byte(path: Path) -> None:
    path.write_text('{"step":  1, "mine": 1}\n{"step": 3}\n{"step": 2}\n', encoding="utf8")
    MetricsFile(path).delete_after(2)
    assert path.read_text(encoding="utf8") == '{"step":  1, "mine": 1}\n{"step": 2}\n'


@pytest.mark.parametrize("line", ["nothing", "[1]", "1", "null", "{}", '{"step": null}', '{"step": "1"}'])
def test_what_is_no_report_is_named(path: Path, line: str) -> None:
    path.write_text(f'{{"step": 1}}\n{line}\n', encoding="utf8")
    for use in (MetricsFile(path).reports, lambda: MetricsFile(path).delete_after(1)):
        with pytest.raises(InputError, match=r"metrics\.jsonl: holds a line that is no report; delete or mend"):
            use()
    assert path.read_text(encoding="utf8") == f'{{"step": 1}}\n{line}\n'


def test_what_can_not_be_read_or_written_is_named(path: Path) -> None:
    path.write_bytes(b"\xff\n")
    with pytest.raises(InputError, match=r"metrics\.jsonl: can't be read"):
        MetricsFile(path).reports()
    with pytest.raises(InputError, match=r"gone/metrics\.jsonl: can't be written: No such file"):
        MetricsFile(path.parent / "gone/metrics.jsonl").add(Report(step=1))


def test_a_report_says_what_is_known(path: Path) -> None:
    assert str(Report(step=0, seconds=0.04)) == "[0 | 0.0 s]  "
    report = Report(step=7, seconds=1.26, loss=2.0, val_loss=1.5, val_bits_per_char=1.25)
    assert str(report) == "[7 | 1.3 s]  loss 2.000  held-out loss 1.500  bits a character 1.250"
    report = Report(step=8, tokens_per_second=1234.5, titles_per_second=99.4, memory_bytes=1_260_000_000)
    assert str(report) == "[8 | 0.0 s]  1234 tokens/s  99 titles/s  1.3 GB"
    MetricsFile(path).add(report)
    assert json.loads(path.read_text(encoding="utf8"))["memory_bytes"] == 1_260_000_000


@pytest.mark.parametrize(
    ("losses", "step"),
    [
        ([], None),
        ([None, None], None),
        ([1.0], None),  # of weights that are not the run's
        ([1.0, 3.0, 2.0, 4.0], 20),
        ([9.0, 2.0, None, 2.0], 10),
        ([9.0, float("nan"), 5.0], 20),
    ],
)
def test_the_best_is_the_first_of_the_lowest_held_out_loss(losses: list[float | None], step: int | None) -> None:
    found = best_report(reports(*losses))
    assert (found and found.step) == step


@pytest.mark.parametrize(
    ("losses", "after", "number"),
    [
        ([], 0, 0),
        ([3.0], 0, 0),
        ([3.0, 2.0, 1.0], 0, 0),
        ([3.0, 2.0, None, 2.0, 2.5], 0, 2),
        ([1.0, 2.0, 3.0], 0, 2),  # also where nothing has helped
        ([3.0, 4.0, 2.0, 3.0], 0, 1),
        ([3.0, 2.0, 4.0, 5.0, 6.0], 20, 2),
        ([3.0, 2.0, 4.0, 5.0, 6.0], 40, 0),
    ],
)
def test_measurements_since_the_best_are_counted(losses: list[float | None], after: int, number: int) -> None:
    assert measurements_since_best(reports(*losses), after=after) == number
