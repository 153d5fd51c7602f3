"""How do runs become one page that anybody can open? A self-contained report.html: no network, nothing beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from .._version import __version__
from ..runtime.errors import ArgumentError
from ..runtime.files import write_atomically
from . import gallery, result_sections, sections
from .comparison import UNCLEAR_POINTS
from .embedding import maps
from .figures import confusion_matrix, depth_curves, label_curves, loss_curves
from .report_run import ReportRun


def write_report(runs: Sequence[ReportRun], path: str | Path, title: str = "Pretint report") -> Path:
    """Write the report of one or more runs as one HTML file, and return its path.

    The page opens with the answer (pretrained against random weights, in points) and goes on with the charts and tables
    of transfer beside its controls, what was painted, the losses, colour quality beside its baselines, confusions, the
    map of the test pictures, settings and commands.
    A part that a run lacks is a sentence that names the command which adds it. Everything is inside the file; text
    from runs is escaped.

    Raises ArgumentError for no runs, for two runs of one name, and for a path that is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise ArgumentError(f"path: {path} is a folder; name a file in it, such as {path / 'report.html'}.")
    write_atomically(path, render_report(runs, title).encode())
    return path


def render_report(runs: Sequence[ReportRun], title: str = "Pretint report") -> str:
    """The text of the page that `write_report` writes."""
    if not runs:
        raise ArgumentError("runs: got none; a report needs at least one run.")
    names = [run.name for run in runs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ArgumentError(f"runs: {twice[0]!r} is given twice; every run of a report needs a name of its own.")
    answers = sections.answers(runs)
    panels = sections.loss_panels(runs)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            version=__version__,
            runs=runs,
            verdict=sections.verdict(answers),
            notes=sections.comparison_notes(runs),
            answers=sorted(answers, key=lambda each: -1e9 if each["points"] is None else each["points"], reverse=True),
            galleries=gallery.galleries(runs),
            extremes=gallery.extremes(runs),
            histories=gallery.histories(runs),
            losses=Markup(loss_curves(panels)) if panels else None,
            training=sections.training_rows(runs),
            colour=result_sections.colour_groups(runs),
            classes=result_sections.class_colours(runs),
            transfer=result_sections.transfer_blocks(runs),
            features=result_sections.feature_groups(runs),
            charts=_transfer_charts(runs),
            confusions=_confusion_figures(runs),
            swatches=gallery.swatches(result_sections.palette_confusions(runs)),
            maps=maps(runs),
            settings=sections.settings(runs),
            unclear_points=UNCLEAR_POINTS,
        )
    )


def _transfer_charts(runs: Sequence[ReportRun]) -> list[dict[str, str]]:
    """Accuracy by depth of the features, and against the number of labels."""
    shares = [
        {
            "title": f"By labels: {title}",
            "svg": Markup(label_curves(*kinds, unit=unit, title=title, prefix=f"labels{index}")),
        }
        for index, (title, unit, kinds) in enumerate(result_sections.label_shares(runs))
    ]
    by_depth = [
        {"title": f"By depth: {title}", "svg": Markup(depth_curves(*kinds, title=title, prefix=f"depth{index}"))}
        for index, (title, *kinds) in enumerate(result_sections.depths(runs))
    ]
    return by_depth + shares


def _confusion_figures(runs: Sequence[ReportRun]) -> list[dict[str, object]]:
    return [
        {**each, "svg": Markup(confusion_matrix(each["counts"], each["class_names"], prefix=f"confusion{index}"))}
        for index, each in enumerate(result_sections.confusions(runs))
    ]


def _environment() -> Environment:
    folder = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    return environment


def _breakable(name: str) -> Markup:
    """The name, escaped, with places where a narrow column may break it: after `/`, `_`, `.` and `-`."""
    parts = re.split(r"(?<=[/_.\-])", name)
    return Markup("<wbr>").join(parts)
