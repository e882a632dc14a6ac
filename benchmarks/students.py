"""Count parameters and multiply-accumulates of backbones as students: writes the table of `nanosam distill --list`.

python benchmarks/students.py                 # those of the table again
python benchmarks/students.py convnext_atto   # and one more
"""

from __future__ import annotations

import json
import sys

from nanosam_cli.core import paths
from nanosam_cli.core.modeling.complexity import encoder_cost
from nanosam_cli.core.system.files import write_text
from nanosam_cli.core.training.students import TABLE, list_students


def main() -> None:
    names = dict.fromkeys([*(student.backbone for student in list_students()), *sys.argv[1:]])
    rows = []
    for name in names:
        (parameters, small), (_, large) = (encoder_cost(name, size) for size in (512, 1024))
        row = {"backbone": name, "parameters": parameters, "gmacs_512": round(small, 3), "gmacs_1024": round(large, 3)}
        rows.append(row)
        print(json.dumps(row))
    text = ",\n ".join(json.dumps(row) for row in sorted(rows, key=lambda row: str(row["backbone"])))
    write_text(paths.resource(TABLE), f"[{text}]\n", overwrite=True)


if __name__ == "__main__":
    main()
