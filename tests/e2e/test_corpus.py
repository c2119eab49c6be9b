"""The tokens that attack are what the script makes of its fixed keys, byte for byte (tests/data/jwt)."""

import subprocess
import sys
from pathlib import Path

JWT = Path(__file__).parent.parent / "data" / "jwt"


def check(script: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, timeout=60)


def test_the_files_are_what_the_script_makes():
    done = check(JWT / "make.py")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_changed_case_a_missing_file_and_a_strange_one_are_told(tmp_path):
    for file in JWT.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    form = tmp_path / "form.json"
    form.write_text(form.read_text().replace("token_not_jws", "ok", 1))
    (tmp_path / "kinds.json").unlink()
    (tmp_path / "more.json").write_text("{}")
    done = check(tmp_path / "make.py")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [f"{name}.json is not what make.py makes" for name in ("form", "kinds", "more")]
