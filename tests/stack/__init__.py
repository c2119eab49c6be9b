"""The real parts around Countersign, started on free loopback ports and stopped again.

The end-to-end tests, the demo and the benchmark use the same ones. Every part is a context manager,
is ready when `start` returns, writes its log into its work directory, and ends only what it began.
"""

from .config import UPSTREAM_KEY, config
from .countersign import Countersign
from .envoy import Envoy
from .gateway import Gateway
from .kafka import Kafka, Tansu, broker
from .model import ModelSim, RealModel
from .oidc import OidcProvider
from .process import ROOT, TOOLS, Failed, free_port, wait_until
from .upstream import Answer, Upstream
from .vault import Vault

__all__ = [
    "ROOT", "TOOLS", "UPSTREAM_KEY", "Answer", "Countersign", "Envoy", "Failed", "Gateway", "Kafka", "ModelSim", "OidcProvider",
    "RealModel", "Tansu", "Upstream", "Vault", "broker", "config", "free_port", "wait_until",
]
