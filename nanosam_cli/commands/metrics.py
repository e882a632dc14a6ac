"""`nanosam metrics`: result files in; means, intervals, comparisons, plots and the worst objects out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nanosam_cli import console
from nanosam_cli.core.errors import MissingExtraError, UsageError
from nanosam_cli.options import OUTPUT, ForceOption, QuietOption, VerboseOption

if TYPE_CHECKING:
    from nanosam_cli.core.evaluation.metrics import Rows
    from nanosam_cli.core.evaluation.report import MetricReport
    from nanosam_cli.core.evaluation.results import Results

CHOICE = "Choice"  # heading of the help
DATA = "Data"


class Size(str, Enum):
    all = "all"
    small = "small"
    medium = "medium"
    large = "large"


class By(str, Enum):
    category = "category"
    size = "size"


class Borders(str, Enum):
    """The tool whose way to treat areas on the border of two sizes is taken."""

    nanosam = "nanosam"


def metrics(
    files: Annotated[
        list[Path], typer.Argument(metavar="RESULTS", help="What `nanosam eval coco` or NVIDIA NanoSAM's tool wrote.")
    ],
    size: Annotated[
        Size | None,
        typer.Option("--size", rich_help_panel=CHOICE, help="By annotated area: below 32², below 96², and the rest."),
    ] = None,
    category: Annotated[
        list[str] | None,
        typer.Option("--category", metavar="NAME|ID", rich_help_panel=CHOICE, help="Only objects of it. Repeatable."),
    ] = None,
    category_id: Annotated[
        list[int] | None,
        typer.Option("--category-id", metavar="ID", rich_help_panel=CHOICE, help="The same, by id."),
    ] = None,
    by: Annotated[
        By | None, typer.Option("--by", rich_help_panel=CHOICE, help="A line for each; else by size.")
    ] = None,
    protocol: Annotated[
        Borders | None,
        typer.Option(
            "--protocol",
            rich_help_panel=CHOICE,
            help="nanosam counts an area of exactly 32² or 96² in both sizes, as NVIDIA's tool; else in the larger.",
        ),
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", rich_help_panel=CHOICE, help="Take several files as shards of one run.")
    ] = False,
    worst: Annotated[
        int | None,
        typer.Option("--worst", min=1, metavar="N", rich_help_panel=CHOICE, help="List the N objects of lowest IoU."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            rich_help_panel=OUTPUT,
            help="With --merge the joined results, JSON; with --worst a picture of the objects, PNG.",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", metavar="FILE", rich_help_panel=OUTPUT, help="Distribution of IoU, and IoU against area."
        ),
    ] = None,
    force: ForceOption = False,
    json: Annotated[bool, typer.Option("--json", rich_help_panel=OUTPUT, help="Print one JSON object.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", rich_help_panel=OUTPUT, help="Print the table as Markdown.")
    ] = False,
    annotations: Annotated[
        Path | None,
        typer.Option("--annotations", metavar="FILE", rich_help_panel=DATA, help="Else the file that was evaluated."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR|ZIP", rich_help_panel=DATA, help="Else the photos that were evaluated."),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            "--masks", metavar="FILE", rich_help_panel=DATA, help="Saved masks; else RESULTS.masks.json if it is there."
        ),
    ] = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Mean IoU of results, with 95 % bootstrap intervals.

    Several files are compared object by object with the first, with the mean difference and its interval. An area of
    exactly 32² is medium, of 96² large.

        nanosam metrics results.json --size small

        nanosam metrics ellipse.json results.json --by category --markdown

        nanosam metrics results.json --worst 20 -o sheet.png
    """
    from nanosam_cli.core.evaluation.metrics import common_objects, group_rows, of_categories
    from nanosam_cli.core.evaluation.report import comparison_report, made_differently, summary_report, worst_report
    from nanosam_cli.core.evaluation.results import find_categories, known_categories, masks_path, read_results

    _check_options(files, merge, worst, output, json, markdown)
    opened = [read_results(path) for path in files]
    if merge:
        opened = [_merge(opened, output if worst is None else None, force)]
    elif len(opened) > 1:
        opened = _matched(opened, common_objects(opened))
    names: Mapping[int, str] = known_categories(opened)
    if annotations is not None:
        names = _check_annotations(opened, annotations)
    wanted = find_categories([*(category or []), *map(str, category_id or [])], names)
    if wanted:
        opened = [of_categories(results, wanted) for results in opened]
    if by is By.category and not names:
        console.info("names of categories are not recorded with these results; --annotations FILE tells them")
    groups = group_rows(
        opened[0],
        size=size.value if size else None,
        names=names if by is By.category else None,
        borders_twice=protocol is Borders.nanosam,
    )
    grouped_by = (by or By.size).value
    if plot is not None:  # files before the table: what goes wrong with them is all that is said
        _plot(opened, groups, plot, force)
    if worst is not None:
        chosen = opened[0].only(next(iter(groups.values())))
        if output is not None:
            saved = [masks] if masks else [path for path in map(masks_path, files) if path.exists()]
            _draw_worst(chosen, worst, output, force, annotations, images, saved)
        _print(worst_report(chosen, worst, names), json, markdown)
    elif len(opened) == 1:
        _print(summary_report(opened[0], groups, grouped_by), json, markdown)
    else:
        for key, values in made_differently(opened).items():
            console.warn(f"the files differ in {key}: {', '.join(values)}")
        _print(comparison_report(opened, groups, grouped_by), json, markdown)


def _check_options(
    files: Sequence[Path], merge: bool, worst: int | None, output: Path | None, json: bool, markdown: bool
) -> None:
    if json and markdown:
        raise UsageError("--json and --markdown are two forms of one table", "give one of them")
    if worst is not None and len(files) > 1 and not merge:
        raise UsageError("--worst looks at one result file", "give one file, or --merge if these are shards of one run")
    if output is not None and worst is None and not merge:
        raise UsageError("-o is where --merge or --worst write", "to keep the table: nanosam metrics FILE > table.txt")


def _check_annotations(files: Sequence[Results], path: Path) -> Mapping[int, str]:
    from nanosam_cli.core.datasets.coco import read_annotations
    from nanosam_cli.core.evaluation.results import check_annotations

    annotations = read_annotations(path)
    for results in files:
        check_annotations(results, annotations)
    return annotations.categories


def _merge(shards: Sequence[Results], output: Path | None, force: bool) -> Results:
    from nanosam_cli.core.evaluation.metrics import merge, missing_shards
    from nanosam_cli.core.evaluation.results import read_results, write_results

    merged = merge(shards)
    missing = missing_shards(shards)
    if missing:
        console.warn(f"shards are missing: {', '.join(map(str, missing))}", "the results are of a part of the photos")
    if output is None:
        return merged
    write_results(output, merged.objects, merged.meta, force)
    console.info(f"{len(merged.objects)} objects of {len(shards)} files -> {output}")
    return read_results(output)


def _matched(before: Sequence[Results], after: Sequence[Results]) -> list[Results]:
    for file, matched in zip(before, after):
        if len(matched.objects) < len(file.objects):
            console.info(f"{file.path}: {len(matched.objects)} of {len(file.objects)} objects are in all files")
    return list(after)


def _print(report: MetricReport, json: bool, markdown: bool) -> None:
    if json:
        console.json_line(report.record)
    elif markdown:
        for line in report.markdown():
            console.text(line)
    else:
        console.table(report.heads, report.rows, report.title)


def _draw_worst(
    results: Results,
    count: int,
    output: Path,
    force: bool,
    annotations: Path | None,
    images: Path | None,
    masks: Sequence[Path],
) -> None:
    from nanosam_cli.core.evaluation.contact_sheet import draw_sheet, find_entries, open_data, read_predicted_masks
    from nanosam_cli.core.evaluation.metrics import worst
    from nanosam_cli.core.media.image import write_png

    if output.suffix.lower() != ".png":
        raise UsageError(f"the picture of --worst is a PNG, not {output}", f"-o {output.with_suffix('.png')}")
    found = worst(results, count)
    if not found:
        console.warn(f"no objects, so no picture: {output} is not written")
        return
    truth, files = open_data(results, annotations, images)
    predicted = {name: mask for path in masks for name, mask in read_predicted_masks(path).items()}
    if not predicted:
        console.info("no saved masks (`nanosam eval coco --save-masks`): the picture shows annotations and boxes alone")
    with files:
        write_png(output, draw_sheet(find_entries(found, truth, predicted), files), overwrite=force)
    console.info(f"green is the annotated mask, pink the predicted one -> {output}")


def _plot(files: Sequence[Results], groups: dict[str, Rows], path: Path, force: bool) -> None:
    from nanosam_cli.core.evaluation.plots import plot_results
    from nanosam_cli.core.evaluation.report import display_names

    rows = next(iter(groups.values()))  # all that were asked for come first
    try:
        plot_results([file.only(rows) for file in files], display_names(files), path, overwrite=force)
    except ModuleNotFoundError as error:
        raise MissingExtraError("--plot", "plot", str(error.name)) from error
    console.info(f"plot -> {path}")
