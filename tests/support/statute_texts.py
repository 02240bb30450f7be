"""Small repositories of statutes, in the shape of legalize-kr/legalize-kr."""

from datetime import datetime
from pathlib import Path

import pygit2

ACT = "kr/임대법/법률.md"


def act_text(
    articles: str,
    supplements: str = "",
    *,
    law: str = "임대법",
    number: str = "100",
    promulgated: str = "2024-01-10",
    effective: str = "2024-01-10",
) -> str:
    """Return the file of an act: `articles` and `supplements` as they stand in it."""
    return (
        f"---\n제목: {law}\n법령MST: 1\n소관부처:\n- 법무부\n공포일자: {promulgated}\n"
        f"공포번호: '{number.zfill(5)}'\n"
        f"시행일자: {effective}\n상태: 시행\n---\n\n# {law}\n\n## 제1장\n\n{articles}\n\n## 부칙\n\n{supplements}\n"
    )


def supplement(number: str, day: str, text: str, by: str = "") -> str:
    """Return the supplementary provisions of a promulgation."""
    year, month, date = day.split("-")
    return f"부칙{f'({by})' if by else ''} <제{number}호,{year}.{int(month)}.{int(date)}>\n\n\n{text}\n"


def commit(folder: Path, day: str, files: dict[str, str]) -> str:
    """Write files and commit them as of a day; return the commit."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    if (folder / ".git").exists():
        repository = pygit2.Repository(str(folder))
    else:
        repository = pygit2.init_repository(str(folder), initial_head="main")
    noon = int(datetime.fromisoformat(f"{day}T12:00:00+09:00").timestamp())
    author = pygit2.Signature("a", "a@b.c", noon, 9 * 60)
    for name in files:
        repository.index.add(name)
    repository.index.write()
    parents = [] if repository.head_is_unborn else [repository.head.target]
    tree = repository.index.write_tree()
    return str(repository.create_commit("HEAD", author, author, day, tree, parents))
