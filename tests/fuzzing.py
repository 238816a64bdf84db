"""Made-up damage for the fuzzing tests, and what has to come of it.

`./test.sh` tries few cases; FUZZ_EXAMPLES=10000 in the environment tries that many of
each test, and --hypothesis-show-statistics counts them.
"""

import copy
import datetime
import json
import os
import resource
import struct

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from errors import UserError

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "20"))
MOST_GROWTH = 400_000_000  # bytes of memory, over all cases of a test

fuzzed = settings(
    max_examples=EXAMPLES,
    # The few cases of the quick run are the same everywhere.
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    database=None,
    deadline=datetime.timedelta(seconds=20),  # a case
    suppress_health_check=list(HealthCheck),
)

# --- what is made up ------------------------------------------------------------

HOSTILE = [
    *(None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e-9, 1e308, 10**6, 10**9, 2**31),
    *(2**40, 2**62, 2**63, 2**64, 10**30, 10**299, 10**301, float("nan"), float("inf")),
    *(
        "",
        "\x1b[2J",
        "\ud800",
        "\0",
        "a\nb",
        "../../x",
        "/dev/zero",
        "gelu",
        "x" * 5000,
    ),
    *([], {}, [[]], {"": {}}, [1, 2], ["a", "a"], list(range(3000)), {"a": {"b": [0]}}),
]
HOSTILE += [json.loads("[" * depth + "]" * depth) for depth in (30, 200)]
VALUES = st.one_of(
    st.sampled_from(HOSTILE),
    st.integers(),
    st.floats(),
    st.text(max_size=10),
    st.recursive(
        st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        ),
        max_leaves=5,
    ),
).map(copy.deepcopy)  # Later changes may go inside.


def changed_document(draw, document):
    """A copy of a JSON value with up to three places replaced, removed or added."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(0, 3))):
        node = document
        while node:
            keys = list(node) if isinstance(node, dict) else range(len(node))
            key = draw(st.sampled_from(keys))
            inner = node[key]
            if isinstance(inner, (dict, list)) and inner and draw(st.booleans()):
                node = inner
                continue
            action = draw(st.sampled_from(("set", "set", "remove", "add")))
            if action == "set":
                node[key] = draw(VALUES)
            elif action == "remove":
                del node[key]
            elif isinstance(node, dict):
                name = draw(st.text(max_size=5) | st.sampled_from(dir(dict)))
                node[name] = draw(VALUES)
            else:
                node.append(draw(VALUES))
            break
    return document


def changed_bytes(draw, data):
    """The bytes with up to four places replaced, removed, added or cut off."""
    data = bytearray(data)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        action = draw(st.sampled_from(("flip", "remove", "add", "cut", "repeat")))
        if action == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif action == "remove":
            del data[at : at + draw(st.integers(1, 20))]
        elif action == "add":
            data[at:at] = draw(st.binary(max_size=10))
        elif action == "repeat":
            data[at:at] = data[at : at + 1] * draw(st.sampled_from((1, 50, 5000)))
        elif action == "cut" and draw(st.integers(0, 3)) == 0:
            del data[at:]
    return bytes(data)


def changed_json(draw, document):
    """Bytes of a changed document, or changed bytes of one."""
    data = json.dumps(changed_document(draw, document)).encode("utf-8")
    return data if draw(st.booleans()) else changed_bytes(draw, data)


def changed_safetensors(draw, data):
    """A weights' file with another header, or other bytes."""
    if draw(st.integers(0, 3)) == 0:
        return changed_bytes(draw, data)
    length = 8 + struct.unpack("<Q", data[:8])[0]
    header = changed_json(draw, json.loads(data[8:length]))
    payload = data[length:]
    if draw(st.integers(0, 3)) == 0:
        payload = changed_bytes(draw, payload)
    size = draw(st.sampled_from((len(header), len(header), len(header) + 1, 2**63)))
    return struct.pack("<Q", size) + header + payload


# --- what has to come of it -----------------------------------------------------


def read_or_refuse(call, *arguments):
    """What the call returns; None where it refuses with one printable message."""
    try:
        return call(*arguments)
    except UserError as error:
        message = str(error)
        assert message and len(message) < 20_000
        assert message.isprintable(), ascii(message)
        return None


@pytest.fixture(autouse=True)
def bounded_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < MOST_GROWTH
