"""`pretint data check`: what is wrong with a data set? Nothing is trained and nothing is written."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from rich.table import Table
from rich.text import Text
from tyro.conf import Positional

from ..data import PictureFacts, SplitFacts, inspect_data
from ..runtime.errors import ArgumentError
from .options import DataOptions, Outcome, positive

_SHOWN = 10
# A class this many times as large as another is worth a word.
_IMBALANCE = 10
_USUAL_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class DataCheckConfig(DataOptions):
    """List what is wrong with a data set; exit code 1 if it can't be trained on as it is.

    Attributes:
        data: as for pretrain: a name, a folder, an archive or an .npz.
        image_size: side in pixels that images are going to be resized to; smaller ones are told. A pack is looked at as it is.
        json: print as JSON for programs.
    """

    data: Positional[str]
    image_size: int = 32
    json: bool = False

    def __post_init__(self) -> None:
        positive(self, "image_size")
        if not 0 <= self.max_broken <= 1:
            raise ArgumentError(f"--max-broken: {self.max_broken} must be from 0 to 1.")


@dataclass(frozen=True)
class Problem:
    """Something to mend or to know.

    Attributes:
        kind: broken, empty, grey, few, classes, imbalance, duplicates, leak, small or stray.
        message: what it is.
        serious: whether pretraining would be refused.
    """

    kind: str
    message: str
    serious: bool = False


def check_data(config: DataCheckConfig) -> Outcome:
    """Counts of images by split and class, their sizes, broken files with reasons, grey images, duplicates, and problems.

    Raises:
        UnknownNameError, DataError: there is no such data, or it can't be read at all.
    """
    splits = inspect_data(config.data, config.root, image_size=config.image_size, extra_formats=config.extra_formats)
    problems = [problem for facts in splits for problem in _of_split(facts, config)]
    problems += _between(splits)
    ok = not any(problem.serious for problem in problems)
    results = {
        "data": config.data,
        "ok": ok,
        "splits": {facts.split: _summary(facts) for facts in splits},
        "problems": [asdict(problem) for problem in problems],
    }
    lines = [f"{'Error' if problem.serious else 'Note'}: {problem.message}" for problem in problems]
    for facts in splits:
        lines += [f"broken in {facts.split}: {line}" for line in facts.broken[:_SHOWN]]
        if len(facts.broken) > _SHOWN:
            lines.append(f"… and {len(facts.broken) - _SHOWN} more; --json lists all.")
    lines.append("This data can be trained on." if ok else "This data can't be trained on as it is.")
    return Outcome(results, [_table(splits)], lines, code=0 if ok else 1)


def _of_split(facts: SplitFacts, config: DataCheckConfig) -> Iterable[Problem]:
    """What is wrong with one split."""
    split, pictures = facts.split, facts.pictures
    total, broken = len(pictures) + len(facts.broken), len(facts.broken)
    if broken:
        share = f"{broken} of {total} files in {split} can't be read"
        allowed = f"--max-broken allows {100 * config.max_broken:.3g} %"
        yield Problem("broken", f"{share}; {allowed}.", serious=broken > config.max_broken * total)
    if not pictures:
        yield Problem("empty", f"{split} has no picture that can be read.", serious=True)
        return
    grey = sum(picture.grey for picture in pictures)
    if grey == len(pictures):
        yield Problem(
            "grey", f"all pictures in {split} are grey; there is no colour to learn.", serious=split == "train"
        )
    elif grey:
        yield Problem("grey", f"{grey} of {len(pictures)} pictures in {split} are grey.")
    if split == "train" and len(pictures) < _USUAL_BATCH:
        yield Problem(
            "few",
            f"train has {len(pictures)} pictures, fewer than the usual batch of {_USUAL_BATCH}; use a smaller --batch-size.",
        )
    if facts.stray:
        yield Problem(
            "stray",
            f"{split} has pictures both in class folders and beside them; move those, or pretrain with --unlabelled.",
        )
    small = sum(min(picture.height, picture.width) < config.image_size for picture in pictures)
    if small:
        yield Problem(
            "small", f"{small} pictures in {split} are smaller than {config.image_size} px and would be enlarged."
        )
    yield from _of_classes(facts)
    same = _groups(pictures)
    if same:
        first = " = ".join(same[0][:3])
        spare = sum(len(group) - 1 for group in same)
        yield Problem("duplicates", f"{spare} pictures in {split} are there more than once, such as {first}.")


def _of_classes(facts: SplitFacts) -> Iterable[Problem]:
    # a class without any picture here is told where the splits are compared
    counts = {name: count for name, count in _class_counts(facts).items() if count}
    if not counts:
        return
    if len(counts) == 1:
        yield Problem("classes", f"{facts.split} is of one class, {next(iter(counts))}; probes need two or more.")
    largest, smallest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    if counts[largest] >= _IMBALANCE * counts[smallest]:
        words = f"{largest} has {counts[largest]} pictures and {smallest} {counts[smallest]}"
        yield Problem("imbalance", f"in {facts.split}, {words}.")
    few = [name for name, count in counts.items() if count < 2]
    if few and facts.split == "train":
        yield Problem("few", f"{len(few)} classes in train have fewer than 2 pictures: {_listed(few)}; probes need 2.")


def _between(splits: Sequence[SplitFacts]) -> Iterable[Problem]:
    """What is wrong between splits: classes that one lacks, and pictures that are in two."""
    for one, other in combinations(splits, 2):
        if one.class_names is not None and other.class_names is not None:
            for here, there in ((one, other), (other, one)):
                present, known = _class_counts(here), _class_counts(there)
                lacking = sorted(name for name, count in present.items() if count and not known.get(name))
                if lacking:
                    yield Problem(
                        "classes", f"{there.split} has no picture of {_listed(lacking)}, which {here.split} has."
                    )
        elif (one.class_names is None) != (other.class_names is None):
            bare = one if one.class_names is None else other
            yield Problem("classes", f"{bare.split} has no classes, and the other split has.")
        names = {picture.digest: picture.name for picture in reversed(one.pictures)}  # the first of equal ones
        both = [(names[picture.digest], picture.name) for picture in other.pictures if picture.digest in names]
        if both:
            yield Problem(
                "leak",
                f"{len(both)} pictures in {other.split} are in {one.split} too, such as {both[0][1]} = {both[0][0]}.",
            )


def _class_counts(facts: SplitFacts) -> dict[str, int]:
    """Pictures of each class, of those without any too; empty without labels."""
    counts = Counter(picture.label for picture in facts.pictures if picture.label is not None)
    if facts.class_names is not None:
        return {name: counts[number] for number, name in enumerate(facts.class_names)}
    return {str(number): counts[number] for number in sorted(counts)}


def _groups(pictures: Sequence[PictureFacts]) -> list[list[str]]:
    """Names of pictures that are equal."""
    groups: defaultdict[bytes, list[str]] = defaultdict(list)
    for picture in pictures:
        groups[picture.digest].append(picture.name)
    return [names for names in groups.values() if len(names) > 1]


def _summary(facts: SplitFacts) -> dict[str, Any]:
    sizes = sorted((picture.height * picture.width, picture.width, picture.height) for picture in facts.pictures)
    return {
        "pictures": len(facts.pictures),
        "broken": list(facts.broken),
        "classes": _class_counts(facts) or None,
        "smallest": list(sizes[0][1:]) if sizes else None,
        "largest": list(sizes[-1][1:]) if sizes else None,
        "grey": sum(picture.grey for picture in facts.pictures),
        "duplicates": _groups(facts.pictures),
    }


def _table(splits: Sequence[SplitFacts]) -> Table:
    table = Table("split", "pictures", "broken", "classes", "a class has", "smallest", "largest", "grey", "duplicates")
    for facts in splits:
        about, counts = _summary(facts), _class_counts(facts)
        sizes = [" × ".join(map(str, about[key])) if about[key] else "–" for key in ("smallest", "largest")]
        spare = sum(len(group) - 1 for group in about["duplicates"])
        each = f"{min(counts.values())} … {max(counts.values())}" if counts else "–"
        row = (
            facts.split,
            len(facts.pictures),
            len(facts.broken),
            len(counts) or "–",
            each,
            *sizes,
            about["grey"],
            spare,
        )
        table.add_row(*(Text(str(cell)) for cell in row))
    return table


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
