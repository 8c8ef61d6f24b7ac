"""Runs commands beside a folder that is made read-only, and prints how each ended (test_read_only).

Called as `python read_only_commands.py FOLDER`, with a JSON list of commands on standard input, in a
mount namespace of its own where that is allowed. Status 3 says that nothing here makes a folder
read-only.
"""

import json
import os
import subprocess
import sys
from pathlib import Path


def make_read_only(folder: Path) -> bool:
    """By a mount where that is allowed, by permissions otherwise; whether it holds."""
    mounts = (["--bind", folder, folder], ["-o", "remount,bind,ro", folder])
    calls = [["mount", *map(str, words)] for words in mounts]
    if not all(subprocess.run(call, capture_output=True).returncode == 0 for call in calls):
        for place in (folder, *folder.rglob("*")):
            place.chmod(0o555 if place.is_dir() else 0o444)
    try:
        (folder / "written").touch()
    except OSError:
        return True
    (folder / "written").unlink()
    return False


def main() -> None:
    folder = Path(sys.argv[1]).absolute()
    commands = json.load(sys.stdin)
    if not make_read_only(folder):
        sys.exit(3)
    os.chdir(folder.parent)
    os.environ["HOME"] = str(folder)  # where caches would be
    os.environ.pop("XDG_CACHE_HOME", None)
    from click.testing import CliRunner

    from sciml_dchag.cli.main import main as program

    ended = []
    for command in commands:
        result = CliRunner().invoke(program, command)
        ended.append((result.exit_code, result.output, repr(result.exception)))
    json.dump(ended, sys.stdout)


if __name__ == "__main__":
    main()
