# shellcheck shell=bash
# Sourced by demo.sh, test.sh and .ci/run, from the project's folder: finds a
# Python that the pinned TensorFlows support and keeps .venv ready for the others.
# VENV names another folder for the environment.

venv=${VENV:-.venv}

say() { printf '== %s\n' "$*"; }

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# Prints what the command $1 is: "3.11 usable", or what is wrong with it. A name
# on PATH proves nothing: version managers put names there that only print an
# error, and some systems split the module venv off.
describe_python() {
  "$1" -c '
import sys
version = "%d.%d" % sys.version_info[:2]
try:
    import ensurepip, ssl, venv
except ImportError as problem:
    print("%s without what makes environments (%s)" % (version, problem))
else:
    supported = (3, 10) <= sys.version_info[:2] <= (3, 13)
    print(version + (" usable" if supported else ", not 3.10 to 3.13"))
' 2>/dev/null </dev/null || echo "not found or does not run"
}

# In the order of preference; the figures of README.md come from the first.
pythons=(python3.11 python3.10 python3.13 python3.12 python3)

# Sets `python` to the first usable command: $PYTHON if that is set, and nothing
# else then.
find_python() {
  local candidate description seen=""
  for candidate in ${PYTHON:+"$PYTHON"} "${pythons[@]}"; do
    description=$(describe_python "$candidate")
    if [[ $description == *" usable" ]]; then
      python=$candidate
      return
    fi
    if [[ -n ${PYTHON:-} ]]; then
      fail "PYTHON=$PYTHON is: $description." \
        "Set PYTHON to a Python 3.10 to 3.13, or unset it."
    fi
    seen="$seen
  $candidate: $description"
  done
  fail "no usable Python 3.10 to 3.13:$seen
Install one of these, with its venv module (on Debian and Ubuntu the package" \
    "python3-venv), or set PYTHON to one that is not on PATH."
}

# Makes .venv where there is none.
make_venv() {
  local description
  if [[ -e $venv/unfinished ]]; then
    say "Removing $venv: its installation did not finish."
    rm -rf "$venv"
  elif [[ -e $venv ]] && ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    say "Removing $venv: its Python or its pip does not run."
    rm -rf "$venv"
  fi
  if [[ ! -e $venv ]]; then
    find_python
    say "Making $venv with $python ($("$python" --version 2>&1))."
    mkdir "$venv"
    : >"$venv"/unfinished
    "$python" -m venv "$venv" || fail "$python -m venv $venv failed, see above."
    return
  fi
  description=$(describe_python "$venv/bin/python")
  if [[ $description != *" usable" ]]; then
    fail "$venv has Python $description. Remove $venv to have it made anew."
  fi
  if [[ -n ${PYTHON:-} && $(describe_python "$PYTHON") != "$description" ]]; then
    fail "PYTHON=$PYTHON is: $(describe_python "$PYTHON"), but $venv is:" \
      "$description. Remove $venv to have it made anew, or unset PYTHON."
  fi
}

# prepare_environment FILE...: has .venv hold exactly what the requirement files
# pin. A copy of each installed file is kept in .venv, so that nothing is
# installed again until a file changes.
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
    : >"$venv"/unfinished
    # What is imported is compiled then; all of it would take half a minute.
    # pip names each line of the file that is for another Python: 38 lines.
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-compile \
      -r "$file" | sed '/^Ignoring .*markers/d' ||
      fail "pip could not install $file; its message is above. Packages come" \
        "from the index that pip is configured for (pip config list)."
    cp "$file" "$venv/installed-$file"
  done
  rm -f "$venv/unfinished"
}

# check_accuracy FOLDER LEAST USUAL: says the dev set's accuracy of a finished run, and
# fails where it is below LEAST.
check_accuracy() {
  RESULTS="$1/eval_results.json" LEAST=$2 USUAL=$3 "$venv/bin/python" -c '
import json
import os
import sys

with open(os.environ["RESULTS"]) as reader:
    dev = json.load(reader)["sets"]["dev"]
score, baseline = dev["scores"]["accuracy"], dev["baseline"]["accuracy"]
least = float(os.environ["LEAST"])
print(
    "Accuracy on %d rows of the dev set: %.1f %%; one answer for all of them: %.1f %%."
    % (dev["examples"], 100 * score, 100 * baseline)
)
if score < least:
    sys.exit(
        "error: this demo failed: at least %.0f %% was expected, %s is usual; see %s"
        % (
            100 * least,
            os.environ["USUAL"],
            os.path.join(os.path.dirname(os.environ["RESULTS"]), "log.txt"),
        )
    )
'
}
