"""Make `acts.csv` and `titles.csv` from a list of articles and a list of acts; see README.md beside this file.

Usage: python data/reference/build.py STATUTES.csv STATUTES_META.csv --as-of 2026-06-08 [--cited FILE ...]
                                      [--names FILE]

STATUTES.csv has the columns law, article, title, status (in_force, deleted, not_yet_in_force); STATUTES_META.csv has
law, in_force_promulgation_no, in_force_promulgated, in_force_effective. The titles kept are those of every article in
force of `TITLED_ACTS`, and of every article of the other acts that a `--cited` file cites (default: `data/raw/`).
`--names` makes `act_names.txt` from a list of the official names of acts, decrees and rules, one a line.
"""

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
sys.path.insert(0, str(ROOT / "stages"))

from civilqa.law.citations import parse_citations  # noqa: E402
from civilqa.law.statutes import STATUS_COLUMNS, article_number, load_reference, pack_articles  # noqa: E402

PARTS = ("시행령", "시행규칙")
# What each status of the source is called in acts.csv: the column that lists the article.
COLUMN_OF_STATUS = {"in_force": "articles", "deleted": "deleted", "not_yet_in_force": "not_yet_in_force"}

# The official 약칭 first where there is one, then what practitioners write. A name that could mean two of the acts
# (임대차보호법) is left out: citations of it stay outside the table rather than be judged against the wrong act.
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


def write_rows(path: Path, columns: list[str], rows: list[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([columns, *rows])
    print(f"{path}: {len(rows)} rows")


def acts_rows(statutes: list[dict[str, str]], meta: list[dict[str, str]], as_of: str) -> list[list[str]]:
    """The rows of acts.csv, in the order of `meta`.

    Raises:
        ValueError: the two sources name different acts, or an article has an unknown status.
    """
    listed: dict[str, dict[str, list]] = {}
    for row in statutes:
        columns = listed.setdefault(row["law"], {column: [] for column in STATUS_COLUMNS})
        if row["status"] not in COLUMN_OF_STATUS:
            raise ValueError(
                f"{row['law']} {row['article']}: status {row['status']!r}, want {sorted(COLUMN_OF_STATUS)}"
            )
        columns[COLUMN_OF_STATUS[row["status"]]].append(article_number(row["article"]))
    names = [row["law"] for row in meta]
    if set(names) != set(listed):
        raise ValueError(f"acts in only one of the two files: {sorted(set(names) ^ set(listed))}")
    if unknown := (set(SHORT_NAMES) | TITLED_ACTS) - set(names):
        raise ValueError(f"acts that build.py names and the files do not: {sorted(unknown)}; correct the constants")
    return [
        [
            row["law"],
            "|".join(SHORT_NAMES.get(row["law"], [])),
            row["in_force_promulgation_no"],
            row["in_force_promulgated"],
            row["in_force_effective"],
            as_of,
            *(pack_articles(listed[row["law"]][column]) for column in STATUS_COLUMNS),
        ]
        for row in meta
    ]


def titles_rows(statutes: list[dict[str, str]], cited: set[tuple[str, str]]) -> list[list[str]]:
    """The rows of titles.csv, in the order of `statutes`; articles without a title (the constitution's) have none."""
    return [
        # Some acts' titles come from the source inside their brackets: "(목적)".
        [row["law"], row["article"], title[1:-1] if title.startswith("(") and title.endswith(")") else title]
        for row in statutes
        if (title := row["title"].strip())
        and row["status"] == "in_force"
        and (row["law"] in TITLED_ACTS or (row["law"], row["article"]) in cited)
    ]


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
    parser.add_argument("statutes", type=Path)
    parser.add_argument("meta", type=Path)
    parser.add_argument("--as-of", required=True, metavar="DATE", help="기준일: the day these versions are in force")
    parser.add_argument("--cited", type=Path, nargs="*", metavar="FILE", help="CSV or JSONL; default: data/raw/")
    parser.add_argument("--names", type=Path, metavar="FILE", help="official names, one a line")
    parser.add_argument("--output", type=Path, default=FOLDER, metavar="FOLDER")
    arguments = parser.parse_args()
    cited = arguments.cited
    if cited is None:
        cited = sorted(path for path in (ROOT / "data" / "raw").glob("*") if path.suffix in (".csv", ".jsonl"))
    statutes, meta = read_rows(arguments.statutes), read_rows(arguments.meta)

    if arguments.names:
        write_names(arguments.output / "act_names.txt", arguments.names.read_text(encoding="utf-8").splitlines())
    columns = ["law", "short_names", "promulgation_no", "promulgated", "effective", "as_of", *STATUS_COLUMNS]
    write_rows(arguments.output / "acts.csv", columns, acts_rows(statutes, meta, arguments.as_of))
    titles_path = arguments.output / "titles.csv"
    if not titles_path.exists():
        write_rows(titles_path, ["law", "article", "title"], [])  # the parser reads the folder as a whole
    load_reference.cache_clear()
    write_rows(titles_path, ["law", "article", "title"], titles_rows(statutes, cited_articles(cited)))


if __name__ == "__main__":
    main()
