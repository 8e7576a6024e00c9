"""The wire protocols by the name that `--protocol` takes."""

from __future__ import annotations

from collections.abc import Mapping

from tokenswarm.protocols.base import WireProtocol
from tokenswarm.protocols.openai_chat import OpenAIChat

PROTOCOLS: Mapping[str, WireProtocol] = {protocol.name: protocol for protocol in (OpenAIChat(),)}
"""Every protocol that can be asked for."""
