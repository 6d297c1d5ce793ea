"""Loading in a thread: progress meanwhile, errors kept, and no checkpoint but the one that was started with."""

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import save_file

from actors.loading import Loading, open_checkpoint
from model.batch import LoadProgress
from tests.checkpoints import random_weights, spec, tiny, write

PATIENCE = 20.0  # seconds until a wait gives up; reached only by a test that fails


def test_progress_is_told_while_the_work_goes_on() -> None:
    half, rest = threading.Event(), threading.Event()

    def work(progress: Callable[[int], None]) -> None:
        progress(30)
        progress(20)
        half.set()
        assert rest.wait(PATIENCE)
        progress(50)

    loading = Loading(100, work)
    assert half.wait(PATIENCE)
    assert loading.progress() == LoadProgress(50, 100)
    assert loading.wait(timeout=0) == LoadProgress(50, 100)
    rest.set()
    assert loading.wait(PATIENCE) == LoadProgress(100, 100, ready=True)
    assert loading.progress() == loading.wait()


@pytest.mark.parametrize("error", [ValueError("no such key"), MemoryError("13 GB"), RuntimeError()], ids=repr)
def test_error_ends_the_attempt_and_is_kept(error: Exception) -> None:
    def work(progress: Callable[[int], None]) -> None:
        progress(10)
        raise error

    progress = Loading(100, work).wait(PATIENCE)
    assert progress == LoadProgress(10, 100, ready=False, error=f"{type(error).__name__}: {error}")


def test_restarted_actor_refuses_weights_that_have_changed(tmp_path: Path) -> None:
    folder = write(tmp_path, tiny())
    started = dataclasses.replace(spec(folder), digest=open_checkpoint(spec(folder)).digest)
    assert open_checkpoint(started).digest == started.digest
    save_file(random_weights(tiny(), seed=1), folder / "model.safetensors")
    with pytest.raises(ValueError, match="has changed since the server started: restart the server"):
        open_checkpoint(started)
    assert open_checkpoint(spec(folder)).digest != started.digest  # asked for none in particular
