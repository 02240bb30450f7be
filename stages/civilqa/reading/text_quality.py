"""What in a text is no text: characters lost in a conversion, and leftovers of markup, templates and escapes."""

import html.entities
import re
from collections.abc import Callable
from functools import cache

from civilqa.reading.cleaning import clean
from civilqa.reading.personal_data import mask_personal_data

Span = tuple[int, int]

SHOWN_CHARACTERS = 12  # on each side of what was found
LONGEST_SHOWN = 30  # of what was found itself

# Korean in UTF-8 read as Windows-1252 or Latin-1 (안 is ì•ˆ), by a byte-level tokenizer (ìķĪ), and in EUC-KR read so
# (안녕 is ¾È³ç), which ···· is not. Of what was copied from a page, control characters are gone: one of three is.
HIGH = "\u0080-\u00bf\u20ac\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\u017d\u2018\u2019\u201c"
HIGH += "\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\u017e\u0178\u0100-\u0143"
# What DAMAGE has in it, and quicker to find.
SUSPECTS = r"\ufffd쏙\u00b0-\u00b6\u00b8-\u00c8\u00ea-\u00ed"
SUSPECT = re.compile(rf"[{SUSPECTS}]|\?\?")
DAMAGE = re.compile(
    r"\ufffd+|占쏙|쏙옙"
    rf"|(?:[\u00ea-\u00ed][{HIGH}]{{2}} ?){{2,20}}|(?:[\u00ea-\u00ed][{HIGH}]{{1,2}} ?){{3,20}}"
    r"|(?:[\u00b0-\u00b6\u00b8-\u00c8][\u00a1-\u00fe] ?){3,30}"
    r"|(?<!\?)\?{2,}+(?: \?{2,}+){2,20}|\A\s*\?[?\s]{3,}\Z"  # where each character became a question mark
)
# In UTF-8 read as CP949 (안녕 is �븞�뀞) rare Hanja and syllables that no word has alternate; some bytes are lost.
HANJAS = r"\u4e00-\u9fff\uf900-\ufaff"
HANJA = re.compile(f"[{HANJAS}]")
RUN = re.compile(r"[^\x00-\x7f\s]{3,200}")
RARE_SYLLABLES, RARE_SHARE = 4, 0.2

MARKS = re.compile(r"[<&\\\[#_%=\u2581]")
TAGS = (
    "blockquote|body|br|center|code|dd|div|dl|dt|em|font|h[1-6]|head|hr|html|iframe|img|input|li|meta|ol|p|pre|s|script|"
    "section|span|strong|style|sub|sup|table|tbody|td|th|thead|tr|ul|[ovw]:[a-z]{1,20}|bos|cls|eos|mask|pad|sep|unk|bot|"
    "eot|usr|sys|user|human|assistant|system|unused[0-9]{1,3}|0x[0-9a-f]{2}|(?:start|end)_of_(?:turn|text)"
)
# What stands between quotation marks, or before the word for it, is spoken of.
QUOTE = re.compile("[\"'`\u2018\u2019\u201c\u201d]")
TAG_WORD = re.compile(r"\s?태그")
LEFTOVER = re.compile(
    r"(?=[<&\\\[#_%=\u2581\]-])(?:"  # what one of them begins with is quicker to find
    # <A 회사> and <b> are no tags: one of a single letter shows by its attributes or its end.
    rf"</?(?i:{TAGS})\s{{0,3}}/?\s{{0,3}}>|</(?i:[abiu])>|<(?i:{TAGS}|[abiu])\s[\sA-Za-z-]{{0,30}}=[^<>]{{0,300}}>"
    r"|<!--|-->|<!\[CDATA\[|\]\]>"
    r"|&(?P<entity>[A-Za-z]{2,8}[0-9]{0,2});|&nbsp|&#(?:[0-9]{2,7}|[xX][0-9A-Fa-f]{2,6});"
    r"|\[/?INST\]|<</?SYS>>|<\|[^|<>\s]{1,40}\|>|\[\|[^|\[\]\s]{1,20}\|\]|\[(?:CLS|SEP|UNK|PAD|MASK|BOS|EOS)\]"
    r"|###\s?(?:Instruction|Response|Input|Output|Human|User|Assistant|System|질문|답변|명령어|응답|맥락|입력|출력)\s?:"
    r"|\\[nrt](?![a-z_])|\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2}|\\\"|_x00[01][0-9A-Fa-f]_"
    r"|(?<![\w/%=&?.-])(?:[%=][0-9A-F]{2}){3}|\u2581(?=\w))"
)


def find_damage(text: str) -> Span | None:
    """Return where characters of a text were lost or read in a wrong encoding, None if nowhere.

    Args:
        text: as it stands in the file; cleaning takes out control characters that tell an encoding.
    """
    if not any_suspect().search(text):
        return None
    if SUSPECT.search(text) and (match := DAMAGE.search(text)):
        return match.span()
    if HANJA.search(text):
        for match in RUN.finditer(text):
            if HANJA.search(match[0]) and is_utf8_as_cp949(match[0]):
                return match.span()
    return find_rare_syllables(text)


def is_utf8_as_cp949(text: str) -> bool:
    """Tell whether most of a text becomes Korean, or lost characters, when its bytes in CP949 are read as UTF-8."""
    data = text.encode("cp949", "ignore")
    decoded = data.decode("utf-8", "ignore")
    syllables = sum("가" <= char <= "힣" or char == "\ufffd" for char in decoded)
    return syllables >= 2 and 3 * syllables >= 0.6 * len(data)


@cache
def rare_syllables() -> re.Pattern[str]:
    """Return the pattern of syllables like 뀞 that CP949 adds to EUC-KR."""
    # Python's euc_kr spells such a syllable out in 8 bytes in place of 2. Source: KS X 1001 annex 3.
    return re.compile("[" + "".join(c for c in map(chr, range(0xAC00, 0xD7A4)) if len(c.encode("euc_kr")) > 2) + "]")


@cache
def any_suspect() -> re.Pattern[str]:
    """Return the pattern of all that damage has in it: most texts hold none of it, and are read once."""
    return re.compile(rf"[{SUSPECTS}{HANJAS}{rare_syllables().pattern[1:-1]}]|\?\?")


def find_rare_syllables(text: str) -> Span | None:
    """Return from the first to the last rare syllable of a text in which there are far more than Korean has."""
    rare = list(rare_syllables().finditer(text))
    if len(rare) < RARE_SYLLABLES:
        return None
    share = len(rare) / sum("가" <= char <= "힣" for char in text)
    return (rare[0].start(), rare[-1].end()) if share > RARE_SHARE else None


def find_leftover(text: str) -> Span | None:
    """Return where a text has a tag, an entity, a model's or a template's mark, or an escape written out."""
    if not MARKS.search(text):
        return None
    for match in LEFTOVER.finditer(text):
        start, end = match.span()
        known = not match["entity"] or f"{match['entity']};" in html.entities.html5
        spoken_of = TAG_WORD.match(text, end) or (QUOTE.match(text, start - 1) and QUOTE.match(text, end))
        if known and not spoken_of:
            return start, end
    return None


def quote(text: str, find: Callable[[str], Span | None]) -> str:
    """Return what `find` finds in a text, with a few characters around it, on one line and masked."""
    masked = mask_personal_data(text)[0]
    span = find(masked)
    if span is None:
        return ""
    start, end = span
    found = masked[start:end] if end - start <= LONGEST_SHOWN else masked[start : start + LONGEST_SHOWN - 1] + "…"
    left, right = masked[max(0, start - SHOWN_CHARACTERS) : start], masked[end : end + SHOWN_CHARACTERS]
    shown = ("…" if start > SHOWN_CHARACTERS else "") + left + found + right
    return " ".join(clean(shown + ("…" if end + SHOWN_CHARACTERS < len(masked) else "")).split())
