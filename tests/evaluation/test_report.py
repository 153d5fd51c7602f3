import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from pretint.evaluation import ReportRun, render_report, transfer_row, write_report
from pretint.evaluation.result_sections import depths, transfer_blocks
from pretint.runtime import ArgumentError

NASTY = "runs/<script>alert('1')</script>&\"x"


class Page(HTMLParser):
    """The page as a reader sees it: text, tables as lists of lists, and every tag with its attributes."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self._cell = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data):
        self.text += data
        if self._cell:
            self.tables[-1][-1][-1] += data.strip()

    def rows(self, first: str) -> list[list[str]]:
        return [row for table in self.tables for row in table if row and row[0] == first]


def pictures(seed: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 16, 16), dtype=np.uint8)


def make_run(name: str = "runs/a", top1: float = 0.5674, painted: int = 2, **changes) -> ReportRun:
    common = {
        "data": "cifar10",
        "protocol": "linear",
        "class_names": ["cat", NASTY],
        "confusion": [[3000, 1000], [0, 4000]],
    }
    layers = {"stage0": {"test_top1": 0.4}, "stage1": {"test_top1": top1}}
    transfer = [
        transfer_row(init="pretrained", top1=top1, top5=0.9512, layer="stage1", per_layer=layers, **common),
        transfer_row(init="random", top1=0.4801, top5=0.9023, layer="stage0", **common),
        transfer_row(data="cifar10", protocol="finetune", init="pretrained", top1=0.7613, labels=0.1),
        transfer_row(data="cifar10", protocol="finetune", init="random", top1=0.7207, labels=0.1),
    ]
    colour = {
        "data": "cifar10", "split": "test", "palette": "rgb-24", "resolution": "32x32",
        "cross_entropy_nats": 1.0514, "bits_per_pixel": 1.5169, "top1": 0.5893, "top5": 0.9371, "ab_rmse": 9.517,
        "delta_e2000": 7.254, "colourfulness": 21.54, "colourfulness_true": 33.37, "delta_m3": 12.46, "psnr": 23.456,
        "ssim": 0.9123,
        "prior_cross_entropy_nats": 2.9012, "prior_bits_per_pixel": 4.1856, "prior_top1": 0.1102, "prior_top5": 0.4404,
        "grey_lookup_cross_entropy_nats": 1.9007, "grey_lookup_bits_per_pixel": 2.7421, "grey_lookup_top1": 0.3305,
        "grey_lookup_top5": 0.8806, "grey_ab_rmse": 18.258, "grey_delta_e2000": 13.131, "grey_delta_m3": 33.37,
        "grey_psnr": 21.987, "grey_ssim": 0.8765,
    }  # fmt: skip
    values = {
        "config": {
            "task": "palette",
            "data": "cifar10",
            "epochs": 3,
            "command": ["pretint", "pretrain", "--out", name],
        },
        "results": {"colour": [colour], "transfer": transfer},
        "metrics": [
            {"epoch": e, "train_loss": 2 / e, "validation_loss": 3 / e, "images_per_second": 480 + e} for e in (1, 2, 3)
        ],
        "pictures": {"grey": pictures(0), "painted": pictures(painted), "true": pictures(1)},
    }
    return ReportRun(name, **{**values, **changes})


def test_the_page_opens_with_the_answer():
    page = Page(render_report([make_run()]))
    text = " ".join(page.text.split())
    assert "Did the pretext help?" in text
    sentence = text[text.index("Did the pretext help?") :][:220]
    assert "+8.7 points" in sentence
    assert "56.7 %" in sentence
    assert "48.0 %" in sentence


@pytest.mark.parametrize(("top1", "word"), [(0.9, "Yes."), (0.1, "No."), (0.485, "Not clearly.")])
def test_the_answer_is_honest(top1, word):
    assert f"<strong>{word}</strong>" in render_report([make_run(top1=top1)])


def test_runs_whose_grey_is_made_differently_are_told_apart():
    def notes(*formulas: str | None) -> bool:
        runs = [make_run(name, config={"grey": grey}) for name, grey in zip("ab", formulas, strict=True)]
        return "(rec601: a; mean: b)" in Page(render_report(runs)).text

    assert notes("rec601", "mean")
    assert not notes("rec601", "rec601")
    assert not notes("rec601", None)  # of a run that tells nothing nothing is told


def judged(name: str, pretrained: float, **changes: object) -> ReportRun:
    rows = [
        transfer_row(
            data="x",
            protocol="linear",
            init=init,
            top1=top1,
            sees=sees,
            per_layer={"stage0": 0.3, "stage1": top1, "hypercolumn": top1},
        )
        for init, top1, sees in (
            ("pretrained", pretrained, "grey"),
            ("random", 0.4, "grey"),
            ("supervised-grey", 0.7, "grey"),
            ("supervised-rgb", 0.9, "rgb"),
        )
    ]
    return ReportRun(name, results={"transfer": rows}, **changes)  # pyright: ignore[reportArgumentType]


def test_a_ceiling_in_colour_is_a_curve_of_its_own():
    ((_, pretrained, random, supervised),) = depths([judged("a", 0.5)])
    assert pretrained["a"]["stage1"] == 0.5
    assert random["a"]["stage1"] == 0.4
    assert {name: layers["stage1"] for name, layers in supervised.items()} == {"a": 0.7, "a: rgb": 0.9}


def test_controls_that_runs_share_are_drawn_and_listed_once():
    runs = [judged(name, 0.5 + index / 50) for index, name in enumerate("abcd")]
    ((_, pretrained, random, supervised),) = depths(runs)
    assert list(pretrained) == ["a", "b", "c", "d"]
    assert list(random) == ["4 runs"]
    assert {name: layers["stage1"] for name, layers in supervised.items()} == {"4 runs": 0.7, "4 runs: rgb": 0.9}
    (block,) = transfer_blocks(runs)
    assert [row["run"] for row in block["rows"] if row["kind"] == "baseline"] == ["4 runs"]


def test_runs_that_were_judged_in_another_way_are_not_counted_together():
    rows = [
        transfer_row(data="x", protocol="probe-finetune", init=i, top1=t)
        for i, t in (("pretrained", 0.9), ("random", 0.5))
    ]
    other = ReportRun("other", results={"transfer": rows})
    page = Page(render_report([judged("a", 0.5), judged("b", 0.6), other])).text
    assert "helped 2 of 2 measured runs. Best: b, +20.0" in page
    assert "1 run was judged in another way" in page
    assert "from scratch" in page


def test_every_number_of_the_tables_equals_the_input():
    page = Page(render_report([make_run()]))
    lines = page.rows("runs/a")
    assert ["runs/a", "1.051", "1.517", "58.9 %", "93.7 %", "9.52", "7.25", "21.5", "12.5", "23.46", "0.912"] in lines
    assert page.rows("prior") == [["prior", "2.901", "4.186", "11.0 %", "44.0 %", *"––––––"]]
    assert page.rows("grey lookup") == [["grey lookup", "1.901", "2.742", "33.1 %", "88.1 %", *"––––––"]]
    assert page.rows("all grey") == [["all grey", *"––––", "18.26", "13.13", "0.0", "33.4", "21.99", "0.876"]]
    assert page.rows("true")[-1] == ["true", *"––––––", "33.4", *"–––"]
    assert ["runs/a", "pretrained", "56.7 %", "+8.7", "95.1 %", "stage1", "0"] in lines
    assert ["runs/a", "random weights", "48.0 %", "–", "90.2 %", "stage0", "0"] in lines
    assert ["runs/a", "pretrained", "76.1 %", "+4.1", "–", "–", "0"] in lines
    assert ["runs/a", "from scratch, grey input", "72.1 %", "–", "–", "–", "0"] in lines
    assert ["runs/a", "3", "1", "3", "482"] in lines  # epochs, best validation loss, its epoch, images/s
    assert page.rows("epochs") == [["epochs", "3"]]
    assert "pretint pretrain --out runs/a" in page.text


def test_pictures_are_embedded_unchanged_in_labelled_rows():
    run = make_run(
        pictures={"grey": pictures(0), "painted": pictures(2), "true": pictures(1), "history": {2: pictures(3)}}
    )
    page = Page(render_report([run]))
    images = {attrs["alt"]: attrs["src"] for tag, attrs in page.tags if tag == "img"}
    for label, seed in (("grey", 0), ("runs/a", 2), ("true", 1), ("epoch 2", 3)):
        for index, picture in enumerate(pictures(seed), start=1):
            source = images[f"{label}, picture {index}"]
            decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(str(source).split(",")[1]))))
            assert np.array_equal(decoded.transpose(2, 0, 1), picture)


def test_runs_that_painted_the_same_pictures_share_a_sheet():
    runs = [make_run("a"), make_run("b", painted=5)]
    other = make_run("c", pictures={"grey": pictures(7), "painted": pictures(8), "true": pictures(9)})
    sheets = [table for table in Page(render_report([*runs, other])).tables if table[0][0] == "grey"]
    assert [[row[0] for row in sheet] for sheet in sheets] == [["grey", "a", "b", "true"], ["grey", "c", "true"]]


def test_names_stay_text():
    nasty_config = {"task": NASTY, "data": NASTY, "command": NASTY, NASTY: NASTY}
    html = render_report([make_run(NASTY, config=nasty_config), ReportRun(f"{NASTY}2", nasty_config)], title=NASTY)
    page = Page(html)
    assert sum(tag == "script" for tag, _ in page.tags) == 1  # the page's own
    assert len(re.findall("<script", html)) == 1
    assert NASTY in page.text
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_the_file_needs_no_network_and_nothing_beside_it(tmp_path):
    path = write_report([make_run(), make_run("runs/b", 0.3)], tmp_path / "new" / "report.html")
    assert [each.name for each in path.parent.iterdir()] == ["report.html"]
    html = path.read_text(encoding="utf-8")
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\s\"'<>)]+", html)) <= namespaces
    for tag, attributes in Page(html).tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "xlink:href", "action", "srcset", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    assert "default-src 'none'" in html


def test_ids_occur_once():
    tags = Page(
        render_report([make_run("a"), make_run("b", 0.3), make_run("c", config={"task": "rgb-regression"})])
    ).tags
    ids = [attributes["id"] for _, attributes in tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    targets = {str(attributes["href"])[1:] for tag, attributes in tags if tag == "a"}
    assert targets <= set(ids)


def test_a_missing_part_is_a_sentence_with_the_command_that_adds_it():
    page = Page(render_report([ReportRun("runs/my run", {"data": "toy"})]))
    assert "Not measured yet." in page.text
    assert page.text.count("pretint probe 'runs/my run' --data toy") == 3
    assert "pretint evaluate 'runs/my run' --data toy" in page.text
    assert "<svg" not in render_report([ReportRun("empty")])
    assert "pretint probe deep/down/a --data toy" in render_report(
        [ReportRun("a", {"data": "toy"}, folder="deep/down/a")]
    )


def test_a_run_without_control_is_not_called_a_success():
    results = {"transfer": [transfer_row(data="toy", protocol="linear", init="pretrained", top1=0.9)]}
    page = Page(render_report([ReportRun("a", results=results)]))
    assert "Not measured yet." in page.text
    assert "90.0 %" in page.text


def test_losses_of_different_tasks_do_not_share_a_panel():
    tasks = {"a": "palette", "b": "rgb-regression", "c": "palette"}
    html = render_report([make_run(name, config={"task": task}) for name, task in tasks.items()])
    assert html.count(">epoch</text>") == 2


def test_no_runs_and_two_runs_of_one_name_are_refused(tmp_path):
    with pytest.raises(ArgumentError, match="at least one run"):
        write_report([], tmp_path / "report.html")
    with pytest.raises(ArgumentError, match="given twice"):
        write_report([make_run(), make_run()], tmp_path / "report.html")
    assert not any(tmp_path.iterdir())
    with pytest.raises(ArgumentError, match="is a folder"):
        write_report([make_run()], tmp_path)


def test_settings_that_differ_stand_apart_from_those_that_are_the_same():
    runs = [
        make_run(name, config={"task": "palette", "seed": seed, "deep": {"er": None}}) for seed, name in enumerate("ab")
    ]
    page = Page(render_report(runs))
    assert page.rows("seed") == [["seed", "0", "1"]]
    assert page.rows("task") == [["task", "palette"]]
    assert page.rows("deep.er") == [["deep.er", "–"]]


def test_a_run_that_learnt_from_labels_is_in_the_tables_and_is_no_answer():
    results = {"transfer": [
        transfer_row(data="cifar10", protocol="linear", init="supervised-grey", top1=0.9, pretrained_on="cifar10",
                     per_layer={"stage0": 0.9}, confusion=[[9, 1], [1, 9]]),
        transfer_row(data="cifar10", protocol="linear", init="random", top1=0.5, per_layer={"stage0": 0.5}),
    ]}  # fmt: skip
    page = Page(render_report([make_run("runs/a"), ReportRun("runs/labels", results=results)]))
    assert ["runs/labels", "supervised, grey input", "90.0 %", "+40.0", "–", "–", "0"] in page.rows("runs/labels")
    assert "Pretraining changed the accuracy by +8.7 points" in page.text
    assert "pretint probe runs/labels" not in page.text
    alone = Page(render_report([ReportRun("runs/labels", results=results)]))
    assert "Not measured yet." in alone.text


def test_an_answer_that_labels_helped_says_so():
    leaks = "labels of timm/resnet18.a1_in1k"
    rows = [
        transfer_row(data="toy", protocol="linear", init=init, top1=top1, leaks=leak)
        for init, top1, leak in (("pretrained", 0.9, leaks), ("random", 0.5, None))
    ]
    page = Page(render_report([ReportRun("a", results={"transfer": rows})]))
    answer = page.text[: page.text.index("What they paint", page.text.index("Did the pretext help?"))]
    assert f"leaks {leaks}" in answer


def test_of_a_task_that_paints_nothing_no_painting_is_asked_for():
    silent = ReportRun("runs/contrast", {"task": "contrast", "data": "cifar10"}, paints=False)
    asked = ReportRun("runs/palette", {"task": "palette", "data": "cifar10"})
    page = Page(render_report([silent, asked])).text
    assert "runs/contrast: its task paints nothing." in page
    assert "pretint evaluate runs/contrast" not in page
    assert "pretint evaluate runs/palette" in page
