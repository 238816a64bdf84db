"""Downloads SQuAD's files and checks them."""

import os
import sys

from errors import UserError
from inputs import download
from system import files

BASE_URL = "https://rajpurkar.github.io/SQuAD-explorer/dataset"

SHA256 = {
    "train-v1.1.json": (
        "3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955"
    ),
    "dev-v1.1.json": (
        "95aa6a52d5d6a735563366753ca50492a658031da74f301ac5238b03966972c9"
    ),
    "train-v2.0.json": (
        "68dcfbb971bd3e96d5b46c7177b16c1a4e7d4bdef19fb204502738552dede002"
    ),
    "dev-v2.0.json": (
        "80a5225e94905956a6446d296ca1093975c4d3b3260f1d6c8f68bc2ab77182d8"
    ),
}


def fetch_file(name, folder, base_url=BASE_URL):
    """Downloads one of the files `SHA256` to a local folder, unless it is there.

    It appears when it is whole and checked.

    Raises:
      UserError: the download failed or is another file, or the folder has another file
        of the name.
      disk.WriteError: there is no space for it.
    """
    path = os.path.join(folder, name)
    if os.path.lexists(path):
        if not os.path.isfile(path) or files.digest(path) != SHA256[name]:
            raise UserError(
                "%s exists, and is not SQuAD's file: move it away, or give another "
                "`output_dir`" % path
            )
        _log(name, "exists, nothing to fetch")
        return
    url = "%s/%s" % (base_url.rstrip("/"), name)
    _log(name, "fetching " + url)
    with files.working_folder(path) as working_folder:
        partial = os.path.join(working_folder, name)
        download.fetch_file(url, partial, "base_url")
        if files.digest(partial) != SHA256[name]:
            raise UserError(
                "%s is not SQuAD's file: its SHA-256 is another one. Nothing is kept; "
                "run again, or give another `base_url`" % url
            )
        os.replace(partial, path)
    _log(name, "ready in %s" % folder)


def _log(name, message):
    print("%s: %s" % (name, message), file=sys.stderr, flush=True)
