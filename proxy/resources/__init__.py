"""Files that are read at run time: the top-level `config/` and `migrations/` of a checkout, copied here in a wheel."""

from pathlib import Path

_PACKED = Path(__file__).parent

ROOT = _PACKED if (_PACKED / "config").is_dir() else _PACKED.parents[1]
"""Directory that holds `config/` and `migrations/`, in a checkout as in an installed package."""
