"""Where the tests find the project and their data."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"
GLUE = DATA / "glue"
