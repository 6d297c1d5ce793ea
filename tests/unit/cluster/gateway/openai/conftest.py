"""A model with a chat template behind the OpenAI-compatible door."""

import shutil
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from cluster.engine.served_model import ServedModel
from tests.checkpoints import tiny, write
from tests.fakes import FakeHead
from tests.serving import Serving


@pytest.fixture(scope="package")
def instruct(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    """A checkpoint with Mixtral's own vocabulary, which has a template."""
    folder = write(tmp_path_factory.mktemp("instruct"), tiny(vocab_size=32000, eos_token_id=2))
    shutil.copy(Path(str(files("mistral_common"))) / "data" / "tokenizer.model.v1", folder / "tokenizer.model")
    return ServedModel.open(str(folder))


@pytest.fixture
def chatting(instruct: ServedModel, serve_fake: Callable[..., Serving]) -> Serving:
    return serve_fake(FakeHead(), instruct)


@pytest.fixture(autouse=True)
def nothing_is_left(serving: Serving) -> Iterator[None]:
    yield
    serving.idle()
