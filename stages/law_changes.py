"""Shows what changed in the law, and the rows that it touches: python stages/law_changes.py 2025-04-01 2026-06-08

Reads:  the statutes (reference.statutes), data/prepared/records.jsonl, data/raw (gold, further cases, pairs, reviews)
Writes: data/law_changes.html; prints in Korean the rows to read again, the most urgent first, and the changed articles
Params: reference

Between two commits or days, in the acts that are cited, with their decrees and rules. Status 0: nothing is touched; 3:
something is, and was not read since (data/raw/reviews.csv); 4: all that is was read since.
"""

from civilqa.program.lifecycle.stage import run, start

if __name__ == "__main__":
    start(__doc__)

import sys
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.console import Console
from rich.table import Table
from rich.text import Text

from civilqa.experiments.touched_rows import RANKS, Touch, cited_acts, find_touches, read_entries
from civilqa.experiments.word_diff import merge_words, word_runs
from civilqa.law.changes import ADDED, CHANGED, ENDED, IN_FORCE, REMOVED, Change, changes_between
from civilqa.law.statutes import article_url, load_reference
from civilqa.law.versions import CLONE, Statutes, find_statutes
from civilqa.program.errors import ParameterError, PipelineError
from civilqa.program.files import write_text
from civilqa.program.lifecycle.safe_output import printable
from civilqa.reading.law_readings import read_reviews

PAGE = Path("data/law_changes.html")
TEMPLATE = Path(__file__).parent / "civilqa/experiments/law_changes.html.jinja"
UNREAD, READ = 3, 4  # exit statuses
PLAIN_WIDTH = 160  # columns of the table where no terminal says how many it has
WORDS_AROUND = 8  # a difference, on the terminal
KINDS = {ADDED: "신설", CHANGED: "개정", REMOVED: "삭제", IN_FORCE: "시행", ENDED: "유효기간 만료"}


def statutes_at_hand() -> Statutes:
    """Return the statutes that params.yaml names.

    Raises:
        ParameterError: it names none.
    """
    statutes = find_statutes()
    if statutes is None:
        raise ParameterError(
            "params.yaml: reference.statutes: is empty; set it to a clone of a repository of "
            f"statutes ({CLONE}), or to what dvc import made of one: data/reference/README.md"
        )
    return statutes


def list_changes(statutes: Statutes, acts: set[str], old: str, new: str) -> list[Change]:
    """Return the changes in acts and their decrees between two commits or days, by act and promulgation.

    Raises:
        PipelineError: the older one is not before the newer one.
    """
    (old_commit, old_day), (new_commit, new_day) = statutes.commit(old), statutes.commit(new)
    if old_commit not in statutes.ancestors(new_commit) or old_day > new_day:
        commits = f"{old} ({old_commit[:10]}) is not before {new} ({new_commit[:10]})"
        raise PipelineError(f"{commits}; name the older one first")
    known = statutes.ancestors(old_commit)
    histories = statutes.histories(acts, new_commit)
    return [change for versions in histories.values() for change in changes_between(versions, known, old_day, new_day)]


def print_touches(touches: list[Touch], console: Console) -> None:
    table = Table("까닭", "곳", "조문", "공포번호", "", title="다시 읽을 곳", title_justify="left")
    for touch in touches:
        change = touch.change
        reason = touch.reason + (" (다시 읽음)" if touch.read else "")
        cells = (RANKS[touch.rank], f"{touch.entry.kind} {touch.entry.id}", f"{change.law} {change.article}")
        table.add_row(*(Text(printable(cell)) for cell in (*cells, f"제{change.number}호", reason)))
    console.print(table)


def effect(change: Change) -> str:
    """Return what happens to its article on its days."""
    return "실효" if change.kind == ENDED else "시행"


def print_changes(changes: list[Change]) -> None:
    for change in changes:
        since = "".join(f", {since.day} {effect(change)}({since.provision})" for since in change.since)
        made = f"제{change.number}호, {change.promulgated} 공포{since}"
        print(printable(f"\n{change.law} {change.article} {KINDS[change.kind]}: {made}"))
        print(printable(f"  {merge_words(change.before, change.after, WORDS_AROUND)}"))


def render(old: str, new: str, changes: list[Change], touches: list[Touch]) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    numbers = {id(change): number for number, change in enumerate(changes)}
    return environment.get_template(TEMPLATE.name).render(
        old=old,
        new=new,
        changes=changes,
        touches=[(touch, numbers[id(touch.change)]) for touch in touches],
        read=sum(touch.read for touch in touches),
        ranks=RANKS,
        kinds=KINDS,
        effect=effect,
        runs=word_runs,
        url=article_url,
    )


def main() -> None:
    if len(sys.argv) != 3:
        raise PipelineError("name two commits or days: python stages/law_changes.py 2025-04-01 2026-06-08")
    old, new = sys.argv[1:]
    statutes, entries = statutes_at_hand(), read_entries()
    acts = cited_acts(entries) & load_reference().acts.keys()
    changes = list_changes(statutes, acts, old, new)
    touches = find_touches(changes, entries, read_reviews())
    touching = {id(touch.change) for touch in touches}
    print_changes([change for change in changes if id(change) in touching])
    if touches:
        print_touches(touches, Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH))
    write_text(PAGE, render(old, new, changes, touches))
    unread = [touch for touch in touches if not touch.read]
    print(
        f"{old} → {new}: 인용한 법령 {len(acts)}건에서 변경 {len(changes)}건, 그 가운데 {len(touching)}건이 "
        f"{len(touches)}곳을 건드림({len(touches) - len(unread)}곳은 다시 읽음) -> {PAGE}"
    )
    if touches:
        sys.exit(UNREAD if unread else READ)


if __name__ == "__main__":
    run(main)
