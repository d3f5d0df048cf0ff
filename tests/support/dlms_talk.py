"""A client and a server in one room, with everything that can go wrong between them."""

from concentrator.dlms.errors import ReplyTimeoutError


def talk(
    server,
    conversation,
    saps=(16, 1),
    *,
    lose=lambda _reply: False,
    lose_request=lambda _request: False,
    upset=lambda replies: replies,
):
    """Run a conversation; what `lose` and `lose_request` say does not arrive, `upset` may change replies."""
    pending = []
    try:
        requests = next(conversation)
        while True:
            for request in requests:
                if lose_request(request):
                    continue
                replies = upset(server.receive_apdu(*saps, request))
                pending += [reply for reply in replies if not lose(reply)]
            if pending:
                requests = conversation.send(pending.pop(0))
            else:
                requests = conversation.throw(ReplyTimeoutError("no reply"))
    except StopIteration as done:
        return done.value
