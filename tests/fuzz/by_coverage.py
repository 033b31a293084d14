"""Fuzz the wire decoder by coverage with atheris, which is no dependency: see docs/FUZZING.md.

The first byte chooses the schema, the rest is the message; good messages are what it begins with.
One more choice is a batch, whose lines are decoded as the receiver does.
"""

import base64
import json
import re
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports():
    from agent.core import wire
    from agent.core.errors import MalformedMessage
    from agent.receiver.unpack import Unpacker

PAGE = Path(__file__).parents[2] / "docs" / "WIRE.md"
EXAMPLE = re.compile(r"^```json (\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BATCH = re.compile(r"^```base64 batch\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LONGEST_BYTES = 8192
BATCHES = Unpacker(Path("no-dictionaries"))


def one_input(content):
    """Decode one message: whatever is taken must come out the same when it is sent on."""
    if not content:
        return
    choice = content[0] % (len(wire.SCHEMAS) + 1)
    try:
        if choice == len(wire.SCHEMAS):
            BATCHES.lines(content[1:])
            return
        schema = wire.SCHEMAS[choice]
        document = wire.decode(schema, content[1:])
    except MalformedMessage:
        return
    if wire.decode(schema, json.dumps(document).encode()) != document:
        raise AssertionError(f"{schema}: not the same twice: {content[1:200]!r}")


def main():
    """Run until libFuzzer's own limits (`-max_total_time=600`, `-runs=…`) or a defect."""
    for schema in wire.SCHEMAS:  # their code is made at run time
        atheris.instrument_func(wire.validator(schema))
    with tempfile.TemporaryDirectory() as folder:
        for schema, text in EXAMPLE.findall(PAGE.read_text()):
            number = bytes([wire.SCHEMAS.index(schema)])
            (Path(folder) / schema).write_bytes(number + text.strip().encode())
        batch = base64.b64decode(BATCH.search(PAGE.read_text())[1])
        (Path(folder) / "batch").write_bytes(bytes([len(wire.SCHEMAS)]) + batch)
        atheris.Setup([*sys.argv, f"-max_len={LONGEST_BYTES}", folder], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
