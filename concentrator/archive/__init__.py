"""The box as a file: support bundle, backup, restore, and back to how it left the factory."""
