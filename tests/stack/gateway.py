"""Envoy and Countersign together, in front of a model server: what a caller talks to."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

from .countersign import Countersign
from .envoy import Envoy


class Gateway:
    """`url` is where an SDK points its base URL, `countersign` and `envoy` are the parts."""

    def __init__(self, work: Path, config: dict, upstream: int, change: Callable[[dict], None] | None = None):
        self.countersign = Countersign(work, config)
        self.envoy = Envoy(work, upstream, self.countersign.socket, change)

    @property
    def url(self) -> str:
        return f"{self.envoy.url}/v1"

    def start(self):
        try:
            self.countersign.start()
            self.envoy.start()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self):
        self.envoy.stop()
        self.countersign.__exit__()

    def openai(self, token: str, **options):
        """The official SDK as a caller with this token would set it up, but without its retries."""
        from openai import OpenAI

        return OpenAI(api_key=token, base_url=self.url, **{"max_retries": 0, **options})

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()
