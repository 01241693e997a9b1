"""What a plugin in Python needs beside its own work: the contract's messages, the handshake with the
spoke that started the process, mutual TLS, and an end in good order.

It wants grpcio, protobuf and cryptography; on Debian: python3-grpcio python3-protobuf
python3-cryptography. The messages come from contract.binpb, which build.sh makes of the .proto files, so
that no code is generated.
"""

import base64
import concurrent.futures
import datetime
import json
import os
import pkgutil
import signal
import sys
import tempfile
import threading
import traceback

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

COOKIE = ("WHEELWRIGHT_PLUGIN", "d2hlZWx3cmlnaHQtcGx1Z2lu")
PROTOCOL = 1  # the package is wheelwright.plugin.v1
CONTRACTS = ["1.0"]  # revisions of it that are known here, newest first
PACKAGE = "wheelwright.plugin.v1."
GRACE = 0.7  # seconds that calls in flight get when the process is asked to end
MAX_MESSAGE = 16 << 20


def _load():
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet.FromString(pkgutil.get_data(__name__, "contract.binpb"))
    for file in files.file:
        pool.Add(file)
    return pool


_pool = _load()


def _class(descriptor):
    if hasattr(message_factory, "GetMessageClass"):  # protobuf 4.22 and later
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory(_pool).GetPrototype(descriptor)


def message(name):
    """The class of a message of the contract: message("Verdict")."""
    return _class(_pool.FindMessageTypeByName(PACKAGE + name))


def value(enum, name):
    """The number of an enum's value: value("Outcome", "OUTCOME_PASS")."""
    return _pool.FindEnumTypeByName(PACKAGE + enum).values_by_name[name].number


def verdict(outcome, reason="", sample=0, minimum=0):
    """outcome: "pass", "fail" or "inconclusive"; the last two have a reason, in one line."""
    return message("Verdict")(outcome=value("Outcome", "OUTCOME_" + outcome.upper()), reason=reason, sample=sample, minimum_sample=minimum)


def log(level, text, **fields):
    """One line for the spoke's log."""
    sys.stderr.write(json.dumps({"level": level, "msg": text, **fields}) + "\n")
    sys.stderr.flush()


class _Plugin:
    """PluginService."""

    def __init__(self, name, version, kinds, health):
        self.name, self.version, self.kinds, self.health = name, version, kinds, health

    def Handshake(self, request, context):
        for contract in request.contracts:
            if contract in CONTRACTS:
                return message("HandshakeResponse")(contract=contract, name=self.name, version=self.version,
                                                    kinds=[value("Kind", "KIND_" + k.upper()) for k in self.kinds])
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "%s %s speaks the contracts %s, none of %s" % (
            self.name, self.version, ", ".join(CONTRACTS), ", ".join(request.contracts)))

    def CheckHealth(self, request, context):
        reason = self.health() if self.health else ""
        return message("CheckHealthResponse")(healthy=not reason, reason=reason)


def _guarded(function):
    """An exception becomes the call's error, in one line, and a line of the log with its trace."""

    def call(request, context):
        try:
            return function(request, context)
        except Exception as e:
            if context.code() is None:  # else it is context.abort's own
                log("error", "a call failed", error=repr(e), trace=traceback.format_exc()[-4000:])
                context.abort(grpc.StatusCode.UNKNOWN, repr(e))
            raise

    def stream(request, context):
        try:
            yield from function(request, context)
        except Exception as e:
            if context.code() is None:
                log("error", "a call failed", error=repr(e), trace=traceback.format_exc()[-4000:])
                context.abort(grpc.StatusCode.UNKNOWN, repr(e))
            raise

    return call, stream


def _handler(service, servicer):
    descriptor = _pool.FindServiceByName(PACKAGE + service)
    methods = {}
    for method in descriptor.methods:
        call, stream = _guarded(getattr(servicer, method.name))
        decode, encode = _class(method.input_type).FromString, lambda m: m.SerializeToString()
        proto = descriptor_pb2.MethodDescriptorProto()
        method.CopyToProto(proto)
        if proto.server_streaming:
            methods[method.name] = grpc.unary_stream_rpc_method_handler(stream, decode, encode)
        else:
            methods[method.name] = grpc.unary_unary_rpc_method_handler(call, decode, encode)
    return grpc.method_handlers_generic_handler(descriptor.full_name, methods)


def _certificate():
    """A key and a certificate for this process alone; its name is what go-plugin's hosts look for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.utcnow()
    cert = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(minutes=1))
            .not_valid_after(now + datetime.timedelta(days=3650))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256()))
    return (key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
            cert.public_bytes(serialization.Encoding.PEM), cert.public_bytes(serialization.Encoding.DER))


def serve(name, version, conformance=None, canary=None, notifier=None, health=None):
    """Serve until the spoke ends the process. Each of the three is an object with the methods of its
    service, called with the request and gRPC's context; Run of a conformance is a generator. health
    returns why the plugin cannot work now, or nothing."""
    served = [(kind, service, servicer) for kind, service, servicer in (
        ("conformance", "ConformanceService", conformance), ("canary", "CanaryService", canary),
        ("notifier", "NotifierService", notifier)) if servicer is not None]
    if not served:
        sys.exit("a plugin serves a conformance, a canary or a notifier")
    if os.environ.get(COOKIE[0]) != COOKIE[1]:
        sys.exit("%s %s is a plugin of Wheelwright: name it under plugins in spoke.yaml, or try it with `spoke plugin check PATH`" % (name, version))

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=16), options=[
        ("grpc.max_receive_message_length", MAX_MESSAGE), ("grpc.max_send_message_length", MAX_MESSAGE)])
    front = _Plugin(name, version, [kind for kind, _, _ in served], health)
    server.add_generic_rpc_handlers(tuple([_handler("PluginService", front)] + [_handler(service, servicer) for _, service, servicer in served]))

    key, pem, der = _certificate()
    client = os.environ["PLUGIN_CLIENT_CERT"].encode()
    credentials = grpc.ssl_server_credentials([(key, pem)], root_certificates=client, require_client_auth=True)
    path = tempfile.mktemp(prefix="plugin", dir=os.environ.get("PLUGIN_UNIX_SOCKET_DIR"))
    if server.add_secure_port("unix:" + path, credentials) == 0:
        sys.exit("no socket could be made at " + path)

    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    signal.signal(signal.SIGINT, lambda *_: ended.set())
    server.start()
    print("1|%d|unix|%s|grpc|%s" % (PROTOCOL, path, base64.b64encode(der).decode().rstrip("=")), flush=True)
    ended.wait()
    server.stop(GRACE).wait()
