"""Matrices: which jobs a step becomes."""

from __future__ import annotations

import pytest

from relayq.errors import RelayqError
from relayq.model.matrices import Matrix, expand, label


def test_every_combination_is_a_job_in_the_order_of_the_file():
    made = expand(Matrix({"os": ["linux", "macos"], "py": ["3.11", "3.12"]}))

    assert [tuple(one.values()) for one in made] == [
        ("linux", "3.11"),
        ("linux", "3.12"),
        ("macos", "3.11"),
        ("macos", "3.12"),
    ]


def test_what_is_excluded_goes():
    made = expand(Matrix({"os": ["a", "b"], "n": [1, 2]}, exclude=[{"os": "a", "n": 2}, {"n": 3}]))

    assert made == [{"os": "a", "n": 1}, {"os": "b", "n": 1}, {"os": "b", "n": 2}]


def test_what_is_included_is_added_as_in_githubs_example():
    # docs.github.com, "Using a matrix for your jobs": expanding or adding matrix configurations.
    include = [
        {"color": "green"},
        {"color": "pink", "animal": "cat"},
        {"fruit": "apple", "shape": "circle"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    ]

    made = expand(Matrix({"fruit": ["apple", "pear"], "animal": ["cat", "dog"]}, include))

    assert made == [
        {"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"},
        {"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"},
        {"fruit": "pear", "animal": "cat", "color": "pink"},
        {"fruit": "pear", "animal": "dog", "color": "green"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    ]


def test_without_axes_each_that_is_included_is_a_job():
    assert expand(Matrix({}, include=[{"a": 1}, {"a": 2}])) == [{"a": 1}, {"a": 2}]
    assert expand(Matrix({})) == []


def test_more_jobs_than_anybody_means_are_refused_before_they_are_made():
    with pytest.raises(RelayqError, match="more than 1000 jobs"):
        expand(Matrix({name: list(range(100)) for name in "abcdef"}))


def test_a_label_is_short_and_on_one_line():
    assert label({"os": "linux", "n": 3, "x": True}) == "linux, 3, true"
    assert label({"x": "a\nb\x1b[2J"}) == "a b?[2J"
    assert len(label({"x": "y" * 500})) <= 60
