"""Writes a synthetic dataset of any size, to see how the data stages grow with it: 5 % duplicates, 1 % broken rows.

    python tests/benchmarks/make_dataset.py 1000000 big.csv

About 500 bytes a row. The same number and seed give the same bytes. What the rows say is put together at random from
phrases and articles that exist: it is as long and as varied as law is, and is no law.
"""

import argparse
import csv
import random
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ["question", "answer", "category", "difficulty"]

EXACT = 0.025  # rows that are there a second time
NEAR = 0.025  # rows whose question is there with another particle or ending
BROKEN = 0.01
REMEMBERED = 10_000  # how far back a duplicate looks

PLACES, BUILDINGS, PEOPLE = (
    words.split()
    for words in (
        "서울 부산 대구 인천 광주 대전 울산 세종 수원 성남 고양 용인 부천 안산 안양 평택 시흥 화성 김포 파주 "
        "춘천 원주 강릉 청주 충주 천안 아산 전주 군산 익산 목포 여수 순천 포항 경주 구미 창원 진주 김해 제주",
        "빌라 아파트 오피스텔 다가구주택 다세대주택 연립주택 단독주택 상가건물 "
        "상가주택 원룸 도시형생활주택 근린생활시설 공장 창고 임야 농지 대지",
        "임차인 세입자 임대인 집주인 매수인 매도인 상속인 공유자 지상권자 저당권자 "
        "전세권자 가등기권자 점유자 건물주 조합원 채권자 채무자 보증인 대리인 후견인",
    )
)
SURNAMES = "김이박최정강조윤장임한오서신권황안송류홍"
# Of names of people, towns and houses, which is what tells one real question from another.
SYLLABLES = (
    "가나다라마바사아자차하고노도로모보소오조호구누두루무부수우주기"
    "니디리미비시이지은진현민서준영선경성동남북산강천원문신화한별빛솔"
)
EVENTS = [
    "등기부에 근저당권이 새로 설정된 것을 알았습니다",
    "계약이 끝났는데 보증금을 받지 못했습니다",
    "상대방이 잔금을 내지 않고 연락을 끊었습니다",
    "옆집이 경계를 넘어 담을 쌓았습니다",
    "경매가 시작되었다는 통지를 받았습니다",
    "이십 년 넘게 살아 온 땅의 소유자가 나타났습니다",
    "등기 명의가 다른 사람으로 되어 있습니다",
    "공사대금을 받지 못해 건물을 점유하고 있습니다",
    "공유자 한 사람이 혼자 건물을 쓰고 있습니다",
    "신탁된 집을 동의 없이 빌려주었다고 합니다",
    "전입신고를 하기 전에 집이 팔렸습니다",
    "임대인이 세금을 내지 않아 압류가 되었습니다",
    "위조된 서류로 소유권이 넘어갔습니다",
    "토지와 건물의 주인이 달라졌습니다",
    "명의를 빌려준 사람이 집을 팔아 버렸습니다",
    "가압류가 된 뒤에 계약을 맺었습니다",
]
ASKS = [
    "어떤 권리를 주장할 수 있습니까?",
    "무엇부터 해야 합니까?",
    "돈을 돌려받을 방법이 있을까요?",
    "계약을 해제할 수 있는지요?",
    "등기를 되찾을 수 있습니까?",
    "누구를 상대로 소송을 내야 하나요?",
    "언제까지 청구해야 합니까?",
    "새 주인에게도 말할 수 있나요?",
    "배당에서 얼마나 받을 수 있습니까?",
    "나가 달라고 하면 나가야 하나요?",
]
CONCLUSIONS = [
    "결론부터 말씀드리면 요건을 갖춘 때에는 청구할 수 있습니다.",
    "원칙으로는 어렵지만 예외가 있습니다.",
    "먼저 등기사항증명서로 권리의 순서를 확인해야 합니다.",
    "상대방이 그 사정을 알았는지에 따라 결론이 달라집니다.",
    "점유와 등기를 함께 살펴야 합니다.",
    "기간이 지나면 권리가 없어질 수 있습니다.",
]
REASONS = [
    "그 요건은 법률이 정한 날부터 따지며 증명은 주장하는 쪽이 합니다.",
    "다만 상대방이 먼저 등기를 마쳤다면 순위에서 밀립니다.",
    "이 권리는 계약으로 미리 포기하게 할 수 없습니다.",
    "선의의 제삼자에게는 그 사정을 들어 맞설 수 없습니다.",
    "돈을 받을 때까지 물건을 넘겨주지 않아도 됩니다.",
    "손해가 있으면 따로 배상을 구할 수 있습니다.",
]
ADVICE = [
    "계약서와 이체 내역을 모으고 내용증명으로 뜻을 알리십시오.",
    "관할 법원에 보전처분을 신청하고 소를 준비하십시오.",
    "주민센터와 등기소에서 서류를 떼어 날짜를 맞추어 보십시오.",
    "대한법률구조공단에 상담을 신청하십시오.",
    "기한을 달력에 적고 그 전에 신청서를 내십시오.",
]
CATEGORIES = ["전세사기", "부동산물권"]
DIFFICULTIES = ["초급", "중급", "고급"]


def read_articles() -> list[str]:
    """Return citations of the articles in data/reference/titles.csv, such as 민법 제186조."""
    with (ROOT / "data/reference/titles.csv").open(encoding="utf-8", newline="") as file:
        return [f"{row['law']} {row['article']}" for row in csv.DictReader(file)]


def make_name(draw: random.Random, length: int) -> str:
    return "".join(draw.choices(SYLLABLES, k=length))


def make_row(draw: random.Random, articles: list[str]) -> list[str]:
    pick = draw.choice
    amount = f"{draw.randint(1, 20)}억 {draw.randint(1, 999) * 10:,}만 원"
    day = f"{draw.randint(2018, 2025)}년 {draw.randint(1, 12)}월 {draw.randint(1, 28)}일"
    question = (
        f"{pick(PLACES)} {make_name(draw, 2)}동 {make_name(draw, 3)} {pick(BUILDINGS)} {draw.randint(101, 2505)}호의 "
        f"{pick(PEOPLE)} {pick(SURNAMES)}{make_name(draw, 2)}입니다. {day}에 {amount}이 걸린 일로, "
        f"{pick(EVENTS)}. {pick(ASKS)}"
    )
    answer = (
        f"{pick(CONCLUSIONS)} {pick(articles)}에 따라 {pick(REASONS)} {pick(articles)}도 함께 보십시오. {pick(ADVICE)}"
    )
    return [question, answer, pick(CATEGORIES), pick(DIFFICULTIES)]


def change_question(row: list[str]) -> list[str]:
    """Return the row with a question that says the same in nearly the same words."""
    question = row[0].replace("입니다. ", "인데요. ", 1)
    return [question, *row[1:]]


def break_row(row: list[str], draw: random.Random) -> list[str]:
    question, answer, category, difficulty = row
    return draw.choice(
        [
            [question, answer, category],
            [question, answer, category, difficulty, "쉼표"],
            ["", answer, category, difficulty],
            [question, " ", category, difficulty],
            [question, f"민법 제{draw.randint(1119, 9999)}조에 따릅니다.", category, difficulty],
        ]
    )


def make_rows(count: int, seed: int) -> Iterator[list[str]]:
    draw = random.Random(seed)
    articles = read_articles()
    remembered: list[list[str]] = []
    for _ in range(count):
        lot = draw.random()
        if lot < EXACT and remembered:
            yield draw.choice(remembered)
        elif lot < EXACT + NEAR and remembered:
            yield change_question(draw.choice(remembered))
        elif lot < EXACT + NEAR + BROKEN:
            yield break_row(make_row(draw, articles), draw)
        else:
            row = make_row(draw, articles)
            if len(remembered) < REMEMBERED:
                remembered.append(row)
            else:
                remembered[draw.randrange(REMEMBERED)] = row
            yield row


def write_dataset(path: Path, rows: Iterator[list[str]], total: int) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(tqdm(rows, total=total, unit=" rows"))


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a synthetic dataset: 5 % duplicates, 1 % broken rows.")
    parser.add_argument("rows", type=int)
    parser.add_argument("path", type=Path)
    parser.add_argument("--seed", type=int, default=20260608)
    arguments = parser.parse_args()
    write_dataset(arguments.path, make_rows(arguments.rows, arguments.seed), arguments.rows)


if __name__ == "__main__":
    main()
