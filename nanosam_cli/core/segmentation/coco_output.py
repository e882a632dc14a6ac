"""What COCO's files say of a photo's results."""

from __future__ import annotations

from typing import Any

from nanosam_cli.core.media.mask_codes import coco_annotation, coco_results
from nanosam_cli.core.segmentation.result import PhotoResult, score


def result_rows(result: PhotoResult) -> list[dict[str, Any]]:
    """What `loadRes` reads, and names, which it ignores: without them no id would say which photo it stands for.

    Image ids are 0, because they are known only with all photos.
    """
    rows = []
    for one in result.found:
        tag = result.request.tag(one.prompt)
        entry = coco_annotation(one.segmentation, 0, 0, tag.category_id)
        (row,) = coco_results([{**entry, "score": score(one, result.request)}])
        name = {} if tag.name is None else {"category_name": tag.name}
        rows.append({**row, "file_name": result.photo.name, **name})
    return rows
