#!/usr/bin/env bash
# Runs the tests: ./test.sh [ARGUMENTS FOR PYTEST]. PYTHON names the Python of .venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./environment.sh

prepare_environment requirements.txt requirements-test.txt
# worksteal gives neighbouring tests, which share fixtures, to the same process.
say "Running the tests in 2 processes: pytest -n 2 --dist worksteal $*"
exec "$venv/bin/python" -m pytest -n 2 --dist worksteal "$@"
