"""Videos are read as they are, with all their faults, and what is written plays."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from nanosam_cli.core.errors import BackendError, InputError, MissingExtraError, NanosamError, UsageError
from nanosam_cli.core.media import video
from nanosam_cli.core.media.video import VideoFrame, VideoWriter, find_encoder, open_video
from tests.video_data import HW, picture, save_frames, save_video


def read(source: Path | str) -> list[VideoFrame]:
    with open_video(str(source)) as opened:
        frames = list(opened)
        assert opened.fault is None
        return frames


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other).mean())


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".webm"])
def test_there_and_back(tmp_path: Path, suffix: str) -> None:
    path = save_video(tmp_path / f"a{suffix}")
    frames = read(path)
    assert [frame.index for frame in frames] == list(range(8))
    assert [float(frame.time) for frame in frames] == pytest.approx([index / 10 for index in range(8)], abs=1e-3)
    assert frames[3].name == "00003"
    for frame in frames:
        assert difference(frame.image, picture(frame.index)) < 20
    with open_video(str(path)) as opened:
        assert round(float(opened.rate)) == 10
        assert opened.frames == 8
        assert not opened.live


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_late_start(tmp_path: Path, suffix: str) -> None:
    """As parts of videos have it; none of it is missing."""
    times = [Fraction(moment, 10) for moment in (40, 41, 42, 43)]
    frames = read(save_video(tmp_path / f"a{suffix}", len(times), times=times))
    assert [float(frame.time) for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3], abs=2e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_last_frame_that_is_held(tmp_path: Path, suffix: str) -> None:
    """As screen recordings have it: the file is longer than its frames are many, and nothing is missing."""
    path = tmp_path / f"a{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"x264-params": "bframes=0"})
        stream.height, stream.width = HW
        stream.pix_fmt = "yuv420p"
        shown = [av.VideoFrame.from_ndarray(picture(index), format="rgb24") for index in range(4)]
        packets = [packet for frame in [*shown, None] for packet in stream.encode(frame)]
        packets[-1].duration = int(5 / packets[-1].time_base)
        for packet in packets:
            container.mux(packet)
    with av.open(str(path)) as container:
        assert video._duration(container) == pytest.approx(5.3, abs=0.01)
    assert len(read(path)) == 4


def test_name_with_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_video(tmp_path / "12:30:05.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(read("12:30:05.mp4")) == 8


@pytest.mark.parametrize(("rate", "taken"), [(29.97, Fraction(2997, 100)), (23.976, Fraction(2997, 125))])
def test_rate_of_a_folder(tmp_path: Path, rate: float, taken: Fraction) -> None:
    """As a float it is a fraction of numbers that FFmpeg does not hold."""
    save_frames(tmp_path / "clip")
    with open_video(str(tmp_path / "clip"), Fraction(rate)) as opened:
        assert opened.rate == taken
        frames = list(opened)
    with VideoWriter(tmp_path / "a.mp4", opened.rate, opened.clock) as writer:
        for frame in frames:
            writer.write(frame.image, frame.time)
    assert len(read(tmp_path / "a.mp4")) == len(frames)


@pytest.mark.parametrize("rate", [1e-9, 1e10])
def test_rate_beyond_reason(tmp_path: Path, rate: float) -> None:
    save_frames(tmp_path / "clip")
    with pytest.raises(UsageError, match="frames a second"), open_video(str(tmp_path / "clip"), Fraction(rate)):
        pass


def test_h264_at_the_same_rate(tmp_path: Path) -> None:
    with av.open(str(save_video(tmp_path / "a.mp4"))) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.frames, stream.average_rate) == (8, 10)
        assert float(stream.duration * stream.time_base) == pytest.approx(0.8)


def test_odd_sizes_gain_a_row_and_a_column(tmp_path: Path) -> None:
    frames = read(save_video(tmp_path / "a.mp4", 3, (95, 127)))
    assert frames[0].image.shape == (96, 128, 3)
    assert difference(frames[0].image[:95, :127], picture(0, (95, 127))) < 20
    np.testing.assert_allclose(frames[0].image[94].astype(int), frames[0].image[95], atol=60)


def test_variable_frame_rate(tmp_path: Path) -> None:
    times = [Fraction(milliseconds, 1000) for milliseconds in (0, 40, 300, 310, 1000)]
    path = save_video(tmp_path / "a.mkv", 5, times=times)
    found = [frame.time for frame in read(path)]
    assert [float(time) for time in found] == pytest.approx([float(time) for time in times], abs=1e-3)
    with open_video(str(path)) as opened, VideoWriter(tmp_path / "b.mp4", opened.rate, opened.clock) as writer:
        for frame in opened:
            writer.write(frame.image, frame.time)
    assert [frame.time for frame in read(tmp_path / "b.mp4")] == found


@pytest.mark.parametrize(("turn", "quarters"), [(0, 0), (90, 1), (180, 2), (-90, 3)])
def test_rotation(tmp_path: Path, turn: int, quarters: int) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = *HW, "yuv420p"
        stream.set_display_rotation(turn)
        for index in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(index), format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        rotation = next(container.decode(video=0)).rotation
    assert rotation % 360 == turn % 360
    frame = read(path)[0]
    assert difference(frame.image, np.rot90(picture(0), quarters)) < 20


def save_gif(path: Path, **options: object) -> Path:
    pictures = [Image.fromarray(picture(index)) for index in range(4)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], **options)
    return path


@pytest.mark.parametrize(
    ("options", "times"),
    [
        ({"duration": 50}, [0, 0.05, 0.1, 0.15]),
        ({"duration": [40, 300, 10, 100]}, [0, 0.04, 0.34, 0.44]),
        ({}, [0, 0.1, 0.2, 0.3]),
        ({"duration": 0}, [0, 0.1, 0.2, 0.3]),
    ],
    ids=["delays", "different delays", "no delays", "delays of 0"],
)
def test_gif(tmp_path: Path, options: dict[str, object], times: list[float]) -> None:
    path = save_gif(tmp_path / "a.gif", **options)
    frames = read(path)
    assert [float(frame.time) for frame in frames] == times
    assert [frame.name for frame in frames] == ["00000", "00001", "00002", "00003"]
    assert difference(frames[2].image, picture(2)) < 20
    with open_video(str(path)) as opened, VideoWriter(tmp_path / "b.mp4", opened.rate, opened.clock) as writer:
        assert opened.frames == 4
        for frame in opened:
            writer.write(frame.image, frame.time)
    assert [float(frame.time) for frame in read(tmp_path / "b.mp4")] == pytest.approx(times, abs=1e-3)


def test_animated_webp_is_read_as_a_gif_is(tmp_path: Path) -> None:
    path = save_gif(tmp_path / "a.webp", duration=[40, 300, 7, 105], lossless=True)
    frames = read(path)
    assert [float(frame.time) for frame in frames] == [0, 0.04, 0.34, 0.44]
    np.testing.assert_array_equal(frames[2].image, picture(2))
    with open_video(str(path)) as opened:
        assert (opened.frames, float(opened.rate)) == (4, pytest.approx(4 / 0.545, abs=0.01))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
@pytest.mark.parametrize(("turn", "ratio"), [(0, Fraction(64, 45)), (90, Fraction(45, 64))])
def test_oblong_pixels_stay_oblong(tmp_path: Path, suffix: str, turn: int, ratio: Fraction) -> None:
    """As of DV tape; a picture that is turned turns its pixels too."""
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = *HW, "yuv420p"
        stream.sample_aspect_ratio = Fraction(64, 45)
        stream.set_display_rotation(turn)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(0), format="rgb24")))
        container.mux(stream.encode(None))
    with open_video(str(tmp_path / "a.mp4")) as opened:
        (frame,) = opened
        assert opened.pixel_ratio == ratio
    with VideoWriter(tmp_path / f"b{suffix}", opened.rate, opened.clock, opened.pixel_ratio) as writer:
        writer.write(frame.image, frame.time)
    with av.open(str(tmp_path / f"b{suffix}")) as container:
        stream = container.streams.video[0]
        shown = stream.width / stream.height * float(stream.sample_aspect_ratio or 1)
        assert shown == pytest.approx(frame.image.shape[1] / frame.image.shape[0] * float(ratio), rel=0.02)


def test_gif_cut_off(tmp_path: Path) -> None:
    with open_video(str(cut_off(save_gif(tmp_path / "a.gif"), 0.4))) as opened:
        assert len(list(opened)) == 1
        assert "ends after 1 frame: " in str(opened.fault)


@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg"])
def test_avi(tmp_path: Path, codec: str) -> None:
    """Not written, but read: its frames carry no times of their own."""
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = HW
        stream.pix_fmt = "yuv420p" if codec == "mpeg4" else "yuvj420p"
        for index in range(6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(index), format="rgb24")))
        container.mux(stream.encode(None))
    frames = read(tmp_path / "a.avi")
    assert [float(frame.time) for frame in frames] == pytest.approx([index / 10 for index in range(6)])
    assert difference(frames[4].image, picture(4)) < 20


def test_folder(tmp_path: Path) -> None:
    with open_video(str(save_frames(tmp_path / "clip", 3)), Fraction(5)) as opened:
        frames = list(opened)  # the masks beside the frames are none
        assert (opened.frames, opened.rate) == (3, 5)
    assert [(frame.name, frame.time) for frame in frames] == [
        ("00000", 0),
        ("00001", Fraction(1, 5)),
        ("00002", Fraction(2, 5)),
    ]


def test_folder_of_png(tmp_path: Path) -> None:
    for index in (0, 2, 10):
        Image.fromarray(picture(index)).save(tmp_path / f"{index}.png")
    assert [frame.name for frame in read(tmp_path)] == ["0", "2", "10"]


def cut_off(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: math.floor(path.stat().st_size * share)])
    return path


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_truncated_file_keeps_the_frames_before(tmp_path: Path, suffix: str) -> None:
    path = cut_off(save_video(tmp_path / f"a{suffix}", 40), 0.6)
    with open_video(str(path)) as opened:
        frames = list(opened)
        assert 5 < len(frames) < 39
        assert opened.fault is not None
        assert f"after {len(frames)} frames" in str(opened.fault)
    for frame in frames:
        assert difference(frame.image, picture(frame.index)) < 25


def test_broken_frame_in_a_folder(tmp_path: Path) -> None:
    folder = save_frames(tmp_path / "clip", 4)
    (folder / "00002.jpg").write_bytes(b"\xff\xd8 broken")
    with open_video(str(folder)) as opened:
        assert len(list(opened)) == 2
        assert "ends at frame 2" in str(opened.fault)


def empty_video(folder: Path) -> Path:
    with VideoWriter(folder / "a.mkv", Fraction(10), Fraction(1, 1000)):
        pass
    return folder / "a.mkv"


def only_sound(folder: Path) -> Path:
    with av.open(str(folder / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    return folder / "a.wav"


def text_file(folder: Path) -> Path:
    (folder / "a.mp4").write_text("no video at all")
    return folder / "a.mp4"


def other_size(folder: Path) -> Path:
    Image.fromarray(picture(0, (90, 128))).save(save_frames(folder / "clip", 3) / "00003.jpg")
    return folder / "clip"


def broken_gif(folder: Path) -> Path:
    return cut_off(save_gif(folder / "a.gif"), 0.1)


def first_broken(folder: Path) -> Path:
    (save_frames(folder / "clip", 3) / "00000.jpg").write_bytes(b"\xff\xd8 broken")
    return folder / "clip"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "none.mp4", "no such file"),
        (text_file, "not a video"),
        (lambda folder: cut_off(save_video(folder / "a.mp4", 20), 0.5), "not a video"),
        (empty_video, "a.mkv"),
        (only_sound, "no video in it"),
        (lambda folder: folder, "no images"),
        (first_broken, "00000.jpg"),
        (broken_gif, "a.gif is broken"),
        (lambda folder: folder / "none.gif", "no such file"),
        (other_size, "128x90"),
        (lambda folder: "99", "camera 99"),
    ],
    ids=[
        *("missing", "text", "mp4 cut off", "zero frames", "sound", "empty folder", "broken", "broken gif", "no gif"),
        *("sizes", "camera"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, make: Callable[[Path], Path | str], words: str) -> None:
    source = make(tmp_path)
    with pytest.raises(InputError, match=words):
        read(source)


@pytest.mark.parametrize(
    ("name", "known", "error", "words"),
    [
        ("a.xyz", None, UsageError, "no encoder for .xyz"),
        ("a", None, UsageError, "without a suffix"),
        ("a.mp4", ("no-such-encoder",), BackendError, "none of the encoders no-such-encoder"),
    ],
)
def test_no_encoder(
    monkeypatch: pytest.MonkeyPatch, name: str, known: tuple[str] | None, error: type[NanosamError], words: str
) -> None:
    if known:
        monkeypatch.setitem(video.ENCODERS, ".mp4", known)
    with pytest.raises(error, match=words):
        find_encoder(Path(name))


def test_without_pyav(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError) as raised:
        read(tmp_path / "a.mp4")
    assert raised.value.hint == "pip install 'nanosam-cli[video]'"
    assert len(read(save_frames(tmp_path / "clip", 3))) == 3  # a folder needs no PyAV


def test_frames_of_more_pixels_than_a_photo_may_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_video(tmp_path / "a.mp4")
    monkeypatch.setattr(video, "MAX_PIXELS", HW[0] * HW[1] - 1)
    with pytest.raises(InputError, match=r"a\.mp4 has frames of 128x96 pixels, more than 0 million"):
        read(path)
    monkeypatch.setattr(video, "MAX_PIXELS", HW[0] * HW[1])
    assert len(read(path)) == 8


XML = """<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet
mimeType="video/mp4"><Representation id="1"><BaseURL>a.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.mp4\n#EXT-X-ENDLIST\n"),
        ("a.mp4.m3u", "\ufeff#EXTM3U\na.mp4\n"),
        ("list.txt", "ffconcat version 1.0\nfile a.mp4\n"),
        ("list.mp4", "ffconcat version 1.0\nfile a.mp4\n"),
        ("a.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\nm=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n"),
        ("a.mpd", XML),
        ("frame%02d.png", ""),
    ],
)
def test_a_list_of_other_files_is_no_video(tmp_path: Path, name: str, text: str) -> None:
    """FFmpeg would read what it names, and send for what is elsewhere."""
    save_video(tmp_path / "a.mp4")
    for index in range(2):
        Image.new("RGB", (16, 16)).save(tmp_path / f"frame{index:02}.png")
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match="is a list of other files, which are not read") as caught:
        read(tmp_path / name)
    assert caught.value.hint == "give a video itself"


def test_a_percent_sign_in_a_name_is_but_a_sign(tmp_path: Path) -> None:
    assert len(read(save_video(tmp_path / "100% done.mp4"))) == 8


def test_a_video_of_no_known_code(tmp_path: Path) -> None:
    path = save_video(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(InputError, match=r"a\.mp4 is coded in a way that this FFmpeg does not know"):
        read(path)
