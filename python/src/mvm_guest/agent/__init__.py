"""The host's client of the guest agent: a typed call for each request, over the VMM's vsock socket.

It knows one socket and the protocol, not where instances live or how they are started.
"""

from mvm_guest.agent.client import Agent, AgentError, AgentUnreachable
from mvm_guest.agent.messages import CheckHealth, ExecResult, Integration, Probe, WorkerStatus
from mvm_guest.agent.text import printable

__all__ = [
    "Agent",
    "AgentError",
    "AgentUnreachable",
    "CheckHealth",
    "ExecResult",
    "Integration",
    "Probe",
    "WorkerStatus",
    "printable",
]
