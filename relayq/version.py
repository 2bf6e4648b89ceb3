"""The version, in the one place that packaging, `relayq version` and heartbeats read it from."""

__version__ = "0.1.0"
