"""Links to meters: the asyncio shells that carry sans-IO protocol code over UARTs and sockets."""
