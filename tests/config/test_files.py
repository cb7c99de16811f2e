"""Files that the configuration names are regular files; anything else is refused with its name, at once."""

import os
from collections.abc import Callable
from pathlib import Path
from threading import Event, Timer

import pytest

from proxy.config import layers
from proxy.config.files import read_regular
from proxy.config.references import BadReference, resolve
from proxy.config.schema import Config, Prices
from proxy.config.source import read_file
from proxy.policy import rules
from proxy.process import generation
from proxy.upstream import pricing
from proxy.upstream.origin import tls_context


def pipe(directory: Path) -> Path:
    os.mkfifo(directory / "pipe")
    return directory / "pipe"


def endless(_: Path) -> Path:
    return Path("/dev/zero")


def directory(directory: Path) -> Path:
    return directory


ODD = pytest.mark.parametrize(
    ("make", "kind"),
    [(pipe, "it is a named pipe, not a regular file"), (endless, "it is a device"), (directory, "Is a directory")],
    ids=["pipe", "device", "directory"],
)


def _configuration(path: Path) -> str:
    return str(read_file(path).problems[0])


def _error_of(read: Callable[[Path], object], error: type[Exception]) -> Callable[[Path], str]:
    def message(path: Path) -> str:
        with pytest.raises(error) as caught:
            read(path)
        return str(caught.value)

    return message


READERS = {
    "configuration": _configuration,
    "secret": _error_of(lambda path: resolve(f"file:{path}", {}), BadReference),
    "prices": _error_of(lambda path: pricing.load(path, Prices()), pricing.PriceTableError),
    "layers": _error_of(lambda path: layers.load(path, Config().providers), layers.LayersError),
    "rules": _error_of(rules.load, rules.RuleError),
    "trusted certificates": _error_of(lambda path: tls_context(str(path)), OSError),
}


@ODD
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_file_when_it_is_something_else_then_the_error_names_it_at_once(read, make, kind, tmp_path):
    path = make(tmp_path)
    done = Event()
    rescue = Timer(5, lambda: None if done.is_set() or make is not pipe else os.close(os.open(path, os.O_RDWR)))
    rescue.start()
    try:
        message = read(path)
    finally:
        done.set()
        rescue.cancel()
    assert str(path) in message
    assert kind in message


@ODD
def test_digest_when_the_file_is_something_else_then_it_is_that_of_no_file(make, kind, tmp_path):
    config = Config.model_validate({"client": {"ca_file": str(make(tmp_path))}})
    assert generation.compiled(config).digests["client.ca_file"] == ""


@pytest.mark.parametrize(("kind", "error"), [("prices", pricing.PriceTableError), ("rules", rules.RuleError)])
def test_file_when_it_is_too_large_then_it_is_refused(kind, error, tmp_path):
    path = tmp_path / "large.yaml"
    path.write_bytes(b"#" * 4_194_305)
    with pytest.raises(error, match="is larger than"):
        pricing.load(path, Prices()) if kind == "prices" else rules.load(path)


def test_read_when_a_link_leads_to_a_file_then_it_is_followed(tmp_path):
    (tmp_path / "data").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("data")
    assert read_regular(tmp_path / "link", 3) == b"1234"
