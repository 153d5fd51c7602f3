"""What do the seed systems' own questions come to? Ten answers, each with figures and a picture made here.

Trains what is missing (about 20 minutes in all on two cores; finished runs are taken as they are, those of benchmarks/presets.py
too), writes the pictures, and prints the answers or fills them into a document's marked places, `<!-- seeds:1 -->` to
`<!-- /seeds:1 -->`.

    python benchmarks/seeds.py --data cifar10 --write docs/seeds.md
    python benchmarks/seeds.py --data cifar10 --only 1 7
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import tyro
from machine import describe
from seeds_questions import QUESTIONS
from seeds_questions.bench import Answer, Bench, Options

from pretint.runtime.errors import UnknownNameError


def save_pictures(answer: Answer, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for picture in answer.pictures:
        picture.image.save(folder / f"{picture.name}.png", optimize=True)


def markdown(answer: Answer, options: Options) -> str:
    """An answer's lines below the machine's, and its pictures, as seen from the document."""
    document = options.write or Path("docs/seeds.md")
    folder = Path(os.path.relpath(options.pictures, document.parent)).as_posix()
    pictures = [f"![{picture.caption}]({folder}/{picture.name}.png)" for picture in answer.pictures]
    return "\n".join([describe(), "", *answer.lines, *(line for link in pictures for line in ("", link))])


def fill_in(text: str, number: int, answer: str) -> str:
    """A document with an answer in its marked place; what stood there is replaced."""
    opening, closing = f"<!-- seeds:{number} -->", f"<!-- /seeds:{number} -->"
    pattern = re.compile(f"{re.escape(opening)}.*?{re.escape(closing)}", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"--write: the document has no place {opening} … {closing}; add it where the answer belongs.")
    return pattern.sub(lambda _: f"{opening}\n{answer}\n{closing}", text)


def main(options: Options) -> None:
    for number in options.only:
        if number not in QUESTIONS:
            raise UnknownNameError("--only", str(number), [str(known) for known in QUESTIONS])
    bench = Bench(options)
    for number in options.only or QUESTIONS:
        answer = QUESTIONS[number](bench)
        save_pictures(answer, options.pictures)
        text = markdown(answer, options)
        print(f"\n## {number}\n\n{text}", flush=True)
        if options.write is not None:
            filled = fill_in(options.write.read_text(encoding="utf-8"), number, text)
            options.write.write_text(filled, encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Options))
