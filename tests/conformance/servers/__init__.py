"""The servers, in the order in which the documentation has them."""

from conformance.server import Server
from conformance.servers.aimock import AIMock
from conformance.servers.fastchat import FastChat
from conformance.servers.litellm import LiteLLM
from conformance.servers.llama_cpp import LlamaCpp
from conformance.servers.llama_cpp_python import LlamaCppPython
from conformance.servers.transformers import Transformers
from conformance.servers.vllm import VLLM
from conformance.servers.xinference import Xinference

SERVERS: tuple[Server, ...] = (
    LlamaCpp(),
    AIMock(),
    LiteLLM(),
    VLLM(),
    Transformers(),
    FastChat(),
    LlamaCppPython(),
    Xinference(),
)
