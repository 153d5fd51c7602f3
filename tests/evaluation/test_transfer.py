import json
import math

import pytest
from rich.console import Console
from scipy.stats import ttest_rel

from pretint.evaluation import (
    INITS,
    PROTOCOLS,
    colour_table,
    compare,
    difference,
    headline,
    transfer_row,
    transfer_table,
)
from pretint.runtime import ArgumentError, UnknownNameError


def row(init: str, top1: float, **changes: object) -> dict:
    values = {"data": "cifar10", "protocol": "linear", "init": init, "top1": top1, **changes}
    return transfer_row(**values)  # pyright: ignore[reportArgumentType]


def shown(table: object, width: int = 80) -> str:
    console = Console(width=width, color_system=None, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()


def line_with(text: str, words: str) -> str:
    return next(line for line in text.splitlines() if words in line)


def test_a_row_has_the_keys_of_results_json():
    entry = row("pretrained", 0.567, top5=0.95, layer="stage2", pretrained_on="cifar100", seconds=3, confusion=[[1]])
    assert {"data", "pretrained_on", "protocol", "init", "labels", "layer", "seed", "top1", "top5"} <= entry.keys()
    assert json.loads(json.dumps(entry)) == entry
    assert (entry["top1"], entry["seconds"], entry["confusion"]) == (0.567, 3.0, [[1]])


@pytest.mark.parametrize("top1", [-0.01, 1.01, 56.7, float("nan")])
def test_an_accuracy_that_is_no_fraction_is_refused(top1):
    with pytest.raises(ArgumentError, match="fraction between 0 and 1"):
        row("random", top1)


@pytest.mark.parametrize(("protocol", "labels"), [("linear", 0), ("linear", 1.5), ("finetune", -1), ("fewshot", 0)])
def test_labels_outside_their_range_are_refused(protocol, labels):
    with pytest.raises(ArgumentError, match=f"labels: got {labels}"):
        row("random", 0.5, protocol=protocol, labels=labels)


def test_unknown_names_come_with_the_closest_known_one():
    with pytest.raises(UnknownNameError, match="did you mean 'linear'"):
        row("random", 0.5, protocol="linaer")
    with pytest.raises(UnknownNameError, match="did you mean 'pretrained'"):
        row("pretraned", 0.5)
    assert set(PROTOCOLS) >= {"linear", "finetune"}
    assert set(INITS) >= {"pretrained", "random"}


def test_the_control_has_the_same_data_protocol_and_labels():
    lines = compare(
        [
            row("pretrained", 0.60, layer="stage3"),
            row("random", 0.45, layer="stage1"),  # its own best depth: still the control
            row("random", 0.10, data="stl10"),
            row("random", 0.20, labels=0.1),
            row("random", 0.30, protocol="ridge"),
        ]
    )
    answer = next(line for line in lines if line.init == "pretrained")
    assert answer.control_top1 == 0.45
    assert answer.points == pytest.approx(15)


def test_seeds_are_paired():
    rows = [row("pretrained", top1, seed=seed) for seed, top1 in enumerate((0.60, 0.70, 0.80))]
    rows += [row("random", top1, seed=seed) for seed, top1 in enumerate((0.50, 0.58, 0.72))]
    answer = compare(rows)[0]
    assert answer.top1 == pytest.approx(0.7)
    assert answer.top1_sd == pytest.approx(0.1)
    assert answer.points == pytest.approx(10)
    assert answer.points_sd == pytest.approx(2)  # of 10, 12, 8: much less than of the accuracies
    assert answer.seeds == (0, 1, 2)


def test_the_noise_over_seeds_is_the_interval_of_a_paired_t_test():
    pretrained, random = (0.60, 0.70, 0.80), (0.50, 0.58, 0.72)
    rows = [row("pretrained", top1, seed=seed) for seed, top1 in enumerate(pretrained)]
    rows += [row("random", top1, seed=seed) for seed, top1 in enumerate(random)]
    interval = ttest_rel(pretrained, random).confidence_interval(0.95)
    assert compare(rows)[0].noise == pytest.approx(100 * (interval.high - interval.low) / 2)


def test_results_that_were_told_other_things_are_no_controls():
    told = {"settings": {"grid": 2}, "fingerprint": ("a", "b")}
    rows = [row("pretrained", 0.7, **told), row("random", 0.5, **told)]
    assert compare(rows)[0].points == pytest.approx(20)
    for other in ({"settings": {"grid": 4}}, {"fingerprint": ("a", "c")}):
        lines = compare([row("pretrained", 0.7, **told), row("random", 0.5, **(told | other))])
        assert [line.points for line in lines] == [None, None]


def test_the_difference_of_two_runs_is_paired_over_seeds():
    first = [row("pretrained", top1, seed=seed) for seed, top1 in enumerate((0.60, 0.70, 0.80))]
    second = [row("pretrained", top1, seed=seed) for seed, top1 in enumerate((0.50, 0.58, 0.72))]
    apart = difference(first, second)
    assert apart is not None
    assert apart.points == pytest.approx(10)
    interval = ttest_rel((0.60, 0.70, 0.80), (0.50, 0.58, 0.72)).confidence_interval(0.95)
    assert apart.noise == pytest.approx(100 * (interval.high - interval.low) / 2)
    assert difference(first, [row("pretrained", 0.5, seed=7)]) is None


def test_rows_that_list_depths_are_compared_depth_by_depth():
    rows = [row("pretrained", 0.5 + index / 10, layer=f"stage{index}") for index in range(3)]
    rows += [row("random", 0.5 - index / 10, layer=f"stage{index}") for index in range(3)]
    points = {line.layer: line.points for line in compare(rows) if line.init == "pretrained"}
    assert points == pytest.approx({"stage0": 0, "stage1": 20, "stage2": 40})


def test_fine_tuning_from_scratch_is_the_control_of_fine_tuning():
    for control in ("random", "supervised-grey"):
        answer = compare([row("pretrained", 0.8, protocol="finetune"), row(control, 0.7, protocol="finetune")])[0]
        assert answer.points == pytest.approx(10)
    assert compare([row("pretrained", 0.8), row("supervised-grey", 0.9)])[0].points is None


def test_the_margin_is_the_normal_interval_of_two_proportions():
    confusion = [[400, 100], [100, 400]]
    answer = compare([row("pretrained", 0.8, confusion=confusion), row("random", 0.6, confusion=confusion)])[0]
    assert answer.margin == pytest.approx(196 * math.sqrt(0.8 * 0.2 / 1000 + 0.6 * 0.4 / 1000))
    assert compare([row("pretrained", 0.8), row("random", 0.6)])[0].margin is None


def test_runs_in_one_table_share_a_control_that_names_none():
    rows = [row("pretrained", top1, run=run, seed=seed) for run, top1 in (("a", 0.6), ("b", 0.7)) for seed in (0, 1)]
    rows += [row("random", 0.5, seed=seed) for seed in (0, 1)]
    assert {(line.run, line.seeds): line.points for line in compare(rows) if line.run} == pytest.approx(
        {("a", (0, 1)): 10, ("b", (0, 1)): 20}
    )
    text = shown(transfer_table(rows))
    assert "a: pretrained" in text
    assert "b: pretrained" in text


def test_differences_within_the_noise_are_marked_and_calibration_is_shown_where_known():
    rows = [
        row("pretrained", 0.505, ece=0.031),
        row("random", 0.5, ece=0.02),
        row("pretrained", 0.8, data="x"),
        row("random", 0.5, data="x"),
    ]
    text = shown(transfer_table(rows))
    assert line_with(text, "+0.5").split()[-4:] == ["+0.5", "≈", "3.1", "%"]
    assert "≈" not in line_with(text, "+30.0")
    assert "within the noise" in text
    plain = shown(transfer_table([row("pretrained", 0.8), row("random", 0.5)]))
    assert "ECE" not in plain
    assert "≈" not in plain


def test_a_probe_before_fine_tuning_is_a_protocol_of_its_own():
    rows = [row(init, top1, protocol=protocol) for protocol, init, top1 in (
        ("finetune", "pretrained", 0.8), ("finetune", "random", 0.7),
        ("probe-finetune", "pretrained", 0.85), ("probe-finetune", "random", 0.65),
    )]  # fmt: skip
    points = {line.protocol: line.points for line in compare(rows) if line.init == "pretrained"}
    assert points == pytest.approx({"finetune": 10, "probe-finetune": 20})
    assert "linear probe, then fine-tune" in shown(transfer_table(rows))


@pytest.mark.parametrize(("top1", "tone"), [(0.60, "helped"), (0.40, "hurt"), (0.505, "unclear"), (0.495, "unclear")])
def test_a_difference_within_the_noise_is_called_unclear(top1, tone):
    assert compare([row("pretrained", top1), row("random", 0.5)])[0].tone == tone


def test_the_headline_is_the_linear_probe_on_most_labels():
    rows = [row("pretrained", 0.9, protocol="finetune"), row("random", 0.8, protocol="finetune")]
    assert headline(rows).protocol == "finetune"  # pyright: ignore[reportOptionalMemberAccess]
    for labels, top1 in ((0.1, 0.4), (1.0, 0.6)):
        rows += [row("pretrained", top1, labels=labels), row("random", 0.3, labels=labels)]
    best = headline(rows)
    assert best is not None
    assert (best.protocol, best.labels, best.top1) == ("linear", 1.0, 0.6)
    assert headline([row("pretrained", 0.5)]) is None
    assert headline([]) is None


def test_the_terminal_table_fits_eighty_columns_and_shows_every_number():
    rows = [
        row("pretrained", 0.5674, top5=0.9512, layer="stage3", pretrained_on="cifar100"),
        row("random", 0.4801, top5=0.9011, layer="stage2"),
        row("pretrained", 0.7442, protocol="finetune", labels=0.1, pretrained_on="cifar100"),
        row("random", 0.7601, protocol="finetune", labels=0.1),
    ]
    text = shown(transfer_table(rows))
    assert line_with(text, "pretrained on cifar100").split()[-6:] == ["stage3", "56.7", "%", "95.1", "%", "+8.7"]
    assert line_with(text, "random weights").split()[-6:] == ["stage2", "48.0", "%", "90.1", "%", "–"]
    assert "fine-tune, 10 % of labels" in text
    assert "from scratch, grey input" in text
    assert "−1.6" in text
    assert "…" not in text


def test_names_with_brackets_are_not_markup():
    assert "[red]odd[/red]" in shown(transfer_table([row("random", 0.5, data="[red]odd[/red]")]))


def test_the_colour_table_puts_the_baselines_beside_the_painting():
    entry = {
        "data": "toy", "split": "test", "bits_per_pixel": 1.516, "prior_bits_per_pixel": 3.25,
        "grey_lookup_bits_per_pixel": 2.125,
        "top1": 0.5891, "prior_top1": 0.12, "grey_lookup_top1": 0.31, "top5": None, "ab_rmse": 9.514,
        "grey_ab_rmse": 18.25,
        "colourfulness": 21.54, "colourfulness_true": 33.33,
    }  # fmt: skip
    text = shown(colour_table(entry))
    assert line_with(text, "bits per pixel").split()[-5:] == ["1.516", "3.250", "2.125", "–", "–"]
    assert line_with(text, "top-1").split()[-8:] == ["58.9", "%", "12.0", "%", "31.0", "%", "–", "–"]
    assert line_with(text, "ab-RMSE").split()[-5:] == ["9.51", "–", "–", "18.25", "–"]
    assert line_with(text, "colourfulness").split()[-5:] == ["21.5", "–", "–", "0.0", "33.3"]
    assert "top-5" not in text
    assert "toy, test split" in text


def test_encoders_that_see_colour_are_marked():
    rows = [
        transfer_row(data="toy", protocol="linear", init=init, top1=top1, sees="luma and chroma")
        for init, top1 in (("pretrained", 0.6), ("random", 0.4))
    ]
    assert [line.init_name for line in compare(rows)] == [
        "pretrained, luma and chroma input",
        "random weights, luma and chroma input",
    ]
    scratch = transfer_row(data="toy", protocol="finetune", init="random", top1=0.5, sees="rgb")
    assert compare([scratch])[0].init_name == "from scratch, rgb input"
    with pytest.raises(UnknownNameError, match="sees"):
        transfer_row(data="toy", protocol="linear", init="random", top1=0.5, sees="gray")


def test_an_encoder_that_labels_helped_is_marked_and_never_averaged_with_one_that_none_helped():
    leaks = "labels of timm/resnet18.a1_in1k"
    rows = [row("pretrained", 0.5, seed=0), row("pretrained", 0.7, seed=1, leaks=leaks), row("random", 0.4, seed=1)]
    lines = {line.init_name: line.top1 for line in compare(rows)}
    assert lines == {"pretrained": 0.5, f"pretrained, leaks {leaks}": 0.7, "random weights": 0.4}
    assert [entry["leaks"] for entry in rows] == [None, leaks, None]


def test_the_marks_of_an_encoder_are_shown_in_full_within_eighty_columns():
    leaks = "labels of timm/convnextv2_nano.fcmae_ft_in22k_in1k"
    marked = row("pretrained", 0.5674, top5=0.9512, layer="stage3", pretrained_on="cifar100", leaks=leaks)
    text = shown(transfer_table([marked, row("random", 0.4801, top5=0.9011, layer="stage2")]))
    assert "…" not in text
    assert all(word in text for word in f"pretrained on cifar100, leaks {leaks}".split())
    assert all(number in text for number in ("56.7 %", "95.1 %", "+8.7", "48.0 %"))


def test_an_encoder_trained_with_labels_is_compared_with_random_weights_and_is_not_the_headline():
    rows = [row("supervised-grey", 0.8, pretrained_on="cifar100"), row("random", 0.5)]
    supervised, random = compare(rows)
    assert (supervised.init_name, random.init_name) == ("supervised, grey input", "random weights")
    assert supervised.points == pytest.approx(30)
    assert random.points is None
    assert headline(rows) is None
    assert "supervised on cifar100, grey input" in shown(transfer_table(rows))


def test_an_encoder_that_was_fine_tuned_after_labels_is_no_training_from_scratch():
    tuned = row("supervised-grey", 0.9, protocol="finetune", pretrained_on="cifar100")
    assert compare([row("pretrained", 0.8, protocol="finetune"), tuned])[0].points is None


@pytest.mark.parametrize(
    ("init", "sees", "name"),
    [
        ("supervised-rgb", "rgb", "supervised, rgb input"),
        ("supervised-rgb", "grey", "supervised, rgb input"),
        ("supervised-rgb", "luma and chroma", "supervised, luma and chroma input"),
    ],
)
def test_what_a_supervised_encoder_sees_is_said_once(init, sees, name):
    assert compare([row(init, 0.8, sees=sees)])[0].init_name == name
