import json
from pathlib import Path

import yaml
from jsonschema import validate  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parents[2]


def test_ray_config_matches_the_schema_that_ray_up_checks_it_against() -> None:
    import importlib.util

    spec = importlib.util.find_spec("ray")
    assert spec is not None and spec.origin is not None
    schema = json.loads((Path(spec.origin).parent / "autoscaler" / "ray-schema.json").read_text())
    validate(yaml.safe_load((ROOT / "ray_config.yaml").read_text()), schema)
