"""Waits for the approval of a request, with the official SDKs of OpenAI and Anthropic.

    from retry import approved
    answer = approved(lambda: client.chat.completions.create(model="gpt-4o", messages=messages))

A request that a person must approve is answered with 403, `code: approval_required`, and the ticket in the header
`countersign-approval`; the SDK raises its `PermissionDeniedError`. The same request again joins the same approval, so waiting is
nothing but repeating it: `approved` does that until it is approved (then it is forwarded, once), denied or expired (then the error
is yours), or `within` seconds are over.
"""

from __future__ import annotations

import time
from typing import Callable, TypeVar

T = TypeVar("T")


def code_of(error: Exception) -> str | None:
    """The stable code of a refusal: `error.code` in OpenAI's shape, `error.error.code` in Anthropic's body."""
    body = getattr(error, "body", None)
    body = body if isinstance(body, dict) else {}
    inner = body.get("error") if isinstance(body.get("error"), dict) else body
    return getattr(error, "code", None) or inner.get("code")


def approved(call: Callable[[], T], within: float = 600, told: Callable[[str], None] = print) -> T:
    """What `call` returns once its request is approved. `told` hears of the ticket, once."""
    deadline = time.monotonic() + within
    ticket = None
    while True:
        try:
            return call()
        except Exception as error:
            response = getattr(error, "response", None)
            if response is None or response.status_code != 403 or code_of(error) != "approval_required":
                raise
            if ticket is None:
                ticket = response.headers.get("countersign-approval")
                told(f"waiting for approval {ticket}: {response.headers.get('location', '')}")
            pause = float(response.headers.get("retry-after", "10"))
            if time.monotonic() + pause > deadline:
                raise
            time.sleep(pause)
