"""Mock servers of the agents' APIs: what the real programs talk to in the tests, on loopback."""
