"""Everything that touches this machine: processes, shims, facts, the owner's courtesy."""
