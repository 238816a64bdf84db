#!/usr/bin/env bash
# Runs all tests: ./test.sh [ARGUMENTS FOR PYTEST]. What the tests need goes into
# .venv; PYTHON names the Python to make that with.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./environment.sh

prepare_environment requirements.txt requirements-test.txt
# Neighbours go to the same process, which makes what they share once: --dist.
say "Running the tests in 2 processes: pytest -n 2 --dist worksteal $*"
exec "$venv/bin/python" -m pytest -n 2 --dist worksteal "$@"
