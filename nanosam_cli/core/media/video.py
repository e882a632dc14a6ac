"""Video in and out through PyAV: files, folders of frames and cameras. Frames are upright and keep their own times."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from nanosam_cli.core.errors import BackendError, InputError, MissingExtraError, UsageError
from nanosam_cli.core.media.image import MAX_PIXELS, animation_delays, list_images, read_animation, read_image
from nanosam_cli.core.types import Image

if TYPE_CHECKING:
    from av.container import InputContainer

FOLDER_RATE = Fraction(24)  # frames a second of a folder, as in DAVIS
CLOCK = Fraction(1, 90_000)  # seconds, the step of MPEG's timestamps; where a source has no clock of its own
GIF_SHORTEST, GIF_USUAL = 20, 100  # milliseconds: a shorter delay, or none, is taken for the usual, as by FFmpeg
FASTEST = 1000  # frames a second
SQUARE = Fraction(1)  # of pixels that are as wide as they are high
ANIMATIONS = {".gif": Fraction(1, 100), ".webp": Fraction(1, 1000)}  # suffixes, and the step of their times in seconds
MISSING_SECONDS = 0.5  # a file that ends so much sooner than it says is cut off

# Which FFmpeg input reads a camera, and how it calls the one with a number.
_CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("vfwcap", "{}")}

# Encoders by the suffix of the file, the first that this FFmpeg has; all take yuv420p.
_H264 = ("libx264", "h264_v4l2m2m", "h264_videotoolbox", "libopenh264")
ENCODERS = {".mp4": _H264, ".mov": _H264, ".mkv": _H264, ".webm": ("libvpx-vp9", "libvpx")}
_OPTIONS = {
    "libx264": {"crf": "20", "preset": "veryfast"},
    "libvpx-vp9": {"crf": "30", "b": "0", "deadline": "realtime", "cpu-used": "6"},
}

# What is written plays up to a second or two before the end, after a kill too; finished MP4s are plain ones.
_FRAGMENTED = {"movflags": "hybrid_fragmented+negative_cts_offsets", "frag_duration": "1000000"}  # microseconds
_CLUSTERED = {"cluster_time_limit": "1000"}  # milliseconds
_CONTAINERS = {".mp4": _FRAGMENTED, ".mov": _FRAGMENTED, ".mkv": _CLUSTERED, ".webm": _CLUSTERED}


# FFmpeg's formats that name other files or addresses, and how such files begin
_LISTS = {
    *("hls", "concat", "concatf", "dash", "imf", "webm_dash_manifest", "avisynth", "vapoursynth", "vobsub"),
    *("sdp", "rtsp", "rtp", "sap", "lavfi", "image2", "image2pipe"),
}
_LIST_STARTS = (b"#EXTM3U", b"ffconcat", b"v=0", b"<?xml", b"<MPD", b"# VobSub", b"RTSP", b"SAP")


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """One picture of a video."""

    index: int  # among the source's frames, from 0
    time: Fraction  # seconds since the first frame
    image: Image
    name: str  # for files that belong to it: 00012, or the stem of the frame's own file


class Video(Protocol):
    """A source of frames, to be iterated once.

    A file that turns out to be broken or cut off ends early; `fault` then says so, and the frames before are whole.
    """

    name: str
    rate: Fraction  # frames a second, on average
    clock: Fraction  # seconds; the times of frames are multiples of it
    frames: int | None  # how many it says it has
    live: bool
    fault: InputError | None
    pixel_ratio: Fraction  # width / height of a pixel as it is shown; known from the first frame on

    def __iter__(self) -> Iterator[VideoFrame]: ...


class FolderVideo:
    """Pictures of one directory in natural order, `rate` a second. All must have the size of the first."""

    def __init__(self, paths: Sequence[Path], name: str, rate: Fraction = FOLDER_RATE) -> None:
        self._paths = paths
        self.name, self.rate, self.clock, self.live = name, rate, 1 / rate, False
        self.frames: int | None = len(paths)
        self.fault: InputError | None = None
        self.pixel_ratio = SQUARE

    def __iter__(self) -> Iterator[VideoFrame]:
        size: tuple[int, ...] | None = None
        for index, path in enumerate(self._paths):
            try:
                image = read_image(path)
            except InputError as error:
                if size is None:
                    raise
                self.fault = InputError(f"{self.name} ends at frame {index}: {error}", error.hint)
                return
            size = size or image.shape
            if image.shape != size:
                raise InputError(f"{path} is {_size(image.shape)} pixels, the first frame {_size(size)}")
            yield VideoFrame(index, index * self.clock, image, path.stem)


class AnimatedPicture:
    """An animated GIF or WebP. Pillow reads it: where a GIF's frames have no delays, FFmpeg takes it for one frame, and
    of WebP it reads still ones alone."""

    def __init__(self, path: Path, name: str) -> None:
        delays = [delay if delay >= GIF_SHORTEST else GIF_USUAL for delay in animation_delays(path)] or [GIF_USUAL]
        self._path, self._starts = path, [0, *accumulate(delays)]
        self.name, self.clock, self.live = name, ANIMATIONS[path.suffix.lower()], False
        self.rate = Fraction(1000 * len(delays), sum(delays))
        self.frames: int | None = len(delays)
        self.fault: InputError | None = None
        self.pixel_ratio = SQUARE

    def __iter__(self) -> Iterator[VideoFrame]:
        index = 0
        try:
            for index, (start, image) in enumerate(zip(self._starts, read_animation(self._path)), 1):
                yield VideoFrame(index - 1, Fraction(start, 1000), image, f"{index - 1:05}")
        except InputError as error:
            if not index:
                raise
            self.fault = InputError(f"{self.name} ends after {_count(index)}: {error}", error.hint)


class StreamVideo:
    """The first video stream of an opened file or device."""

    def __init__(self, container: InputContainer, name: str, live: bool = False) -> None:
        if not container.streams.video:
            raise InputError(f"{name} has no video in it", "give a video file, or a folder of frames")
        self._container, self._stream = container, container.streams.video[0]
        self._stream.thread_type = "AUTO"
        codec: Any = self._stream.codec_context
        if codec is None:
            raise InputError(f"{name} is coded in a way that this FFmpeg does not know", "convert it to H.264")
        if codec.width * codec.height > MAX_PIXELS:
            raise InputError(
                f"{name} has frames of {codec.width}x{codec.height} pixels, more than {MAX_PIXELS // 10**6} million",
                "make it smaller first",
            )
        codec.options = {"max_pixels": str(MAX_PIXELS)}  # of frames that are larger than the file says
        self.name, self.live = name, live
        self.rate = Fraction(self._stream.average_rate or self._stream.guessed_rate or FOLDER_RATE)
        self.clock = Fraction(self._stream.time_base or CLOCK)
        self.fault: InputError | None = None
        self.pixel_ratio = Fraction(self._stream.sample_aspect_ratio or SQUARE)
        seconds = None if live else _duration(container)
        declared = self._stream.frames or (round(seconds * self.rate) if seconds else None)
        self.frames = None if live else declared
        self._seconds = seconds

    def __iter__(self) -> Iterator[VideoFrame]:
        import av

        first, last = None, Fraction(-1)
        index, size, lasts = 0, None, 1 / self.rate
        try:
            for decoded in self._container.decode(self._stream):
                seconds = index / self.rate if decoded.pts is None else decoded.pts * self.clock
                first = seconds if first is None else first
                last = max(seconds - first, last + self.clock)  # an encoder takes no time twice
                image = _upright(decoded, size)
                if not index and _quarters(decoded) % 2:  # pixels that lay on their side
                    self.pixel_ratio = 1 / self.pixel_ratio
                size = size or image.shape[:2]
                lasts = decoded.duration * self.clock if decoded.duration else 1 / self.rate
                yield VideoFrame(index, last, image, f"{index:05}")
                index += 1
        except av.FFmpegError as error:
            self._end(index, f"{error.strerror}")
        if not index:
            raise InputError(f"{self.name} has no frames", "get the file again")
        there = last + lasts
        if self.fault is None and self._seconds is not None and there + MISSING_SECONDS < self._seconds:
            self._end(index, f"{float(there):.1f} of {self._seconds:.1f} seconds are there")

    def _end(self, index: int, why: str) -> None:
        if index:
            self.fault = InputError(f"{self.name} is broken or cut off after {_count(index)}: {why}", "get it again")
        else:
            raise InputError(f"{self.name} is broken: not one frame can be read: {why}", "get it again")


@contextmanager
def open_video(source: str, rate: Fraction | None = None) -> Iterator[Video]:
    """A video file, a folder of frames, or a camera by its number. `rate` is that of a folder.

    Raises:
        InputError: there is no such thing, or no video in it.
        MissingExtraError: PyAV is needed and not installed.
    """
    path = Path(source)
    if path.is_dir():
        yield FolderVideo(list_frames(path), source, _folder_rate(rate))
        return
    if path.suffix.lower() in ANIMATIONS:
        yield AnimatedPicture(path, source)
        return
    camera = source.isdecimal() and not path.exists()
    with _open_camera(int(source)) if camera else _open_file(path) as container:
        yield StreamVideo(container, f"camera {source}" if camera else source, live=camera)


def _folder_rate(rate: Fraction | None) -> Fraction:
    """A rate that FFmpeg's numbers of 32 bits hold, which the float 29.97 is not. UsageError beyond reason."""
    if rate is None:
        return FOLDER_RATE
    near = rate.limit_denominator(1000)
    if not 0 < near <= FASTEST:
        raise UsageError(f"{float(rate):g} frames a second are beyond what videos hold", f"0.001 to {FASTEST}")
    return near


def list_frames(folder: Path) -> list[Path]:
    """The pictures of a folder in natural order; a PNG beside a photo of the same name is its mask, not a frame.

    InputError where there are none.
    """
    images = list_images(str(folder))
    photos = {path.stem for path in images if path.suffix.lower() != ".png"}
    return [path for path in images if path.suffix.lower() != ".png" or path.stem not in photos]


def _open_file(path: Path) -> InputContainer:
    _need_av()
    import av

    try:
        # absolute: where a colon in the name is none of a protocol
        container = av.open(str(path.absolute()), options=_only_this_file())
    except FileNotFoundError as error:
        raise InputError(f"no such file: {path}", "check the path") from error
    except (av.FFmpegError, ValueError) as error:
        if _names_others(path):
            raise InputError(f"{path} is a list of other files, which are not read", "give a video itself") from error
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path} is not a video that can be read: {reason}", "get the file again") from error
    if container.format.name == "tty":  # FFmpeg shows any text as a film of letters
        container.close()
        raise InputError(f"{path} is not a video that can be read: it is text", "give a video file")
    return container


@cache
def _only_this_file() -> dict[str, str]:
    """FFmpeg's options that keep it to one file of this machine, whatever is in it: no other files, no network."""
    import av

    formats = ",".join(sorted(av.formats_available - _LISTS))
    return {"protocol_whitelist": "file", "format_whitelist": formats}


def _names_others(path: Path) -> bool:
    """Whether it is a playlist, a session description, or a pattern for many pictures."""
    with path.open("rb") as file:
        start = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    return start.startswith(_LIST_STARTS) or re.search(r"%\d*d", path.name) is not None


def _open_camera(number: int) -> InputContainer:
    _need_av()
    import av

    kind, device = _CAMERAS.get(sys.platform, _CAMERAS["linux"])
    try:
        return av.open(device.format(number), format=kind)
    except (av.FFmpegError, ValueError) as error:
        there = ", ".join(sorted(path.name.removeprefix("video") for path in Path("/dev").glob("video*")))
        hint = f"cameras here: {there}" if there else "this machine shows no camera; give a video file"
        raise InputError(f"camera {number} cannot be opened: {error}", hint) from error


def _need_av() -> None:
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("video", "video", "PyAV") from error


def _duration(container: InputContainer) -> float | None:
    """Seconds of the video stream as the file declares them. An audio stream may last longer, so it has no say."""
    import av

    stream = container.streams.video[0]
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    with suppress(KeyError, ValueError):  # Matroska: 00:00:03.750000000, where the stream ends, whenever it starts
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        starts = float((stream.start_time or 0) * (stream.time_base or 0))
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds) - starts
    if container.duration and len(container.streams) == 1:
        return float(container.duration / av.time_base)
    return None


def _stretched(image: Image, pixel_ratio: Fraction) -> Image:
    """The picture in square pixels, none of them lost."""
    if pixel_ratio == SQUARE:
        return image
    from PIL import Image as Picture

    height, width = image.shape[:2]
    size = (round(width * pixel_ratio), height) if pixel_ratio > 1 else (width, round(height / pixel_ratio))
    return np.asarray(Picture.fromarray(image).resize(size, Picture.Resampling.BILINEAR))


def _quarters(decoded: Any) -> int:
    """Turns of 90 degrees, counter-clockwise, that a frame needs to stand upright."""
    turns: int = round(decoded.rotation / 90)
    return turns % 4


def _upright(decoded: Any, size: tuple[int, int] | None) -> Image:
    """RGB, turned as the file's rotation says; a stream that changes its size goes on in that of its first frame."""
    image: Image = decoded.to_ndarray(format="rgb24")
    image = np.rot90(image, _quarters(decoded))
    if size is not None and image.shape[:2] != size:
        from PIL import Image as Picture

        image = np.asarray(Picture.fromarray(image).resize(size[::-1], Picture.Resampling.BILINEAR))
    return np.ascontiguousarray(image)


class VideoWriter:
    """An H.264 (in .webm VP9) file whose frames are shown at the times they are given.

    `close` ends the file so that it plays to its end; a `with` block does it whatever happens. After a kill it plays up
    to a second or two before the last frame. A picture of odd size gets its last row or column twice, because the pixel
    format that every player knows stores colours for two by two pixels.
    """

    def __init__(self, path: Path, rate: Fraction, clock: Fraction, pixel_ratio: Fraction = SQUARE) -> None:
        import av

        name = find_encoder(path)
        options = {**_CONTAINERS[path.suffix.lower()], "flush_packets": "1"}
        self._container = av.open(str(path), "w", container_options=options)
        stream: Any = self._container.add_stream(name, rate=rate, options=_OPTIONS.get(name, {}))
        self._stream = stream
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = self._clock = clock
        self._stream.codec_context.sample_aspect_ratio = self._pixel_ratio = pixel_ratio
        self._holds_ratio = name in _H264  # whose bits have a place for it
        self._last = -1
        self._opened = True

    def write(self, image: Image, time: Fraction) -> None:
        """(H, W, 3) uint8 RGB, to be shown from `time` seconds on; all of one size. OSError where the disk refuses."""
        import av

        image = image if self._holds_ratio else _stretched(image, self._pixel_ratio)
        height, width = image.shape[:2]
        even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._last < 0:
            self._stream.height, self._stream.width = even.shape[:2]
        frame = av.VideoFrame.from_ndarray(even, format="rgb24")
        frame.pts = self._last = max(round(time / self._clock), self._last + 1)
        frame.time_base = self._clock
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        if not self._opened:
            return
        self._opened = False
        try:
            if self._last >= 0:
                self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def find_encoder(path: Path) -> str:
    """The encoder for a file of this suffix, before any work is done.

    Raises:
        UsageError: videos of this kind are not written here.
        BackendError: this PyAV was built without an encoder for them.
        MissingExtraError: PyAV is not installed.
    """
    _need_av()
    from av.codec import codecs_available
    from av.codec.codec import Codec, UnknownCodecError

    names = ENCODERS.get(path.suffix.lower())
    if names is None:
        raise UsageError(
            f"cannot write {path}: no encoder for {path.suffix or 'a name without a suffix'}",
            f"-o {path.with_suffix('.mp4')}; known are {' '.join(ENCODERS)}",
        )
    for name in names:
        if name in codecs_available:
            with suppress(UnknownCodecError):
                Codec(name, "w")
                return name
    raise BackendError(
        f"cannot write {path}: this PyAV has none of the encoders {', '.join(names)}",
        "pip install --force-reinstall av",
    )


def _count(frames: int) -> str:
    return "1 frame" if frames == 1 else f"{frames} frames"


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[0]}"
