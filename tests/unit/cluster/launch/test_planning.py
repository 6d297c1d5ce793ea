"""`eightwinds plan`: sizes given in words become rooms, and the answer says what to do."""

import json

import pytest

from cluster.launch.planning import Given, parse_size, run
from cluster.settings.config import load_config


@pytest.mark.parametrize(
    ("text", "count", "size"),
    [("24GiB", 1, 24 << 30), ("4x24GiB", 4, 24 << 30), ("64 GB", 1, 64 * 10**9), ("1.5TiB", 1, 3 << 39), ("7", 1, 7)],
)
def test_sizes_are_read_as_people_write_them(text: str, count: int, size: int) -> None:
    assert parse_size(text) == (count, size)


@pytest.mark.parametrize("text", ["", "x24GiB", "0", "0GB", "24 bananas", "-1GB", "4x", "1e9"])
def test_other_words_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write 24GiB"):
        parse_size(text)


def test_without_machines_there_is_no_plan() -> None:
    with pytest.raises(ValueError, match="--gpu-memory"):
        Given().rooms()


def plan(capsys: pytest.CaptureFixture[str], given: Given, *settings: str, as_json: bool = False) -> tuple[int, str]:
    code = run(load_config(None, {}, list(settings)), given, as_json)
    return code, capsys.readouterr().out


def test_what_fits_is_told_with_the_settings_that_place_it(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = plan(capsys, Given(gpus=("5x24GiB",)))
    assert code == 0
    assert "KV cache  41,984 tokens" in said, "as serve says it of the demo model"
    assert "--set head.num_gpus=1" in said and "bounds it" in said


def test_what_does_not_fit_is_an_exit_code_and_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = plan(capsys, Given(memories=("1GiB",)))
    assert code == 1 and "does not fit: " in said and "more are needed" in said


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        (Given(gpus=("1x80GB",)), "--set head.num_gpus=0.12 --set experts.num_gpus=0.11"),
        (Given(gpus=("9x1GiB",)), "--set head.num_gpus=1 --set experts.num_gpus=1"),
        (Given(gpus=("1x1200MB",), memories=("64GB",)), ""),
    ],
)
def test_settings_are_told_where_all_sit_on_gpus(
    given: Given, settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = plan(capsys, given)
    assert code == 0
    assert ("settings  " + settings in said) if settings else ("settings" not in said)


def test_json_has_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = plan(capsys, Given(memories=("3x8GiB",), link="1Gb"), "experts.replicas=2", as_json=True)
    content = json.loads(said)
    assert code == 0 and content["lacking"] == [] and content["kv_tokens"] > 0
    assert sum(len(room["experts"]) for room in content["rooms"]) == 16
    assert content["step"]["sent_bytes"] > 0
