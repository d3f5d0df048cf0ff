"""Loopback wires for DLMS tests: our client over TCP WRAPPER, and our server behind it."""

import socket
import socketserver
import threading
import time

from concentrator.dlms.errors import DecodeError, ReplyTimeoutError
from concentrator.dlms.hdlc import HdlcDecoder
from concentrator.dlms.hdlc_link import ApduReceived, HdlcServerLink, LinkConnected, LinkDisconnected
from concentrator.dlms.wrapper import WrapperDecoder, WrapperFrame


def connect(port, timeout=20):
    """Connect as soon as somebody listens."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=timeout)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class WrapperWire:
    """Runs conversations over one TCP connection."""

    def __init__(self, port, client_sap, server_sap=1, *, timeout=20):
        self.socket = connect(port)
        self.socket.settimeout(timeout)
        self.decoder = WrapperDecoder()
        self.saps = client_sap, server_sap
        self.seen = []
        self.longest_window = 0

    def run(self, conversation):
        try:
            requests = next(conversation)
            while True:
                for request in requests:
                    self.socket.sendall(WrapperFrame(*self.saps, request).to_bytes())
                self.longest_window = max(self.longest_window, len(requests))
                try:
                    apdu = self._receive()
                except TimeoutError:
                    requests = conversation.throw(ReplyTimeoutError("no reply"))
                else:
                    requests = conversation.send(apdu)
        except StopIteration as done:
            return done.value

    def _receive(self):
        while (frame := self.decoder.next_event()) is None:
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("the peer closed the connection")
            self.decoder.receive_data(data)
        self.seen.append(frame.apdu)
        return frame.apdu

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class _ThreadedServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


class WrapperService:
    """Serves a `Server` on a loopback port, for foreign clients."""

    def __init__(self, server):
        # The connection that each client used last, and one APDU at a time: the server knows no threads.
        latest = {}
        turn = threading.Lock()

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                decoder = WrapperDecoder()
                while data := self.request.recv(65536):
                    decoder.receive_data(data)
                    try:
                        while frame := decoder.next_event():
                            with turn:
                                latest[frame.source] = self
                                replies = server.receive_apdu(frame.source, frame.destination, frame.apdu)
                            for reply in replies:
                                answer = WrapperFrame(frame.destination, frame.source, reply)
                                self.request.sendall(answer.to_bytes())
                    except DecodeError:
                        return
                # A client may have come back on another connection before this one was seen to end.
                with turn:
                    for client_sap in [sap for sap, handler in latest.items() if handler is self]:
                        server.link_lost(client_sap)

        self._service = _ThreadedServer(("127.0.0.1", 0), Handler)
        self.port = self._service.server_address[1]
        self._thread = threading.Thread(target=self._service.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._service.shutdown()
        self._service.server_close()


class HdlcWire(WrapperWire):
    """Runs conversations over HDLC on one TCP connection."""

    def __init__(self, port, link):
        self.socket = connect(port)
        self.link = link
        self.seen = []
        link.connect()
        self._until(LinkConnected)

    def _until(self, kind):
        while True:
            self.socket.sendall(self.link.data_to_send())
            while event := self.link.next_event():
                if isinstance(event, kind):
                    return event
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("the peer closed the connection")
            self.link.receive_data(data)

    def run(self, conversation):
        answered = False
        try:
            requests = next(conversation)
            while True:
                for request in requests:
                    self.link.send_apdu(request)
                if not requests and answered:
                    self.link.poll()
                event = self._until(ApduReceived)
                answered = not event.unsolicited
                self.seen.append(event.apdu)
                requests = conversation.send(event.apdu)
        except StopIteration as done:
            return done.value

    def disconnect(self):
        self.link.disconnect()
        self._until(LinkDisconnected)


class HdlcService(WrapperService):
    """Serves a `Server` over HDLC on a loopback port: one client on each connection."""

    def __init__(self, server, parameters):
        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                finder, link = HdlcDecoder(), None
                while data := self.request.recv(65536):
                    if link is None:
                        finder.receive_data(data)
                        first = finder.next_event()
                        if first is None:
                            continue
                        link = HdlcServerLink(first.source, first.destination, parameters)
                        data = first.to_bytes()
                    link.receive_data(data)
                    while event := link.next_event():
                        if isinstance(event, ApduReceived):
                            saps = link.peer.upper, link.own.upper
                            for reply in server.receive_apdu(*saps, event.apdu):
                                link.send_apdu(reply)
                        elif isinstance(event, LinkDisconnected):
                            server.link_lost()
                    self.request.sendall(link.data_to_send())

        self._service = _ThreadedServer(("127.0.0.1", 0), Handler)
        self.port = self._service.server_address[1]
        self._thread = threading.Thread(target=self._service.serve_forever, args=(0.05,), daemon=True)
