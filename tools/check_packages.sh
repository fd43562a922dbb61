#!/bin/sh
# check_packages.sh [PYTHON ...]: build wheel and sdist, and install each into an empty environment
# of every Python that is named (or found: 3.11 to 3.14); there the command must answer, the sdist
# as well as the wheel, and the demonstration must run where DEMO=1. Needs uv.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

uv build --quiet --out-dir "$work/dist" "$here"
if [ $# -eq 0 ]; then
    for minor in 11 12 13 14; do
        if found=$(uv python find --no-python-downloads "3.$minor" 2>/dev/null); then
            set -- "$@" "$found"
        fi
    done
fi
cd "$work"
for python in "$@"; do
    name=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    for package in "$work"/dist/*.whl "$work"/dist/*.tar.gz; do
        rm -rf env
        uv venv --quiet --python "$python" env
        uv pip install --quiet --python env/bin/python "$package"
        env/bin/kpms-zarr --version
        env/bin/kpms-zarr doctor --json >doctor.json
        env/bin/python -c 'import kpms_zarr, kpms_zarr.viz; [getattr(kpms_zarr, n) for n in kpms_zarr.__all__]'
        if [ "${DEMO:-}" = 1 ]; then
            rm -rf demo
            env/bin/kpms-zarr demo demo >/dev/null 2>demo.log || { cat demo.log; exit 1; }
            test -s demo/report.html
        fi
        echo "Python $name: $(basename "$package") works"
    done
done
