#!/bin/sh
# Install Sidegate into an empty prefix, as the image does: locked packages, no installer, no development packages.
#
#   deploy/install.sh /opt/sidegate        from a checkout; needs Python 3.11 or newer with pip and venv
#
# The result is a tree that nobody needs to write to. PIP_NO_INDEX and PIP_FIND_LINKS install from a directory of wheels.
# PYTHON: the interpreter of the tree; PIP: one that has pip, where that one has not.
set -eu
prefix=$1
source=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}

"$python" -m venv --without-pip "$prefix"
"${PIP:-$python}" -m pip --python "$prefix/bin/python" --disable-pip-version-check install --quiet --no-deps --no-compile \
    --require-hashes --only-binary :all: --requirement "$source/requirements.lock"

mkdir "$prefix/app"
cp -R "$source/proxy" "$source/config" "$source/migrations" "$prefix/app/"
find "$prefix/app" -name __pycache__ -prune -exec rm -r {} +
packages=$("$prefix/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$source/pyproject.toml")
mkdir "$packages/sidegate-$version.dist-info"
printf 'Metadata-Version: 2.1\nName: sidegate\nVersion: %s\n' "$version" > "$packages/sidegate-$version.dist-info/METADATA"
printf '%s\n' "$prefix/app" > "$packages/sidegate.pth"
printf '#!%s\nimport sys\nfrom proxy.cli.main import main\nsys.exit(main())\n' "$prefix/bin/python" > "$prefix/bin/sidegate"
chmod 755 "$prefix/bin/sidegate"

# Compiled once, here: the running process may not write beside the sources, and would compile them at every start.
"$prefix/bin/python" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$packages" "$prefix/app"
