"""Makes the two streams of a simulated camera out of one video file.

    python -m firmware_sim.streams --main-from FILE --out DIR [--sub-width 480]

`main.mp4` is the picture as it is, `sub.mp4` the same made small; H.264, a key frame every 20
pictures, no B-frames, as fixed cameras send it.
"""

import argparse
import hashlib
import json
import sys
from fractions import Fraction
from pathlib import Path

import av

GOP = 20
_OPTIONS = {"preset": "veryfast", "bf": "0", "profile": "main", "x264-params": "scenecut=0"}


def check(source: Path) -> None:
    """Compare footage with the manifest that stands beside it, if one does.

    Raises:
        ValueError: these are not the bytes whose origin and licence the manifest tells.
    """
    manifest = source.with_suffix(".json")
    if not manifest.exists():
        return
    wanted = json.loads(manifest.read_text())["sha256"]
    found = hashlib.sha256(source.read_bytes()).hexdigest()
    if found != wanted:
        raise ValueError(f"{source}: sha256 {found}; {manifest.name}: {wanted}")


def make(source: Path, target: Path, width_px: int | None, kbit_per_s: int) -> None:
    """Re-encode a file; a width of None keeps the picture's size.

    Raises:
        ValueError: the source holds no video, or is not what its manifest says.
    """
    check(source)
    with av.open(str(source)) as inside, av.open(str(target), "w") as outside:
        if not inside.streams.video:
            raise ValueError(f"{source}: no video")
        video = inside.streams.video[0]
        rate = Fraction(video.average_rate or 25)
        stream = outside.add_stream("libx264", rate=rate, options=_OPTIONS)
        scale = 1.0 if width_px is None else width_px / video.width
        stream.width = round(video.width * scale) // 2 * 2
        stream.height = round(video.height * scale) // 2 * 2
        stream.pix_fmt = "yuv420p"
        stream.gop_size = GOP
        stream.bit_rate = kbit_per_s * 1000
        for frame in inside.decode(video):
            frame.pict_type = av.video.frame.PictureType.NONE
            outside.mux(stream.encode(frame))
        outside.mux(stream.encode(None))


def main(argv: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="firmware_sim.streams", description=__doc__)
    parser.add_argument("--main-from", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--main-width", type=int, help="pixels; as it is if left out")
    parser.add_argument("--sub-width", type=int, default=480)
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        make(options.main_from, options.out / "main.mp4", options.main_width, 1500)
        make(options.main_from, options.out / "sub.mp4", options.sub_width, 400)
    except (OSError, ValueError) as error:
        print(f"firmware_sim.streams: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
