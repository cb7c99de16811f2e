"""Files that are read at run time: links to the top-level `config/` and `migrations/`, copied into a wheel."""

from pathlib import Path

ROOT = Path(__file__).parent
"""Directory that holds `config/` and `migrations/`, in a checkout as in an installed package."""
