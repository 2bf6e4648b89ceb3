"""Jobs that jobs submit, as `relayq show` has them."""

from __future__ import annotations

from collections.abc import Iterable

from relayq.model.jobs import Spec


def asked(spec: Spec) -> Iterable[tuple[str, str]]:
    """Say which job submitted this one, and what it may submit itself."""
    if spec.ancestors:
        depth = len(spec.ancestors)
        root = f" (root {spec.root}, {depth} below it)" if depth > 1 else " (its root)"
        yield "Parent", f"{spec.ancestors[-1]}{root}"
    if spec.grant:
        rules = (
            f"{name}={','.join(rule) if isinstance(rule, list | tuple) else rule}"
            for name, rule in spec.grant.items()
        )
        yield "Grant", "none" if spec.grant.get("depth") == 0 else " ".join(rules)
