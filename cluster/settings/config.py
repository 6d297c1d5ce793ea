"""Configuration of a server: YAML, then environment (`EIGHTWINDS_A__B=c`), then `--set a.b=c`; later ones win.
Each default is written in `sections`, and nowhere else.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from cluster.settings.sections import (
    ClusterSection,
    ExpertsSection,
    GatewaySection,
    HeadSection,
    KvSection,
    LimitsSection,
    ModelSection,
    ScalingSection,
    SchedulerSection,
    Section,
    SecuritySection,
)

ENVIRONMENT_PREFIX = "EIGHTWINDS_"


class Config(Section):
    """All of it. `runtime` is where actors run: on Ray, or all of them in this process, without Ray. `transport` is how
    rows travel between actors on Ray.
    """

    model: ModelSection = ModelSection()
    runtime: Literal["ray", "in_process"] = "ray"
    transport: Literal["channel", "object_refs"] = "channel"
    head: HeadSection = HeadSection()
    experts: ExpertsSection = ExpertsSection()
    kv: KvSection = KvSection()
    scheduler: SchedulerSection = SchedulerSection()
    gateway: GatewaySection = GatewaySection()
    scaling: ScalingSection = ScalingSection()
    cluster: ClusterSection = ClusterSection()
    security: SecuritySection = SecuritySection()
    limits: LimitsSection = LimitsSection()


def load_config(file: Path | None, environment: Mapping[str, str], settings: Iterable[str] = ()) -> Config:
    """Merge the three sources. ValueError lists everything that is wrong, one line each."""
    values = {} if file is None else _read(file)
    for name, text in environment.items():
        key = name.removeprefix(ENVIRONMENT_PREFIX).lower()
        if name.startswith(ENVIRONMENT_PREFIX) and ("__" in key or key in known_keys()):
            _put(values, key.split("__"), text, name)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"--set {setting}: write it as a.b=c")
        _put(values, key.strip().split("."), text, f"--set {key.strip()}")
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ValueError("\n".join(_explain(e) for e in error.errors())) from None


def _read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ValueError(f"the configuration file {file} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file} must hold a mapping of sections, such as 'model: {{path: demo}}'")
    return {name: section for name, section in content.items() if section is not None}


def listed(text: str) -> tuple[str, ...]:
    """The names in a value that commas separate."""
    return tuple(name for part in text.split(",") if (name := part.strip()))


def known_keys() -> list[str]:
    """Every key in dotted form."""
    keys: list[str] = []
    for name, value in Config().model_dump().items():
        keys += [f"{name}.{key}" for key in value] if isinstance(value, dict) else [name]
    return keys


def _put(values: dict[str, Any], path: list[str], text: str, source: str) -> None:
    value: Any = text  # the models read numbers and booleans from it; YAML would take a folder 1e3 for a number
    if text.startswith("{"):
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ValueError(f"{source}: {text} is not valid YAML") from None
    *sections, last = path
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ValueError(f"{source}: {section} is no section")
    values[last] = value


def _explain(error: Any) -> str:
    key, given = ".".join(map(str, error["loc"])), error["input"]
    if error["type"] == "extra_forbidden":
        if isinstance(given, dict) and given:  # a section that there is not: what is in it tells which was meant
            key = f"{key}.{next(iter(given))}"
        return f"unknown configuration key {key}; did you mean {_nearest(key, known_keys())}?"
    if error["type"] == "literal_error":
        choices = error["ctx"]["expected"]  # such as "'ray' or 'in_process'"
        near = _nearest(str(given), re.findall(r"'(\w+)'", choices))
        return f"{key}: {given!r} is none of {choices}; did you mean {near}?"
    return f"{key}: {error['msg'].removeprefix('Value error, ')} (got {given!r})"


def _nearest(word: str, words: list[str]) -> str:
    return difflib.get_close_matches(word, words, n=1, cutoff=0.0)[0]
