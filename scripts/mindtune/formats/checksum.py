"""CRC-32, as zip has it: of bytes, and of two strings joined from theirs.

The checksum is about a third of a conversion's work with zlib. Where the package `isal` (bindings
of Intel's ISA-L, `pip install isal`) is installed, its implementation is used, which gives
the same numbers some nine times as fast.
"""

try:
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32

__all__ = ["crc32", "crc32_combine"]

# A CRC is the remainder of a polynomial over GF(2). Appending n bytes multiplies the first
# remainder by x^(8n) modulo the CRC's polynomial; the two remainders are then added.

_POLYNOMIAL = 0xEDB88320  # that of zip and zlib, bits reversed


def _multiply(a: int, b: int) -> int:
    """a * b modulo the polynomial; bit 31 is the coefficient of x^0."""
    product = 0
    mask = 1 << 31
    while True:
        if a & mask:
            product ^= b
            if not a & (mask - 1):
                return product
        mask >>= 1
        if not mask:
            return product
        b = (b >> 1) ^ _POLYNOMIAL if b & 1 else b >> 1


_SHIFTS: dict[int, int] = {}  # n -> x^(8n)


def _shift(length: int) -> int:
    if length not in _SHIFTS:
        power, base, exponent = 1 << 31, 1 << 23, length  # x^0, x^8
        while exponent:
            if exponent & 1:
                power = _multiply(power, base)
            base = _multiply(base, base)
            exponent >>= 1
        _SHIFTS[length] = power
    return _SHIFTS[length]


def crc32_combine(first: int, second: int, second_length: int) -> int:
    """CRC-32 of A + B from the CRC-32 of A, that of B, and B's length in bytes."""
    return _multiply(_shift(second_length), first) ^ second if second_length else first
