"""The encoding of a text file, and its lines.

Text is decoded strictly and wholly or not at all; no replacement character ever stands in for a letter of a statute.
"""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from civilqa.program.errors import RecordError

CHUNK_BYTES = 1 << 20
HEAD_BYTES = 1 << 16

# A quote that is never closed makes the rest of the file one field; the limit stops that before a 500 MB file is in
# memory. At 2,000 characters a page it is 5,000 pages.
FIELD_CHARACTERS = 10_000_000

# CP949 decodes much that is no text, such as binary files. Tab, line breaks, vertical tab and form feed do occur in
# documents. Python's cp949 yields no C1 control (U+0080 to U+009F) at all: 0x80 and 0xff are invalid in it.
CONTROL = re.compile("[\x01-\x08\x0e-\x1f\x7f]")
HANGUL = re.compile("[가-힣]")

BOMS = (
    # A UTF-32 mark begins with a UTF-16 one, and leads to NUL characters, which are refused below.
    (codecs.BOM_UTF8, "utf-8-sig", "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16", "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16", "utf-16-be"),
)


def find_encoding(path: Path) -> str:
    """Return the codec that decodes the whole file strictly: by its mark, its NUL bytes, then UTF-8, then CP949.

    Raises:
        RecordError: none does, or what it yields is no text; names the line and the byte.
    """
    advice = "save the file as 'CSV UTF-8'" if path.suffix.lower() in (".csv", ".tsv") else "save the file as UTF-8"
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    guess = guess_utf16(head) or "utf-8"
    marked = ((codec, strict_codec) for mark, codec, strict_codec in BOMS if head.startswith(mark))
    codec, strict_codec = next(marked, (guess, guess))

    failure, hangul = first_undecodable(path, strict_codec)
    if failure is None:
        return codec
    line, offset, byte, control = failure
    if control is not None:
        raise RecordError(f"{path}:{line}: not a text file ({control}); {advice}")
    found = f"0x{byte:02x}, byte {offset + 1} of the file"
    if strict_codec != "utf-8":
        raise RecordError(f"{path}:{line}: broken UTF-16 ({found}); {advice}")
    # The three bytes of a Hangul syllable in UTF-8 hardly occur in CP949 text, where they begin with a rare Hanja: a
    # file that has them is damaged UTF-8, and decoding it as CP949 could only yield mojibake.
    if hangul or codec == "utf-8-sig":
        raise RecordError(f"{path}:{line}: broken UTF-8 ({found}); {advice}")
    failure, _ = first_undecodable(path, "cp949")
    if failure is None and rare_syllables_share(path) <= 0.5:
        return "cp949"
    if failure is None:
        raise RecordError(
            f"{path}:{line}: not UTF-8 ({found}), and as CP949 it is not Korean but rare syllables that no word has; "
            f"{advice}"
        )
    cp949_line, offset, byte, control = failure
    if control is not None:
        raise RecordError(f"{path}:{cp949_line}: not a text file ({control}); {advice}")
    found_too = f"0x{byte:02x}, byte {offset + 1}, line {cp949_line}"
    raise RecordError(f"{path}:{line}: not UTF-8 ({found}) and not CP949 ({found_too}); {advice}")


def rare_syllables_share(path: Path) -> float:
    """Return the share, 0 to 1, of syllables like 뷁 that CP949 adds to EUC-KR among the characters of two bytes.

    It is next to 0 in Korean, and high where CP949 decodes what is not, such as the quotation marks of Windows-1252:
    the bytes of "don’t" would be "don뭪".
    """
    wide = rare = 0
    with path.open(encoding="cp949", newline="") as file:
        while text := file.read(CHUNK_BYTES):
            size = len(text.encode("cp949"))
            wide += size - len(text)
            # Python's euc_kr spells such a syllable out in 8 bytes in place of 2. Source: KS X 1001 annex 3.
            rare += (len(text.encode("euc_kr")) - size) // 6
    return rare / max(wide, 1)


def guess_utf16(head: bytes) -> str | None:
    """Return the byte order of UTF-16 without a mark, or None for anything else.

    In UTF-16 the bytes of separators are paired with a NUL byte, on the side that tells the byte order. Counting NUL
    bytes alone would mislead: U+AC00, 가, has one on the other side.
    """
    if b"\0" not in head:
        return None
    separators = b"\n\r\t ,;"
    total = sum(head.count(separator) for separator in separators)
    low, high = head[0::2], head[1::2]
    little = sum(a in separators and b == 0 for a, b in zip(low, high, strict=False))
    big = sum(a == 0 and b in separators for a, b in zip(low, high, strict=False))
    if max(little, big) * 2 < max(total, 1):
        return None
    return "utf-16-le" if little >= big else "utf-16-be"


def first_undecodable(path: Path, codec: str) -> tuple[tuple[int, int, int, str | None] | None, bool]:
    """Decode a file strictly; return (None, ...) if all of it is text, else where it is not.

    Returns:
        ((line, offset of the byte, the byte, the control character in words or None), whether Hangul came before).
    """
    decoder = codecs.getincrementaldecoder(codec)("strict")
    done, line, hangul, after_cr = 0, 1, False, False

    def breaks(text: str) -> int:
        # \r\n is one line break, also where it lies across two chunks.
        return text.count("\n") + text.count("\r") - text.count("\r\n") - (after_cr and text.startswith("\n"))

    with path.open("rb") as file:
        while True:
            chunk = file.read(CHUNK_BYTES)
            kept = len(decoder.getstate()[0])
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                before = error.object[: error.start].decode(codec, errors="ignore")
                offset = done - kept + error.start
                hangul = hangul or HANGUL.search(before) is not None
                return (line + breaks(before), offset, error.object[error.start], None), hangul
            at = text.find("\0")
            control = "a NUL character" if at >= 0 else None
            if codec == "cp949" and at < 0 and (match := CONTROL.search(text)):
                at, control = match.start(), f"control character 0x{ord(match[0]):02x}"
            if control is not None:
                return (line + breaks(text[:at]), 0, 0, control), hangul
            if not chunk:
                return None, hangul
            hangul = hangul or HANGUL.search(text) is not None
            line += breaks(text)
            after_cr = text.endswith("\r") if text else after_cr
            done += len(chunk)


def read_lines(path: Path, encoding: str) -> Iterator[str]:
    """Yield lines with their ends, which are \\n, \\r\\n or \\r.

    Raises:
        RecordError: a line of more than FIELD_CHARACTERS characters.
    """
    # newline="" keeps the line ends for the csv module; unlike str.splitlines it does not split at U+2028 or \f.
    with path.open(encoding=encoding, newline="") as file:
        number = 1
        while line := file.readline(FIELD_CHARACTERS + 1):
            if len(line) > FIELD_CHARACTERS:
                raise RecordError(
                    f"{path}:{number}: found a line of more than {FIELD_CHARACTERS} characters; put one row on a line"
                )
            yield line
            number += 1
