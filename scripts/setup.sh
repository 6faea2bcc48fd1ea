#!/usr/bin/env bash
# Builds the virtual environment VENV from pyproject.toml and constraints.txt, then touches STAMP. `make setup` calls it.
# Usage: [PYTHON=python3] [TORCH_INDEX=address] scripts/setup.sh VENV STAMP
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=$1 stamp=$2 python=${PYTHON:-python3} log=$1/setup.log

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

check_python() {
  command -v "$python" >/dev/null || fail "there is no $python; install Python 3.11 or newer, or name one: make setup PYTHON=/path/to/python3"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    || fail "$("$python" --version 2>&1) is too old, distppo needs 3.11 or newer; name another: make setup PYTHON=/path/to/python3"
  "$python" -c 'import ensurepip, venv' 2>/dev/null \
    || fail "$python has no venv module; on Debian and Ubuntu: apt-get install python3-venv"
}

create_venv() {
  if [ -x "$venv/bin/python" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    say "bringing $venv up to date ($("$venv/bin/python" --version))"
    return
  fi
  check_python
  say "creating $venv with $("$python" --version)"
  rm -rf "$venv"
  "$python" -m venv "$venv" || fail "$python could not create $venv"
}

pip_install() {
  "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --no-compile -c constraints.txt \
    ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "$@" >>"$log" 2>&1
}

# The default wheel for Linux brings several GB of CUDA libraries, where a wheel index of PyTorch's own has the CPU build.
warn_of_cuda() {
  [ "$(uname -s)" = Linux ] && [ ! -e /dev/nvidiactl ] && [ -z "${TORCH_INDEX:-}" ] || return 0
  if pip_install --dry-run torch && grep "^Would install" "$log" | grep -q nvidia; then
    say "pip is about to fetch torch's CUDA build, several GB, and this machine has no NVIDIA GPU."
    say "for the small CPU build stop this and set TORCH_INDEX, see README.md"
  fi
}

install_all() {
  say "installing distppo and what it needs: one to two minutes, log in $log"
  if pip_install -e ".[export,plot,video,dev]"; then return; fi
  if grep -qE "NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError|Connection(Reset|Refused)Error" "$log"; then
    fail "pip could not reach its package index: is the network up? (log in $log; run it again, it goes on where it stopped)"
  fi
  fail "pip failed: $(grep -E '^(ERROR|error)' "$log" | tail -n 1 || true) (log in $log)"
}

# Importing writes the byte code of what a run needs, which pip was told not to do for all eighteen thousand files; Ray starts
# processes that import more of Ray. PYTHONDONTWRITEBYTECODE would have every process compile everything again.
check_imports() {
  local modules="gymnasium, imageio_ffmpeg, matplotlib.font_manager, mujoco, numba, onnxruntime, pytest, ray.tune, rich, safetensors.numpy, scipy.linalg, tensorboardX, torch, yaml"
  env -u PYTHONDONTWRITEBYTECODE "$venv/bin/python" -c "import $modules" >>"$log" 2>&1 \
    || fail "what pip installed does not import: $(tail -n 1 "$log") (log in $log)"
  "$venv/bin/python" -c 'import compileall, ray; compileall.compile_dir(ray.__path__[0], quiet=2, workers=0)' >>"$log" 2>&1
}

SECONDS=0
create_venv
: >"$log"
warn_of_cuda
install_all
check_imports
rm -f "$venv"/.stamp-*
touch "$stamp"
say "done in $SECONDS s"
