#!/bin/sh
# make_env.sh PYTHON VENV TARGET: make a virtual environment and install TARGET into it, editable.
# Versions come from the file that CONSTRAINTS names; without it from constraints.txt where that knows
# the interpreter, from the ranges elsewhere.
set -eu
python=$1
venv=$2
target=$3

"$python" - <<'PY' || { echo "kpms_zarr needs Python 3.11 or newer: make PYTHON=python3.11 ..." >&2; exit 1; }
import sys
sys.exit(sys.version_info < (3, 11))
PY

constraints=""
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
[ "$version" = 3.11 ] && constraints="-c constraints.txt"
[ -n "${CONSTRAINTS:-}" ] && constraints="-c $CONSTRAINTS"

if command -v uv >/dev/null 2>&1; then
    # shellcheck disable=SC2086
    if { [ -x "$venv/bin/python" ] || uv venv --quiet --python "$python" "$venv"; } &&
        uv pip install --quiet --python "$venv/bin/python" $constraints -e "$target"; then
        exit 0
    fi
    # It knows no settings of pip, such as where packages are.
    echo "uv could not make the environment; pip does it" >&2
fi

if [ ! -x "$venv/bin/python" ]; then
    if "$python" -c 'import ensurepip' 2>/dev/null; then
        "$python" -m venv "$venv"
    else
        "$python" -m venv --without-pip "$venv"
    fi
fi
if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    pip="$venv/bin/python -m pip"
elif "$python" -m pip --version >/dev/null 2>&1; then
    pip="$python -m pip --python $venv/bin/python"
else
    rm -rf "$venv"
    echo "This Python has neither pip nor ensurepip. On Debian: apt install python3-venv" >&2
    exit 1
fi
# Modules are compiled when they are imported first: most of what is installed never is.
# shellcheck disable=SC2086
exec $pip install --quiet --no-compile --disable-pip-version-check $constraints -e "$target"
