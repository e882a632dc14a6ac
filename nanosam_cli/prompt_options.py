"""Options that say what to segment, where it is not drawn by hand: other models, and everything there is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nanosam_cli.options import complete_parts, parse_number

OTHERS, EVERYTHING = "Prompts from other models", "Everything"  # headings of the help

DetectionsOption = Annotated[
    Path | None,
    typer.Option(
        "--detections",
        metavar="FILE|DIR",
        rich_help_panel=OTHERS,
        help="Boxes of a detector: COCO results or annotations, YOLO's or labelme's files.",
    ),
]
ClassNamesOption = Annotated[
    Path | None,
    typer.Option(
        "--class-names",
        metavar="FILE",
        rich_help_panel=OTHERS,
        help="Names of the detector's classes: one a line, from 0 on, a COCO file or YOLO's data.yaml.",
    ),
]
ClassOption = Annotated[
    list[str] | None,
    typer.Option(
        "--class", metavar="NAME|ID", rich_help_panel=OTHERS, help="Take this class of --detections alone. Repeatable."
    ),
]
TextOption = Annotated[
    list[str] | None,
    typer.Option("--text", metavar="PHRASE", rich_help_panel=OTHERS, help='Look for it, such as "a tree". Repeatable.'),
]
TextModelOption = Annotated[
    str | None,
    typer.Option(
        "--text-model",
        metavar="NAME[@REVISION]|DIR",
        rich_help_panel=OTHERS,
        help="Zero-shot detector for --text, by its name on Hugging Face or in a folder; else OWLv2.",
    ),
]
PoseOption = Annotated[
    str | None,
    typer.Option(
        "--pose",
        metavar="FILE|auto",
        rich_help_panel=OTHERS,
        help="People as keypoints: COCO's, OpenPose's or TRTPose's file, or auto to look for them.",
    ),
]
PartOption = Annotated[
    list[str] | None,
    typer.Option(
        "--part",
        metavar="NAME",
        autocompletion=complete_parts,
        rich_help_panel=OTHERS,
        help="Part of a person: person (the default), head, shirt, pants, left-hand ... Repeatable.",
    ),
]
PartsOption = Annotated[
    Path | None,
    typer.Option(
        "--parts", metavar="FILE", rich_help_panel=OTHERS, help="A TOML table of parts, instead of the packaged one."
    ),
]
PersonOption = Annotated[
    list[int] | None,
    typer.Option(
        "--person", metavar="N", rich_help_panel=OTHERS, help="Take this person alone, counted from 1. Repeatable."
    ),
]
MinScoreOption = Annotated[
    float | None,
    typer.Option(
        "--min-score",
        parser=parse_number,
        metavar="SCORE",
        rich_help_panel=OTHERS,
        help="Leave out keypoints (0.3 if not said) or boxes (of --text: 0.2) that are less sure.",
    ),
]
TopKOption = Annotated[
    int | None,
    typer.Option("--top-k", metavar="N", rich_help_panel=OTHERS, help="Take so many of a photo's best boxes."),
]
NmsOption = Annotated[
    float | None,
    typer.Option(
        "--nms",
        parser=parse_number,
        metavar="IOU",
        rich_help_panel=OTHERS,
        help="Of what overlaps by more, keep the best: boxes of a class (of --text: 0.5), masks of --everything (0.6).",
    ),
]

EverythingOption = Annotated[
    bool, typer.Option("--everything", rich_help_panel=EVERYTHING, help="Segment all there is, from a grid of clicks.")
]
GridOption = Annotated[
    int | None,
    typer.Option("--grid", metavar="N", rich_help_panel=EVERYTHING, help="Clicks along each side of the photo (16)."),
]
CropsOption = Annotated[
    int | None,
    typer.Option(
        "--crops",
        metavar="LAYERS",
        rich_help_panel=EVERYTHING,
        help="Look closer, in 4, 16, ... overlapping crops too.",
    ),
]
MinIouOption = Annotated[
    float | None,
    typer.Option(
        "--min-iou",
        parser=parse_number,
        metavar="IOU",
        rich_help_panel=EVERYTHING,
        help="Leave out masks that the model itself predicts to be worse (0.3).",
    ),
]
MinStabilityOption = Annotated[
    float | None,
    typer.Option(
        "--min-stability",
        parser=parse_number,
        metavar="SHARE",
        rich_help_panel=EVERYTHING,
        help="Leave out masks of which a smaller share stays when the threshold of the logits moves by 1 (0.7).",
    ),
]
MinAreaOption = Annotated[
    int | None,
    typer.Option("--min-area", metavar="PIXELS", rich_help_panel=EVERYTHING, help="Leave out smaller masks."),
]
BatchOption = Annotated[
    int | None,
    typer.Option("--batch", metavar="N", rich_help_panel=EVERYTHING, help="Clicks in one decoder call, up to 64."),
]
