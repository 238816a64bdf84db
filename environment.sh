# shellcheck shell=bash
# Sourced by demo.sh, test.sh and .ci/run in the project's folder: finds a supported
# Python and installs the pinned packages into .venv, or the folder that VENV names.

venv=${VENV:-.venv}

say() { printf '== %s\n' "$*"; }

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# Prints whether the command $1 is a usable Python: "3.11 usable", or what is wrong.
# Version managers put commands on PATH that only print an error, and some systems
# install the module venv separately.
describe_python() {
  "$1" -c '
import sys
version = "%d.%d" % sys.version_info[:2]
try:
    import ensurepip, ssl, venv
except ImportError as problem:
    print("%s without a module of the standard library (%s)" % (version, problem))
else:
    supported = (3, 10) <= sys.version_info[:2] <= (3, 13)
    print(version + (" usable" if supported else ", not 3.10 to 3.13"))
' 2>/dev/null </dev/null || echo "not found or does not run"
}

# In order of preference; the figures in README.md come from the first.
pythons=(python3.11 python3.10 python3.13 python3.12 python3)

# Sets `python` to $PYTHON, or else to the first usable command.
find_python() {
  local candidate description seen=""
  if [[ -n ${PYTHON:-} ]]; then pythons=("$PYTHON"); fi
  for candidate in "${pythons[@]}"; do
    description=$(describe_python "$candidate")
    if [[ $description == *" usable" ]]; then
      python=$candidate
      return
    fi
    seen="$seen
  $candidate: $description"
  done
  fail "no usable Python 3.10 to 3.13:$seen
Install one with its venv module (on Debian and Ubuntu the package python3-venv)," \
    "or set PYTHON to a Python 3.10 to 3.13."
}

# Creates .venv, or checks the existing one.
make_venv() {
  local description
  if [[ -e $venv/unfinished ]]; then
    if kill -0 "$(<"$venv/unfinished")" 2>/dev/null; then
      fail "$venv is being made by process $(<"$venv/unfinished"). Wait for it."
    fi
    say "Removing $venv: its installation did not finish."
    rm -rf "$venv"
  fi
  if [[ ! -e $venv ]]; then
    find_python
    say "Making $venv with $python ($("$python" --version 2>&1))."
    mkdir "$venv"
    echo $BASHPID >"$venv"/unfinished
    "$python" -m venv "$venv" || fail "$python -m venv $venv failed, see above."
    return
  fi
  description=$(describe_python "$venv/bin/python")
  if [[ $description != *" usable" ]]; then
    fail "$venv has Python $description. Remove $venv, it is created again."
  fi
  "$venv/bin/python" -m pip --version >/dev/null 2>&1 ||
    fail "$venv has no pip that runs. Remove $venv, it is created again."
  if [[ -n ${PYTHON:-} && $(describe_python "$PYTHON") != "$description" ]]; then
    fail "PYTHON=$PYTHON is: $(describe_python "$PYTHON"), but $venv is:" \
      "$description. Remove $venv or unset PYTHON."
  fi
}

# prepare_environment FILE...: installs requirement files into .venv. A copy of each
# installed file is kept there: a file is installed again only when it has changed.
prepare_environment() {
  local file missing=""
  make_venv
  for file in "$@"; do
    cmp -s "$file" "$venv/installed-$file" || missing="$missing $file"
  done
  if [[ -z $missing ]]; then
    say "Using $venv as it is: it holds $*."
    return
  fi
  for file in $missing; do
    say "Installing $file into $venv."
    rm -f "$venv/installed-$file"
    # Compiling all modules takes half a minute; those that are imported are enough.
    # pip prints a line for each requirement of another Python.
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-compile \
      -r "$file" | sed '/^Ignoring .*markers/d' ||
      fail "pip could not install $file; its message is above. Packages come" \
        "from the index that pip is configured for (pip config list)."
    cp "$file" "$venv/installed-$file"
  done
  # Containers often set this variable. Each start would compile TensorFlow again.
  env -u PYTHONDONTWRITEBYTECODE "$venv/bin/python" -c "import run_classifier" ||
    fail "TensorFlow cannot be imported from $venv; its message is above."
  rm -f "$venv/unfinished"
}

# Prints the first GPU that NVIDIA's driver lists, such as "GPU 0: NVIDIA H200".
find_gpu() {
  { nvidia-smi -L 2>/dev/null || true; } | sed -n 's/^\(GPU 0: .*\) (UUID.*/\1/p'
}

# check_score FOLDER METRIC LEAST USUAL: prints a score of a finished run on the dev
# set, and fails if it is below LEAST.
check_score() {
  "$venv/bin/python" -c '
import json
import sys

folder, metric, least, usual = sys.argv[1:]
with open(folder + "/eval_results.json") as reader:
    dev = json.load(reader)["sets"]["dev"]
score, baseline = dev["scores"][metric], dev["baseline"][metric]
print(
    "%s on the %d examples of the dev set: %.4g; baseline: %.4g"
    % (metric, dev["examples"], score, baseline)
)
if score < float(least):
    sys.exit(
        "error: it is below %s, %s is usual; see log.txt in %s" % (least, usual, folder)
    )
' "$@"
}
