"""Holds every crate we depend on against deny.toml: its licence, the banned ones, where it comes from.

A small part of cargo-deny, which takes longer to build than the rest of the checks together.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def permitted(expression: str, allowed: set[str]) -> bool:
    """Whether an SPDX expression can be met with the allowed licences; `/` is an old way to write OR."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def any_of():
        met = all_of()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            met = all_of() or met
        return met

    def all_of():
        met = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            met = one() and met
        return met

    def one():
        if not tokens:
            return False
        token = tokens.pop(0)
        if token == "(":
            met = any_of()
            tokens.pop(0)
            return met
        if tokens and tokens[0] == "WITH":
            token = " ".join([token, tokens.pop(0), tokens.pop(0)])
        return token in allowed

    return any_of()


def tree(target: str) -> list[tuple[int, str, str, str]]:
    """Depth, name, version (with the place, where that is not the registry) and licence of every line of `cargo tree`.

    Not `cargo metadata`: that also lists what only features nobody switched on would bring.
    """
    command = ["cargo", "tree", "--locked", "--target", target, "--prefix", "depth", "--format", "|{p}|{l}"]
    lines = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()
    found = []
    for line in filter(str.strip, lines):
        depth, package, licence = line.split("|")
        name, version = package.split(" ", 1)
        found.append((int(depth), name, version.replace(" (proc-macro)", ""), licence.removesuffix(" (*)")))
    return found


def faults(rules: dict, crates: list[tuple[int, str, str, str]], manifest: dict) -> list[str]:
    found = []
    allowed = set(rules["licenses"]["allow"])
    banned = {ban["crate"]: ban for ban in rules["bans"]["deny"]}
    above: list[str] = []
    for depth, name, version, licence in crates:
        above[depth:] = [name]
        if depth and "(" in version:
            found.append(f"{name} {version} does not come from the registry")
        if not permitted(licence, allowed):
            found.append(f"{name} {version} is under `{licence}`, which is not allowed")
        ban = banned.get(name)
        if ban and above[depth - 1] not in ban.get("wrappers", []):
            found.append(f"{above[depth - 1]} uses {name}: {ban['reason']}")
    for table in ["dependencies", "dev-dependencies", "build-dependencies"]:
        for name, wanted in manifest.get(table, {}).items():
            if "*" in (wanted if isinstance(wanted, str) else wanted.get("version", "*")):
                found.append(f"Cargo.toml takes any version of {name}")
    return sorted(set(found))


def main() -> int:
    rules = tomllib.loads((ROOT / "deny.toml").read_text())
    crates = tree(rules["graph"]["targets"][0])
    found = faults(rules, crates, tomllib.loads((ROOT / "Cargo.toml").read_text()))
    for fault in found:
        print(f"deny.toml: {fault}", file=sys.stderr)
    if not found:
        print(f"{len({c[1:3] for c in crates})} crates are as deny.toml wants them")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
