"""A file of questions to a file of answers. Killed at any moment and started again, it ends with the same bytes.

Questions are asked in groups of `chat.batch_size` by their place in the file. The answers of a whole group are appended
to OUT.part at once; a torn group is asked again, among the same neighbours and hence with the same answers. OUT appears
when every question has its line.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout
from tqdm import tqdm

from civilqa.chat.engine import Engine
from civilqa.program.errors import QuestionError, RecordError
from civilqa.program.files import sha256_file, sha256_json, write_text
from civilqa.program.lifecycle.machine_errors import writing
from civilqa.reading.tables import BadRow, Row, open_table

QUESTION_COLUMNS = ("question", "질문")
CATEGORY_COLUMNS = ("category", "분야", "카테고리")

# What a line of the output takes from a result of generate_answers; no seconds, which differ from run to run.
RESULT_FIELDS = ("answer", "citations", "tokens", "stopped", "model", "notice")


def answer_file(engine: Engine, source: Path, target: Path, category: str = "") -> int:
    """Answer every row of a table into a JSONL file and return how many rows could not be asked.

    A row that cannot be asked has its line as well, with `error` in place of an answer.

    Args:
        category: of the rows that have none.

    Raises:
        RecordError: no usable table, a finished or foreign file in the way, or another process at the same file.
    """
    rows = read_questions(source, category)
    part = target.with_name(f"{target.name}.part")
    lock_path = target.with_name(f".{target.name}.lock")  # hidden: an answer file named dvc must not take dvc.lock
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock_path, timeout=0):
            try:
                run = sha256_json([engine.identity(), sha256_file(source), category])
                with writing(part):
                    answer_rows(engine, rows, part, target, run)
                lines = part.read_text(encoding="utf-8").splitlines(keepends=True)[1:]
                write_text(target, "".join(lines))
                part.unlink()
            finally:
                if os.name != "nt":  # where filelock deletes it itself
                    lock_path.unlink(missing_ok=True)
    except Timeout:
        raise RecordError(f"{target}: 다른 프로세스가 쓰고 있는 파일입니다. 끝난 뒤 다시 실행하십시오.") from None
    return sum(json.loads(line)["error"] is not None for line in lines)


def read_questions(source: Path, category: str) -> list[dict[str, Any]]:
    """Return the rows as `line`, `question`, `category` and `error` (why the row cannot be read, or None)."""
    info, items = open_table(source)
    question_column = next((name for name in QUESTION_COLUMNS if name in info.columns), None)
    if question_column is None:
        raise RecordError(
            f"{source}: 질문 열이 없습니다. 열 이름을 {' 또는 '.join(QUESTION_COLUMNS)}(으)로 하십시오. "
            f"있는 열: {', '.join(info.columns)}"
        )
    category_column = next((name for name in CATEGORY_COLUMNS if name in info.columns), "")
    rows = [read_row(item, question_column, category_column, category) for item in items]
    if not rows:
        raise RecordError(f"{source}: 질문이 한 줄도 없습니다.")
    return rows


def read_row(item: Row | BadRow, question_column: str, category_column: str, category: str) -> dict[str, Any]:
    if isinstance(item, BadRow):
        return {"line": item.line, "question": None, "category": None, "error": f"읽을 수 없는 행: {item.reason}"}
    return {
        "line": item.line,
        "question": item.fields.get(question_column, ""),
        "category": item.fields.get(category_column, "").strip() or category,
        "error": None,
    }


def answer_rows(engine: Engine, rows: list[dict[str, Any]], part: Path, target: Path, run: str) -> None:
    """Append the missing answers to the part file, which names its run on its first line."""
    size = engine.params.batch_size
    with open_part(part, target, run) as file:
        done = keep_whole_groups(file, size, len(rows))
        progress = tqdm(total=len(rows), initial=done, desc="답변", unit="건")
        for start in range(done, len(rows), size):
            group = rows[start : start + size]
            for line in answer_group(engine, group):
                file.write(json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            progress.update(len(group))
        progress.close()


def open_part(part: Path, target: Path, run: str) -> BinaryIO:
    """Open the part file of this run, new or begun.

    Raises:
        RecordError: the target is there already, or the part file is of another run.
    """
    header = json.dumps({"run": run}).encode() + b"\n"
    begun = part.read_bytes()[: len(header)] if part.exists() else b""
    if begun == header:
        return part.open("r+b")  # a kill just before its removal leaves it beside the finished target
    if target.exists():
        raise RecordError(f"{target}: 이미 있습니다. 다른 이름을 주거나, 다시 답하게 하려면 이 파일을 지우십시오.")
    if len(begun) == len(header):
        raise RecordError(
            f"{part}: 질문 파일, 모델, 설정 가운데 무엇인가가 다른 실행에서 쓰다 만 파일입니다. 그때와 같게 맞추어 "
            "이어 가거나, 처음부터 하려면 이 파일을 지우십시오."
        )
    file = part.open("w+b")
    file.write(header)
    return file


def keep_whole_groups(file: BinaryIO, size: int, total: int) -> int:
    """Cut what stands after the last whole group, leave the file at its end, and return the number of lines kept."""
    file.seek(0)
    ends = [0]
    for line in file:
        if line.endswith(b"\n"):
            ends.append(ends[-1] + len(line))
    lines = len(ends) - 2  # without the header
    kept = lines if lines >= total else lines - lines % size
    file.seek(ends[kept + 1])
    file.truncate()
    return kept


def answer_group(engine: Engine, group: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the output line of each row, in order."""
    errors = [row["error"] or question_error(engine, row) for row in group]
    askable = [row for row, error in zip(group, errors, strict=True) if error is None]
    answers = iter(engine.generate_answers([row["question"] for row in askable], [row["category"] for row in askable]))
    for row, error in zip(group, errors, strict=True):
        result = next(answers) if error is None else dict.fromkeys(RESULT_FIELDS)
        yield {
            "line": row["line"],
            "question": row["question"],
            "category": row["category"],
            **{name: result[name] for name in RESULT_FIELDS},
            "error": error,
        }


def question_error(engine: Engine, row: dict[str, Any]) -> str | None:
    try:
        engine.check_question(row["question"], row["category"])
    except QuestionError as error:
        return str(error)
    return None
