"""Groups texts that say the same in nearly the same words.

Two texts are near-duplicates if the Jaccard similarity of their sets of character trigrams, taken after white space,
punctuation, case and the Unicode form are out of the way, reaches a threshold.

Trigrams, since a Korean particle is a syllable or two: in a question of 30 syllables a changed one breaks 3 of 28
trigrams (25/31 = 0.81, still a near-duplicate at 0.8), but 4 of 27 four-grams (23/31 = 0.74); bigrams would also count
the frequent two-syllable endings that unrelated questions share. And three code points of 21 bits fit 63 bits, so that
a trigram is a number without a collision.

The join is exact at every size: no pair is missed and none is merged by chance. MinHash with LSH would miss a pair at
the threshold with some probability; among a million questions a miss rate of 0.001 is a handful of leaks.
"""

import re
import unicodedata
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

GRAM = 3
_ROWS_A_CHUNK = 1 << 15  # with the 49 bits of a gram's place in the order, a chunk's rows fill 64 bits
_PAIRS_A_CHUNK = 1 << 20  # x 64 bytes of bitmap x 2 sides: 128 MiB
_PAIRS_A_LOOK = 1 << 15
_CROWD = 64  # rows of one key, from where on neighbours are compared first
_SHARES = 8  # a power of two
_BUCKETS = 1 << 22  # of gram frequencies
_WORDS = 8  # of a bitmap: 512 bits for about 100 grams
_SLACK = 1e-9  # so that 4 of 5 is 0.8 in binary fractions too; it lets a filter pass more, never less


def normalize(text: str) -> str:
    """Return the letters and digits of a text, in NFC and case-folded."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return re.sub(r"[\W_]+", "", folded)


def grams(normalized: str) -> set[str]:
    """Return the trigrams of a normalized text; a text shorter than three characters is its own only gram."""
    return {normalized[i : i + GRAM] for i in range(max(1, len(normalized) - GRAM + 1))}


def is_near(left: set[str], right: set[str], similarity: float) -> bool:
    """Return whether the Jaccard similarity of two sets is at least `similarity`."""
    shared = len(left & right)
    return shared >= similarity * (len(left) + len(right) - shared) - _SLACK


def group_near_duplicates(texts: list[str], similarity: float) -> list[int]:
    """Return for each text the smallest index of its group.

    Groups are the connected components of the pairs whose similarity is at least `similarity` (0 < similarity <= 1).
    They follow from the set of texts alone: not from their order, a seed or the process. Time grows with the rows and
    with the pairs of different groups that share one of their rarest trigrams. Memory is about 1.5 KiB a text of 100
    characters.
    """
    if not 0 < similarity <= 1:
        raise ValueError(f"similarity: found {similarity}, want more than 0 and at most 1")
    index_of: dict[str, int] = {}
    unique_of = [index_of.setdefault(normalize(text), len(index_of)) for text in texts]
    unique = list(index_of)
    components = _Components(unique, similarity)
    _join(components)
    roots = components.roots().tolist()
    first: dict[int, int] = {}
    return [first.setdefault(roots[node], index) for index, node in enumerate(unique_of)]


class _Components:
    """The groups found so far: texts are joined pair by pair, each pair by an exact comparison."""

    def __init__(self, texts: list[str], similarity: float):
        self.texts = texts
        self.similarity = similarity
        self._parent = np.arange(len(texts))

    def roots(self) -> np.ndarray:
        """Return for each text one of its group, the same for the whole group."""
        while not np.array_equal(above := self._parent[self._parent], self._parent):
            self._parent = above
        return self._parent

    def join(self, left: np.ndarray, right: np.ndarray) -> None:
        """Join those of the pairs of texts that are near-duplicates; pairs within one group are not compared again."""
        for start in range(0, len(left), _PAIRS_A_LOOK):
            part = slice(start, start + _PAIRS_A_LOOK)
            roots = self.roots()
            apart = roots[left[part]] != roots[right[part]]
            for one, other in zip(left[part][apart].tolist(), right[part][apart].tolist(), strict=True):
                a, b = self._find(one), self._find(other)
                if a != b and is_near(grams(self.texts[one]), grams(self.texts[other]), self.similarity):
                    self._parent[max(a, b)] = min(a, b)

    def _find(self, node: int) -> int:
        while (above := self._parent[node]) != node:
            self._parent[node] = self._parent[above]
            node = above
        return node


def _join(components: _Components) -> None:
    """Join all pairs that reach the similarity.

    Source: prefix, length and positional filter of Xiao, Wang, Lin and Yu, "Efficient similarity joins for
    near-duplicate detection" (PPJoin), WWW 2008; bitmap filter of Sandes, Teodoro and Melo, "Bitmap filter", 2020.
    With the grams of every set in one order, rarest first, two sets that share at least `o` grams share one among the
    first `size - o + 1` of each.
    """
    texts, similarity = components.texts, components.similarity
    if not texts:
        return
    chunks = -(-len(texts) // _ROWS_A_CHUNK)
    progress = tqdm(desc="near-duplicates", total=2 * chunks + _SHARES, unit=" steps")
    frequency = np.zeros(_BUCKETS, np.int64)
    sizes = np.zeros(len(texts), np.int64)
    for start, rows, hashes in _hashed_sets(texts, range(len(texts))):
        frequency += np.bincount(hashes >> np.uint64(42), minlength=_BUCKETS)
        sizes[start : start + _ROWS_A_CHUNK] = np.bincount(rows)
        progress.update()
    order = np.argsort(sizes, kind="stable")  # rows are numbered by size from here on
    sizes = sizes[order]
    # The larger side of a pair is the probe, the smaller is the index: it gets by with a shorter prefix.
    probe_length = sizes - np.ceil(similarity * sizes - _SLACK).astype(np.int64) + 1
    index_length = sizes - np.ceil(2 * similarity / (1 + similarity) * sizes - _SLACK).astype(np.int64) + 1

    rank = np.minimum(frequency, (1 << 20) - 1).astype(np.uint64) << np.uint64(29)
    bitmaps = np.zeros((len(texts), _WORDS), np.uint64)
    parts = []
    for start, rows, hashes in _hashed_sets(texts, order):
        bit = hashes & np.uint64(64 * _WORDS - 1)
        words = bitmaps[start : start + _ROWS_A_CHUNK].reshape(-1)
        _or_at(words, rows * _WORDS + (bit >> np.uint64(6)).astype(np.int64), np.uint64(1) << (bit & np.uint64(63)))
        place = rank[hashes >> np.uint64(42)] | (hashes >> np.uint64(13) & np.uint64((1 << 29) - 1))
        place = np.sort(rows.astype(np.uint64) << np.uint64(49) | place)
        counts = np.bincount(rows)
        position = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        keep = position < probe_length[start + rows]
        parts.append(
            (
                place[keep] & np.uint64((1 << 49) - 1),
                (start + rows[keep]).astype(np.int32),
                position[keep].astype(np.int32),
            )
        )
        progress.update()
    for share in range(_SHARES):  # of the grams, by their hash: an eighth of the memory at a time
        chosen = [keys & np.uint64(_SHARES - 1) == np.uint64(share) for keys, _, _ in parts]
        columns = [np.concatenate([part[i][mine] for part, mine in zip(parts, chosen, strict=True)]) for i in range(3)]
        _join_entries(*columns, order, sizes, index_length, bitmaps, components)
        progress.update()
    progress.close()


def _join_entries(
    keys: np.ndarray,
    rows: np.ndarray,
    positions: np.ndarray,
    order: np.ndarray,
    sizes: np.ndarray,
    index_length: np.ndarray,
    bitmaps: np.ndarray,
    components: _Components,
) -> None:
    """Join the pairs of rows that share an entry; one entry is (key, row, position in the row).

    Rows are numbered by size, and the entries come in the order of their rows; `order` holds the texts of the rows.
    """
    similarity = components.similarity

    def join(left: np.ndarray, right: np.ndarray, room: np.ndarray | None = None) -> None:
        total = sizes[left] + sizes[right]
        wanted = np.ceil(similarity / (1 + similarity) * total - _SLACK)
        keep = left != right
        if room is not None:
            keep &= room >= wanted
        left, right, total, wanted = left[keep], right[keep], total[keep], wanted[keep]
        differing = np.bitwise_count(bitmaps[left] ^ bitmaps[right]).sum(axis=1, dtype=np.int64)
        keep = total - differing >= 2 * wanted
        pairs = np.unique(left[keep].astype(np.int64) * len(sizes) + right[keep])
        components.join(order[pairs // len(sizes)], order[pairs % len(sizes)])

    if not len(keys):
        return
    by_key = np.argsort(keys, kind="stable")
    keys, rows, positions = keys[by_key], rows[by_key], positions[by_key]
    start, length = _runs(keys)
    # A key of many rows: neighbours first. Where that makes one group of them all, as with a thousand forms of one
    # question, their pairs, which are quadratic in number, are never looked at.
    crowded = np.flatnonzero(np.repeat(length >= _CROWD, length)[:-1] & (keys[1:] == keys[:-1]))
    for begin in range(0, len(crowded), _PAIRS_A_CHUNK):
        left = crowded[begin : begin + _PAIRS_A_CHUNK]
        join(rows[left], rows[left + 1])
    roots = components.roots()[order[rows]]
    settled = np.minimum.reduceat(roots, start) == np.maximum.reduceat(roots, start)
    keep = ~np.repeat(settled, length)
    keys, rows, positions = keys[keep], rows[keep], positions[keep]
    if not len(keys):
        return
    group = np.zeros(len(keys), np.int64)
    group[1:] = np.cumsum(keys[1:] != keys[:-1])

    # Entries are sorted by key and, within a key, by size: the partners of a probe are one stretch of index entries.
    is_index = positions < index_length[rows]
    index_rows, index_positions = rows[is_index], positions[is_index]
    stride = int(sizes[-1]) + 1
    smallest = np.ceil(similarity * sizes[rows] - _SLACK).astype(np.int64)
    low = np.searchsorted(group[is_index] * stride + sizes[index_rows], group * stride + smallest)
    counts = np.maximum(np.cumsum(is_index) - is_index - low, 0)
    ends = np.cumsum(counts)
    begin = 0
    while begin < len(counts):
        done = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + _PAIRS_A_CHUNK, side="right")))
        count = counts[begin:end]
        probe = np.repeat(np.arange(begin, end), count)
        entry = np.arange(len(probe)) + np.repeat(low[begin:end] - (np.cumsum(count) - count), count)
        begin = end
        left, right = index_rows[entry], rows[probe]
        join(left, right, np.minimum(sizes[left] - index_positions[entry], sizes[right] - positions[probe]))


def _runs(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where each run of equal keys starts and how long it is; of at least one key."""
    start = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    return start, np.diff(np.r_[start, len(keys)])


def _hashed_sets(texts: list[str], order: range | np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield chunks of (first row, row within the chunk of each gram, hash of each gram), sorted by row.

    The hash is a bijection of the gram: distinct grams have distinct hashes.
    """
    for start in range(0, len(order), _ROWS_A_CHUNK):
        # NUL is no letter, so that a padded text has no gram in common with a longer one.
        chunk = [texts[i].ljust(GRAM, "\0") for i in order[start : start + _ROWS_A_CHUNK]]
        codes = np.frombuffer("".join(chunk).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
        lengths = np.fromiter(map(len, chunk), np.int64, len(chunk))
        value = codes[:-2] << np.uint64(42) | codes[1:-1] << np.uint64(21) | codes[2:]
        inside = np.ones(len(codes), bool)
        inside[np.cumsum(lengths) - 1] = inside[np.cumsum(lengths) - 2] = False
        value = value[inside[:-2]]
        # splitmix64's finaliser: the frequency bucket, the place and the bit take different bits of it.
        value = (value ^ value >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ value >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        value ^= value >> np.uint64(31)
        rows = np.repeat(np.arange(len(chunk)), lengths - 2)
        # Duplicates within a row: sort by hash, then by row; both are cheaper than a lexsort.
        by_hash = np.argsort(value)
        by_row = by_hash[np.argsort(rows[by_hash], kind="stable")]
        value, rows = value[by_row], rows[by_row]
        new = np.ones(len(value), bool)
        new[1:] = (value[1:] != value[:-1]) | (rows[1:] != rows[:-1])
        yield start, rows[new], value[new]


def _or_at(target: np.ndarray, index: np.ndarray, bits: np.ndarray) -> None:
    """Set bits in `target[index]`; an index may occur more than once."""
    by_index = np.argsort(index, kind="stable")
    index, bits = index[by_index], bits[by_index]
    starts = np.flatnonzero(np.r_[True, index[1:] != index[:-1]])
    target[index[starts]] |= np.bitwise_or.reduceat(bits, starts)
