import subprocess
import sys
from pathlib import Path

from proxy.process.extensions import map_extensions

START = """
import argparse, sys
from proxy.cli import serve
from proxy.cli.options import settings
from proxy.process.extensions import map_extensions

def compiled():
    lines = [line.split() for line in open("/proc/self/maps")]
    return {line[5] for line in lines if len(line) > 5 and ".cpython-" in line[5]}

parser = argparse.ArgumentParser()
serve.configure(parser)
settings(parser.parse_args([]))
modules = set(sys.modules)
map_extensions()
assert not {name for name in set(sys.modules) - modules if name.partition(".")[0] in ("asyncpg", "uvloop", "re2")}
mapped = compiled()
import proxy.serve
print(*sorted(compiled() - mapped))
"""


def test_map_when_serving_is_imported_then_no_compiled_module_is_left_to_map(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", START], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_map_when_called_again_then_nothing_happens() -> None:
    map_extensions()
