from pathlib import Path

from proxy.config.keys import KEYS
from proxy.config.named_files import named_files
from proxy.config.schema import Config


def test_files_when_none_is_named_then_none() -> None:
    assert named_files(Config()) == {}


def test_files_when_every_key_that_ends_like_one_is_set_then_all_are_there() -> None:
    names = {path for path in KEYS if path[-1].endswith("file")}
    document: dict[str, dict[str, str]] = {}
    for section, key in names:
        document.setdefault(section, {})[key] = f"/{key}"
    found = named_files(Config.model_validate(document))
    assert found == {f"{section}.{key}": Path(f"/{key}") for section, key in names}
