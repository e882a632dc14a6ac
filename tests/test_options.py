"""Option parsers: what is read, and what is refused with an example."""

from __future__ import annotations

import math
from typing import Any

import pytest
import typer

from nanosam_cli import prompt_options
from nanosam_cli.core.prompting.pose import MIN_CONFIDENCE
from nanosam_cli.core.prompting.text_prompt import MIN_SCORE, OVERLAP
from nanosam_cli.core.segmentation.everything import Everything
from nanosam_cli.options import Box, Point, parse_box, parse_number, parse_point, spelling
from tests.command_line import run_nanosam


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("10,20,300,400", Box(10, 20, 300, 400)),
        ("-5,0,10,10", Box(-5, 0, 10, 10)),
        (" 1.5, 2 ,3e2,4", Box(1.5, 2, 300, 4)),
    ],
)
def test_boxes(text: str, box: Box) -> None:
    assert parse_box(text) == box


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,2,3", "has 3 numbers"),
        ("1", "has 1 number;"),
        ("1,2,3,4,5", "has 5 numbers"),
        ("a,2,3,4", "'a' is not a number"),
        ("1,2,3,", "'' is not a number"),
        ("", "'' is not a number"),
        ("nan,2,3,4", "not a finite number"),
        ("1,2,inf,4", "not a finite number"),
        ("30,40,10,20", "Did you mean 10,20,30,40?"),
        ("30,20,10,40", "Did you mean 10,20,30,40?"),
        ("10,20,10,40", "has no area"),
    ],
)
def test_wrong_boxes(text: str, words: str) -> None:
    with pytest.raises(typer.BadParameter) as caught:
        parse_box(text)
    assert words in caught.value.message
    assert "such as 10,20,300,400" in caught.value.message


@pytest.mark.parametrize(
    ("text", "point"), [("1,2", Point(1, 2, 1)), ("1,2,1", Point(1, 2, 1)), ("-1.5,2,0", Point(-1.5, 2, 0))]
)
def test_points(text: str, point: Point) -> None:
    assert parse_point(text) == point


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1", "has 1 number"),
        ("1,2,3,4", "has 4 numbers"),
        ("1,2,2", "has the label 2"),
        ("1,2,0.5", "has the label 0.5"),
        ("1,y", "'y' is not a number"),
        ("1,nan", "not a finite number"),
    ],
)
def test_wrong_points(text: str, words: str) -> None:
    with pytest.raises(typer.BadParameter) as caught:
        parse_point(text)
    assert words in caught.value.message
    assert "such as 150,200 or 40,60,0" in caught.value.message


def test_numbers() -> None:
    assert math.isclose(parse_number("-0.5"), -0.5)
    with pytest.raises(typer.BadParameter, match="finite"):
        parse_number("inf")


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("image_encoder", "encoder"),
        ("mask_decoder", "decoder"),
        ("category_id", "category-id"),
        ("coco_root", "images"),
        ("coco_ann", "annotations"),
        ("box", "box"),
    ],
)
def test_nanosam_spellings(typed: str, name: str) -> None:
    assert spelling(typed) == name


def test_nanosam_spellings_work_and_stay_out_of_help() -> None:
    ran = run_nanosam("segment", "photo.jpg", "--box", "1,2,3,4", "--image_encoder", "no_such.onnx")
    assert "encoder file given, decoder missing" in ran.err  # the option was understood
    assert "image_encoder" not in run_nanosam("segment", "--help").out


@pytest.mark.parametrize(
    "arguments",
    [
        ("--box",),
        ("--box", "1,2,3"),
        ("--point", "here"),
        ("--device", "tpu"),
        ("--format", "jpeg"),
        ("--threads", "0"),
        ("--threshold", "nan"),
        ("--bocks", "1,2,3,4"),
    ],
)
def test_usage_errors_exit_2_and_show_an_example(arguments: tuple[str, ...]) -> None:
    ran = run_nanosam("segment", "photo.jpg", *arguments)
    assert ran.code == 2
    assert not ran.out
    assert "Example: nanosam segment photo.jpg --box 10,20,300,400" in ran.err


@pytest.mark.parametrize(
    ("option", "example"),
    [
        ("--text", 'nanosam segment photo.jpg --text "a tree"'),
        ("--detections", "nanosam segment photos/ --detections detections.json"),
        ("--pose", "--pose auto --part shirt"),
    ],
)
def test_options_without_their_value_show_an_example_with_it(option: str, example: str) -> None:
    ran = run_nanosam("segment", "photo.jpg", option)
    assert ran.code == 2
    assert f"Example: {example}" in ran.err


@pytest.mark.parametrize(
    ("option", "default"),
    [
        (prompt_options.GridOption, Everything.grid),
        (prompt_options.MinIouOption, Everything.min_iou),
        (prompt_options.MinStabilityOption, Everything.min_stability),
        (prompt_options.NmsOption, Everything.max_overlap),
        (prompt_options.NmsOption, OVERLAP),
        (prompt_options.MinScoreOption, MIN_SCORE),
        (prompt_options.MinScoreOption, MIN_CONFIDENCE),
    ],
)
def test_help_states_defaults_that_core_has(option: Any, default: float) -> None:
    assert f"{default:g}" in option.__metadata__[0].help
