"""Reads documents: their blocks and anchors, and their commands as a shell does."""

import contextlib
import os
import re
import shutil
import subprocess
import unicodedata
from typing import NamedTuple

from tests.places import ROOT


def _programs():
    """Modules that are run by name, and define their flags by absl."""
    for path in sorted([*ROOT.glob("*.py"), *ROOT.glob("[a-z]*/*.py")]):
        text = path.read_text(encoding="utf-8")
        if (
            path.parent.name != "tests"
            and "\nif __name__ ==" in text
            and "\nfrom absl import" in text
        ):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts)


PROGRAMS = tuple(_programs())


# --- reading documents ----------------------------------------------------------


class Block(NamedTuple):
    """A fenced block of a document."""

    document: str
    line: int  # of the fence
    language: str
    text: str
    marker: str  # the comment on the line above it, such as "needs: a TPU"; or ""

    @property
    def place(self):
        return "%s:%d" % (self.document, self.line)


def read(document):
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document, text=None):
    """All `Block`s of a document, and the lines outside of them with their numbers."""
    found, prose = [], []
    language, begun, inside, before = None, 0, [], ""
    for number, line in enumerate((text or read(document)).split("\n"), 1):
        if line.startswith("```"):
            if language is None:
                language, begun, inside = line[3:], number, []
            else:
                marker = re.fullmatch(r"<!-- (.*) -->", before)
                marker = marker.group(1) if marker else ""
                content = "".join(each + "\n" for each in inside)
                found.append(Block(document, begun, language, content, marker))
                language, before = None, ""
        elif language is not None:
            inside.append(line)
        else:
            before = line
            prose.append((number, line))
    assert language is None, "%s:%d: the block has no end" % (document, begun)
    return found, prose


def slug(heading):
    """The anchor that a heading gets."""
    text = re.sub(r"[`*]", "", heading).strip().lower()
    kept = (c for c in text if c in "-_ " or unicodedata.category(c)[0] in "LN")
    return "".join(kept).replace(" ", "-")


def anchors(document):
    _, prose = blocks(document)
    found = (re.match(r"#+ (.*)", line) for _, line in prose)
    return {slug(match.group(1)) for match in found if match}


# --- reading commands -----------------------------------------------------------

# Stands for every program: keeps its arguments, and what is piped into it.
RECORDER = """#!%s
shopt -s nullglob
calls=("$LOG"/*.call)
name="$LOG/$(printf %%03d ${#calls[@]})"
printf '%%s\\0' "$BLOCK" "$0" "$@" >"$name.call"
if [[ -p /dev/stdin ]]; then cat >"$name.stdin"; fi
if [[ "$1 $2" == "-m venv" ]]; then
  mkdir -p "$3/bin"
  for each in activate python pip; do cp "$0" "$3/bin/$each"; done
  : >"$3/bin/activate"
fi
"""
RECORDED = (
    *("python", "python3.11", "pip", "saved_model_cli"),
    *("./demo.sh", "./test.sh", ".ci/run", ".venv/bin/python"),
)
# What the shell finds beside them, by its real name.
TOOLS = ("cat", "cp", "mkdir")


class Call(NamedTuple):
    """A command of a document, as the shell has read it."""

    block: Block
    words: tuple  # the program first
    stdin: bytes

    @property
    def place(self):
        return "%s: %s" % (self.block.place, " ".join(self.words))

    @property
    def program(self):
        """One of `PROGRAMS`, or None for another command."""
        name, words = os.path.basename(self.words[0]), self.words[1:]
        if name != "python" or not words:
            return None
        module = words[1] if words[0] == "-m" else os.path.splitext(words[0])[0]
        return module if module in PROGRAMS else None

    @property
    def arguments(self):
        """What follows the program."""
        return list(self.words[3 if self.words[1] == "-m" else 2 :])


def calls(document_blocks, folder):
    """Has the shell read blocks in a folder; the `Call`s in their order.

    Files that the blocks themselves write, such as by `cat`, are there then.
    """
    tools, log = folder / "tools", folder / "log"
    for path in (tools, log, folder / ".venv" / "bin", folder / ".ci"):
        path.mkdir(parents=True, exist_ok=True)
    for tool in TOOLS:
        with contextlib.suppress(FileExistsError):
            os.symlink(shutil.which(tool), tools / tool)
    for name in RECORDED:
        path = folder / name if "/" in name else tools / name
        path.write_text(RECORDER % shutil.which("bash"))
        path.chmod(0o755)
    (folder / ".venv" / "bin" / "activate").touch()
    script = ["set -euo pipefail"]
    for index, block in enumerate(document_blocks):
        script += ["export BLOCK=%d" % index, block.text]
    done = subprocess.run(
        [shutil.which("bash"), "-c", "\n".join(script)],
        cwd=folder,
        env={"PATH": str(tools), "LOG": str(log)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = []
    for path in sorted(log.glob("*.call")):
        index, *words = path.read_text().split("\0")[:-1]
        stdin = path.with_suffix(".stdin")
        content = stdin.read_bytes() if stdin.exists() else b""
        found.append(Call(document_blocks[int(index)], tuple(words), content))
    shutil.rmtree(log)
    return found
