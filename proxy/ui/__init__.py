"""The dashboard: one page, its scripts and styles as they are sent to a browser. No build step makes them.

`proxy/api/dashboard.py` serves the files that lie here; what they may do is told in docs/dashboard.md.
"""

from pathlib import Path

ROOT = Path(__file__).parent
"""Directory of the files."""
