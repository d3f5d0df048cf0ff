"""APDUs on their way out: what the data paths of all families keep of one, and the order they go in."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Outgoing:
    """One APDU that waits for its turn, or for its confirm. Families add what their modem wants to know."""

    def __init__(self, token: int, address: int, urgent: bool) -> None:
        self.token = token
        self.address = address
        self.urgent = urgent  # somebody waits for it: it goes before routine
        self.attempts = 0
        self.not_before: float | None = None  # a pause after a refusal of the moment


def place_of(waiting: "Sequence[Outgoing]", urgent: bool) -> int:
    """Where an APDU belongs: an urgent one behind those that are urgent too, and before the rest."""
    if not urgent:
        return len(waiting)
    place = 0
    while place < len(waiting) and waiting[place].urgent:
        place += 1
    return place
