"""What every section of the configuration is made of: the base of the models, and values with their unit and range.

Rule of the file: models are frozen and refuse unknown keys; no value is ever printed by a validation error.
"""

import re
from decimal import Decimal
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")


def _check_credential(value: SecretStr | None) -> SecretStr | None:
    """Refuse what cannot stand in a header: such a key would fail at the first request, or split the header."""
    if value is not None and not _VISIBLE.fullmatch(value.get_secret_value()):
        raise ValueError("must be visible ASCII characters without spaces")
    return value


Seconds = Annotated[float, Field(gt=0, le=86_400)]
Bytes = Annotated[int, Field(gt=0, le=1 << 53)]
Count = Annotated[int, Field(gt=0, lt=1 << 31)]
Port = Annotated[int, Field(ge=0, le=65_535)]
Credential = Annotated[SecretStr | None, AfterValidator(_check_credential)]
Dollars = Annotated[Decimal, Field(ge=0, le=1_000_000, allow_inf_nan=False)]


class Section(BaseModel):
    """Base of all sections: immutable, strict about names, silent about values."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
