"""JSON Lines: one object a line."""

import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from civilqa.program.errors import RecordError
from civilqa.reading.encoding import find_encoding, read_lines
from civilqa.reading.rows import BadRow, Items, Row, TableInfo, cell_text

# How far to look for a JSONL file's first object, which names the columns.
HEAD_LINES = 1000


def read_jsonl(path: Path) -> Items:
    """Yield the TableInfo, then the rows of a file with one JSON object a line."""
    encoding = find_encoding(path)
    items = read_objects(path, encoding)
    head: list[Row | BadRow] = []
    for item in items:
        head.append(item)
        if isinstance(item, Row) or len(head) == HEAD_LINES:
            break
    if not head:
        raise RecordError(f"{path}:1: the file is empty; want one JSON object a line")
    columns = tuple(head[-1].fields) if isinstance(head[-1], Row) else ()
    yield TableInfo(str(path), "jsonl", encoding, None, columns)
    empty = dict.fromkeys(columns, "")
    for item in chain(head, items):
        if isinstance(item, Row) and item.fields.keys() != empty.keys():
            yield Row(item.file, item.line, empty | item.fields)
        else:
            yield item


def read_objects(path: Path, encoding: str) -> Iterator[Row | BadRow]:
    """Yield the objects of a JSONL file as rows, each with its own keys."""
    first = True
    for line, text in enumerate(read_lines(path, encoding), start=1):
        text = text.strip()
        if not text:
            continue
        if first and (text in ("[", "{") or text.startswith("[{")):
            raise RecordError(
                f"{path}:{line}: found one JSON {'object' if text == '{' else 'array'} over the whole file, want JSON "
                "Lines; write each object on a line of its own, without the brackets and commas around them"
            )
        first = False
        try:
            value = json.loads(text, object_pairs_hook=unique_keys)
            if not isinstance(value, dict):
                raise ValueError(f"found a JSON {json_type(value)}, want an object")
            fields = unique_keys([(key.strip(), cell_text(cell)) for key, cell in value.items()])
            if "\\u" in text and re.search("[\ud800-\udfff]", "".join(chain(fields, fields.values()))):
                raise ValueError("found half of a surrogate pair (\\ud800 to \\udfff), which is no character")
        except json.JSONDecodeError as error:
            reason = f"no JSON: {error.msg} at character {error.colno}; write one JSON object a line"
            yield BadRow(str(path), line, reason, text)
        except ValueError as error:
            yield BadRow(str(path), line, f"{error}; write one JSON object a line", text)
        except RecursionError:
            yield BadRow(str(path), line, "JSON nested too deeply; write one JSON object a line", text)
        else:
            yield Row(str(path), line, fields)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; a key that is there twice is refused, for the second would silently replace the first."""
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key '{next(name for name in names if names.count(name) > 1)}' is there more than once")
    return value


def json_type(value: Any) -> str:
    """Return JSON's own word for the type of a value that is no object."""
    if value is None:
        return "null"
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "array"}
    return names[type(value)]
