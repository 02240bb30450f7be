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
_BUCKET_BITS = 22  # of gram frequencies, at most
_BITMAP_BITS = 512  # for about 100 grams
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
    roots = _join(list(index_of), similarity)
    first: dict[int, int] = {}
    return [first.setdefault(roots[node], index) for index, node in enumerate(unique_of)]


class _Components:
    """The groups found so far: texts are joined pair by pair, each pair by an exact comparison.

    `sizes` and `bitmaps` are those of the texts' sets of grams.
    """

    def __init__(self, texts: list[str], similarity: float, sizes: np.ndarray, bitmaps: np.ndarray):
        self.texts, self.similarity, self.sizes, self.bitmaps = texts, similarity, sizes, bitmaps
        self._parent = np.arange(len(texts))

    def roots(self) -> np.ndarray:
        """Return for each text one of its group, the same for the whole group."""
        while not np.array_equal(above := self._parent[self._parent], self._parent):
            self._parent = above
        return self._parent

    def join(self, left: np.ndarray, right: np.ndarray, shared: np.ndarray | None = None) -> None:
        """Join those of the pairs of texts that are near-duplicates; pairs within one group are not compared again.

        `shared` is how many grams a pair can have in common, where anything is known of it.
        """
        total = self.sizes[left] + self.sizes[right]
        wanted = np.ceil(self.similarity / (1 + self.similarity) * total - _SLACK)
        keep = left != right
        if shared is not None:
            keep &= shared >= wanted
        left, right, total, wanted = left[keep], right[keep], total[keep], wanted[keep]
        differing = np.bitwise_count(self.bitmaps[left] ^ self.bitmaps[right]).sum(axis=1, dtype=np.int64)
        keep = total - differing >= 2 * wanted
        pairs = np.unique(left[keep].astype(np.int64) * len(self.texts) + right[keep])
        for start in range(0, len(pairs), _PAIRS_A_LOOK):
            left, right = np.divmod(pairs[start : start + _PAIRS_A_LOOK], len(self.texts))
            roots = self.roots()
            apart = roots[left] != roots[right]
            for one, other in zip(left[apart].tolist(), right[apart].tolist(), strict=True):
                a, b = self._find(one), self._find(other)
                if a != b and is_near(grams(self.texts[one]), grams(self.texts[other]), self.similarity):
                    self._parent[max(a, b)] = min(a, b)

    def _find(self, node: int) -> int:
        while (above := self._parent[node]) != node:
            self._parent[node] = self._parent[above]
            node = above
        return node


def _join(texts: list[str], similarity: float) -> list[int]:
    """Join all pairs of different texts that reach the similarity; return for each text one of its group.

    Source: prefix, length and positional filter of Xiao, Wang, Lin and Yu, "Efficient similarity joins for
    near-duplicate detection" (PPJoin), WWW 2008; bitmap filter of Sandes, Teodoro and Melo, "Bitmap filter", 2020.
    With the grams of every set in one order, rarest first, two sets that share at least `o` grams share one among the
    first `size - o + 1` of each.
    """
    if not texts:
        return []
    progress = tqdm(desc="near-duplicates", total=2 * -(-len(texts) // _ROWS_A_CHUNK) + _SHARES, unit=" steps")
    bucket_bits = min(_BUCKET_BITS, len(texts).bit_length() + 6)  # about as many buckets as there are grams
    bucket_shift = np.uint64(64 - bucket_bits)
    frequency = np.zeros(1 << bucket_bits, np.int64)
    sizes = np.zeros(len(texts), np.int64)
    for start, rows, hashes in _hashed_sets(texts):
        frequency += np.bincount(hashes >> bucket_shift, minlength=len(frequency))
        sizes[start : start + _ROWS_A_CHUNK] = np.bincount(rows)
        progress.update()
    order = np.argsort(sizes, kind="stable")  # rows are numbered by size from here on
    sizes = sizes[order]
    ordered = [texts[i] for i in order]
    # The larger side of a pair is the probe, the smaller is the index: it gets by with a shorter prefix.
    probe_length = sizes - np.ceil(similarity * sizes - _SLACK).astype(np.int64) + 1
    index_length = sizes - np.ceil(2 * similarity / (1 + similarity) * sizes - _SLACK).astype(np.int64) + 1

    rank = np.minimum(frequency, (1 << 20) - 1).astype(np.uint64) << np.uint64(29)
    bitmaps = np.zeros((len(texts), _BITMAP_BITS // 64), np.uint64)
    parts = []
    for start, rows, hashes in _hashed_sets(ordered):
        bits = np.zeros((rows[-1] + 1, _BITMAP_BITS), bool)
        bits[rows, hashes & np.uint64(_BITMAP_BITS - 1)] = True
        bitmaps[start : start + _ROWS_A_CHUNK] = np.packbits(bits, axis=1).view(np.uint64)
        place = rank[hashes >> bucket_shift] | (hashes >> np.uint64(13) & np.uint64((1 << 29) - 1))
        place = np.sort(rows.astype(np.uint64) << np.uint64(49) | place)
        counts = np.bincount(rows)
        position = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        keep = position < probe_length[start + rows]
        key = place[keep] & np.uint64((1 << 49) - 1)
        parts.append((key, (start + rows[keep]).astype(np.int32), position[keep].astype(np.int32)))
        progress.update()
    components = _Components(ordered, similarity, sizes, bitmaps)
    for share in range(_SHARES):  # of the grams, by their hash: an eighth of the memory at a time
        chosen = [keys & np.uint64(_SHARES - 1) == np.uint64(share) for keys, _, _ in parts]
        columns = [np.concatenate([part[i][mine] for part, mine in zip(parts, chosen, strict=True)]) for i in range(3)]
        _join_entries(*columns, index_length, components)
        progress.update()
    progress.close()
    roots = np.empty(len(texts), np.int64)
    roots[order] = components.roots()
    return roots.tolist()


def _join_entries(
    keys: np.ndarray, rows: np.ndarray, positions: np.ndarray, index_length: np.ndarray, components: _Components
) -> None:
    """Join the pairs of rows that share an entry; one entry is (key, row, position in the row).

    Rows are numbered by size, and the entries come in the order of their rows.
    """
    if not len(keys):
        return
    sizes = components.sizes
    by_key = np.argsort(keys, kind="stable")
    keys, rows, positions = keys[by_key], rows[by_key], positions[by_key]
    start = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    length = np.diff(np.r_[start, len(keys)])
    # A key of many rows: neighbours first. Where that makes one group of them all, as with a thousand forms of one
    # question, their pairs, which are quadratic in number, are never looked at.
    crowded = np.flatnonzero(np.repeat(length >= _CROWD, length)[:-1] & (keys[1:] == keys[:-1]))
    for begin in range(0, len(crowded), _PAIRS_A_CHUNK):
        left = crowded[begin : begin + _PAIRS_A_CHUNK]
        components.join(rows[left], rows[left + 1])
    roots = components.roots()[rows]
    settled = np.minimum.reduceat(roots, start) == np.maximum.reduceat(roots, start)
    group = np.repeat(np.arange(len(start)), length)
    keep = ~settled[group]
    rows, positions, group = rows[keep], positions[keep], group[keep]
    if not len(rows):
        return

    # Entries are sorted by key and, within a key, by size: the partners of a probe are one stretch of index entries.
    is_index = positions < index_length[rows]
    index_rows, index_positions = rows[is_index], positions[is_index]
    stride = int(sizes[-1]) + 1
    smallest = np.ceil(components.similarity * sizes[rows] - _SLACK).astype(np.int64)
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
        components.join(left, right, np.minimum(sizes[left] - index_positions[entry], sizes[right] - positions[probe]))


def _hashed_sets(texts: list[str]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield chunks of (first row, row within the chunk of each gram, hash of each gram), sorted by row.

    The hash is a bijection of the gram: distinct grams have distinct hashes.
    """
    for start in range(0, len(texts), _ROWS_A_CHUNK):
        # NUL is no letter, so that a padded text has no gram in common with a longer one.
        chunk = [text.ljust(GRAM, "\0") for text in texts[start : start + _ROWS_A_CHUNK]]
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
