"""The texts of acts, decrees and rules through time, from a git repository: one file each, one commit a promulgation.

Source: https://github.com/legalize-kr/legalize-kr, a mirror of 국가법령정보센터: `kr/ACT/법률.md`, `kr/ACT/시행령.md`.
A version is what a promulgation made of the text, with what it puts in force only later.
"""

import functools
import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from civilqa.law.commencement import Commencements, Unit, read_commencements
from civilqa.law.grammar import CIRCLED
from civilqa.law.statutes import ArticleNumber, read_reference_params
from civilqa.program.errors import RecordError
from civilqa.program.files import at_hand

if TYPE_CHECKING:
    import pygit2

FOLDER = "kr"
FILES = re.compile(r"(?:법률|헌법|시행령|시행규칙)(?:\(.+\))?\.md")  # not 군정법령.md, of 1945 to 1948
GONE = "삭제"  # the text of an article or paragraph whose number alone is left
KOREA = timezone(timedelta(hours=9))
CLONE = "git clone https://github.com/legalize-kr/legalize-kr DIR"

_FRONT_MATTER = re.compile(r"---\n(.*?)\n---\n", re.DOTALL)
_FIELD = re.compile(r"(?m)^(제목|공포일자|공포번호|시행일자): *['\"]?(.*?)['\"]?$")
_HEADING = re.compile(r"(?m)^#{1,6} +(.*)$")
_ARTICLE_HEADING = re.compile(r"제([0-9]+)조(?:의([0-9]+))?\s*(?:\((.*)\))?")
_PARAGRAPH = re.compile(rf"(?m)^\*\*([{''.join(CIRCLED)}])\*\* ?")
_NOTE = re.compile(r"\s?[<\[](?:삭제|종전|[0-9]|[^<>\[\]\n]{0,20}(?:이동|개정|신설))(?:[^<>\[\]\n]|<[0-9., ]+>)*[>\]]")
_REMOVED = re.compile(r"삭제(?:\s*<[^>]*>)?\.?")
_ESCAPE = re.compile(r"\\([.~*_<>\[\]()#+-])")
_SUPPLEMENT = re.compile(r"(?m)^부칙\s*(?:\((?P<by>.*)\))?\s*<제0*(?P<number>[0-9]+)호,\s*(?P<day>[0-9. ]+)>")
_PROVISION = re.compile(r"(?m)^제\s?([0-9]+)\s?조(?:의([0-9]+))?\s?(?=\()")


@dataclass(frozen=True)
class Version:
    """An act as a promulgation left it.

    Attributes:
        number: of the promulgation (공포번호), without leading zeros.
        effective: the day that the publisher gives the version (시행일).
        texts: of every unit; paragraph 0 begins with the article's title in brackets, where it has one.
        supplements: the supplementary provisions by promulgation: the act that they are of, where it is another that
            amended this one, their text, and the day as it is written, such as 2021.7.20.
        commencements: the days of this promulgation, as the last version read has its supplementary provisions: they
            may be amended as well.
        first: whether it stands in the repository's first commit, so that what was before is not known.
    """

    law: str
    number: str
    promulgated: date
    effective: date
    texts: dict[Unit, str]
    supplements: dict[str, tuple[str | None, str, str]]
    commit: str
    first: bool
    commencements: Commencements | None = None

    @property
    def articles(self) -> list[ArticleNumber]:
        """Its articles, in official order."""
        return sorted({article for article, _ in self.texts})

    def provisions(self) -> dict[str, str]:
        """The supplementary provisions by name: `제21634호 부칙 제2조`; `제20795호 부칙` where it has no articles."""
        found: dict[str, str] = {}
        for number, (_, text, _) in self.supplements.items():
            label, own = f"제{number}호 부칙", {}
            for start, words in sections(_PROVISION, text):
                name = f"{label} 제{start[1]}조" + (f"의{start[2]}" if start[2] else "")
                own.setdefault(name, plain(start[0] + words))
            found |= own or {label: plain(text)}
        return found


def plain(text: str) -> str:
    """A text without the marks of its file and without notes of amendment (<개정 2024.9.10>), which are no law."""
    return "\n".join(
        line.strip() for line in _NOTE.sub("", _ESCAPE.sub(r"\1", text)).replace("**", "").splitlines() if line.strip()
    )


def sections(heading: re.Pattern, text: str) -> Iterator[tuple[re.Match, str]]:
    """Each match of a heading, with the text from it to the next one."""
    found = list(heading.finditer(text))
    ends = [match.start() for match in found[1:]] + [len(text)]
    for match, end in zip(found, ends[: len(found)], strict=True):
        yield match, text[match.end() : end]


def read_version(text: str, place: str, commit: str, *, first: bool) -> Version:
    """Read the file of an act.

    Raises:
        RecordError: it has no title, number or day of promulgation or of effect where they belong.
    """
    front = _FRONT_MATTER.match(text)
    fields = dict(_FIELD.findall(front[1])) if front else {}
    try:
        law, number = fields["제목"], str(int(fields["공포번호"]))
        promulgated, effective = (date.fromisoformat(fields[name]) for name in ("공포일자", "시행일자"))
    except (KeyError, ValueError) as error:
        raise RecordError(
            f"{place}: no text of an act: {error}; its first lines must give 제목, 공포일자, 공포번호 and 시행일자 as "
            "legalize-kr/legalize-kr does"
        ) from None
    body, _, rest = text[front.end() :].partition("\n## 부칙\n")
    texts = dict(_units(body))
    supplements = {
        header["number"]: (None if header["by"] in (None, law) else header["by"], content, header["day"])
        for header, content in sections(_SUPPLEMENT, rest)
    }
    return Version(law, number, promulgated, effective, texts, supplements, commit, first)


def with_commencements(versions: list[Version]) -> list[Version]:
    """The versions of an act, oldest first, each with its days as the last one's supplementary provisions give them."""
    supplements = {number: found for version in versions for number, found in version.supplements.items()}
    dated = []
    for version in versions:
        by, text, _ = supplements.get(version.number, (None, "", ""))
        days = read_commencements(
            text, version.number, version.promulgated, version.effective, version.articles, own=by is None
        )
        dated.append(replace(version, commencements=days))
    return dated


def _units(body: str) -> Iterator[tuple[Unit, str]]:
    for heading, content in sections(_HEADING, body):
        article = _ARTICLE_HEADING.match(heading[1])
        if not article:
            continue
        number = (int(article[1]), int(article[2] or 0))
        content = content.strip()
        title = (article[3] or "").removeprefix("(").removesuffix(")") if (article[3] or "")[:1] == "(" else article[3]
        if _REMOVED.fullmatch(content) or not (content or title):
            yield (number, 0), GONE
            continue
        first = _PARAGRAPH.search(content)
        lead = plain(content[: first.start()] if first else content)
        yield (number, 0), "\n".join(part for part in (f"({title})" if title else "", lead) if part)
        for mark, words in sections(_PARAGRAPH, content):
            removed = _REMOVED.fullmatch(words.strip())
            yield (number, CIRCLED[mark[1]]), GONE if removed else f"{mark[1]} {plain(words)}"


# --- The repository --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Statutes:
    """A repository of statutes and the commit of it that is pinned."""

    repository: "pygit2.Repository"
    folder: Path
    pin: str

    def commit(self, written: str) -> tuple[str, date]:
        """The commit that a revision or a day (`2025-04-01`) means, and its day; that of a day is its last one.

        Raises:
            RecordError: there is no such commit, or none so early.
        """
        import pygit2

        try:
            day = date.fromisoformat(written)
        except ValueError:
            try:
                found = self.repository.revparse_single(written).peel(pygit2.Commit)
            except (KeyError, ValueError, pygit2.GitError):
                raise RecordError(
                    f"{self.folder}: has no commit {written!r}; name a commit or a day like 2025-04-01, or fetch newer "
                    "ones: git pull, dvc update"
                ) from None
            return str(found.id), _day(found)
        for found in self.repository.walk(self.pin, pygit2.enums.SortMode.TOPOLOGICAL):
            if _day(found) <= day:
                return str(found.id), day
        raise RecordError(f"{self.folder}: its history begins only after {written}; name a later day")

    def ancestors(self, commit: str) -> set[str]:
        """A commit and those before it."""
        return {str(found.id) for found in self.repository.walk(commit)}

    def histories(self, laws: Collection[str], commit: str | None = None) -> dict[str, list[Version]]:
        """The versions of the acts named and of their decrees and rules, oldest first, up to a commit (the pinned one).

        Raises:
            RecordError: a file is no text of an act.
        """
        import pygit2

        folders = {law.replace(" ", "") for law in laws}
        order = pygit2.enums.SortMode.TOPOLOGICAL | pygit2.enums.SortMode.REVERSE
        files: dict[str, list[Version]] = {}
        for entry in self.repository.walk(commit or self.pin, order):
            for path, blob in _changed(entry, folders):
                place = f"{self.folder}: {path} at {str(entry.id)[:10]}"
                try:
                    text = blob.data.decode("utf-8")
                except UnicodeDecodeError:
                    raise RecordError(f"{place}: is no UTF-8; fetch the repository again") from None
                version = read_version(text, place, str(entry.id), first=not entry.parents)
                files.setdefault(path, []).append(version)
        # Of two acts of one name (이자제한법 of 1962 and of 2007) the later one is meant.
        found = {versions[-1].law: versions for versions in sorted(files.values(), key=lambda v: v[-1].promulgated)}
        return {law: with_commencements(versions) for law, versions in sorted(found.items())}


def _day(commit: "pygit2.Commit") -> date:
    return datetime.fromtimestamp(commit.author.time, UTC).astimezone(KOREA).date()


def _changed(commit: "pygit2.Commit", folders: set[str]) -> Iterator[tuple[str, Any]]:
    """The files of acts that a commit put there, without those of folders that are not asked for."""
    new, old = _tree(commit), _tree(commit.parents[0]) if commit.parents else None
    if new is None or (old is not None and new.id == old.id):
        return
    for folder in sorted(folders):
        if folder not in new or (old is not None and folder in old and old[folder].id == new[folder].id):
            continue
        before = old[folder] if old is not None and folder in old else ()
        for blob in new[folder]:
            known = blob.name in before and before[blob.name].id == blob.id
            if not known and FILES.fullmatch(unicodedata.normalize("NFC", blob.name)):
                yield f"{FOLDER}/{folder}/{blob.name}", blob


def _tree(commit: "pygit2.Commit") -> Any:
    return commit.tree[FOLDER] if FOLDER in commit.tree else None  # noqa: SIM401, a tree has no get


def find_statutes() -> Statutes | None:
    """Open the statutes that `reference.statutes` in the params.yaml here names; None where it is empty.

    Raises:
        RecordError: what it names has no history, or is not there.
    """
    folder = read_reference_params().statutes
    return open_statutes(Path(folder)) if folder else None


@functools.cache
def open_statutes(folder: Path) -> Statutes:
    """Open a clone, or the repository that a folder was imported from by `dvc import`, at the commit that is pinned.

    Raises:
        RecordError: there is no such folder, or no history in it or behind it.
    """
    import pygit2

    imported, folder = Path(f"{folder}.dvc"), at_hand(folder)
    if imported.is_file():
        source = YAML(typ="safe").load(imported.read_text(encoding="utf-8"))["deps"][0].get("repo", {})
        if "url" not in source:
            raise RecordError(f"{imported}: names no repository; make it with dvc import, see data/reference/README.md")
        return Statutes(_history_of(source["url"], source["rev_lock"]), folder, source["rev_lock"])
    try:
        repository = pygit2.Repository(str(folder), pygit2.enums.RepositoryOpenFlag.NO_SEARCH)
        return Statutes(repository, folder, str(repository.head.target))
    except (KeyError, pygit2.GitError):
        raise RecordError(
            f"{folder}: reference.statutes is no git repository with commits, nor made by dvc import; get one: {CLONE}"
        ) from None


def _history_of(url: str, commit: str) -> "pygit2.Repository":
    """A bare copy of a repository in `.statutes`, fetched again where it lacks the commit: dvc imports files alone."""
    import pygit2
    from scmrepo.exceptions import SCMError
    from scmrepo.git import Git

    copy = Path(".statutes")
    try:
        if not copy.exists():
            Git.clone(url, str(copy), bare=True, mirror=True).close()
        repository = pygit2.Repository(str(copy))
        if commit not in repository:
            repository.remotes["origin"].fetch()
        repository[commit]
    except (SCMError, KeyError, pygit2.GitError) as error:
        raise RecordError(
            f"{url}: its history cannot be fetched: {error or type(error).__name__}; without a network, set "
            f"reference.statutes to a clone: {CLONE}"
        ) from None
    return repository
