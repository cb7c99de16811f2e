"""Build `.venv` from the lock; `make` calls this with the system's Python.

Rules of the file: standard library only (nothing is installed yet); one installer at a time, by a file lock that the
kernel drops when its holder dies, so two `make` in one checkout wait for each other instead of breaking each other.
The stamp holds a fingerprint of everything that decides the content, so a touched but equal lock installs nothing and
a moved checkout (scripts and the editable install hold its path) is built anew.

Failure mode: pip's own words on stderr, a non-zero exit, and no stamp: the next `make` tries again.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements-dev.lock"
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input", "-qq", "install")  # -qq: errors only


def fingerprint() -> str:
    """Return a digest of lock, project file, this script, the checkout's path and the interpreter."""
    digest = hashlib.sha256()
    for path in (LOCK, ROOT / "pyproject.toml", Path(__file__)):
        digest.update(path.read_bytes())
    digest.update(f"{ROOT}\n{sys.version_info[:2]}".encode())
    return digest.hexdigest()


def is_sound(environment: Path, python: Path) -> bool:
    """Tell whether the environment was made here, and its interpreter starts, is of our version and has pip."""
    probe = f"import pip, sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    try:
        made_here = str(environment) in (environment / "bin" / "activate").read_text(encoding="utf-8")
        return made_here and subprocess.run([python, "-c", probe], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def install(environment: Path, stamp: Path) -> None:
    """Bring `environment` to the state of the lock and write `stamp`."""
    wanted = fingerprint()
    python = environment / "bin" / "python"
    sound = is_sound(environment, python)
    if sound and stamp.is_file() and stamp.read_text() == wanted:
        stamp.touch()
        return
    print(f"install: {environment.name} from {LOCK.name}, about a minute the first time", file=sys.stderr, flush=True)
    stamp.unlink(missing_ok=True)
    if not sound:
        venv.create(environment, clear=True, symlinks=True, with_pip=True)
    # The lock is complete. Without --no-deps older pips weigh extras (`coverage[toml]`) against the newest release
    # first, find it without a hash and give up: an install that worked yesterday fails the day a package is released.
    run_pip(python, "--no-deps", "--require-hashes", "--requirement", str(LOCK))
    run_pip(python, "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    stamp.write_text(wanted)


def run_pip(python: Path, *arguments: str) -> None:
    """Run pip of the environment, or leave with its exit status: pip has said what is wrong."""
    done = subprocess.run([python, *PIP, *arguments], env=os.environ | {"PIP_ROOT_USER_ACTION": "ignore"}, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def main() -> None:
    """Take the lock, then install. Arguments: the environment's directory and the stamp file."""
    environment, stamp = ROOT / sys.argv[1], ROOT / sys.argv[2]
    with LOCK.open("rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        install(environment, stamp)


if __name__ == "__main__":
    main()
