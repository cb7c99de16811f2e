import json
import sys

import pytest

from proxy.process.lazy import imported


def test_function_of_a_target_returns_it():
    assert imported("json:dumps") is json.dumps


@pytest.mark.parametrize(("target", "error"), [("json:gone", AttributeError), ("proxy.gone:run", ModuleNotFoundError)])
def test_function_of_a_wrong_target_is_a_bug_and_says_so(target, error):
    with pytest.raises(error):
        imported(target)


def test_function_imports_only_when_it_is_called(tmp_path, monkeypatch):
    (tmp_path / "imported_late.py").write_text("def run():\n    return 7\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "imported_late" not in sys.modules
    assert imported("imported_late:run")() == 7
