"""Random graphs of jobs, with random trouble: the store does what a plain model of it says."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relayq.model.halts import COUNTED, WAYS, Halt
from tests.redis.consistency import problems
from tests.redis.fleet import Fleet, spec
from tests.redis.graphs import Story, in_flow

ACTS = (
    *("claim",) * 6,
    *("finish",) * 6,
    *("fan_out",) * 3,
    *("cancel", "retry", "rerun", "lose", "release", "resolve", "submit_more", "wait", "stop"),
    "finish_again",
)
NAMES = ("flow", "step")
UNHEALTHY = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@st.composite
def graphs(draw):
    """Return the specs of a graph, its halts, and how many jobs some of them become."""
    specs, fans = [], {}
    with_halts = draw(st.booleans())
    for i in range(draw(st.integers(2, 9))):
        id = f"{i:010}zz"
        earlier = st.lists(st.sampled_from([one.id for one in specs]), max_size=3, unique=True)
        before = draw(earlier) if specs else []
        n_any = draw(st.integers(0, len(before))) if draw(st.booleans()) else 0
        specs.append(
            in_flow(
                spec(
                    id=id,
                    after=tuple(before[n_any:]),
                    after_any=tuple(before[:n_any]),
                    when=draw(st.sampled_from(["success"] * 4 + ["failure", "always"])),
                    is_lenient=draw(st.integers(0, 4)) == 0,
                    halts=tuple(name for name in NAMES if with_halts and draw(st.booleans())),
                )
            )
        )
        if draw(st.integers(0, 3)) == 0:
            fans[id] = draw(st.integers(1, 3))
    halts = [
        Halt(
            name,
            draw(st.integers(1, 2)),
            draw(st.sampled_from(COUNTED)),
            draw(st.sampled_from(WAYS)),
        )
        for name in NAMES
    ]
    return specs, halts, fans


acts = st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 63)), max_size=60)


def told(store, clock, graph, acts):
    """Tell a story of a graph, and see that it ends as the model says."""
    store.connection.flushdb()
    clock.offset = 0.0
    specs, halts, fans = graph
    story = Story(Fleet(store, clock), specs, halts)
    story.fans = fans
    story.compare()
    for act, n in acts:
        story.do(act, n)
    story.end_all()
    assert not problems(store)


@pytest.mark.parametrize("connection", ["redis7"], indirect=True)
@settings(max_examples=60, suppress_health_check=UNHEALTHY)
@given(graph=graphs(), acts=acts)
def test_whatever_happens_to_a_graph_it_ends_as_it_should(store, clock, graph, acts):
    told(store, clock, graph, acts)


@pytest.mark.parametrize("connection", ["fakeredis"], indirect=True)
@settings(max_examples=10, suppress_health_check=UNHEALTHY)
@given(graph=graphs(), acts=acts)
def test_it_does_so_in_what_tests_of_yours_may_have_for_a_redis(store, clock, graph, acts):
    told(store, clock, graph, acts)
