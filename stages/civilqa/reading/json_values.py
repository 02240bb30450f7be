"""JSON: objects in an array, in arrays of an object, by key, one after the other or line by line, or by columns.

It is read value by value: a file that is one array takes no more memory than one of JSON Lines. Suffixes are used
loosely for JSON, so what a file holds decides, not what it is called.
"""

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from civilqa.program.errors import RecordError
from civilqa.reading.cleaning import clean
from civilqa.reading.columns import Wanted, find_known
from civilqa.reading.encoding import FIELD_CHARACTERS, find_encoding, read_lines
from civilqa.reading.names import shown_names, shown_place
from civilqa.reading.objects import ADVICE, HEAD_ROWS, find_lists, object_row, object_table, unique_keys
from civilqa.reading.rows import BadRow, File, LeftOut, Row, Table, TableInfo, cell_text

CHUNK_CHARACTERS = 1 << 16
SPACE = re.compile(r"[ \t\n\r]*")
DEPTH = 3  # of objects in which the rows are looked for

# A value of which a key is there twice, or a number is too long, still has an end.
STRICT = json.JSONDecoder(object_pairs_hook=unique_keys)
LENIENT = json.JSONDecoder(parse_int=str)

Path = tuple[str, ...]  # of keys, from the file's object on; () is the file itself


def read_json(file: File, wanted: Wanted) -> Iterator[Table | LeftOut]:
    """Yield the tables of a JSON file, and what of it is no part of them.

    Raises:
        RecordError: the file is empty, or is no JSON from some place on.
    """
    encoding = find_encoding(file)
    if is_lines(file, encoding):
        yield object_table(TableInfo(str(file), "jsonl", encoding, None, ()), read_objects(file, encoding), wanted)
        return
    layouts, around, left_out = find_rows(file, encoding, wanted)
    yield from left_out
    for path, layout in layouts.items():
        place = f"{file}[{shown_place('.'.join(path))}]" if len(layouts) > 1 else str(file)
        rows = with_around(read_rows(file, encoding, place, path, layout), around[path])
        yield object_table(TableInfo(place, "json", encoding, None, ()), rows, wanted)


def is_lines(file: File, encoding: str) -> bool:
    """Tell whether a file is JSON Lines, by how it begins."""
    named_lines = file.suffix != ".json"
    with file.path.open(encoding=encoding) as stream:
        first = next((line for line in iter(lambda: stream.readline(FIELD_CHARACTERS), "") if line.strip()), "")
        begin = first.strip()
        if begin in ("[", "{") or re.match(r"\[\s*[{\]]", begin):
            return False
        if begin.startswith("{") and first.endswith("\n"):
            if not is_object(begin.removesuffix(",")):
                return named_lines and not goes_on(file, encoding)
            # Rows if the first line is one object and others follow.
            return named_lines or any(line.strip() for line in iter(lambda: stream.readline(FIELD_CHARACTERS), ""))
    return named_lines or not begin


def goes_on(file: File, encoding: str) -> bool:
    """Tell whether a file begins with an object over several lines; below a damaged line there is another object."""
    with Values(file, encoding) as values:
        values.peek()
        line = values.line
        try:
            outline(values, (), {})
        except RecordError:
            return False
        return values.line > line


def is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def read_objects(file: File, encoding: str) -> Iterator[Row | BadRow]:
    """Yield the objects of a file with one a line; a comma behind it, as in an array, is let pass."""
    for line, text in enumerate(read_lines(file, encoding), start=1):
        text = text.strip("\ufeff \t\r\n")  # a mark where files were put one below the other
        if not text:
            continue
        try:
            value = STRICT.decode(text.removesuffix(","))
        except json.JSONDecodeError as error:
            value = ValueError(no_json(error.msg, error.colno))
        except (ValueError, RecursionError) as error:
            value = error
        yield object_row(str(file), line, value, text)


def no_json(what: str, column: int) -> str:
    return f"no JSON: {what.removesuffix(' at')} at character {column}"


class Values:
    """Takes the JSON values of a file one after the other; `line` is where the next one starts."""

    def __init__(self, file: File, encoding: str) -> None:
        self.file = file
        self.line = 1
        self._stream = file.path.open(encoding=encoding)
        self._text, self._at = "", 0

    def __enter__(self) -> "Values":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def peek(self) -> str:
        """Return the next character that is no space, '' at the end."""
        while True:
            self._move(SPACE.match(self._text, self._at).end())  # type: ignore[union-attr]  # it matches always
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_on():
                return ""

    def take(self, characters: str) -> str:
        """Return the next character, which must be one of these.

        Raises:
            RecordError: it is another.
        """
        char = self.peek()
        if not char or char not in characters:
            raise self._broken(f"Expecting {' or '.join(repr(each) for each in characters)}", self._at)
        self._move(self._at + 1)
        return char

    def value(self) -> tuple[int, Any, str]:
        """Return the line of the next value, the value, or a ValueError saying what is wrong in it, and its text.

        Raises:
            RecordError: what comes is no JSON.
        """
        self.peek()
        line = self.line
        while True:
            try:
                value, end = self._decode()
                # A number at the end of what is read so far may go on.
                if end < len(self._text) or self._text[end - 1] in '}]"' or not self._read_on():
                    break
            except json.JSONDecodeError as error:
                if len(self._text) - self._at > FIELD_CHARACTERS:
                    raise RecordError(
                        f"{self.file}:{line}: found a value of more than {FIELD_CHARACTERS} characters; {ADVICE}"
                    ) from None
                if not self._read_on():
                    raise self._broken(error.msg, error.pos) from None
            except RecursionError:
                raise RecordError(f"{self.file}:{line}: JSON nested too deeply; {ADVICE}") from None
        text = self._text[self._at : end]
        self._move(end)
        return line, value, text

    def _decode(self) -> tuple[Any, int]:
        try:
            return STRICT.raw_decode(self._text, self._at)
        except json.JSONDecodeError:
            raise
        except ValueError as error:
            return error, LENIENT.raw_decode(self._text, self._at)[1]

    def _move(self, at: int) -> None:
        self.line += self._text.count("\n", self._at, at)
        self._at = at

    def _read_on(self) -> bool:
        """Read as much again as is there; tell whether there was more."""
        more = self._stream.read(max(CHUNK_CHARACTERS, len(self._text) - self._at))
        if more:
            self._text, self._at = self._text[self._at :] + more, 0
        return bool(more)

    def _broken(self, what: str, at: int) -> RecordError:
        line = self.line + self._text.count("\n", self._at, at)
        column = at - self._text.rfind("\n", 0, at)
        return RecordError(f"{self.file}:{line}: {no_json(what, column)}; {ADVICE}")


def elements(values: Values) -> Iterator[tuple[int, Any, str]]:
    """Yield the elements of the array that comes next; a comma after the last one is let pass."""
    values.take("[")
    while values.peek() != "]":
        yield values.value()
        if values.take(",]") == "]":
            return
    values.take("]")


def members(values: Values) -> Iterator[str]:
    """Yield the keys of the object that comes next; the caller takes the value of each."""
    values.take("{")
    seen: set[str] = set()
    while values.peek() != "}":
        line, key, _ = values.value()
        if not isinstance(key, str):
            raise RecordError(f"{values.file}:{line}: no JSON: want a key between double quotes; {ADVICE}")
        if key in seen:
            raise RecordError(f"{values.file}:{line}: key '{shown_names([key])}' is there more than once; {ADVICE}")
        seen.add(key)
        values.take(":")
        yield key
        if values.take(",}") == "}":
            return
    values.take("}")


def read_rows(file: File, encoding: str, place: str, path: Path, layout: str) -> Iterator[Row | BadRow]:
    """Yield the rows at a path; those of the file itself are its values one after the other, also inside arrays."""
    with Values(file, encoding) as values:
        for key in path:
            for found in members(values):  # find_rows has seen that what follows is JSON
                if found == key:
                    break
                outline(values, (), {})
        if layout == "by columns":
            yield from column_rows(place, *values.value())
        elif layout == "by key":
            for key in members(values):
                row = object_row(place, *values.value())
                if isinstance(row, Row):
                    row.fields.setdefault("key", key)
                yield row
        else:
            while char := values.peek():
                for taken in elements(values) if char == "[" else [values.value()]:
                    yield object_row(place, *taken)
                if path:
                    return


def with_around(rows: Iterator[Row | BadRow], around: dict[str, str]) -> Iterator[Row | BadRow]:
    """Yield rows with what their file says of all of them: a category, the number of the document."""
    for row in rows:
        if isinstance(row, Row):
            for name, text in around.items():
                row.fields[f"{name} (2)" if name in row.fields else name] = text
        yield row


def column_rows(place: str, line: int, whole: Any, text: str) -> Iterator[Row | BadRow]:
    """Yield the rows of a table by columns, numbered from 2 on; it has been read whole."""
    if isinstance(whole, ValueError):
        yield object_row(place, line, whole, text)
        return
    columns = {
        name: dict(enumerate(cells)) if isinstance(cells, list) else cells
        for name, cells in whole.items()
        if isinstance(cells, list | dict)
    }
    for number, key in enumerate(dict.fromkeys(key for cells in columns.values() for key in cells), start=2):
        row = {name: cells.get(key) for name, cells in columns.items()}
        yield object_row(place, number, row, json.dumps(row))


def outline(values: Values, path: Path, found: dict[Path, tuple[Any, int]]) -> Any:
    """Return the next value, of its arrays and objects no more than HEAD_ROWS elements.

    Each of them stands in `found` as well, by its path, with the number of its elements.
    """
    kind = values.peek()
    if kind == "[":
        taken = elements(values)
        head: Any = [value for _, value, _ in islice(taken, HEAD_ROWS)]
        found[path] = head, len(head) + sum(1 for _ in taken)
        return head
    if kind == "{" and len(path) <= DEPTH:
        head, number = {}, 0
        for number, key in enumerate(members(values), start=1):
            value = outline(values, (*path, key), found)
            if number <= HEAD_ROWS:
                head[key] = value
        found[path] = head, number
        return head
    return values.value()[1]


def find_rows(
    file: File, encoding: str, wanted: Wanted
) -> tuple[dict[Path, str], dict[Path, dict[str, str]], list[LeftOut]]:
    """Return how the rows at some paths of a file are laid out, the texts around each, and what stands beside them.

    Raises:
        RecordError: the file is no JSON.
    """
    found: dict[Path, tuple[Any, int]] = {}
    with Values(file, encoding) as values:
        if values.peek() != "{":
            return {(): ""}, {(): {}}, []
        whole = outline(values, (), found)
        if values.peek():  # one object after the other
            return {(): ""}, {(): {}}, []
    layouts: dict[Path, str] = {}
    if is_by_columns(whole, wanted):
        layouts[()] = "by columns"
    elif wanted.fields and find_lists(sample([whole]), wanted) == ():
        return {(): ""}, {(): {}}, []  # the object is itself a row
    arrays = {path: rows for path, (head, _) in found.items() if isinstance(head, list) and (rows := sample(head))}
    for path, (head, _) in sorted(found.items(), key=lambda item: len(item[0])):  # the outer ones first
        if not wanted.fields or any(path[: len(outer)] == outer for outer in layouts):
            continue
        if path in arrays and find_lists(arrays[path], wanted) is not None:
            layouts[path] = ""
        elif (
            isinstance(head, dict)
            and len(head) > 1
            and all((rows := sample([value])) and find_lists(rows, wanted) is not None for value in head.values())
        ):
            layouts[path] = "by key"
    if not layouts:
        layouts = dict.fromkeys(arrays, "") if len(arrays) == 1 else {(): ""}
    around = {path: texts_around(whole, path) for path in layouts}
    return (
        layouts,
        around,
        [
            LeftOut(
                f"{file}[{shown_place('.'.join(path))}]",
                "stands beside the rows",
                found[path][1] if path in arrays else None,
            )
            for path in beside(whole, (), layouts)
        ],
    )


def texts_around(whole: dict[str, Any], path: Path) -> dict[str, str]:
    """Return what the objects around the rows at a path say beside them, but lists and further objects."""
    found: dict[str, str] = {}
    for key in path:
        found |= {clean(name): cell_text(cell) for name, cell in whole.items() if not isinstance(cell, list | dict)}
        whole = whole.get(key, {})  # of very many keys the outline has the first alone
    return found


def beside(value: dict[str, Any], path: Path, layouts: dict[Path, str]) -> Iterator[Path]:
    """Yield the paths of what is in an object, no text, and neither holds rows nor is inside of what does."""
    if path in layouts:
        if layouts[path] == "by columns":
            yield from ((key,) for key, cells in value.items() if not isinstance(cells, list | dict))
        return
    for key, inner in value.items():
        here = (*path, key)
        if any(other[: len(here)] == here for other in layouts):
            yield from beside(inner, here, layouts)
        elif isinstance(inner, list | dict):
            yield here


def is_by_columns(whole: dict[str, Any], wanted: Wanted) -> bool:
    """Tell whether an object holds a list of all cells for each column, or an object of them by row number."""
    known = {name: columns[0] for name, columns in find_known("", list(whole), {}).items() if len(columns) == 1}
    known |= wanted.columns
    cells = [whole.get(known.get(name, "")) for name in wanted.required]
    if not cells:
        return False
    if all(isinstance(cell, dict) for cell in cells):
        return all(cell and all(map(str.isdecimal, cell)) for cell in cells)
    return all(isinstance(cell, list) and cell and not any(isinstance(each, dict) for each in cell) for cell in cells)


def sample(values: list[Any]) -> list[Row]:
    """Return the rows that some values make."""
    return [row for value in values if isinstance(row := object_row("", 0, value, ""), Row)]
