"""`nanosam doctor`: what is here, what is missing, and what to type."""

from __future__ import annotations

from dataclasses import asdict

from nanosam_cli import console
from nanosam_cli.core.errors import ModelError
from nanosam_cli.options import JsonOption, QuietOption, VerboseOption


def doctor(json: JsonOption = False, quiet: QuietOption = False, verbose: VerboseOption = False) -> None:
    """Look at this installation: packages, backends, GPU, processor, models, cache, settings.

    For each thing that is to be mended it says what to type, and in a last line how the base install is and which
    extras and models are not here, which not all need; -v says what to type for each of those too. The exit code is 1
    where the default model cannot run.

        nanosam doctor

        nanosam doctor --json
    """
    from nanosam_cli.core.doctor.examine import examine, to_mend, verdict

    checks, default_model = examine()
    if json:
        runs = default_model.status == "ok"
        console.json_line({"schema_version": 1, "ok": runs, "checks": [asdict(check) for check in checks]})
    else:
        rows = [(check.section, check.name, check.status, check.detail) for check in checks]
        console.table(("", "what", "status", "found"), rows)
        listed = [check for check in checks if check.fix] if verbose else to_mend(checks)
        for check in listed:  # below the table, whose cells would cut a command in two
            console.text(f"{check.name} is {check.status}: {check.fix}")
        if default_model.status == "ok":
            console.text(verdict(checks))
    if default_model.status != "ok":
        raise ModelError(f"the default model cannot run: {default_model.detail}", default_model.fix)
