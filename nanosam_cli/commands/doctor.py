"""`nanosam doctor`: what is here, what is missing, and what to type."""

from __future__ import annotations

from dataclasses import asdict

from nanosam_cli import console
from nanosam_cli.core.errors import ModelError
from nanosam_cli.options import JsonOption, QuietOption, VerboseOption


def doctor(json: JsonOption = False, quiet: QuietOption = False, verbose: VerboseOption = False) -> None:
    """Look at this installation: packages, backends, GPU, processor, models, cache, settings.

    For each thing that is missing or broken it says what to type. The exit code is 1 where the default model cannot
    run; what else is missing is not needed by all.

        nanosam doctor

        nanosam doctor --json
    """
    from nanosam_cli.core.doctor import examine

    checks, default_model = examine()
    if json:
        runs = default_model.status == "ok"
        console.json_line({"schema_version": 1, "ok": runs, "checks": [asdict(check) for check in checks]})
    else:
        rows = [(check.section, check.name, check.status, check.detail) for check in checks]
        console.table(("", "what", "status", "found"), rows)
        for check in checks:  # below the table, whose cells would cut a command in two
            if check.fix:
                console.text(f"{check.name} is {check.status}: {check.fix}")
    if default_model.status != "ok":
        raise ModelError(f"the default model cannot run: {default_model.detail}", default_model.fix)
