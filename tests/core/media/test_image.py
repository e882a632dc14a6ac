from __future__ import annotations

import io
import os
import re
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from nanosam_cli.core.errors import InputError, MissingExtraError, OutputError, UsageError
from nanosam_cli.core.media.image import IMAGE_FORMATS, list_images, read_image, unread_pictures, write_png
from nanosam_cli.core.media.render import PALETTE

CORNERS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[0, 0, 0], [128, 128, 128], [255, 255, 255]]], np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size and holds no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_every_kind_of_source(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(Image.fromarray(CORNERS)))
    with path.open("rb") as file:
        for source in (path, str(path), path.read_bytes(), file):
            image = read_image(source)
            np.testing.assert_array_equal(image, CORNERS)
            assert image.dtype == np.uint8
            assert image.flags.writeable
            assert image.flags.c_contiguous


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="needs /dev/fd")
def test_a_pipe_by_its_path() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, encoded(Image.fromarray(CORNERS)))
    os.close(write_end)
    np.testing.assert_array_equal(read_image(f"/dev/fd/{read_end}"), CORNERS)
    os.close(read_end)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, CORNERS),
        (2, CORNERS[:, ::-1]),
        (3, CORNERS[::-1, ::-1]),
        (4, CORNERS[::-1]),
        (5, CORNERS.transpose(1, 0, 2)),
        (6, np.rot90(CORNERS, -1)),
        (7, CORNERS[::-1, ::-1].transpose(1, 0, 2)),
        (8, np.rot90(CORNERS)),
        (9, CORNERS),  # not a valid orientation
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])  # Pillow itself turns TIFF, so it must not be turned twice
def test_exif_orientation(kind: str, orientation: int, upright: NDArray[np.uint8]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(read_image(encoded(Image.fromarray(CORNERS), kind, exif=exif)), upright)


def test_garbled_exif_is_no_reason_to_refuse_a_photo() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(CORNERS), "PNG", exif=exif.tobytes()[:-7])
    assert sorted(read_image(data).shape) == [2, 3, 3]


def pixel(mode: str, value: Any) -> Image.Image:
    return Image.new(mode, (1, 1), value)


@pytest.mark.parametrize(
    ("data", "rgb"),
    [
        (encoded(pixel("RGB", (1, 2, 3))), (1, 2, 3)),
        (encoded(pixel("RGB", (1, 2, 3)), "BMP"), (1, 2, 3)),
        (encoded(pixel("RGB", (1, 2, 3)), "PPM"), (1, 2, 3)),
        (encoded(pixel("RGB", (1, 2, 3)), "WEBP", lossless=True), (1, 2, 3)),
        (encoded(pixel("L", 77)), (77, 77, 77)),
        (encoded(pixel("L", 77), transparency=77), (255, 255, 255)),
        (encoded(pixel("1", 1)), (255, 255, 255)),
        (encoded(pixel("LA", (0, 255))), (0, 0, 0)),
        (encoded(pixel("LA", (0, 0))), (255, 255, 255)),
        (encoded(pixel("RGBA", (0, 200, 0, 255))), (0, 200, 0)),
        (encoded(pixel("RGBA", (0, 200, 0, 0))), (255, 255, 255)),
        (encoded(pixel("RGBA", (0, 0, 0, 51))), (204, 204, 204)),
        (encoded(pixel("CMYK", (0, 255, 255, 0)), "TIFF"), (255, 0, 0)),
        (encoded(pixel("CMYK", (0, 0, 0, 0)), "JPEG"), (255, 255, 255)),
        (encoded(pixel("P", 0)), (0, 0, 0)),
        (encoded(pixel("P", 0), transparency=0), (255, 255, 255)),
        (encoded(pixel("P", 0), transparency=b"\x33"), (204, 204, 204)),
        (encoded(pixel("P", 0), "GIF", transparency=0), (255, 255, 255)),
    ],
)
def test_modes(data: bytes, rgb: tuple[int, int, int]) -> None:
    image = read_image(data)
    assert image.shape == (1, 1, 3)
    assert tuple(image[0, 0]) == rgb


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("values", "dtype", "kind", "grey"),
    [
        ([0, 128, 129, 257, 32768, 65535], "uint16", "PNG", [0, 0, 1, 1, 128, 255]),
        ([0, 257, 2570], "uint16", "TIFF", [0, 1, 10]),  # a dark photo stays dark
        ([0, 257, 65535], ">u2", "TIFF", [0, 1, 255]),
        ([0, 257, 65535], "int32", "TIFF", [0, 1, 255]),
        ([-100, 0, 155], "int32", "TIFF", [0, 100, 255]),
        ([0, 100_000], "int32", "TIFF", [0, 255]),
        ([-(2**31), 2**31 - 1], "int32", "TIFF", [0, 255]),
        ([70_000, 70_000], "int32", "TIFF", [0, 0]),
        ([0.0, 0.2, 1.0], "float32", "TIFF", [0, 51, 255]),
        ([1.0, 1.0], "float32", "TIFF", [255, 255]),
        ([-1.0, 0.02, 1.0], "float32", "TIFF", [0, 130, 255]),
        ([5.0, 260.0], "float32", "TIFF", [0, 255]),
        ([7.0, 7.0], "float32", "TIFF", [0, 0]),
        ([NAN, 0.5, INF, -INF], "float32", "TIFF", [0, 128, 255, 0]),
        ([NAN, 10.0, 20.0, INF, -INF], "float32", "TIFF", [0, 0, 255, 255, 0]),
        ([NAN, NAN], "float32", "TIFF", [0, 0]),
        ([-3.4e38, 3.4e38], "float32", "TIFF", [0, 255]),
    ],
)
def test_deep_greyscale(values: list[float], dtype: str, kind: str, grey: list[int]) -> None:
    image = read_image(encoded(Image.fromarray(np.array([values], dtype)), kind))
    np.testing.assert_array_equal(image, np.repeat(np.array(grey)[None, :, None], 3, axis=2))


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (read_image(data) == (255, 0, 0)).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello, this is no image", "not an image"),
        (b"\xff\xd8\xff", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
        (encoded(Image.effect_noise((64, 64), 99), "JPEG")[:-200], "cut off"),
        (encoded(Image.fromarray(CORNERS), "TIFF")[:-9], "cut off|not an image"),
        (encoded(Image.fromarray(CORNERS))[:-30], "cut off"),
        (png_header(0, 0), "not an image"),
        (png_header(5, 0), "not an image"),
        (png_header(20_000, 20_000), "more than 178 million pixels"),
        (png_header(2**31 - 1, 2**31 - 1), "more than 178 million pixels"),
        (png_header(9_500, 9_500), "cut off"),  # allowed, though Pillow warns of it; there are just no pixels
    ],
)
def test_bad_content(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    pillow_limit, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    for source, name in ((path, str(path)), (content, "the image")):
        with pytest.raises(InputError, match=message) as caught:
            read_image(source)
        assert str(caught.value).startswith(name)
        assert caught.value.hint
    assert (pillow_limit, filters) == (Image.MAX_IMAGE_PIXELS, warnings.filters)


def test_the_size_is_limited_whatever_pillow_is_set_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(InputError, match="more than 178 million pixels"):
        read_image(png_header(20_000, 20_000))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_a_cut_off_file_is_an_image_or_an_input_error(kind: str) -> None:
    data = encoded(Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)), kind)
    refused = 0
    for length in range(0, len(data), 7):
        try:
            assert read_image(data[:length]).shape == (8, 8, 3)
        except InputError:
            refused += 1
    assert refused


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("missing.jpg", "no such file: .*missing.jpg", "check the path"),
        ("no/such/folder.jpg", "no such file", "check the path"),
        ("phto.png", "no such file", "did you mean .*photo.png"),
        (".", "is a directory", "give one of its files"),
        ("photo.png/x", "cannot read", "check"),
        ("a\0b", "cannot read .*null", "check"),
        ("x" * 300, "cannot read .*too long", "check"),
    ],
)
def test_bad_paths(tmp_path: Path, name: str, message: str, hint: str) -> None:
    (tmp_path / "photo.png").write_bytes(encoded(pixel("L", 0)))
    with pytest.raises(InputError, match=f"(?i){message}") as caught:
        read_image(tmp_path / name)
    assert caught.value.hint is not None
    assert re.search(hint, caught.value.hint)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("10.jpg", "2.JPG", "1.png", "b[1].png", "notes.txt", "._2.jpg", "mask", "sub/3.webp", "empty/a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("1.png", ["1.png"]),
        ("mask", ["mask"]),  # named outright: any suffix
        ("b[1].png", ["b[1].png"]),
        (".", ["1.png", "2.JPG", "10.jpg", "b[1].png"]),
        ("sub", ["sub/3.webp"]),
        ("sub/", ["sub/3.webp"]),
        ("*.jpg", ["10.jpg"]),
        ("[12]*", ["1.png", "2.JPG", "10.jpg"]),
        ("**/*.webp", ["sub/3.webp"]),
        ("s?b/*", ["sub/3.webp"]),
    ],
)
@pytest.mark.parametrize("absolute", [False, True])
def test_list_images(folder: Path, pattern: str, found: list[str], absolute: bool) -> None:
    base = str(folder) + "/" if absolute else ""
    assert list_images(base + pattern) == [Path(base + name) for name in found]


def tiff(values: NDArray[np.uint16], planes: int, photometric: int) -> bytes:
    """An uncompressed little-endian TIFF of 16 bit with a strip a plane; (H, W) or (planes, H, W)."""
    height, width = values.shape[-2:]
    pixels = values.astype("<u2").tobytes()
    size = len(pixels) // planes
    start = 8 + len(pixels)
    lists = {258: ("H", [16] * planes), 273: ("I", [8 + k * size for k in range(planes)]), 279: ("I", [size] * planes)}
    singles = {
        256: width,
        257: height,
        259: 1,
        262: photometric,
        277: planes,
        278: height,
        284: 1 if planes == 1 else 2,
    }
    lists |= {tag: ("H", [value]) for tag, value in singles.items()}
    entries, extra = b"", b""
    after = start + 2 + 12 * len(lists) + 4
    for tag, (kind, numbers) in sorted(lists.items()):
        data = struct.pack(f"<{len(numbers)}{kind}", *numbers)
        if len(data) > 4:
            extra, data = extra + data, struct.pack("<I", after + len(extra))
        entries += struct.pack("<HHI4s", tag, 3 if kind == "H" else 4, len(numbers), data)
    directory = struct.pack("<H", len(lists)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", start) + pixels + directory + extra


def test_16_bit_tiff_is_its_8_bit_twin_or_refused() -> None:
    values = np.arange(35, dtype=np.uint16).reshape(5, 7) * 257
    grey = (values // 257).astype(np.uint8)
    for photometric, wanted in ((1, grey), (0, 255 - grey)):
        np.testing.assert_array_equal(read_image(tiff(values, 1, photometric))[..., 0], wanted)
    with pytest.raises(InputError, match="the image: a 16-bit TIFF whose colours lie one after the other") as caught:
        read_image(tiff(np.stack([values] * 3), 3, 2))
    assert "INTERLEAVE=PIXEL" in str(caught.value.hint)


def test_folders_give_every_suffix_that_is_read(tmp_path: Path) -> None:
    names = ["a.jfif", "b.MPO", "c.heic", "d.dng", "e.svg", "f.txt", "g.json", "h.psd", ".i.psd"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in list_images(str(tmp_path))] == names[:3]
    assert [path.name for path in unread_pictures(tmp_path)] == ["d.dng", "e.svg", "h.psd"]
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in IMAGE_FORMATS.values()}
    assert known <= IMAGE_FORMATS.keys()


def test_a_heic_photo_asks_for_its_extra(tmp_path: Path) -> None:
    path = tmp_path / "a.heic"
    try:
        import pillow_heif
    except ImportError:
        path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
        with pytest.raises(MissingExtraError, match=r"a HEIC photo needs pillow-heif") as caught:
            read_image(path)
        assert caught.value.hint == "pip install 'nanosam-cli[heic]'"
        return
    pillow_heif.register_heif_opener()
    Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(path)
    assert abs(int(read_image(path)[9, 9, 0]) - 200) < 4


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", "no such file"),
        ("missing.jpg", "no such file: missing.jpg"),
        ("empty", "no images in empty"),
        ("*.bmp", r"no images in \*.bmp"),
        ("*.txt", r"no images in \*.txt"),
        ("nowhere/*", "no images"),
        ("a\0*", "no such file|cannot read|no images"),
    ],
)
def test_list_images_finds_nothing(folder: Path, pattern: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        list_images(pattern)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("array", "mode", "values"),
    [
        (np.array([[True, False]]), "L", [[255, 0]]),
        (np.array([[0, 7]], np.uint8), "L", [[0, 7]]),
        (np.array([[0, 300]], np.uint16), "I;16", [[0, 300]]),
        (CORNERS, "RGB", CORNERS),
        (CORNERS[:, ::-1], "RGB", CORNERS[:, ::-1]),  # not contiguous
        (np.array([[[1, 2, 3, 4]]], np.uint8), "RGBA", [[[1, 2, 3, 4]]]),
    ],
)
def test_write_png(tmp_path: Path, array: NDArray[Any], mode: str, values: Any) -> None:
    path = tmp_path / "out.dat"  # PNG whatever the name
    write_png(path, array)
    with Image.open(path) as image:
        assert (image.format, image.mode) in [("PNG", mode), ("PNG", mode.removesuffix(";16"))]  # I: older Pillow
        np.testing.assert_array_equal(np.asarray(image), values)


def test_a_label_png_keeps_its_values_and_shows_colours(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 2, 255]], np.uint8)
    write_png(tmp_path / "labels.png", labels, PALETTE)
    with Image.open(tmp_path / "labels.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), labels)
    np.testing.assert_array_equal(read_image(tmp_path / "labels.png"), PALETTE[labels])
    write_png(tmp_path / "many.png", labels.astype(np.uint16), PALETTE)
    with Image.open(tmp_path / "many.png") as image:
        np.testing.assert_array_equal(np.asarray(image), labels)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2), np.float32),
        np.zeros((2, 2), np.int64),
        np.zeros((2, 2, 3), np.uint16),
        np.zeros((2, 2, 3), bool),
        np.zeros((2, 2, 2), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 4), np.uint8),
    ],
)
def test_write_png_of_what_png_cannot_hold(tmp_path: Path, array: NDArray[Any]) -> None:
    with pytest.raises(UsageError, match="cannot make a PNG"):
        write_png(tmp_path / "out.png", array)
    assert not list(tmp_path.iterdir())


def test_write_png_overwrites_only_on_request(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.zeros((1, 1), np.uint8))
    with pytest.raises(OutputError, match="exists already"):
        write_png(tmp_path / "a.png", np.ones((1, 1), np.uint8))
    write_png(tmp_path / "a.png", np.full((1, 1), 9, np.uint8), overwrite=True)
    assert read_image(tmp_path / "a.png")[0, 0, 0] == 9


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="this system has no endless file")
def test_a_pipe_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nanosam_cli.core.media.image.MOST_BYTES", 2**20)
    with Path("/dev/zero").open("rb") as endless:
        for source in (endless, Path("/dev/zero")):
            with pytest.raises(InputError, match="has more than 1 MiB, or no end at all"):
                read_image(source)
