"""Model servers: a simulator of the providers' protocols, and a real one with a small model."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from .process import TOOLS, Process, fetch, free_port


class ModelSim(Process):
    """npm aimock. `fixtures` is a list of {"match": …, "response": …}; streamed text is cut every `chunk` characters."""

    name = "model-sim"

    def __init__(self, work, fixtures: list[dict], chunk: int = 7, latency_ms: int = 0):
        super().__init__(work)
        self.chunk, self.latency_ms = chunk, latency_ms
        self.port = 0
        self.fixtures = (self.work / "fixtures.json").resolve()
        self.fixtures.write_text(json.dumps({"fixtures": fixtures}, indent=1))

    def command(self):
        return ["node", TOOLS / "node/node_modules/.bin/llmock", "-h", "127.0.0.1", "-p", self.port,
                "-f", self.fixtures, "-c", self.chunk, "-l", self.latency_ms]

    def is_ready(self):
        said = re.search(r"listening on http://127\.0\.0\.1:(\d+)", self.log_text())
        if said:
            self.port = int(said[1])
        return said


class RealModel(Process):
    """llama.cpp's server with a 270-million-parameter model on one thread; a request's `grammar` makes it say an exact text."""

    name = "real-model"
    start_bound = 90.0

    def __init__(self, work):
        super().__init__(work)
        self.port = free_port()

    @staticmethod
    def installed() -> bool:
        return (TOOLS / "stamps" / "model").exists()

    def command(self):
        return [sys.executable, Path(__file__).with_name("real_model.py"), TOOLS / "model.gguf", self.port]

    def is_ready(self):
        return fetch(f"http://127.0.0.1:{self.port}/health")[0] == 200


def says(text: str) -> str:
    """The grammar that allows exactly this text."""
    return "root ::= " + json.dumps(text)
