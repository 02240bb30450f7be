"""The encoding of a text file, and its lines.

Text is decoded strictly and wholly or not at all; no replacement character ever stands in for a letter of a statute.
"""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from civilqa.program.errors import RecordError
from civilqa.reading.rows import File

CHUNK_BYTES = 1 << 20
HEAD_BYTES = 1 << 16

# A quote that is never closed makes the rest of the file one field; the limit stops that before a 500 MB file is in
# memory. At 2,000 characters a page it is 5,000 pages.
FIELD_CHARACTERS = 10_000_000

# CP949 decodes much that is no text, such as binary files. Tab, line breaks, vertical tab and form feed do occur in
# documents. Python's cp949 yields no C1 control (U+0080 to U+009F) at all: 0x80 and 0xff are invalid in it.
CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f]")
HANGUL = re.compile("[가-힣]")

BOMS = (
    # A UTF-32 mark begins with a UTF-16 one, and leads to NUL characters, which are refused below.
    (codecs.BOM_UTF8, "utf-8-sig", "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16", "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16", "utf-16-be"),
)


def find_encoding(file: File) -> str:
    """Return the codec that decodes the whole file strictly: by its mark, its NUL bytes, then UTF-8, then CP949.

    Raises:
        RecordError: none does, or what it yields is no text; names the line and the byte.
    """
    advice = "save the file as 'CSV UTF-8'" if file.suffix in (".csv", ".tsv") else "save the file as UTF-8"
    path = file.path
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    guess = guess_utf16(head) or "utf-8"
    marked = ((codec, strict_codec) for mark, codec, strict_codec in BOMS if head.startswith(mark))
    codec, strict_codec = next(marked, (guess, guess))

    failure = find_undecodable(file, strict_codec, advice)
    if failure is None:
        return codec
    before, found = failure
    place = f"{file}:{line_after(before)}"
    if strict_codec != "utf-8":
        raise RecordError(f"{place}: broken UTF-16 ({found} of the file); {advice}")
    # The three bytes of a Hangul syllable in UTF-8 hardly occur in CP949 text, where they begin with a rare Hanja: a
    # file that has them is damaged UTF-8, and decoding it as CP949 could only yield mojibake.
    if HANGUL.search(before) or codec == "utf-8-sig":
        raise RecordError(f"{place}: broken UTF-8 ({found} of the file); {advice}")
    failure = find_undecodable(file, "cp949", advice)
    if failure is not None:
        too = f"{failure[1]}, line {line_after(failure[0])}"
        raise RecordError(f"{place}: not UTF-8 ({found} of the file) and not CP949 ({too}); {advice}")
    if rare_syllables_share(path) > 0.5:
        what = "it is not Korean but rare syllables that no word has"
        raise RecordError(f"{place}: not UTF-8 ({found} of the file), and as CP949 {what}; {advice}")
    return "cp949"


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


def find_undecodable(file: File, codec: str, advice: str) -> tuple[str, str] | None:
    """Decode a file strictly; return the text before the first byte that is none, and the byte; None if all is text.

    Raises:
        RecordError: there are characters that no text has.
    """
    decoder = codecs.getincrementaldecoder(codec)("strict")
    controls = CONTROL if codec == "cp949" else re.compile("\0")
    done = 0
    with file.path.open("rb") as stream:
        while True:
            chunk = stream.read(CHUNK_BYTES)
            kept = len(decoder.getstate()[0])
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                offset = done - kept + error.start
                stream.seek(0)
                before = stream.read(offset).decode(codec, "ignore")
                return before, f"0x{error.object[error.start]:02x}, byte {offset + 1}"
            if match := controls.search(text):
                stream.seek(0)
                line = line_after(stream.read(done).decode(codec, "ignore") + text[: match.start()])
                what = "a NUL character" if match[0] == "\0" else f"control character 0x{ord(match[0]):02x}"
                raise RecordError(f"{file}:{line}: not a text file ({what}); {advice}")
            if not chunk:
                return None
            done += len(chunk)


def line_after(text: str) -> int:
    """Return the number of the line that follows some text."""
    return 1 + len(re.findall(r"\r\n?|\n", text))


def read_lines(file: File, encoding: str) -> Iterator[str]:
    """Yield lines with their ends, which are \\n, \\r\\n or \\r.

    Raises:
        RecordError: a line of more than FIELD_CHARACTERS characters.
    """
    # newline="" keeps the line ends for the csv module; unlike str.splitlines it does not split at U+2028 or \f.
    with file.path.open(encoding=encoding, newline="") as stream:
        number = 1
        while line := stream.readline(FIELD_CHARACTERS + 1):
            if len(line) > FIELD_CHARACTERS:
                raise RecordError(
                    f"{file}:{number}: found a line of more than {FIELD_CHARACTERS} characters; put one row on a line"
                )
            yield line
            number += 1
