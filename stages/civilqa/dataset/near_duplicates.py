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
from multiprocessing import parent_process

import numpy as np
from tqdm import tqdm

GRAM = 3
_ROWS_A_CHUNK = 1 << 11  # what is made of them fits a processor's cache; of at most 2¹⁵: with 49 bits of a place 64
_CHARACTERS_A_CHUNK = 1 << 21  # x about 100 bytes
_PAIRS_A_CHUNK = 1 << 15  # what is made of them fits a processor's cache
_ENTRIES_A_CHUNK = 1 << 22
_PAIRS_A_LOOK = 1 << 12  # x 2 texts of 100 grams of 8 bytes
_CROWD = 64  # rows that share a rare gram, from where on they must share a part as well
_FEW = 1000  # texts, up to which classes of sizes are wide: fewer steps, and fewer filters are enough
_WIDTHS = (4.0, 1.3)  # of a class of sizes: the largest divided by the smallest
_BUCKET_BITS = 22  # of gram frequencies, at most
_BITMAP_BITS = 512  # for about 100 grams; eight words
_SEPARATORS = re.compile("[\\W_\u119e]+")  # U+119E from ㆍ, a letter that statutes have for a middle dot
_SLACK = 1e-9  # so that 4 of 5 is 0.8 in binary fractions too; it lets a filter pass more, never less


def normalize(text: str) -> str:
    """Return the letters and digits of a text, in NFKC (１ is 1, ㈜ is 주) and case-folded."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(_SEPARATORS.split(folded))


def grams(normalized: str) -> set[str]:
    """Return the trigrams of a normalized text; a text shorter than three characters is its own only gram."""
    return {normalized[i : i + GRAM] for i in range(max(1, len(normalized) - GRAM + 1))}


def is_near(left: set[str], right: set[str], similarity: float) -> bool:
    """Return whether the Jaccard similarity of two sets is at least `similarity`."""
    shared = len(left & right)
    return shared >= similarity * (len(left) + len(right) - shared) - _SLACK


def group_near_duplicates(texts: list[str], similarity: float, of: str = "texts") -> list[int]:
    """Return for each text the smallest index of its group.

    Groups are the connected components of the pairs whose similarity is at least `similarity` (0 < similarity <= 1).
    They follow from the set of texts alone: not from their order, a seed or the process. From a similarity of 0.7 on,
    time grows with the texts and with the pairs of different groups that are not far below it; below 0.7 more and more
    pairs are looked at. Memory is about 0.5 KiB a text of 100 characters.
    """
    return group_normalized([normalize(text) for text in texts], similarity, of)


def group_normalized(texts: list[str], similarity: float, of: str = "texts") -> list[int]:
    """Return the same for texts that are normalized already."""
    if not 0 < similarity <= 1:
        raise ValueError(f"similarity: found {similarity}, want more than 0 and at most 1")
    index_of: dict[str, int] = {}
    unique_of = [index_of.setdefault(text, len(index_of)) for text in texts]
    roots = _join(list(index_of), similarity, f"near-duplicates of {of}")
    first: dict[int, int] = {}
    return [first.setdefault(roots[node], index) for index, node in enumerate(unique_of)]


class _Components:
    """The groups found so far: texts are joined pair by pair, each pair by an exact comparison.

    `sizes` are those of the texts' sets of grams. Of each of the `bitmaps` a set has 512 bits: two sets differ in at
    least as many grams as bits. The second is for those that the first lets pass.
    """

    def __init__(self, texts: list[str], similarity: float, sizes: np.ndarray, bitmaps: list[np.ndarray]):
        self.texts, self.similarity, self.sizes, self.bitmaps = texts, similarity, sizes, bitmaps
        total = np.arange(
            2 * sizes.max() + 1
        )  # of two sizes, and in how many grams such near-duplicates differ at most
        self._allowed = total - 2 * np.ceil(similarity / (1 + similarity) * total - _SLACK).astype(np.int64)
        self._parent = np.arange(len(texts))

    def roots(self, rows: np.ndarray) -> np.ndarray:
        """Return for each of some texts one of its group, the same for the whole group."""
        roots = rows
        while not np.array_equal(above := self._parent[roots], roots):
            roots = above
        self._parent[rows] = roots
        return roots

    def join(self, left: np.ndarray, right: np.ndarray) -> None:
        """Join those of the pairs of texts that are near-duplicates; pairs within one group are not compared again."""
        allowed = self._allowed[self.sizes[left] + self.sizes[right]]
        for bitmaps in self.bitmaps:
            keep = _count_bits(bitmaps.take(left, axis=0) ^ bitmaps.take(right, axis=0)) <= allowed
            left, right, allowed = left[keep], right[keep], allowed[keep]
        pairs = np.unique(left * len(self.texts) + right)
        for start in range(0, len(pairs), _PAIRS_A_LOOK):
            left, right = np.divmod(pairs[start : start + _PAIRS_A_LOOK], len(self.texts))
            apart = self.roots(left) != self.roots(right)
            left, right = left[apart], right[apart]
            near = self.compare(left, right)
            for one, other in zip(left[near].tolist(), right[near].tolist(), strict=True):
                a, b = self._find(one), self._find(other)
                self._parent[max(a, b)] = min(a, b)

    def compare(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return which of the pairs are near-duplicates; at most 2¹⁶ pairs."""
        if not len(left):
            return np.zeros(0, bool)
        rows, place = np.unique(np.r_[left, right], return_inverse=True)
        sets = [values for _, _, values in _gram_sets([self.texts[row] for row in rows.tolist()])]
        values = np.concatenate(sets)
        if values.max() >= 1 << 48:  # by number: 48 bits are free beside the pair's 16
            values = np.unique(values, return_inverse=True)[1].astype(np.uint64)
        sizes = self.sizes[rows]
        starts = np.cumsum(sizes) - sizes
        length = sizes[place]
        pair = np.repeat(np.tile(np.arange(len(left), dtype=np.uint64), 2), length)
        offset = np.arange(len(pair)) - np.repeat(np.cumsum(length) - length, length)
        keys = np.sort(pair << np.uint64(48) | values[np.repeat(starts[place], length) + offset])
        again = keys[1:][keys[1:] == keys[:-1]] >> np.uint64(48)
        shared = np.bincount(again.astype(np.int64), minlength=len(left))
        total = self.sizes[left] + self.sizes[right]
        return shared >= self.similarity * (total - shared) - _SLACK

    def _find(self, node: int) -> int:
        while (above := self._parent[node]) != node:
            self._parent[node] = self._parent[above]
            node = above
        return node


def _count_bits(bitmaps: np.ndarray) -> np.ndarray:
    """Return the number of ones in each row of bitmaps of shape (n, words)."""
    counts = np.bitwise_count(bitmaps).view(np.uint64).ravel()  # eight words of up to 64 ones, a byte each
    low = np.uint64(0x00FF00FF00FF00FF)
    counts = (counts & low) + (counts >> np.uint64(8) & low)
    return (counts * np.uint64(0x0001000100010001) >> np.uint64(48)).astype(np.int64)


def _join(texts: list[str], similarity: float, description: str) -> list[int]:
    """Join all pairs of different texts that reach the similarity; return for each text one of its group.

    Two filters, neither of which loses a pair. With the grams of every set in one order, rarest first, two sets that
    share at least `o` grams share one among the first `size - o + 1` of each. And the grams of a set fall into parts by
    their hash: of two sets that differ in at most `d` grams, with `d + 1` parts, one part at least is equal, since each
    gram spoils one. Where few sets share a rare gram they are compared; where many do, as with set phrases, they must
    have an equal part as well. Grams and parts are told apart by 32 bits of a hash: a collision costs a comparison.

    Source: prefixes from Xiao, Wang, Lin and Yu, "Efficient similarity joins for near-duplicate detection" (PPJoin),
    WWW 2008; parts from Arasu, Ganti and Kaushik, "Efficient exact set-similarity joins" (PartEnum), VLDB 2006; bitmaps
    from Sandes, Teodoro and Melo, "Bitmap filter", 2020.
    """
    if not texts:
        return []
    # Beside another process that shows its own bar, two would write over each other.
    hidden = parent_process() is not None
    options = {"total": 2 * len(texts), "unit": " texts", "unit_scale": True, "disable": hidden}
    with tqdm(desc=description, **options) as progress:
        bucket_bits = min(_BUCKET_BITS, len(texts).bit_length() + 6)  # about as many buckets as there are grams
        frequency = np.zeros(1 << bucket_bits, np.int64)
        sizes = np.zeros(len(texts), np.int64)
        bitmaps = [np.zeros((len(texts), _BITMAP_BITS // 64), np.uint64) for _ in range(2)]
        for start, rows, hashes in _hashed_sets(texts):
            frequency += np.bincount(hashes >> np.uint64(64 - bucket_bits), minlength=len(frequency))
            count = rows[-1] + 1
            sizes[start : start + count] = np.bincount(rows)
            for shift, bitmap in zip((0, 9), bitmaps, strict=True):
                bits = np.zeros((count, _BITMAP_BITS), bool)
                bits[rows, hashes >> np.uint64(shift) & np.uint64(_BITMAP_BITS - 1)] = True
                bitmap[start : start + count] = np.packbits(bits, axis=1).view(np.uint64)
            progress.update(int(count))
        order = np.argsort(sizes, kind="stable")  # rows are numbered by size from here on
        ordered = [texts[i] for i in order]
        components = _Components(ordered, similarity, sizes[order], [bitmap[order] for bitmap in bitmaps])
        del bitmaps
        rank = np.minimum(frequency, (1 << 20) - 1).astype(np.uint64) << np.uint64(29)
        width = _WIDTHS[len(texts) > _FEW]
        largest = 0  # of the classes done
        while largest < components.sizes[-1]:
            smallest, largest = largest + 1, max(largest + 1, int(largest * width))
            own, end = np.searchsorted(components.sizes, [smallest, largest + 1])
            if own < end:
                # The larger text of a pair is of this class; the smaller may be below it.
                first = np.searchsorted(components.sizes, np.ceil(similarity * smallest - _SLACK))
                _Class(components, rank, int(first), int(own), int(end), largest).join()
                progress.update(int(end - own))
    roots = np.empty(len(texts), np.int64)
    roots[order] = components.roots(np.arange(len(texts)))
    return roots.tolist()


class _Class:
    """Texts of about one size: rows `first` to `end` of the components, those from `own` on of up to `largest` grams.

    Rows are counted from `first` in here.
    """

    def __init__(self, components: _Components, rank: np.ndarray, first: int, own: int, end: int, largest: int):
        similarity = components.similarity
        self.components, self.first, self.own = components, first, own - first
        sizes = components.sizes[first:end]
        # The larger side of a pair is the probe, the smaller is the index: it gets by with a shorter prefix.
        self.probe_length = sizes - np.ceil(similarity * sizes - _SLACK).astype(np.int64) + 1
        self.index_length = sizes - np.ceil(2 * similarity / (1 + similarity) * sizes - _SLACK).astype(np.int64) + 1
        prefix_start = np.cumsum(self.probe_length) - self.probe_length
        self.prefixes = np.empty(self.probe_length.sum(), np.uint32)
        parts = int(2 * largest * (1 - similarity) / (1 + similarity) + _SLACK) + 1
        self.parts = np.empty((parts, end - first), np.uint32)
        bucket_shift = np.uint64(64 - (len(rank).bit_length() - 1))
        for start, rows, hashes in _hashed_sets(components.texts[first:end]):
            count = int(rows[-1]) + 1
            part = (hashes >> np.uint64(18) & np.uint64((1 << 20) - 1)).astype(np.int64) * parts >> 20
            # Sums of 32-bit numbers are whole in a float.
            sums = np.bincount(rows * parts + part, (hashes >> np.uint64(32)).astype(float), count * parts)
            self.parts[:, start : start + count] = _scatter(sums.astype(np.uint64)).reshape(count, parts).T
            place = rank[hashes >> bucket_shift] | (hashes >> np.uint64(13) & np.uint64((1 << 29) - 1))
            place = np.sort(rows.astype(np.uint64) << np.uint64(49) | place)
            counts = np.bincount(rows)
            position = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
            keep = position < self.probe_length[start + rows]
            begin = prefix_start[start]
            grams_kept = _scatter(place[keep] & np.uint64((1 << 49) - 1))
            self.prefixes[begin : begin + len(grams_kept)] = grams_kept

    def join(self) -> None:
        """Join the pairs of which the larger is of this class."""
        rows = np.repeat(np.arange(len(self.probe_length), dtype=np.int32), self.probe_length)
        position = np.arange(len(rows)) - np.repeat(np.cumsum(self.probe_length) - self.probe_length, self.probe_length)
        index = position < self.index_length[rows]
        del position
        shares = -(-len(rows) // _ENTRIES_A_CHUNK)
        for share in range(shares):
            mine = self.prefixes % shares == share
            runs = _Runs(self.prefixes[mine], rows[mine], index[mine])
            crowded = runs.length >= _CROWD
            self._compare(runs.choose(~crowded))
            self._compare_crowds(runs.choose(crowded))

    def _compare_crowds(self, runs: "_Runs") -> None:
        """Join the pairs of a run that have an equal part as well."""
        # Neighbours first. Where that makes one group of them all, as with a thousand forms of one question, their
        # pairs, which are quadratic in number, are never looked at.
        pairs = np.flatnonzero(~runs.begins[1:])
        for begin in range(0, len(pairs), _PAIRS_A_CHUNK):
            left = pairs[begin : begin + _PAIRS_A_CHUNK]
            self.components.join(self.first + runs.rows[left], self.first + runs.rows[left + 1])
        runs = self._unsettled(runs)
        run = np.cumsum(runs.begins).astype(np.uint64) << np.uint64(32)
        for part in self.parts if len(run) else ():
            found = _Runs(_scatter(run | part[runs.rows]), runs.rows, runs.index)
            self._compare(self._unsettled(found))

    def _unsettled(self, runs: "_Runs") -> "_Runs":
        """Return the runs whose rows are in more than one group."""
        if not len(runs.rows):
            return runs
        roots = self.components.roots(self.first + runs.rows)
        starts = np.flatnonzero(runs.begins)
        return runs.choose(np.minimum.reduceat(roots, starts) != np.maximum.reduceat(roots, starts))

    def _compare(self, runs: "_Runs") -> None:
        """Join the pairs within each run, of a probe with each index entry before it."""
        before = np.cumsum(runs.index) - runs.index
        counts = before - np.repeat(before[runs.begins], runs.length)
        counts[runs.rows < self.own] = 0
        index_rows = self.first + runs.rows[runs.index]
        ends = np.cumsum(counts)
        begin = 0
        while begin < len(counts):
            done = int(ends[begin - 1]) if begin else 0
            end = max(begin + 1, int(np.searchsorted(ends, done + _PAIRS_A_CHUNK, side="right")))
            count = counts[begin:end]
            probe = np.repeat(np.arange(begin, end), count)
            back = np.arange(len(probe)) - np.repeat(np.cumsum(count) - count, count)
            self.components.join(index_rows[before[probe] - 1 - back], self.first + runs.rows[probe])
            begin = end


class _Runs:
    """Rows in runs of equal keys, in ascending order within each; a row that is alone with its key is left out.

    `index` says which may be the smaller side of a pair, `begins` where a run begins; `length` is that of each run.
    """

    def __init__(self, keys: np.ndarray, rows: np.ndarray, index: np.ndarray):
        packed = np.sort(keys.astype(np.uint64) << np.uint64(32) | rows.astype(np.uint64) << np.uint64(1) | index)
        keys = packed >> np.uint64(32)
        again = keys[1:] == keys[:-1]
        several = np.r_[again, False] | np.r_[False, again]
        packed = packed[several]
        self._set(
            (packed >> np.uint64(1) & np.uint64((1 << 31) - 1)).astype(np.int64),
            (packed & np.uint64(1)).astype(bool),
            np.r_[True, ~again][several],
        )

    def _set(self, rows: np.ndarray, index: np.ndarray, begins: np.ndarray) -> None:
        self.rows, self.index, self.begins = rows, index, begins
        self.length = np.diff(np.r_[np.flatnonzero(begins), len(rows)])

    def choose(self, wanted: np.ndarray) -> "_Runs":
        """Return the runs that are wanted, of shape (runs,)."""
        keep = np.repeat(wanted, self.length)
        chosen = object.__new__(_Runs)
        chosen._set(self.rows[keep], self.index[keep], self.begins[keep])
        return chosen


def _scatter(values: np.ndarray) -> np.ndarray:
    """Return 32 bits of a hash of 64-bit numbers: of splitmix64's finaliser, one round."""
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    return (values >> np.uint64(32)).astype(np.uint32)


def _chunks(texts: list[str]) -> Iterator[tuple[int, int]]:
    """Yield from where to where the texts go that are dealt with at a time."""
    start = characters = 0
    for index, text in enumerate(texts):
        characters += len(text)
        if index > start and (characters > _CHARACTERS_A_CHUNK or index - start == _ROWS_A_CHUNK):
            yield start, index
            start, characters = index, len(text)
    yield start, len(texts)


def _hashed_sets(texts: list[str]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield chunks of (first row, row within the chunk of each gram, hash of each gram), sorted by row.

    The hash is a bijection of the gram: distinct grams have distinct hashes.
    """
    for start, rows, value in _gram_sets(texts):
        # splitmix64's finaliser: the frequency bucket, the place, the part and the bit take different bits of it.
        value = (value ^ value >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ value >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        yield start, rows, value ^ value >> np.uint64(31)


def _gram_sets(texts: list[str]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield chunks of (first row, row within the chunk of each gram, number of each gram), sorted by row.

    Distinct grams have distinct numbers: those of three characters of 16 bits are below 2⁴⁸, others are not.
    """
    for start, end in _chunks(texts):
        # NUL is no letter, so that a padded text has no gram in common with a longer one.
        chunk = [text.ljust(GRAM, "\0") for text in texts[start:end]]
        codes = np.frombuffer("".join(chunk).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
        lengths = np.fromiter(map(len, chunk), np.int64, len(chunk))
        inside = np.ones(len(codes), bool)
        inside[np.cumsum(lengths) - 1] = inside[np.cumsum(lengths) - 2] = False
        inside = inside[:-2]
        rows = np.repeat(np.arange(len(chunk), dtype=np.uint64), lengths - 2)
        value = codes[:-2] << np.uint64(32) | codes[1:-1] << np.uint64(16) | codes[2:]
        # Duplicates within a row go by sorting. A gram of 48 bits and its row are one number, and a sort of numbers is
        # many times as fast as one by two keys, which the rare characters beyond 16 bits need.
        if codes.max() < 1 << 16:
            packed = np.sort(rows << np.uint64(48) | value[inside])
            rows, value = packed >> np.uint64(48), packed & np.uint64((1 << 48) - 1)
        else:
            # The low 16 bits of each character as above, the 5 beyond them where 48 bits are full.
            high = [codes[i : len(codes) - 2 + i] >> np.uint64(16) for i in range(3)]
            low = [codes[i : len(codes) - 2 + i] & np.uint64(0xFFFF) for i in range(3)]
            value = low[0] << np.uint64(32) | low[1] << np.uint64(16) | low[2]
            value = (value | high[0] << np.uint64(58) | high[1] << np.uint64(53) | high[2] << np.uint64(48))[inside]
            by_row = np.lexsort((value, rows))
            value, rows = value[by_row], rows[by_row]
        new = np.ones(len(value), bool)
        new[1:] = (value[1:] != value[:-1]) | (rows[1:] != rows[:-1])
        yield start, rows[new].astype(np.int64), value[new]
