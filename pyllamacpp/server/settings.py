"""How the server is set up: flags, then the environment, then a TOML file, then the defaults."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import FileError, InvalidArgumentError

if TYPE_CHECKING:
    from typing_extensions import Self

PREFIX = "PYLLAMACPP_SERVER_"


class ModelSettings(BaseModel):
    """One model. name: what requests call it; None: its file's, without the ending.

    ctx: tokens of one text; None: the least of the model's own, 4096 and what fits.
    cache: where texts are kept besides the context, up to cache_size bytes; on "disk" in cache_dir.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str | None = None
    name: str | None = None
    ctx: int | None = Field(None, ge=1)
    threads: int | None = Field(None, ge=1)
    batch: int = Field(512, ge=1)
    parallel: int = Field(4, ge=1, description="Texts of ctx tokens that the cache has room for.")
    type_k: str = "f16"
    type_v: str = "f16"
    n_gpu_layers: Literal["auto"] | Annotated[int, Field(ge=-1)] = 0
    chat_format: str | None = None
    cache: Literal["off", "ram", "disk"] = "off"
    cache_size: int = Field(2 << 30, ge=1, description="Bytes of the texts that are kept.")
    cache_dir: str | None = None

    @model_validator(mode="after")
    def _check_cache(self) -> Self:
        if (self.cache == "disk") != (self.cache_dir is not None):
            raise ValueError("a cache on disk needs cache_dir, and no other takes one")
        return self


class Settings(ModelSettings):
    """The whole server. models: those of a configuration file, in place of `model`."""

    models: list[ModelSettings] = []
    max_models: int = Field(4, ge=1, description="Models that are loaded at a time, at most.")
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535)
    api_keys: list[str] = []
    cors_origins: list[str] = []
    tls_cert: str | None = None
    tls_key: str | None = None
    max_body: int = Field(8 << 20, ge=1, description="Bytes of a request.")
    max_tokens: int | None = Field(None, ge=1, description="Tokens of an answer, at most.")
    max_running: int = Field(64, ge=1, description="Requests that are evaluated at a time.")
    max_queue: int = Field(256, ge=0, description="Requests that wait; more are refused.")
    max_texts: int = Field(64, ge=1, description="Texts of one request (prompts times n).")
    deadline: float = Field(600.0, gt=0, description="Seconds of a request.")
    body_timeout: float = Field(30.0, gt=0, description="Seconds for a request to arrive.")
    drain: float = Field(30.0, ge=0, description="Seconds for requests to end after SIGTERM.")
    log_requests: bool = False

    @model_validator(mode="after")
    def _check(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key are given together or not at all")
        if any(not key for key in self.api_keys):
            raise ValueError("an API key is empty")
        return self

    @property
    def all_models(self) -> list[ModelSettings]:
        """Those of the file, or the one of `model`."""
        if self.models:
            return self.models
        own = {name: getattr(self, name) for name in ModelSettings.model_fields}
        return [ModelSettings(**own)]


def read_settings(
    flags: Mapping[str, Any],
    file: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Settings:
    """The settings of a command line, whose flags that were not given are None.

    Raises FileError for a file that cannot be read, InvalidArgumentError for what is no setting.
    """
    file = file or environment.get(PREFIX + "CONFIG")
    values: dict[str, Any] = {} if file is None else _of_file(file)
    values |= _of_environment(environment)
    given = {name: value for name, value in flags.items() if value is not None}
    values |= given
    if given.get("model") is not None:
        values.pop("models", None)
    try:
        return Settings(**values)
    except ValidationError as error:
        found = error.errors()[0]
        place = ".".join(str(part) for part in found["loc"])
        raise InvalidArgumentError(f"server settings: {place}: {found['msg']}") from None


def _of_file(file: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        text = Path(file).read_text("utf-8")
    except OSError as error:
        raise FileError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeError:
        raise InvalidArgumentError(f"{file} is not UTF-8") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgumentError(f"{file} is not TOML: {error}") from None


def _of_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """Lists are parted by commas; models belong into a file."""
    found: dict[str, Any] = {}
    for name in Settings.model_fields:
        text = environment.get(PREFIX + name.upper())
        if text is None or name == "models":
            continue
        is_list = name in ("api_keys", "cors_origins")
        found[name] = (
            [part.strip() for part in text.split(",") if part.strip()] if is_list else text
        )
    return found


def as_toml(settings: Settings) -> str:
    """The settings as a file, API keys left out."""
    values = settings.model_dump(exclude_none=True)
    keys, models = values.pop("api_keys"), values.pop("models")
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    if keys:
        lines.append(f"# api_keys: {len(keys)}, not shown")
    for model in models:
        lines += ["", "[[models]]"]
        lines += [f"{name} = {json.dumps(value)}" for name, value in model.items()]
    return "\n".join(lines)
