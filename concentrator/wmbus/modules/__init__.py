"""Host protocols of wireless M-Bus radio modules, sans-IO, behind one small face (`face.RadioModule`)."""
