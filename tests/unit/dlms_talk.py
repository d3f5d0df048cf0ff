"""A client and a server in one room, with everything that can go wrong between them."""

from concentrator.dlms.errors import ReplyTimeoutError


def talk(server, conversation, saps=(16, 1), *, lose=lambda _reply: False, upset=lambda replies: replies):
    """Run a conversation; replies for which `lose` is true do not arrive, `upset` may change the rest."""
    pending = []
    try:
        request = next(conversation)
        while True:
            if request:
                replies = upset(server.receive_apdu(*saps, request))
                pending += [reply for reply in replies if not lose(reply)]
            if pending:
                request = conversation.send(pending.pop(0))
            else:
                request = conversation.throw(ReplyTimeoutError("no reply"))
    except StopIteration as done:
        return done.value
