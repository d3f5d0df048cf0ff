"""Control functions on meters: switch, limiter, tariff, billing, prepayment, profile set-up, keys, display, load.

Each order is a `Command` (`command`): it reads the meter's state, sends, reads the state again and judges what came of
it. `desk` carries commands out with an audit entry around each; `rules` says who may order what. What each order
takes and how it is confirmed is in docs/orders.md.
"""
