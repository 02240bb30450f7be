"""A file of questions to a file of answers. Killed at any moment and started again, it ends with the same bytes.

Questions are asked in groups of `chat.batch_size` by their place in the file, of several times as many where a server
answers them. The answers of a whole group are appended to OUT.part at once, as JSON Lines whatever OUT is; a torn group
is asked again, among the same neighbours and hence with the same answers. OUT appears when every question has its line.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout
from tqdm import tqdm

from civilqa.chat.answer_files import check_target, write_answers
from civilqa.chat.engine import Engine
from civilqa.program.errors import QuestionError, RecordError
from civilqa.program.files import sha256_file, sha256_json
from civilqa.program.lifecycle.languages import in_korean
from civilqa.program.lifecycle.machine_errors import writing
from civilqa.program.lifecycle.safe_output import printable
from civilqa.reading.columns import MissingColumns, Wanted
from civilqa.reading.fields import field_rows
from civilqa.reading.names import shown_names
from civilqa.reading.rows import BadRow, LeftOut, Row, is_empty
from civilqa.reading.tables import usable_tables

WANTED = Wanted(fields=("question", "category"), required=("question",))

# What a line of the output takes from a result of generate_answers; no seconds, which differ from run to run.
NO_ANSWER = "모델이 아무 말도 하지 않고 답변을 끝냈습니다."
# What is told of a row that holds something else than a question, by what is counted of it.
NOT_ASKED = {
    "multi_turn": "여러 차례 주고받은 대화입니다. 질문 하나만 남기십시오.",
    "nested": "질문 칸에 글이 아니라 목록이나 객체가 들어 있습니다. 질문을 글로 적으십시오.",
}
RESULT_FIELDS = ("category_chosen", "answer", "citations", "tokens", "stopped", "model", "notice")
OWN_FIELDS = ("file", "line", "question", "category", *RESULT_FIELDS, "error")


def check_files(source: Path, target: Path) -> None:
    """Check what can be checked of the files before a model is loaded.

    Raises:
        RecordError: see answer_file.
    """
    check_target(target)
    if not source.is_file():
        found = "폴더입니다" if source.is_dir() else "없는 파일입니다"
        raise RecordError(f"{source}: {found}. 질문이 든 파일 하나의 경로를 적으십시오.")
    if target.exists() and target.samefile(source):
        raise RecordError(f"{target}: 질문 파일입니다. 답변을 쓸 다른 이름을 주십시오.")
    if target.exists() and not part_of(target).exists():
        raise RecordError(in_the_way(target))


def part_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def in_the_way(target: Path) -> str:
    return f"{target}: 이미 있습니다. 다른 이름을 주거나, 다시 답하게 하려면 이 파일을 지우십시오."


def answer_file(engine: Engine, source: Path, target: Path, category: str = "") -> int:
    """Answer every row of a file's tables into another file and return how many rows have no answer.

    A row that cannot be asked has its line as well, with `error` in place of an answer. What else a row holds, an id
    above all, stands in its line too.

    Args:
        category: of the rows that have none; without it the model chooses (`category_chosen`).

    Raises:
        RecordError: no usable table, an answer file of another kind, a finished or foreign file in the way, or another
            process at the same file.
    """
    check_files(source, target)
    rows = read_questions(source, category)
    part = part_of(target)
    lock_path = target.with_name(f".{target.name}.lock")  # hidden: an answer file named dvc must not take dvc.lock
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock_path, timeout=0):
            try:
                run = sha256_json([engine.identity(), sha256_file(source), category])
                with writing(part):
                    answer_rows(engine, rows, part, target, run)
                # Not str.splitlines: it also splits at U+0085, U+2028 and U+2029, which may stand in a question.
                with part.open(encoding="utf-8", newline="\n") as file:
                    lines = file.readlines()[1:]
                write_answers(target, lines)
                part.unlink()
            finally:
                if os.name != "nt":  # where filelock deletes it itself
                    lock_path.unlink(missing_ok=True)
    except Timeout:
        raise RecordError(f"{target}: 다른 프로세스가 쓰고 있는 파일입니다. 끝난 뒤 다시 실행하십시오.") from None
    return sum(json.loads(line)["error"] is not None for line in lines)


def read_questions(source: Path, category: str) -> list[dict[str, Any]]:
    """Return the rows as `line`, `question`, `category`, `error` (why the row cannot be read, or None) and `others`.

    Rows of several tables, such as the sheets of a workbook, have their `file` as well.
    """
    left_out: list[LeftOut] = []
    rows: list[dict[str, Any]] = []
    tables = 0
    try:
        for table in usable_tables(source, WANTED, left_out):
            tables += 1
            rows += [read_row(item, category) for item in field_rows(table, WANTED)]
    except MissingColumns as error:
        raise RecordError(
            f"{source}: 질문 열이 없습니다. 열 이름을 question 또는 질문(으)로 하십시오. "
            f"있는 열: {shown_names(error.columns) or '없음'}"
        ) from None
    for item in left_out:
        held = f", {item.rows}행" if item.rows else ""
        print(printable(f"읽지 않은 부분: {item.file} ({in_korean(item.reason)}{held})"), file=sys.stderr)
    if not rows:
        raise RecordError(f"{source}: 질문이 한 줄도 없습니다.")
    names = dict.fromkeys(name for row in rows for name in row["others"])
    for row in rows:
        row["others"] = {name: row["others"].get(name, "") for name in names}
        if tables == 1:
            del row["file"]
    return rows


def read_row(item: Row | BadRow, category: str) -> dict[str, Any]:
    row = {"file": item.file, "line": item.line, "question": None, "category": None, "error": None, "others": {}}
    if isinstance(item, BadRow):
        return {**row, "error": NOT_ASKED.get(item.kind) or f"읽을 수 없는 행: {in_korean(item.reason)}"}
    others = {name: text for name, text in item.fields.items() if name not in WANTED.fields}
    question = item.fields["question"]
    return {
        **row,
        "question": "" if is_empty(question) else question,
        "category": category if is_empty(asked_in := item.fields["category"].strip()) else asked_in,
        "others": own_names(others),
    }


def own_names(others: dict[str, Any]) -> dict[str, Any]:
    """Return a row's other cells under names that the answer file uses for nothing else."""
    taken, named = others.keys() - set(OWN_FIELDS), {}
    for name, text in others.items():
        own = name
        if name in OWN_FIELDS:
            while own in OWN_FIELDS or own in taken:
                own = f"{own} (질문 파일)"
            taken.add(own)
        named[own] = text
    return named


def answer_rows(engine: Engine, rows: list[dict[str, Any]], part: Path, target: Path, run: str) -> None:
    """Append the missing answers to the part file, which names its run on its first line."""
    size = engine.group_size
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
        raise RecordError(in_the_way(target))
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
            **({"file": row["file"]} if "file" in row else {}),
            "line": row["line"],
            **row["others"],
            "question": row["question"],
            "category": row["category"] if error else result["category"],
            **{name: result[name] for name in RESULT_FIELDS},
            "error": NO_ANSWER if result["answer"] == "" else error,
        }


def question_error(engine: Engine, row: dict[str, Any]) -> str | None:
    try:
        engine.check_question(row["question"], row["category"])
    except QuestionError as error:
        return str(error)
    return None
