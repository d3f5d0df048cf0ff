"""A modem by the book for tests on both interpreters: answers what it is told to, remembers what came."""

from plc.usi.framing import FrameDecoder, encode_frame


class ScriptedModem:
    def __init__(self, network, protocol, commands):
        self.network = network
        self.protocol = protocol
        self.commands = commands
        self.decoder = FrameDecoder()
        self.received = []  # messages from the host
        self.answer = None  # called with each message; returns payloads
        self.now = 0.0

    def send(self, command, **values):
        self.send_payload(self.commands.encode(command, **values))

    def send_payload(self, payload):
        self.network.receive_data(encode_frame(self.protocol, payload), self.now)
        self.pump()

    def pump(self):
        while True:
            data = self.network.data_to_send()
            if not data:
                return
            self.decoder.receive_data(data)
            while True:
                frame = self.decoder.next_frame()
                if frame is None:
                    break
                message = self.commands.decode(frame[1])
                self.received.append(message)
                if self.answer is not None:
                    for payload in self.answer(message):
                        self.network.receive_data(encode_frame(self.protocol, payload), self.now)

    def wait(self, seconds):
        """Let time pass, and every timer of the network run out in its turn."""
        end = self.now + seconds
        while True:
            due = self.network.next_timeout()
            if due is None or due > end:
                self.now = end
                self.pump()
                return
            self.now = max(self.now, due)
            self.network.handle_timeout(self.now)
            self.pump()

    def events(self):
        events = []
        while True:
            event = self.network.next_event()
            if event is None:
                return events
            events.append(event)

    def names(self):
        return [type(event).__name__ for event in self.events()]

    def commands_received(self):
        commands = [message.command for message in self.received]
        self.received = []
        return commands
