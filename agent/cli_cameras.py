"""`outpost cameras`: find, try and add cameras."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent import cameras
from agent.cli_words import EXIT_FAILED, EXIT_OK, command, config_options, print_table
from agent.core import log
from agent.core.errors import ConfigError
from agent.device.trial import LOOK_S, Trial

_COLUMNS = {
    "codec": "codec",
    "size": "size",
    "rate_per_s": "fps",
    "key_every_s": "key s",
    "kbit_per_s": "kbit/s",
    "clock_offset_s": "clock s",
    "sound": "sound",
    "transport": "by",
}
Trials = Mapping[str, Mapping[str, Trial]]


def add(words: Any) -> None:
    """Declare the commands."""
    parser = words.add_parser("cameras", help="find, try and add cameras", description=__doc__)
    inner = parser.add_subparsers(required=True, metavar="WHAT")
    discover = command(inner, "discover", _discover, "ask the network for ONVIF cameras")
    discover.add_argument("--timeout", type=float, default=3.0, metavar="S", help="seconds (3)")
    discover.add_argument(
        "--interface", default="", metavar="IP", help="our address or device there (all of them)"
    )
    discover.add_argument("--json", action="store_true")
    test = command(inner, "test", _test, "watch each stream for some seconds and say how it is")
    test.add_argument("camera", nargs="?", default="", help="its id, or an address (all of them)")
    _address_options(test)
    test.add_argument(
        "--seconds", type=float, default=LOOK_S, metavar="S", help=f"how long ({LOOK_S:g})"
    )
    test.add_argument("--json", action="store_true")
    new = command(inner, "add", _add, "try a camera and append it to a configuration")
    new.add_argument("--id", required=True, metavar="NAME", help="its name in topics and files")
    new.add_argument("--url", required=True, help="rtsp://…, onvif://host[:port], v4l2:/dev/…")
    new.add_argument("--sub-url", default="", help="its small stream, where ONVIF does not tell")
    _address_options(new)
    new.add_argument("--force", action="store_true", help="add it though it does not answer")
    picture = command(inner, "snapshot", _snapshot, "what a camera sees, as a JPEG file")
    picture.add_argument("camera", help="its id, or an address")
    _address_options(picture)
    picture.add_argument("--out", type=Path, required=True, metavar="FILE.jpg")


def _address_options(parser: argparse.ArgumentParser) -> None:
    config_options(parser, is_required=False)
    parser.add_argument("--user", default="", help="user at the camera, with an address")
    parser.add_argument("--password-file", type=Path, help="file whose first line is the password")


def _discover(options: argparse.Namespace) -> int:
    if not 0.1 <= options.timeout <= 60:  # noqa: PLR2004 - the limits that are told
        raise ConfigError(f"discover: --timeout {options.timeout:g}; allowed: 0.1 to 60")
    found = cameras.discover(options.timeout, options.interface)
    if options.json:
        print(json.dumps(found))
    elif found:
        print_table([{key: value or "-" for key, value in row.items()} for row in found])
        print("\nNext: outpost cameras test ADDRESS --user NAME --password-file FILE")
    else:
        print(
            "no camera answered. Are box and cameras on one network? Is ONVIF switched on at the"
            " camera?\nA camera that is not found may still be there: outpost cameras test"
            " onvif://ADDRESS or rtsp://ADDRESS/PATH"
        )
    return EXIT_OK if found else EXIT_FAILED


def _test(options: argparse.Namespace) -> int:
    if not 1 <= options.seconds <= 600:  # noqa: PLR2004 - the limits that are told
        raise ConfigError(f"test: --seconds {options.seconds:g}; allowed: 1 to 600")
    meant = _meant(options)
    if sys.stderr.isatty():
        print(f"watching {len(meant)} cameras for some seconds …", file=sys.stderr)
    found = dict(cameras.trials(meant, options.seconds))
    if options.json:
        print(json.dumps([row | _details(one) for row, one in _rows(found)]))
    else:
        _show(found)
    return EXIT_OK if _is_good(found) else EXIT_FAILED


def _add(options: argparse.Namespace) -> int:
    if options.config is None:
        raise ConfigError("cameras add: --config is missing; allowed: the device's TOML file")
    streams = cameras.streams_of(options.url, options.user, options.password_file)
    if options.sub_url:
        small = cameras.streams_of(options.sub_url, options.user, options.password_file)
        streams = cameras.Streams(streams.main, small.main)
    cameras.addition(options.config, options.id, streams)  # mistakes come before the waiting
    streams, tried = cameras.tried_new(streams)
    found = {options.id: tried}
    _show(found)
    if not _is_good(found) and not options.force:
        print(f"\n{options.config}: left as it was; --force adds it all the same", file=sys.stderr)
        return EXIT_FAILED
    new = cameras.addition(options.config, options.id, streams)
    new.write()
    print(f"\n{new.file}: added\n\n{new.table}")
    print(f"Next: outpost cameras snapshot {options.id} --config {options.config} --out view.jpg")
    print(f"      then zones and rules, outpost check --config {options.config}, and a restart")
    if options.password_file is not None:
        print(f"      the service must read {options.password_file}: group outpost, mode 640")
    return EXIT_OK


def _snapshot(options: argparse.Namespace) -> int:
    (streams,) = _meant(options).values()
    try:
        options.out.write_bytes(cameras.snapshot(streams))
    except OSError as error:
        raise ConfigError(f"{options.out}: {error.strerror}; allowed: a file to write") from error
    print(options.out)
    return EXIT_OK


def _meant(options: argparse.Namespace) -> dict[str, cameras.Streams]:
    """Give the cameras that are meant: an address, an id, or all of the configuration."""
    if options.config is None or ":" in options.camera:  # an id has none
        if not options.camera:
            raise ConfigError("cameras: nothing to try; allowed: an address, or --config FILE")
        streams = cameras.streams_of(options.camera, options.user, options.password_file)
        return {options.camera: streams}
    return cameras.configured(options.config, options.set, options.camera)


def _is_good(found: Trials) -> bool:
    return all(one.is_good for streams in found.values() for one in streams.values())


def _rows(found: Trials) -> list[tuple[dict[str, Any], Trial]]:
    return [
        ({"camera": log.redact(name), "stream": stream}, one)
        for name, streams in found.items()
        for stream, one in streams.items()
    ]


def _details(one: Trial) -> dict[str, Any]:
    figures = {name: getattr(one, name) for name in _COLUMNS}
    told = {"is_good": one.is_good, "fault": log.redact(one.fault), "cure": one.cure}
    return {**figures, **told, "advice": one.advice}


def _show(found: Trials) -> None:
    """Print one table, then what is to be done about each stream; narrow, for a phone."""
    rows = _rows(found)
    is_one = len(found) == 1
    if is_one:
        print(rows[0][0]["camera"])
    print_table(
        [
            {
                **({"stream": row["stream"]} if is_one else row),
                **{head: getattr(one, name) for name, head in _COLUMNS.items()},
                "result": "good" if one.is_good else "FAILS",
            }
            for row, one in rows
        ]
    )
    for row, one in rows:
        if one.fault or one.advice:
            print(f"\n{row['stream'] if is_one else ' '.join(row.values())}:")
        if one.fault:
            print(f"  why: {log.redact(one.fault)}\n  do:  {one.cure}")
        for line in one.advice:
            print(f"  better: {line}")
