"""Settings as plain objects, for what every request reads.

A request reads some forty settings, and a read of a pydantic model takes five times as long as one of another object,
because pydantic defines `__getattr__`: 1.5 % of a request's instructions (callgrind).
"""

from functools import cache
from typing import Any, TypeVar, cast

from pydantic import BaseModel

Settings = TypeVar("Settings", bound=BaseModel)


def plain(settings: Settings) -> Settings:
    """Return an object with the values of all fields and properties, and nothing else that a model can do.

    `settings`: immutable, as properties are evaluated here.
    """
    names = _names(type(settings))
    made = _class(type(settings))()
    for name in names:
        setattr(made, name, _plain(getattr(settings, name)))
    return cast(Settings, made)


def _plain(value: object) -> Any:
    if isinstance(value, BaseModel):
        return plain(value)
    if isinstance(value, tuple):
        return tuple([_plain(one) for one in value])
    return value


@cache
def _class(model: type[BaseModel]) -> type:
    return type(model.__name__, (), {"__slots__": _names(model)})


@cache
def _names(model: type[BaseModel]) -> tuple[str, ...]:
    own = [one for one in model.__mro__ if issubclass(one, BaseModel) and one is not BaseModel]
    properties = {name for one in own for name, value in vars(one).items() if isinstance(value, property)}
    return (*model.model_fields, *sorted(properties))
