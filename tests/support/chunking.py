"""A stream in pieces, as a line may deliver it."""


def chunks(stream, sizes):
    """The pieces of `stream`, as long as `sizes` say in turn."""
    at = turn = 0
    while at < len(stream):
        size = sizes[turn % len(sizes)]
        yield stream[at : at + size]
        at, turn = at + size, turn + 1


def read_chunks(stream, sizes, receive_data, next_one):
    """What a reader gives when it is fed a stream in pieces."""
    found = []
    for chunk in chunks(stream, sizes):
        receive_data(chunk)
        while (one := next_one()) is not None:
            found.append(one)
    return found
