"""A model with tools."""

import pytest

from cluster.engine.served_model import ServedModel
from tests.checkpoints import tiny, write
from tests.dialects import TAGGED, ServeFake
from tests.openai_door import saying
from tests.serving import Serving
from tests.text_folders import END, HERMES, START, text_folder


@pytest.fixture(scope="package")
def hermes(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    folder = tmp_path_factory.mktemp("hermes")
    text_folder(folder, added={END: 32000, START: 32001}, template=HERMES, eos_token=END)
    write(folder, tiny(vocab_size=32002, eos_token_id=32000, max_position_embeddings=2048))
    return ServedModel.open(str(folder))


@pytest.fixture
def looking(hermes: ServedModel, serve_fake: ServeFake) -> Serving:
    """A model that says something, and calls a tool."""
    return serve_fake(saying(hermes, "I look. ", TAGGED), hermes)
