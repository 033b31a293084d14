"""`outpost cameras`: find, try and add cameras."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from agent import cameras
from agent.cli_words import EXIT_FAILED, EXIT_OK, command, config_options, print_table
from agent.core import log
from agent.core.errors import ConfigError


def add(words: Any) -> None:
    """Declare the commands."""
    parser = words.add_parser("cameras", help="find, try and add cameras", description=__doc__)
    inner = parser.add_subparsers(required=True, metavar="WHAT")
    discover = command(inner, "discover", _discover, "ask the network for ONVIF cameras")
    discover.add_argument("--timeout", type=float, default=3.0, metavar="S", help="seconds (3)")
    discover.add_argument("--interface", default="", metavar="IP", help="our address there")
    discover.add_argument("--json", action="store_true")
    test = command(inner, "test", _test, "watch each stream for some seconds and say how it is")
    test.add_argument("camera", nargs="?", default="", help="its id, or an address (all of them)")
    _address_options(test)
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
        print_table(found)
    else:
        print("no camera answered; is this box on the cameras' network? Try --interface IP")
    return EXIT_OK if found else EXIT_FAILED


def _test(options: argparse.Namespace) -> int:
    tried = {name: list(cameras.trials(streams)) for name, streams in _meant(options).items()}
    if options.json:
        rows = [
            {"camera": name, **trial.row(), "cure": trial.cure, "is_good": trial.is_good}
            for name, found in tried.items()
            for trial in found
        ]
        print(log.redact(json.dumps(rows)))
    else:
        for name, found in tried.items():
            _show(name, found)
    is_good = all(trial.is_good for found in tried.values() for trial in found)
    return EXIT_OK if is_good else EXIT_FAILED


def _add(options: argparse.Namespace) -> int:
    if options.config is None:
        raise ConfigError("cameras add: --config is missing; allowed: the device's TOML file")
    streams = cameras.streams_of(options.url, options.user, options.password_file)
    if options.sub_url:
        small = cameras.streams_of(options.sub_url, options.user, options.password_file)
        streams = cameras.Streams(streams.main, small.main)
    found = list(cameras.trials(streams))
    _show(options.id, found)
    if not all(trial.is_good for trial in found) and not options.force:
        print(f"{options.config}: left as it was; --force adds it all the same", file=sys.stderr)
        return EXIT_FAILED
    text = cameras.add(options.config, options.id, streams)
    print(f"\n{options.config}: added\n\n{text}\nNext: zones and rules, then `outpost check`.")
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
    if options.config is None:
        if not options.camera:
            raise ConfigError("cameras: nothing to try; allowed: an address, or --config FILE")
        streams = cameras.streams_of(options.camera, options.user, options.password_file)
        return {options.camera: streams}
    return cameras.configured(options.config, options.set, options.camera)


def _show(name: str, found: list[cameras.Trial]) -> None:
    print(log.redact(name))
    print_table([{key: log.redact(value) for key, value in trial.row().items()} for trial in found])
    for trial in found:
        if trial.cure:
            print(f"  {trial.stream}: {trial.cure}")
