"""Graphs of steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayq.model.graph import Graph, GraphError, mermaid, picture

RELEASE = Graph(
    {
        "lint": [],
        "build": [],
        "test": ["build"],
        "test-mac": ["build"],
        "package": ["test", "test-mac", "lint"],
        "docs": ["build"],
        "deploy": ["package", "docs", "build"],
    }
)


@st.composite
def graphs(draw):
    names = [f"s{n}" for n in range(draw(st.integers(0, 12)))]
    found = {
        name: draw(st.lists(st.sampled_from(names[:n]), max_size=4, unique=True)) if n else []
        for n, name in enumerate(names)
    }
    return Graph({name: found[name] for name in draw(st.permutations(names))})


@given(graphs())
def test_every_step_comes_after_what_it_needs(graph):
    order = graph.order()

    assert sorted(order) == sorted(graph.needs)
    for step, needs in graph.needs.items():
        assert all(order.index(need) < order.index(step) for need in needs)


@given(graphs())
def test_leaving_out_needs_that_others_include_changes_nothing(graph):
    direct = Graph(graph.direct())

    assert {s: direct.after([s]) for s in graph.needs} == {s: graph.after([s]) for s in graph.needs}


@given(graphs())
def test_a_picture_has_a_line_with_a_dot_for_each_step(graph):
    dots = [line for line in picture(graph) if "●" in line]

    assert sorted(line.split()[-1] for line in dots) == sorted(graph.needs)
    for line in picture(graph):
        assert line == line.rstrip()


def test_layers_say_what_can_run_at_a_time():
    assert RELEASE.layers() == [
        ["lint", "build"],
        ["test", "test-mac", "docs"],
        ["package"],
        ["deploy"],
    ]
    assert Graph({}).layers() == []


def test_what_comes_after_a_step_is_found():
    assert RELEASE.after(["test"]) == {"package", "deploy"}
    assert RELEASE.after(["deploy"]) == set()


@pytest.mark.parametrize(
    ("needs", "said", "step"),
    [
        ({"a": ["c"], "b": ["a"], "c": ["b"]}, "a circle: a needs c needs b needs a", "a"),
        ({"a": ["a"]}, "a needs itself", "a"),
        ({"a": [], "b": ["a", "x"]}, "b needs x, which is no step", "b"),
    ],
)
def test_what_can_not_be_is_an_error_that_says_where(needs, said, step):
    with pytest.raises(GraphError) as caught:
        Graph(needs)

    assert caught.value.message == said
    assert caught.value.step == step


def test_a_picture_looks_like_a_log():
    assert picture(RELEASE) == [
        "●  lint",
        "│ ●  build",
        "│ ├─┐",
        "│ │ ●  test",
        "│ ├─┼─┐",
        "│ │ │ ●  test-mac",
        "│ ● │ │  docs",
        "├─┼─┴─┘",
        "● │  package",
        "├─┘",
        "●  deploy",
    ]


def test_mermaid_draws_each_arrow_once_and_no_label_breaks_it():
    text = mermaid(Graph({"a": [], "b": ["a"]}), {"a": 'say "<hi>"'})

    assert text.splitlines() == [
        "flowchart LR",
        '  s0["say &quot;&lt;hi&gt;&quot;"]',
        '  s1["b"]',
        "  s0 --> s1",
    ]
