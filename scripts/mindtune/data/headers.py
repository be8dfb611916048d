"""Sound JPEG and PNG files, known by their first and last bytes alone.

Pillow takes some 60 µs to read a header, which makes seconds of 81,000 pictures. What is found sound
here is what Pillow reads without a complaint as grey, RGB or opaque palette pictures of 8 bits, the right
way up. Nothing is refused here: where `sound` is false, Pillow has to judge.
"""

import struct
import zlib

HEAD, TAIL = 4096, 12
# What Pillow refuses by default, and so what the training framework refuses: pixels of a picture.
MOST_PIXELS = 178_956_970
# How many times as long as wide a picture is of which the framework's shrinking (to 512 x 512
# pixels) leaves nothing.
MOST_SLENDER = 512 * 512
# Above this the framework changes a picture's shape (shrinking.LONGEST).
PRESSED = 200
# What the model sees of pictures that are not plain: keys as in conversion.json and check.json.
ALTERED = {
    "transparent": "transparent places show the colours that are stored there, often black",
    "deep": "grey values beyond 8 bits are cut at 255, which makes them white, and fractions black",
    "ink": "colours for printing (CMYK) are turned into RGB without their profile",
    "frames": "only the first frame is seen",
    "pressed": f"what is over {PRESSED} times as long as wide is pressed into another shape",
    "turned": "the pixels are seen as they are stored, not turned as the EXIF data say",
}

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
JPEG_END, PNG_END = b"\xff\xd9", b"\0\0\0\0IEND\xaeB`\x82"
FRAMES = frozenset((0xC0, 0xC1, 0xC2))
FRAME = struct.Struct(">BHHB")
APPLICATION = range(0xE0, 0xF0)
JFIF, EXIF, TABLES, COMMENT, SCAN = 0xE0, 0xE1, 0xDB, 0xFE, 0xDA
PASSED = frozenset((*APPLICATION, COMMENT, TABLES, 0xC4, 0xDD))
TABLE = 65  # a number below 4, and 64 values of 8 bits
# The entry for the orientation in EXIF data, in both orders of bytes, up to its value.
ORIENTATIONS = (
    (b"\x12\x01\x03\0\x01\0\0\0", b"\x01\0"),
    (b"\x01\x12\0\x03\0\0\0\x01", b"\0\x01"),
)
IHDR = struct.Struct(">IIBBBBB")
CHUNK = struct.Struct(">I4s")
PLAIN_CHUNKS = frozenset(
    (b"IHDR", b"PLTE", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"bKGD", b"pHYs", b"tIME", b"tEXt")
)
GREY, RGB, PALETTE = 0, 2, 3


def plain(width: int, height: int) -> bool:
    """Whether a picture can be used, and keeps its shape."""
    return fits(width, height) and max(width, height) <= min(width, height) * PRESSED


def fits(width: int, height: int) -> bool:
    """Whether a picture has pixels, and no more, and is no slenderer, than can be used."""
    longer, shorter = max(width, height), min(width, height)
    return shorter > 0 and width * height <= MOST_PIXELS and longer <= shorter * MOST_SLENDER


def cut_off(head: bytes, tail: bytes | None) -> bool:
    """Whether a JPEG or PNG file doesn't end as it must. tail: None where nobody knows it."""
    if tail is None:
        return False
    if head.startswith(JPEG):
        return not tail.endswith(JPEG_END)
    return head.startswith(PNG) and tail != PNG_END


def sound(head: bytes, tail: bytes | None) -> bool:
    """Whether there is nothing to remark, by the first HEAD and the last TAIL bytes of a file."""
    if cut_off(head, tail):
        return False
    if head.startswith(JPEG):
        return _sound_jpeg(head)
    return head.startswith(PNG) and _sound_png(head)


def _sound_jpeg(head: bytes) -> bool:
    place, end, framed = 2, len(head) - 9, False
    while place < end and head[place] == 0xFF:
        marker = head[place + 1]
        if marker == SCAN:
            return framed
        length = head[place + 2] << 8 | head[place + 3]
        if marker in FRAMES:
            bits, height, width, layers = FRAME.unpack_from(head, place + 4)
            framed = bits == 8 and layers in (1, 3) and length == 8 + 3 * layers
            if not framed or not plain(width, height):
                return False
        elif marker not in PASSED or length < 2:
            return False
        elif marker == TABLES:
            numbers = head[place + 4 : place + 2 + length : TABLE]
            if (length - 2) % TABLE or not numbers or max(numbers) > 3:
                return False
        elif (marker == JFIF and length < 16) or (
            marker == EXIF and _turned(head[place : place + length])
        ):
            return False
        place += 2 + length
    return False


def _turned(exif: bytes) -> bool:
    """Whether EXIF data have an orientation that isn't upright."""
    for entry, upright in ORIENTATIONS:
        at = exif.find(entry)
        if at >= 0 and exif[at + len(entry) :][:2] != upright:
            return True
    return False


def _sound_png(head: bytes) -> bool:
    place = len(PNG)
    while place + CHUNK.size <= len(head):
        length, kind = CHUNK.unpack_from(head, place)
        if kind == b"IDAT":
            return place > len(PNG)
        end = place + CHUNK.size + length
        if kind not in PLAIN_CHUNKS or end + 4 > len(head):
            return False
        if zlib.crc32(head[place + 4 : end]) != int.from_bytes(head[end : end + 4]):
            return False
        if kind == b"IHDR":
            width, height, bits, colours, *_ = IHDR.unpack_from(head, place + CHUNK.size)
            if bits > 8 or colours not in (GREY, RGB, PALETTE) or not plain(width, height):
                return False
        place = end + 4
    return False
