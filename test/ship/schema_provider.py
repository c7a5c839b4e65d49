#!/usr/bin/env python3
"""A Terraform provider that has a schema and nothing behind it: enough for `terraform validate` and for `terraform test` with
mock_provider. Whoever tries to apply with it is refused. Terraform starts it; its only argument is the schema's file."""
import base64, json, pathlib, sys, tempfile, threading
from concurrent import futures

import grpc
from tf.gen import grpc_controller_pb2, grpc_controller_pb2_grpc, grpc_stdio_pb2_grpc, tfplugin_pb2, tfplugin_pb2_grpc
from tf.runner import _self_signed_cert

Nested = tfplugin_pb2.Schema.NestedBlock
NESTING = {"single": Nested.SINGLE, "list": Nested.LIST, "set": Nested.SET, "map": Nested.MAP}
stopped = threading.Event()


def as_block(block):
    result = tfplugin_pb2.Schema.Block()
    for name, attribute in sorted(block["attributes"].items()):
        flags = {flag: attribute.get(flag, False) for flag in ("required", "optional", "computed")}
        result.attributes.append(tfplugin_pb2.Schema.Attribute(name=name, type=json.dumps(attribute["type"]).encode(), **flags))
    for name, nested in sorted(block.get("block_types", {}).items()):
        bounds = {bound: nested.get(bound, 0) for bound in ("min_items", "max_items")}
        result.block_types.append(Nested(type_name=name, block=as_block(nested["block"]), nesting=NESTING[nested["nesting_mode"]], **bounds))
    return result


def as_schema(schema):
    return tfplugin_pb2.Schema(version=schema["version"], block=as_block(schema["block"]))


class Provider(tfplugin_pb2_grpc.ProviderServicer):
    def __init__(self, schema):
        self.schema = schema

    def GetMetadata(self, request, context):
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "ask for the schema")

    def GetProviderSchema(self, request, context):
        return tfplugin_pb2.GetProviderSchema.Response(
            provider=as_schema(self.schema["provider"]),
            provider_meta=tfplugin_pb2.Schema(block=tfplugin_pb2.Schema.Block()),
            resource_schemas={name: as_schema(schema) for name, schema in self.schema["resource_schemas"].items()},
            data_source_schemas={name: as_schema(schema) for name, schema in self.schema["data_source_schemas"].items()},
        )

    def ValidateProviderConfig(self, request, context):
        return tfplugin_pb2.ValidateProviderConfig.Response()

    def ValidateResourceConfig(self, request, context):
        return tfplugin_pb2.ValidateResourceConfig.Response()

    def ValidateDataResourceConfig(self, request, context):
        return tfplugin_pb2.ValidateDataResourceConfig.Response()

    def UpgradeResourceState(self, request, context):
        return tfplugin_pb2.UpgradeResourceState.Response(upgraded_state=tfplugin_pb2.DynamicValue(json=request.raw_state.json))

    def ConfigureProvider(self, request, context):
        refusal = tfplugin_pb2.Diagnostic(severity=tfplugin_pb2.Diagnostic.ERROR, summary="this provider has a schema and nothing behind it")
        return tfplugin_pb2.ConfigureProvider.Response(diagnostics=[refusal])

    def StopProvider(self, request, context):
        stopped.set()
        return tfplugin_pb2.StopProvider.Response()


class Controller(grpc_controller_pb2_grpc.GRPCControllerServicer):
    def Shutdown(self, request, context):
        stopped.set()
        return grpc_controller_pb2.Empty()


class Output(grpc_stdio_pb2_grpc.GRPCStdioServicer):
    def StreamStdio(self, request, context):
        stopped.wait()
        return iter(())


def main():
    schema = json.loads(pathlib.Path(sys.argv[1]).read_text())
    server = grpc.server(futures.ThreadPoolExecutor(16), options=[("grpc.max_send_message_length", -1)])
    tfplugin_pb2_grpc.add_ProviderServicer_to_server(Provider(schema), server)
    grpc_controller_pb2_grpc.add_GRPCControllerServicer_to_server(Controller(), server)
    grpc_stdio_pb2_grpc.add_GRPCStdioServicer_to_server(Output(), server)
    certificate, credentials = _self_signed_cert()
    with tempfile.TemporaryDirectory() as folder:
        address = f"unix://{folder}/socket"
        server.add_secure_port(address, credentials)
        server.start()
        # The handshake of Terraform's plugins: core protocol 1, plugin protocol 6.
        print("|".join(["1", "6", "unix", address.removeprefix("unix://"), "grpc", base64.b64encode(certificate).decode().rstrip("=")]), flush=True)
        stopped.wait()
        server.stop(0.2).wait()


if __name__ == "__main__":
    main()
