"""Make the tables beside this file from a repository of statutes: acts, titles, paragraphs, in_force; see README.md.

Usage: python data/reference/build.py [STATUTES] [--as-of DATE] [--output FOLDER] [--cited FILE ...] [--names FILE]

STATUTES is a clone of legalize-kr/legalize-kr, or a folder of it that `dvc import` made; without it that of
`reference.statutes` in params.yaml. Without `--as-of` the table is of `reference.as_of`, or of the day of the pinned
commit. The acts are those that acts.csv lists, with the decrees and rules of each. The titles kept are those of every
article of `TITLED_ACTS`, and of every article of the other acts that a `--cited` file cites (default: `data/raw/`).
`--names` makes `act_names.txt` alone, from a list of the official names of acts, decrees and rules, one a line.
"""

import argparse
import csv
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
sys.path.insert(0, str(ROOT / "stages"))

from civilqa.law.citations import parse_citations  # noqa: E402
from civilqa.law.statutes import (  # noqa: E402
    ACT_COLUMNS,
    DELETED,
    EXISTS,
    NOT_YET_IN_FORCE,
    PARAGRAPH_COLUMNS,
    PARTS,
    PERIOD_COLUMNS,
    STATUS_COLUMNS,
    TITLE_COLUMNS,
    ArticleNumber,
    Period,
    article_name,
    load_reference,
    pack_articles,
    read_reference_params,
)
from civilqa.law.timeline import ALWAYS, Timeline, Wording, act_on, on, read_timeline  # noqa: E402
from civilqa.law.versions import GONE, Version, open_statutes  # noqa: E402
from civilqa.program.errors import PipelineError  # noqa: E402

SHORT_NAMES = {
    "주택임대차보호법": ["주택임대차법", "주임법"],
    "상가건물 임대차보호법": ["상가임대차법", "상임법", "상가임대차보호법", "상가건물임대차법"],
    "부동산등기법": ["부등법"],
    "민사집행법": ["민집법"],
    "민사소송법": ["민소법"],
    "전세사기피해자 지원 및 주거안정에 관한 특별법": [
        "전세사기피해자법",
        "전세사기특별법",
        "전세사기피해자특별법",
        "전세사기피해자지원법",
        "전세사기피해자지원특별법",
        "전세사기피해지원법",
    ],
    "집합건물의 소유 및 관리에 관한 법률": ["집합건물법", "집건법"],
    "부동산 실권리자명의 등기에 관한 법률": ["부동산실명법", "부동산실명제법", "부동산실권리자명의등기법"],
    "가등기담보 등에 관한 법률": ["가등기담보법", "가담법"],
    "국세징수법": ["국징법"],
    "국세기본법": ["국기법"],
    "특정경제범죄 가중처벌 등에 관한 법률": ["특정경제범죄법", "특경법", "특경가법", "특정경제범죄가중처벌법"],
    "소액사건심판법": ["소액심판법"],
    "공익사업을 위한 토지 등의 취득 및 보상에 관한 법률": ["토지보상법", "공익사업법", "공익사업토지보상법"],
    "국토의 계획 및 이용에 관한 법률": ["국토계획법", "국계법", "국토계획이용법"],
    "부동산 거래신고 등에 관한 법률": ["부동산거래신고법", "거래신고법"],
    "민간임대주택에 관한 특별법": ["민간임대주택법", "민특법", "민간임대주택특별법", "민간임대특별법"],
    "소송촉진 등에 관한 특례법": ["소송촉진법", "소촉법", "소송촉진특례법", "소송촉진등특례법"],
    "채무자 회생 및 파산에 관한 법률": ["채무자회생법", "통합도산법", "채무자회생파산법", "채무자회생및파산법"],
    "부동산등기 특별조치법": ["부동산등기특조법"],
    "공공주택 특별법": ["공공주택법"],
    "대한민국헌법": ["헌법"],
    "형사소송법": ["형소법"],
    "전기통신금융사기 피해 방지 및 피해금 환급에 관한 특별법": [
        "통신사기피해환급법",
        "통신사기환급법",
        "전기통신금융사기피해환급법",
    ],
}

# The acts that the dataset argues from; the titles of all their articles serve the questions made from the table too.
TITLED_ACTS = {
    "가등기담보 등에 관한 법률",
    "공인중개사법",
    "국세징수법",
    "민법",
    "민사집행법",
    "부동산 거래신고 등에 관한 법률",
    "부동산등기법",
    "부동산 실권리자명의 등기에 관한 법률",
    "상가건물 임대차보호법",
    "소액사건심판법",
    "전세사기피해자 지원 및 주거안정에 관한 특별법",
    "주민등록법",
    "주택도시기금법",
    "주택임대차보호법",
    "집합건물의 소유 및 관리에 관한 법률",
    "특정경제범죄 가중처벌 등에 관한 법률",
    "형법",
}


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, columns: Iterable[str], rows: list[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([columns, *rows])
    print(f"{path}: {len(rows)} rows")


def status_on(wordings: list[Wording], day: date) -> str | None:
    """The status of a unit on a day by its wordings; None where it neither stands nor stood nor will stand."""
    now = on(wordings, day)
    if now and now.stands:
        return EXISTS
    if now and now.text == GONE:
        return DELETED
    return NOT_YET_IN_FORCE if any(w.stands and w.since.day > day for w in wordings) else None


def periods(wordings: list[Wording]) -> list[Period]:
    """When a unit is in force, where that is not throughout."""
    found: list[Period] = []
    stands = False
    days = sorted({wording.since.day for wording in wordings})
    for wording in [on(wordings, day) for day in days]:
        since = wording.since
        if wording.stands and not stands:
            always = since == ALWAYS
            found.append(Period("" if always else str(since.day), since.provision, "", ""))
        elif stands and not wording.stands:
            last = str(since.day - timedelta(days=1))
            found[-1] = Period(found[-1].since, found[-1].begun_by, last, since.provision)
        stands = wording.stands
    return [period for period in found if period.since or period.last]


def period_rows(law: str, timeline: Timeline) -> list[list[str]]:
    """The rows of in_force.csv of an act: of its articles, and of paragraphs that do not come and go with theirs."""
    whole = {article: periods(timeline.get((article, 0), [])) for article, _ in timeline}
    return [
        [law, article_name(article), str(paragraph or ""), period.since, period.begun_by, period.last, period.ended_by]
        for (article, paragraph), wordings in sorted(timeline.items())
        for period in periods(wordings)
        if not paragraph or not any(period in (of, replace(of, last="", ended_by="")) for of in whole[article])
    ]


def paragraph_rows(law: str, timeline: Timeline) -> list[list[str]]:
    """The rows of paragraphs.csv of an act: the paragraphs that stand at any time, and the articles that have these."""
    numbers: dict[ArticleNumber, list[ArticleNumber]] = defaultdict(list)
    for (article, paragraph), wordings in timeline.items():
        if paragraph and wordings[-1].stands:
            numbers[article].append((paragraph, 0))
    articles: dict[str, list[ArticleNumber]] = defaultdict(list)
    for article, paragraphs in sorted(numbers.items()):
        articles[pack_articles(paragraphs)].append(article)
    return [[law, paragraphs, pack_articles(found)] for paragraphs, found in sorted(articles.items())]


def act_row(law: str, versions: list[Version], timeline: Timeline, day: date) -> list[str] | None:
    """The row of acts.csv of an act; None of one that is not in force by then."""
    version = act_on(versions, day)
    if version is None:
        return None
    listed: dict[str, list[ArticleNumber]] = {status: [] for status in STATUS_COLUMNS.values()}
    for (article, paragraph), wordings in timeline.items():
        if not paragraph and (status := status_on(wordings, day)):
            listed[status].append(article)
    facts = [version.number, str(version.promulgated), str(version.effective), str(day)]
    return [law, "|".join(SHORT_NAMES.get(law, [])), *facts, *(pack_articles(found) for found in listed.values())]


def title_rows(law: str, timeline: Timeline, day: date, cited: set[tuple[str, str]]) -> list[list[str]]:
    """The rows of titles.csv of an act: of articles in force, or still to come."""
    rows = []
    for (article, paragraph), wordings in sorted(timeline.items()):
        name = article_name(article)
        if paragraph or not (law in TITLED_ACTS or (law, name) in cited):
            continue
        status = status_on(wordings, day)
        wording = on(wordings, day) if status == EXISTS else next((w for w in wordings if w.stands), None)
        title = (wording.text or "").split("\n")[0] if wording else ""
        if status in (EXISTS, NOT_YET_IN_FORCE) and title.startswith("(") and title.endswith(")"):
            rows.append([law, name, title[1:-1]])
    return rows


def write_names(path: Path, names: list[str]) -> None:
    """Write official names, one a line, without the 시행령 and 시행규칙 of acts that are there themselves."""
    known = {name.strip() for name in names if name.strip()}
    parts = {name for name in known for part in PARTS if name.endswith(part) and name[: -len(part)].rstrip() in known}
    kept = sorted(known - parts)
    path.write_text("".join(f"{name}\n" for name in kept), encoding="utf-8", newline="\n")
    print(f"{path}: {len(kept)} names")


def strings_of(value: object) -> Iterator[str]:
    """Every string in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings_of(item)


def cited_articles(paths: list[Path]) -> set[tuple[str, str]]:
    """(law, article) of every citation in the cells of CSV files and the strings of JSONL files."""
    cited = set()
    for path in paths:
        if path.suffix == ".csv":
            texts = [cell for row in read_rows(path) for cell in row.values() if cell]
        else:
            lines = path.read_text(encoding="utf-8").splitlines()
            texts = [text for line in lines if line.strip() for text in strings_of(json.loads(line))]
        cited |= {(citation.law, citation.article) for text in texts for citation in parse_citations(text)}
    return cited


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("statutes", type=Path, nargs="?", help="default: reference.statutes in params.yaml")
    parser.add_argument("--as-of", type=date.fromisoformat, metavar="DATE", help="기준일: what is in force on that day")
    parser.add_argument("--cited", type=Path, nargs="*", metavar="FILE", help="CSV or JSONL; default: data/raw/")
    parser.add_argument("--names", type=Path, metavar="FILE", help="official names, one a line")
    parser.add_argument("--output", type=Path, default=FOLDER, metavar="FOLDER")
    arguments = parser.parse_args()
    if arguments.names:
        write_names(arguments.output / "act_names.txt", arguments.names.read_text(encoding="utf-8").splitlines())
        return
    params = read_reference_params(ROOT / "params.yaml")
    folder = arguments.statutes or (Path(params.statutes) if params.statutes else None)
    if folder is None:
        parser.error("name the statutes, or set reference.statutes in params.yaml; README.md says how to get them")
    try:
        build(folder, arguments.as_of or params.as_of, arguments.cited, arguments.output)
    except PipelineError as error:
        sys.exit(f"error: {error}")


def build(folder: Path, day: date | None, cited_files: list[Path] | None, output: Path) -> None:
    """Write the four tables.

    Raises:
        RecordError: the statutes cannot be read, or lack an act of the table.
    """
    statutes = open_statutes(folder)
    pinned, pinned_on = statutes.commit(statutes.pin)
    day = day or pinned_on
    acts = [act for act in load_reference().acts if not act.endswith(PARTS)]
    histories = statutes.histories(acts)
    if missing := sorted({*acts, *SHORT_NAMES, *TITLED_ACTS} - histories.keys()):
        raise PipelineError(
            f"{folder}: has no {', '.join(missing)}, which the table lists; correct acts.csv or build.py"
        )
    cited = cited_articles(
        sorted(path for path in (ROOT / "data/raw").glob("*") if path.suffix in (".csv", ".jsonl"))
        if cited_files is None
        else cited_files
    )
    rows: dict[str, list[list[str]]] = defaultdict(list)
    for law in [name for act in acts for name in (act, *(f"{act} {part}" for part in PARTS)) if name in histories]:
        timeline = read_timeline(histories[law])
        if row := act_row(law, histories[law], timeline, day):
            rows["acts"].append(row)
            rows["titles"] += title_rows(law, timeline, day, cited)
            rows["paragraphs"] += paragraph_rows(law, timeline)
            rows["in_force"] += period_rows(law, timeline)
    columns = {
        "acts": ACT_COLUMNS,
        "titles": TITLE_COLUMNS,
        "paragraphs": PARAGRAPH_COLUMNS,
        "in_force": PERIOD_COLUMNS,
    }
    for name, header in columns.items():
        write_rows(output / f"{name}.csv", header, rows[name])
    for law, versions in histories.items():
        for version in versions:
            for words in version.commencements.undated if not version.first else ():
                print(f"warning: {law} 제{version.number}호: its day is left to others, 시행일 is taken: {words}")
    print(f"as of {day}, from {folder} at {pinned[:10]} of {pinned_on}")


if __name__ == "__main__":
    main()
