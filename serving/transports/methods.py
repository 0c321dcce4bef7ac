"""The RPCs of the service, listed once for every transport: names, messages and HTTP verbs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from serving.pb import image_generation_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["ImageGeneration"]

# What follows the colon in POST /v1/models/{model}:verb.
_VERBS = {
    "GenerateImages": "generate",
    "StreamGenerateImages": "streamGenerate",
    "TranslateImages": "translate",
    "EditImages": "edit",
    "EncodeImages": "encode",
    "DecodeLatents": "decode",
    "ExploreLatents": "explore",
    "ScoreImages": "score",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One RPC, as each transport needs to know it."""

    rpc: str
    """Its name in the proto."""
    function: str
    """The method of the service that answers it."""
    verb: str | None
    """Its verb over HTTP; the RPCs without one are GETs."""
    request: type[Message]
    """Class of the request."""
    response: type[Message]
    """Class of the response, or of each event of a stream."""
    streams: bool
    """Whether it answers with a stream."""

    @property
    def takes_images(self) -> bool:
        """Whether pictures can be sent to it, as bare bytes too."""
        return "images" in self.request.DESCRIPTOR.fields_by_name

    @property
    def gives_images(self) -> bool:
        """Whether the answer holds pictures, and so can be had as one."""
        return not self.streams and "images" in self.response.DESCRIPTOR.fields_by_name


def _method(descriptor: MethodDescriptor) -> Method:
    return Method(
        rpc=descriptor.name,
        function=re.sub(r"(?<!^)(?=[A-Z])", "_", descriptor.name).lower(),
        verb=_VERBS.get(descriptor.name),
        request=GetMessageClass(descriptor.input_type),
        response=GetMessageClass(descriptor.output_type),
        streams=descriptor.server_streaming,
    )


METHODS: Mapping[str, Method] = {descriptor.name: _method(descriptor) for descriptor in SERVICE.methods}
"""Every RPC by name, in the order of the proto."""

BY_VERB: Mapping[str, Method] = {method.verb: method for method in METHODS.values() if method.verb}
"""The RPCs that are POSTs to a model, by verb."""
