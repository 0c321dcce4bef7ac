"""The OpenAPI document is valid, and says of each message what the proto says."""

from google.protobuf.descriptor import FieldDescriptor
from openapi_spec_validator import validate

from serving.pb import image_generation_pb2 as pb
from serving.transports import openapi
from serving.transports.methods import METHODS


def test_the_document_is_valid_openapi():
    validate(openapi.build())


def test_every_rpc_is_an_operation():
    operations = {
        operation["operationId"] for path in openapi.build()["paths"].values() for operation in path.values()
    }
    assert {rpc[0].lower() + rpc[1:] for rpc in METHODS} <= operations


def test_every_field_of_every_message_is_described_by_its_schema():
    schemas = openapi.build()["components"]["schemas"]
    for message in pb.DESCRIPTOR.message_types_by_name.values():
        properties = schemas[message.name]["properties"]
        assert list(properties) == [field.json_name for field in message.fields]
        for field in message.fields:
            repeated = field.is_repeated and not (
                field.message_type and field.message_type.GetOptions().map_entry
            )
            assert (properties[field.json_name].get("type") == "array") == repeated
            if field.type == FieldDescriptor.TYPE_BYTES:
                assert properties[field.json_name]["contentEncoding"] == "base64"


def test_comments_of_the_proto_are_the_descriptions():
    document = openapi.build()
    schemas = document["components"]["schemas"]
    assert schemas["GenerateImagesRequest"]["properties"]["count"]["description"] == "0: one"
    assert schemas["Task"]["description"] == "What a model can be asked to do."
    generate = document["paths"]["/v1/models/{model}:generate"]["post"]
    assert generate["description"] == "Sampling and conditional generation."


def test_a_choice_of_fields_is_told():
    schemas = openapi.build()["components"]["schemas"]
    assert "classId, classLabel, prompt" in schemas["GenerateImagesRequest"]["description"]
