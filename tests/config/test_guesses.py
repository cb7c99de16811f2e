import pytest

from proxy.config.guesses import meant, meant_by
from proxy.config.keys import KEYS


@pytest.mark.parametrize(
    ("above", "word", "paths"),
    [
        ("server", "drian_s", ["server.drain_s"]),
        ("server", "gap_s", ["timeouts.gap_s"]),
        ("server", "port", ["server.listen.port", "server.ops_listen.port"]),
        ("server", "address", ["server.listen"]),
        ("upstream", "url", ["upstream.base_url"]),
        ("upstream", "URI", ["upstream.base_url"]),
        ("database", "pool", ["database.pool_size"]),
        ("", "port", ["server.listen.port", "server.ops_listen.port"]),
        ("", "qqqqqq", []),
        ("", "", []),
    ],
)
def test_meant_of_a_word_prefers_what_stands_in_its_section(above, word, paths):
    found = meant(tuple(filter(None, [above])), word)
    assert [".".join(path) for path in found] == paths


def test_meant_by_of_every_path_that_exists_is_that_path():
    assert all(meant_by(path) == [path] for path in KEYS)


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        (["sevrer", "listen", "prot"], ["server.listen.port"]),
        (["upstream", "headers", "x", "y"], ["upstream.headers"]),
        (["timeout", "connect"], ["timeouts.connect_s"]),
        (["server", "nothing_like_it", "port"], []),
    ],
)
def test_meant_by_of_a_misspelt_path_mends_each_name(words, paths):
    assert [".".join(path) for path in meant_by(words)] == paths
