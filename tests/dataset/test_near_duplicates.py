import itertools
import os
import random
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from civilqa.dataset import near_duplicates
from civilqa.dataset.near_duplicates import group_near_duplicates

QUESTION = "임대차 기간이 끝났는데 임대인이 보증금을 돌려주지 않으면 임차권등기명령을 신청하고 이사해도 되나요?"


def partition(texts, labels):
    """Return the groups as sets of texts: what must not depend on the order."""
    groups = {}
    for text, label in zip(texts, labels, strict=True):
        groups.setdefault(label, []).append(text)
    return sorted(sorted(group) for group in groups.values())


def reference_grams(text):
    letters = [c for c in unicodedata.normalize("NFC", text).casefold() if unicodedata.category(c)[0] in "LN"]
    return {"".join(letters[i : i + 3]) for i in range(max(1, len(letters) - 2))}


def compare_all(texts):
    """Return (index, index, similarity) of all pairs."""
    sets = [reference_grams(text) for text in texts]
    return [(i, j, len(a & b) / len(a | b)) for (i, a), (j, b) in itertools.combinations(enumerate(sets), 2)]


def follow_links(count, pairs, similarity):
    """Return the labels of so many texts, given their pairs with their similarities."""
    links = {index: [index] for index in range(count)}
    for i, j, found in pairs:
        if found >= similarity:
            links[i].append(j)
            links[j].append(i)
    labels = [-1] * count
    for index in range(count):
        waiting = [index] if labels[index] < 0 else []
        while waiting:
            node = waiting.pop()
            if labels[node] < 0:
                labels[node] = index
                waiting += links[node]
    return labels


def reference_groups(texts, similarity):
    """Return the labels by comparing all pairs and following the links."""
    return follow_links(len(texts), compare_all(texts), similarity)


NEARLY_THE_SAME = {
    "particle": QUESTION.replace("임대인이", "임대인은"),
    "particle 2": QUESTION.replace("보증금을 돌려주지", "보증금도 돌려주지"),
    "punctuation": QUESTION.replace("?", "???!!"),
    "brackets": f"「{QUESTION}」",
    "no spaces": QUESTION.replace(" ", ""),
    "other spaces": QUESTION.replace(" ", "\u00a0\n "),
    "NFD": unicodedata.normalize("NFD", QUESTION),
    "ending": QUESTION.replace("되나요", "될까요"),
    "prefix": f"질문: {QUESTION}",
}


def test_the_same_question_in_nearly_the_same_words_is_one_group():
    unrelated = "유류분은 어떻게 계산하나요?"
    found = {name: group_near_duplicates([QUESTION, unrelated, text], 0.8) for name, text in NEARLY_THE_SAME.items()}
    assert {name: groups for name, groups in found.items() if groups != [0, 1, 0]} == {}


def test_case_makes_no_difference():
    assert group_near_duplicates(["HUG 전세보증보험에 가입했습니다", "hug 전세보증보험에 가입했습니다"], 1.0) == [0, 0]


def test_other_questions_in_the_same_boilerplate_stay_apart():
    question = "전세 계약에서 전입신고를 늦게 한 경우 대항력은 언제 생기는지 알려 주세요. 어떻게 해야 하나요?"
    others = [
        "전세 계약에서 확정일자를 받지 않은 경우 어떤 불이익이 있는지 알려 주세요. 어떻게 해야 하나요?",
        "전세 계약에서 집주인이 바뀐 경우 보증금은 누구에게 청구하는지 알려 주세요. 어떻게 해야 하나요?",
        "전세 계약에서 등기부에 가압류가 있는 경우 무엇을 조심하는지 알려 주세요. 어떻게 해야 하나요?",
    ]
    assert [other for other in others if group_near_duplicates([question, other], 0.8) != [0, 1]] == []


def test_a_chain_of_near_duplicates_is_one_group():
    chain = [QUESTION]
    for old, new in (("임대인이", "집주인이"), ("신청하고", "신청한뒤"), ("임대차 기간이", "전세 계약이")):
        chain.append(chain[-1].replace(old, new))
    assert reference_groups([chain[0], chain[-1]], 0.7) == [0, 1]
    assert group_near_duplicates(chain, 0.7) == [0, 0, 0, 0]


def test_a_pair_exactly_at_the_similarity_is_joined():
    # Trigrams of 12 and 10 letters: 10 and 8, of which 8 are shared: 8 / 10.
    assert group_near_duplicates(["가나다라마바사아자차카타", "가나다라마바사아자차"], 0.8) == [0, 0]
    assert group_near_duplicates(["가나다라마바사아자차카타", "가나다라마바사아자차"], 0.801) == [0, 1]


def test_texts_too_short_for_a_trigram_are_one_group_only_if_equal():
    assert group_near_duplicates(["네", "네!", "아니", "", "?!", "아니요"], 0.5) == [0, 0, 2, 3, 3, 5]


def test_no_texts_give_no_groups():
    assert group_near_duplicates([], 0.8) == []


def test_a_similarity_outside_its_range_is_refused():
    with pytest.raises(ValueError, match="similarity: found 0, want more than 0"):
        group_near_duplicates(["가"], 0)


# Few letters and few words make pairs of every similarity, which random text would not.
PHRASES = st.lists(
    st.sampled_from(["전세", "보증금을", "못", "받았", "습니다", "A", " ", "?", "등기"]), max_size=12
).map("".join)


@given(texts=st.lists(PHRASES, max_size=25), similarity=st.sampled_from([0.05, 0.3, 0.5, 0.75, 0.8, 0.9, 1.0]))
@settings(max_examples=300)
def test_the_groups_are_those_of_comparing_all_pairs(texts, similarity):
    assert group_near_duplicates(texts, similarity) == reference_groups(texts, similarity)


@given(texts=st.lists(PHRASES, max_size=25), random_=st.randoms(use_true_random=False))
@settings(max_examples=100)
def test_the_order_of_the_texts_changes_no_group(texts, random_):
    shuffled = texts[:]
    random_.shuffle(shuffled)
    expected = partition(texts, group_near_duplicates(texts, 0.8))
    assert partition(shuffled, group_near_duplicates(shuffled, 0.8)) == expected


def test_letters_beyond_16_bits_are_letters_like_others():
    rare = [chr(0x20000 + 7 * i) for i in range(40)]
    texts = ["".join(rare[:30]), "".join(rare[1:31]), "".join(rare[20:]), "가나다라마바사", "".join([*rare[:29], "가"])]
    assert group_near_duplicates(texts, 0.8) == reference_groups(texts, 0.8) == [0, 0, 2, 3, 0]


@pytest.mark.parametrize("similarity", [0.6, 0.8, 0.9])
def test_crowds_that_share_phrases_are_grouped_as_by_comparing_all_pairs(monkeypatch, similarity):
    """Texts put together from few phrases: many pairs just below the similarity, and many that share a part."""
    monkeypatch.setattr(near_duplicates, "_FEW", 0)
    monkeypatch.setattr(near_duplicates, "_CROWD", 3)
    monkeypatch.setattr(near_duplicates, "_ENTRIES_A_CHUNK", 100)
    monkeypatch.setattr(near_duplicates, "_CHARACTERS_A_CHUNK", 2000)
    random_ = random.Random(3)
    phrases = ["".join(random_.choices([chr(0xAC00 + 5 * i) for i in range(300)], k=20)) for _ in range(12)]
    texts = []
    for _ in range(400):
        chosen = random_.sample(phrases, 3)
        texts.append(
            f"{chosen[0]} 제{random_.randint(1, 40)}조 {chosen[1]} {chosen[2]}{random_.choice(['', '요', '다만'])}"
        )
    expected = reference_groups(texts, similarity)
    assert group_near_duplicates(texts, similarity) == expected
    assert 3 < len(set(expected)) < 400


def test_chunks_change_no_group(monkeypatch):
    random_ = random.Random(1)
    texts = ["".join(random_.choices("가나다라마", k=random_.randint(0, 14))) for _ in range(400)]
    monkeypatch.setattr(near_duplicates, "_ROWS_A_CHUNK", 7)
    monkeypatch.setattr(near_duplicates, "_PAIRS_A_CHUNK", 3)
    monkeypatch.setattr(near_duplicates, "_FEW", 0)
    assert group_near_duplicates(texts, 0.6) == reference_groups(texts, 0.6)


def test_a_thousand_edited_texts_are_grouped_as_by_comparing_all_pairs():
    random_ = random.Random(2)
    texts = ["".join(random_.choices([chr(0xAC00 + 5 * i) for i in range(300)], k=60)) for _ in range(250)]
    while len(texts) < 1000:
        text = random_.choice(texts)
        at = random_.randrange(len(text))
        texts.append(text[:at] + random_.choice(["", "은", " 그런데 ", "?"]) + text[at + random_.randint(0, 3) :])
    pairs = compare_all(texts)
    for similarity in (0.6, 0.8, 0.95):
        assert group_near_duplicates(texts, similarity) == follow_links(len(texts), pairs, similarity)


def test_thousands_of_forms_of_one_question_are_not_compared_pair_by_pair(monkeypatch):
    compared = []
    compare = near_duplicates._Components.compare

    def count(self, left, right):
        compared.append(len(left))
        return compare(self, left, right)

    monkeypatch.setattr(near_duplicates._Components, "compare", count)
    texts = [f"{QUESTION} 사건번호 {number:05}" for number in range(3000)]
    assert set(group_near_duplicates(texts, 0.8)) == {0}
    assert 0 < sum(compared) < 2 * len(texts)


def test_the_process_hash_seed_changes_nothing_and_torch_is_not_imported():
    code = (
        "import sys; from civilqa.dataset.near_duplicates import group_near_duplicates as group; "
        "texts = [f'{i // 3}번 임차인이 보증금 {i // 3 * 7919}원을 청구합니다{i % 3}' for i in range(300)]; "
        "print(group(texts, 0.8)); assert 'torch' not in sys.modules"
    )
    folder = str(Path(near_duplicates.__file__).parents[2])
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": folder},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(runs) == 1
    assert len(re.findall(r"\d+", runs.pop())) == 300
