"""The configuration that the demo, the benchmark and most tests start from."""

from __future__ import annotations

from pathlib import Path

from .oidc import AUDIENCE

UPSTREAM_KEY = "sk-upstream-6e1f0c55b2"  # what is lent; no caller and no record may ever show it


def config(issuer: str, work: Path, **more) -> dict:
    """Interns are refused, personal data is masked both ways, finance may use one model.

    `more` replaces or adds top-level sections. Writes the credential's file into `work`.
    """
    key = Path(work) / "upstream.key"
    key.write_text(UPSTREAM_KEY + "\n")
    key.chmod(0o600)
    return {
        "identity": {"issuers": [{"issuer": issuer, "audience": AUDIENCE, "algorithms": ["RS256", "ES256"], "groups_claim": "groups"}]},
        "connections": [{
            "name": "openai",
            "match": {"hosts": ["*"], "path_prefix": "/v1/"},
            "lend_to": {"routes": ["model"], "clusters": ["model"]},
            "token": "authorization",
            "dialect": "openai",
            "endpoints": ["chat_completions"],
            "credential": {"header": "authorization", "format": "Bearer {}", "file": str(key)},
            "policies": ["block-interns", "mask-personal", "allow-finance"],
            "payload": "masked",
            "durability": "disk",
        }],
        "policies": [
            {"name": "block-interns", "when": '"interns" in principal.groups',
             "then": {"deny": {"reason": "interns may not use this model"}}},
            {"name": "mask-personal", "when": "true",
             "then": {"mask": {"request": {"detectors": ["CREDIT_CARD", "US_SSN", "EMPLOYEE_ID"], "operator": "replace"},
                               "response": {"detectors": ["CREDIT_CARD", "US_SSN"], "operator": "replace"},
                               "exempt_groups": ["fraud"]}}},
            {"name": "allow-finance", "when": '"finance" in principal.groups && request.model in ["gpt-4o-mini"]',
             "then": {"allow": {}}},
        ],
        "detectors": [{"entity": "EMPLOYEE_ID", "regex": r"EMP-\d{6}"}],
        **more,
    }
