"""Photos in, PNG out."""

from __future__ import annotations

import difflib
import glob
import io
import mimetypes
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from struct import error as StructError
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from nanosam_cli.core.errors import InputError, MissingExtraError, UsageError
from nanosam_cli.core.system.files import atomic_write, read_bounded

_ORIENTATION = 0x0112  # EXIF's tag
# tags of TIFF 6.0, and values of theirs
_BITS, _COMPRESSION, _PHOTOMETRIC, _PLANES = 258, 259, 262, 284
_UNCOMPRESSED, _WHITE_IS_ZERO, _SEPARATE = 1, 0, 2
_TURNED = (5, 6, 7, 8)  # orientations that exchange width and height
MAX_PIXELS = 178_956_970  # where Pillow itself refuses: 0.5 GiB as RGB
MOST_BYTES = 2**30  # of what comes through a pipe, which may have no end

# What a suffix promises. Formats that run programs (EPS) or have no signature (TGA) are left out on purpose.
_SUFFIXES = {
    "JPEG": ".jpg .jpeg .jfif .jpe .mpo",
    "PNG": ".png .apng",
    "WEBP": ".webp",
    "BMP": ".bmp .dib",
    "GIF": ".gif",
    "TIFF": ".tif .tiff",
    "PPM": ".ppm .pgm .pbm .pnm .pfm",
    "JPEG2000": ".jp2 .j2k .j2c .jpc .jpf .jpx",
    "AVIF": ".avif .avifs",
    "HEIF": ".heic .heif .hif",  # with the extra `heic`
}
IMAGE_FORMATS = {suffix: kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}
# pictures of other kinds that lie in folders of photos; more are known to `mimetypes`
_UNREAD = (
    ".cr2",
    ".cr3",
    ".nef",
    ".arw",
    ".raf",
    ".orf",
    ".rw2",
    ".dng",
    ".psd",
    ".exr",
    ".hdr",
    ".tga",
    ".jxl",
    ".xcf",
)

# what Pillow's decoders raise for broken files
_BROKEN = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    StructError,
)
_CONVERT = "get the file again; if a viewer shows it, save it from there as JPEG or PNG"
_16_TO_8_BIT = ((np.arange(65536) + 128) // 257).astype(np.uint8)  # round(value / 257): 65535 -> 255


ImageSource = Path | str | bytes | BinaryIO | Image.Image  # a file, its content, or what Pillow has opened


def read_image(source: ImageSource) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of an image file (a path, its bytes, or an open binary file such as stdin), or of a Pillow
    image, which stays as it is.

    EXIF orientation is applied, transparency is composited on white, and the first frame is taken of an animation.
    Deep greyscale images become 8-bit:

    - 16-bit: by the range of the type, value / 257, so that a photo's brightness does not depend on its content;
    - 32-bit integers: as 16-bit where all values fit 0..65535 (that is what such files mostly hold), else as below;
    - floats: 0..1 becomes 0..255 where all values lie in 0..1, else the smallest to the largest finite value are
      spread over 0..255. NaN is black, -inf black and +inf white.

    Raises:
        InputError: the file is missing, empty, broken, no image, or has more than MAX_PIXELS pixels.
    """
    ours = not isinstance(source, Image.Image)
    with nullcontext((source, "the image")) if isinstance(source, Image.Image) else _opened(source) as (image, name):
        try:
            image = _upright(image, ours)
        except InputError as error:
            raise InputError(f"{name}: {error}", error.hint) from error
        except _BROKEN as error:
            raise InputError(f"{name} is broken or cut off: {error}", _CONVERT) from error
        return _to_rgb(image)


def read_animation(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Every frame of an animation, as `read_image` gives pictures.

    Raises InputError as `read_image` does, after the frames that are whole.
    """
    with _opened(path) as (image, name):
        for index in range(getattr(image, "n_frames", 1)):
            try:
                image.seek(index)
                image.load()
            except _BROKEN as error:
                raise InputError(f"{name} is broken or cut off: {error}", _CONVERT) from error
            yield _to_rgb(image)


def animation_delays(path: Path) -> list[int]:
    """How long each frame of an animation is shown, in milliseconds, 0 where the file does not say.

    Of a file that is cut off, as far as it goes. InputError where it is missing or no image.
    """
    delays = []
    with _opened(path) as (image, _), suppress(*_BROKEN):
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            if image.format == "WEBP":  # which tells it of the frame that was decoded last
                image.load()
            delays.append(round(image.info.get("duration", 0)))
    return delays


def image_area(source: Path | str | bytes | BinaryIO) -> int:
    """Pixels of an image by its header, which is all that is read. Raises InputError as `read_image` does."""
    with _opened(source) as (image, _):
        return image.width * image.height


def image_hw(source: Path | bytes) -> tuple[int, int]:
    """Height and width of a photo as it is shown, upright, by its header. Raises InputError as `read_image` does."""
    with _opened(source) as (image, _):
        width, height = image.size
    return (width, height) if image_orientation(source) in _TURNED else (height, width)


def image_orientation(source: Path | bytes) -> int:
    """EXIF's orientation of a photo by its header, 1 to 8; 1 (upright) where it has none or cannot be looked into."""
    if isinstance(source, Path) and not source.is_file():
        return 1
    with _opened(source) as (image, _):
        try:
            orientation = image.getexif().get(_ORIENTATION, 1)
        except _BROKEN:
            return 1
    return orientation if orientation in range(1, 9) else 1


def list_images(path_or_pattern: str) -> list[Path]:
    """The images of a file, a directory (one level, in natural order: 2.jpg before 10.jpg) or a glob pattern.

    A file named outright is taken whatever its suffix; elsewhere only files with a suffix of FORMATS count, and hidden
    ones do not.

    Raises:
        InputError: there is no such file, or no image in the directory or under the pattern.
    """
    path = Path(path_or_pattern)
    try:
        if path_or_pattern and path.is_file():  # before the pattern: a name may hold brackets
            return [path]
        if path_or_pattern and path.is_dir():
            found = list(path.iterdir())
        elif glob.has_magic(path_or_pattern):
            found = [Path(name) for name in glob.glob(path_or_pattern, recursive=True)]  # noqa: PTH207 absolute too
        else:
            raise _no_such_file(path)
        images = [p for p in found if p.suffix.lower() in IMAGE_FORMATS and not p.name.startswith(".") and p.is_file()]
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError(f"cannot read {path_or_pattern!r}: {_reason(error)}", "check the path") from error
    if not images:
        raise InputError(f"no images in {path_or_pattern}", f"known suffixes: {' '.join(IMAGE_FORMATS)}")
    return sorted(images, key=_natural)


def unread_pictures(folder: Path) -> list[Path]:
    """What lies in a directory, looks like a picture by its suffix, and is of no kind that `list_images` takes."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _is_unread(path)), key=_natural)


def _is_unread(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in IMAGE_FORMATS or path.name.startswith("."):
        return False
    looks = suffix in _UNREAD or (mimetypes.guess_type(path.name)[0] or "").startswith("image/")
    return looks and path.is_file()


def write_png(
    path: Path,
    array: NDArray[Any],
    palette: NDArray[np.uint8] | None = None,
    overwrite: bool = False,
    text: Mapping[str, str] | None = None,
) -> None:
    """Write a PNG, atomically: (H, W) bool (as 0/255), uint8 or uint16, (H, W, 3) uint8 RGB or (H, W, 4) uint8 RGBA.

    With a `palette`, (up to 256, 3) uint8 RGB, an (H, W) uint8 array is written as an indexed image that keeps its
    values. PNG has no indexed 16-bit form: a palette is not used for uint16. `text` is kept inside, by keyword.

    Raises:
        UsageError: the array has another shape or type.
        OutputError: see `atomic_write`.
    """
    image = _picture(array, palette)
    with atomic_write(path, overwrite, durable=False) as temporary:
        image.save(temporary, format="PNG", pnginfo=_png_text(text))


def png_bytes(
    array: NDArray[Any], palette: NDArray[np.uint8] | None = None, text: Mapping[str, str] | None = None
) -> bytes:
    """The PNG that `write_png` would write, for those who send it on. UsageError as there."""
    file = io.BytesIO()
    _picture(array, palette).save(file, format="PNG", pnginfo=_png_text(text))
    return file.getvalue()


def _png_text(text: Mapping[str, str] | None) -> PngInfo:
    about = PngInfo()
    for key, value in (text or {}).items():
        about.add_itxt(key, value)  # of any alphabet
    return about


def jpeg_bytes(array: NDArray[np.uint8]) -> bytes:
    """A JPEG of (H, W, 3) uint8 RGB, to be looked at."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, format="JPEG", quality=95)
    return file.getvalue()


def _picture(array: NDArray[Any], palette: NDArray[np.uint8] | None) -> Image.Image:
    """What `write_png` writes. UsageError where the array has another shape or type than it says."""
    allowed = {(): ("bool", "uint8", "uint16"), (3,): ("uint8",), (4,): ("uint8",)}
    if array.ndim < 2 or array.size == 0 or array.dtype.name not in allowed.get(array.shape[2:], ()):
        raise UsageError(f"cannot make a PNG of an array of shape {array.shape} and type {array.dtype}")
    image = Image.fromarray(np.ascontiguousarray(array * np.uint8(255) if array.dtype == bool else array))
    if palette is not None and image.mode == "L":
        image.putpalette(palette.tobytes())
    return image


@contextmanager
def _opened(source: Path | str | bytes | BinaryIO) -> Iterator[tuple[Image.Image, str]]:
    """An image whose header was read, and its name for messages."""
    file, name = _open_file(source)
    with file, warnings.catch_warnings():
        # Pillow warns of garbled metadata, and from half the size at which it refuses. Only its own warnings are
        # silenced: catch_warnings is not thread-safe, and this filter does no harm where it outlives the block.
        warnings.filterwarnings("ignore", module="PIL")
        if not file.read(1):
            raise InputError(f"{name} is empty (0 bytes)", "give a JPEG, PNG, WebP, BMP or TIFF image")
        with _open_image(file, name) as image:
            yield image, name


def _open_file(source: Path | str | bytes | BinaryIO) -> tuple[BinaryIO, str]:
    """A seekable file of our own, to be closed, and what to call it in messages."""
    if isinstance(source, bytes):
        return io.BytesIO(source), "the image"
    if not isinstance(source, (str, Path)):
        name = str(getattr(source, "name", "the image"))
        return io.BytesIO(read_bounded(source, name, MOST_BYTES)), name
    path = Path(source)
    try:
        file = path.open("rb")
        if file.seekable() and not path.is_char_device():
            return file, str(path)
        with file:  # a pipe
            return io.BytesIO(read_bounded(file, str(path), MOST_BYTES)), str(path)
    except FileNotFoundError as error:
        raise _no_such_file(path) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if isinstance(error, (IsADirectoryError, PermissionError)) and path.is_dir():  # the latter on Windows
            raise InputError(f"{path} is a directory, not an image", f"give one of its files, or '{path}/*'") from error
        raise InputError(f"cannot read {str(path)!r}: {_reason(error)}", "check its permissions") from error


def _no_such_file(path: Path) -> InputError:
    """With the nearest name of the same directory as the hint, where there is one."""
    beside: list[str] = []
    with suppress(OSError):
        beside = [entry.name for entry in path.parent.iterdir()]
    near = difflib.get_close_matches(path.name, beside, n=1)
    return InputError(f"no such file: {path}", f"did you mean {path.with_name(near[0])}?" if near else "check the path")


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _open_image(file: BinaryIO, name: str) -> Image.Image:
    """The header only: the size is known and judged before a pixel is decoded."""
    Image.init()
    _register_heif()
    formats = [
        known for known in dict.fromkeys(IMAGE_FORMATS.values()) if known in Image.OPEN
    ]  # Pillow may be built without
    too_large = f"{name} has more than {MAX_PIXELS // 10**6} million pixels"
    try:
        image = Image.open(file, formats=formats)
    except Image.DecompressionBombError as error:
        raise InputError(too_large, "make it smaller first") from error
    except _BROKEN as error:
        file.seek(0)
        if "HEIF" not in Image.OPEN and _is_heic(file.read(12)):
            raise MissingExtraError("a HEIC photo", "heic", "pillow-heif") from error
        raise InputError(f"{name} is not an image that can be read", _CONVERT) from error
    if image.width * image.height > MAX_PIXELS:
        raise InputError(f"{too_large} ({image.width} x {image.height})", "make it smaller first")
    return image


@cache
def _register_heif() -> None:
    """Teach Pillow to read HEIC, where the extra for it is installed."""
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()


def _is_heic(start: bytes) -> bool:
    """By the first twelve bytes: a box `ftyp`, and its brand. ISO/IEC 23008-12, annex B."""
    return start[4:8] == b"ftyp" and start[8:12] in (
        b"heic",
        b"heix",
        b"hevc",
        b"hevx",
        b"heim",
        b"heis",
        b"mif1",
        b"msf1",
    )


def _upright(image: Image.Image, ours: bool) -> Image.Image:
    """Decode, and apply the EXIF orientation, to a copy of an image that is not ours.

    A camera's garbled EXIF is no reason to refuse its photo.
    """
    _check_planes(image)
    image.load()
    if image.format == "TIFF":  # turned by load itself, and some releases leave the tag, so it would be turned twice
        return image
    try:
        if not ours:
            return ImageOps.exif_transpose(image)
        ImageOps.exif_transpose(image, in_place=True)
    except _BROKEN:
        return image
    return image


def _check_planes(image: Image.Image) -> None:
    """InputError for the one layout that Pillow mixes up: 16 bit, uncompressed, a plane a colour."""
    deep = 16 in (_tiff_tag(image, _BITS) or ())
    if deep and _tiff_tag(image, _PLANES) == _SEPARATE and _tiff_tag(image, _COMPRESSION) in (None, _UNCOMPRESSED):
        raise InputError(
            "a 16-bit TIFF whose colours lie one after the other, uncompressed, is not read",
            "save it with the colours side by side: gdal_translate -co INTERLEAVE=PIXEL OLD.tif NEW.tif",
        )


def _tiff_tag(image: Image.Image, tag: int) -> Any:
    """A tag's value; None where there is none, or the image is no TIFF."""
    return getattr(image, "tag_v2", {}).get(tag) if image.format == "TIFF" else None


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16"):
        grey = _16_TO_8_BIT[np.asarray(image)]
        if _tiff_tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO:  # which Pillow turns round where it reads 8 bit alone
            grey = 255 - grey
    elif image.mode in ("I", "F"):
        grey = _deep_to_8_bit(np.asarray(image))
    else:
        if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
            image = image.convert("RGBA")
            white = Image.new("RGB", image.size, "white")
            white.paste(image, mask=image.getchannel("A"))
            image = white
        return np.array(image.convert("RGB"))
    return np.repeat(grey[..., None], 3, axis=2)


def _deep_to_8_bit(values: NDArray[Any]) -> NDArray[np.uint8]:
    """(H, W) int32 or float32 -> (H, W) uint8, as `read_image` says."""
    finite = values[np.isfinite(values)].astype(np.float64)
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    usual = 65535.0 if values.dtype.kind == "i" else 1.0
    if low >= 0 and high <= usual:
        low, high = 0.0, usual
    filled = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    return np.rint((filled - low) * (255 / (high - low or 1))).astype(np.uint8)


def _natural(path: Path) -> tuple[list[str | int], str]:
    """Numbers in a name count as numbers, case does not count; the plain name settles ties."""
    parts = re.split(r"(\d+)", str(path).casefold())
    return [int(part) if part.isdecimal() else part for part in parts], str(path)
