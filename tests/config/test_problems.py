import pytest

from proxy.config.problems import ConfigError, Layer, Origin, Problem

FILE = Origin("file", "sidegate.yaml", 12)


@pytest.mark.parametrize(
    ("origin", "label"),
    [
        (FILE, "sidegate.yaml:12"),
        (Origin("file", "sidegate.yaml"), "sidegate.yaml"),
        (Origin("environment", "SIDEGATE_LISTEN"), "environment SIDEGATE_LISTEN"),
        (Origin("flag", "--listen"), "--listen"),
        (Origin("default"), "default"),
    ],
)
def test_origin_of_each_kind_reads_as_its_place(origin, label):
    assert str(origin) == label


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (Problem(FILE, "server.port", "is wrong"), "sidegate.yaml:12: server.port: is wrong"),
        (Problem(FILE, "", "is wrong"), "sidegate.yaml:12: is wrong"),
        (Problem(Origin("environment", "A"), "server.port", "is wrong"), "environment: A: is wrong"),
        (Problem(Origin("flag", "--listen"), "server.port", "is wrong"), "--listen: is wrong"),
    ],
)
def test_problem_of_each_source_starts_with_its_place(problem, line):
    assert str(problem) == line


def test_config_error_with_many_problems_has_one_line_for_each():
    layer = Layer()
    layer.complain(FILE, ("a", "b"), "first")
    layer.complain(FILE, (), "second")
    error = ConfigError(layer.problems)
    assert str(error).splitlines() == ["sidegate.yaml:12: a.b: first", "sidegate.yaml:12: second"]
    assert len(error.problems) == 2
