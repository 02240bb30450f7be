"""Whether the law has moved since the rows were last read against it."""

from civilqa.dataset.records import Record
from civilqa.law.versions import find_statutes
from civilqa.program.errors import RecordError
from civilqa.reading.law_readings import REVIEWS, read_reviews


def newer_law(records: list[Record]) -> str | None:
    """Return what to say where the pinned statutes are newer than what rows were read against; None where none is.

    Raises:
        RecordError: the readings are not as they must be.
    """
    reviews = read_reviews()
    try:
        statutes = find_statutes() if reviews else None
    except RecordError as error:  # prepare needs no statutes
        return f"the rows were not compared with the law of today: {error}"
    if statutes is None:
        return None
    pinned = statutes.commit(statutes.pin)[1]
    read = {record.id: reviews[record.id].law_of for record in records if record.id in reviews}
    older = [day for day in read.values() if day < pinned]
    said = [f"{len(older)} rows were last read against the law of {min(older)} to {max(older)}"] if older else []
    if unread := len(records) - len(read):
        said.append(f"{unread} rows have no reading in {REVIEWS}")
    if not said:
        return None
    how = f": python stages/law_changes.py {min(older)} {pinned} lists what changed" if older else ""
    return f"the statutes are of {pinned}; {' and '.join(said)}{how}"
