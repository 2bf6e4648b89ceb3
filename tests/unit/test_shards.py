"""The parts of a codebase."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayq.errors import RelayqError
from relayq.model.packing import Bounds
from relayq.model.shards import WAYS, Shard, SourceFile, halves, plan

WORDS = ["api", "auth", "src", "a", "tests", "x1", "[id]"]


@st.composite
def codebases(draw, *, heaviest=300):
    """Files by a seed: a list of drawn tuples would take most of the test's time."""
    count, chance = draw(st.integers(0, 150)), random.Random(draw(st.integers(0, 2**32)))
    depth = draw(st.integers(0, 4))
    paths = {
        "/".join(
            [
                *chance.choices(WORDS, k=chance.randint(0, depth)),
                f"f{chance.randint(0, 60)}.{chance.choice(['py', 'go', 'ts', 'sh'])}",
            ]
        )
        for _ in range(count)
    }
    return [SourceFile(path, chance.randint(1, heaviest)) for path in sorted(paths)]


@st.composite
def imports(draw, files):
    chance = random.Random(draw(st.integers(0, 2**32)))
    paths = [file.path for file in files] or ["none.py"]
    return {
        path: chance.choices(paths, k=chance.randint(1, 3))
        for path in chance.choices(paths, k=draw(st.integers(0, 80)))
    }


def made(*counts: tuple[str, int], size: int = 100) -> list[SourceFile]:
    """Return so many files of each directory."""
    return [
        SourceFile(f"{directory}/f{n:03}.py".lstrip("/"), size)
        for directory, count in counts
        for n in range(count)
    ]


def named(shards: list[Shard]) -> dict[str, int]:
    return {shard.name: len(shard.files) for shard in shards}


@given(st.data(), codebases(), st.sampled_from(WAYS))
def test_no_file_is_lost_or_in_two_shards(data, files, by):
    graph = data.draw(imports(files)) if by == "imports" else None

    shards = plan(files, by=by, weight_limit=1000, imports=graph)

    assert sorted(path for shard in shards for path in shard.paths) == sorted(
        file.path for file in files
    )
    assert all(shard.files for shard in shards)
    assert len({shard.name for shard in shards}) == len(shards)


@given(st.data(), codebases(), st.sampled_from(WAYS))
def test_a_shard_keeps_to_the_limits_unless_one_file_is_above_them(data, files, by):
    graph = data.draw(imports(files)) if by == "imports" else None

    shards = plan(files, by=by, weight_limit=250, imports=graph)

    for shard in shards:
        assert len(shard.files) <= 20
        assert shard.weight <= 250 or len(shard.files) == 1


@given(st.data(), codebases(heaviest=1), st.sampled_from(WAYS))
def test_every_shard_has_5_to_20_files_wherever_there_are_5(data, files, by):
    graph = data.draw(imports(files)) if by == "imports" else None

    counts = [len(shard.files) for shard in plan(files, by=by, imports=graph)]

    assert all(5 <= count <= 20 for count in counts) or counts in ([], [len(files)])


@given(codebases(), st.sampled_from(WAYS), st.integers(1, 12), st.integers(0, 12))
def test_a_shard_is_small_only_where_no_other_could_take_it(files, by, smallest, more):
    bounds = Bounds(smallest, smallest + more, 600)

    shards = plan(
        files,
        by=by,
        smallest=bounds.smallest,
        largest=bounds.largest,
        weight_limit=bounds.weight,
        imports={},
    )

    for shard in shards:
        if len(shard.files) < smallest:
            others = [one for one in shards if one is not shard]
            assert not any(bounds.holds(shard.files + one.files) for one in others)


@given(st.data(), codebases(), st.sampled_from(WAYS), st.integers(0, 2**32))
def test_the_same_files_make_the_same_shards_in_whatever_order_they_come(data, files, by, seed):
    graph = data.draw(imports(files)) if by == "imports" else None
    shuffled = list(files)
    random.Random(seed).shuffle(shuffled)

    assert plan(files, by=by, imports=graph) == plan(shuffled, by=by, imports=graph)


def test_a_directory_of_the_right_size_is_a_shard():
    files = made(("src/auth", 12), ("src/api", 18), ("src/utils", 8), ("src/services", 15))

    assert named(plan(files)) == {"auth": 12, "api": 18, "utils": 8, "services": 15}


def test_a_large_directory_is_cut_evenly():
    files = made(("src/api", 45), ("src/auth", 10))

    assert named(plan(files, first=None)) == {
        "api[1/3]": 15,
        "api[2/3]": 15,
        "api[3/3]": 15,
        "auth": 10,
    }


def test_a_large_directory_is_cut_by_weight():
    chance = random.Random(1)
    files = [SourceFile(f"api/f{n:03}.py", chance.choice([200, 1000, 9000])) for n in range(200)]

    weights = [shard.weight for shard in plan(files, largest=40)]

    assert max(weights) < 1.4 * sum(weights) / len(weights)


def test_small_directories_are_put_together_with_their_neighbours():
    files = made(("src/a", 2), ("src/b", 3), ("src/c", 4), ("web/x", 20))

    assert named(plan(files)) == {"src": 9, "web/x": 20}


def test_a_small_rest_goes_to_the_neighbour_with_room():
    files = made(("src/api", 20), ("src/web", 12), ("src/odd", 2))

    assert named(plan(files)) == {"api": 20, "odd+web": 14} or named(plan(files)) == {
        "api": 20,
        "web+odd": 14,
    }


def test_where_no_neighbour_has_room_two_are_cut_anew():
    files = made(("src/api", 20), ("src/odd", 2))

    assert sorted(named(plan(files)).values()) == [11, 11]


def test_files_on_top_are_not_left_out():
    files = made(("", 6), ("api", 18))

    assert named(plan(files)) == {"(top)": 6, "api": 18}


def test_many_directories_in_one_shard_have_a_short_name():
    files = made(*((f"conf/locale/l{n}", 1) for n in range(12)), ("api", 18))

    assert named(plan(files)) == {"conf/locale": 12, "api": 18}

    files = made(*((f"conf/locale/l{n:02}", 1) for n in range(24)))
    assert list(named(plan(files))) == ["l00+11", "l12+11"]


def test_security_critical_files_come_first_and_tests_last():
    files = made(
        ("aaa", 6),
        ("authors", 6),
        ("login/tests", 6),
        ("net/tls", 6),
        ("tests/auth", 6),
        ("zzz", 6),
    )
    files += [SourceFile("zzz/passwords.py", 100)]

    assert [shard.name for shard in plan(files)] == [
        "net/tls",
        "zzz",
        "aaa",
        "authors",
        "login/tests",
        "tests/auth",
    ]
    assert [shard.name for shard in plan(files, first="aaa")][0] == "aaa"
    assert [shard.name for shard in plan(files, first=None)] == sorted(named(plan(files)))


def test_files_are_divided_by_their_type():
    files = made(("a", 6), ("b", 20))
    files += [SourceFile(f"a/s{n}.sh", 100) for n in range(3)]
    files += [SourceFile(f"b/s{n}.go", 100) for n in range(4)]

    assert named(plan(files, by="type")) == {"py[1/2]": 13, "py[2/2]": 13, "go+sh": 7}


def test_files_are_divided_in_parts_of_the_same_count():
    files = made(("a", 30), ("b", 3), ("c", 14))

    assert sorted(named(plan(files, by="count")).values()) == [15, 16, 16]


def test_files_are_divided_in_parts_of_the_same_weight():
    files = [SourceFile(f"a/f{n:03}.py", 10 + n * n) for n in range(100)]

    shards = plan(files, by="size")

    assert len(shards) == 5
    assert max(s.weight for s in shards) - min(s.weight for s in shards) < 0.02 * shards[0].weight


def test_files_that_import_each_other_are_in_one_shard():
    files = made(("models", 10), ("views", 10), ("odd", 3))
    graph = {f"views/f{n:03}.py": [f"models/f{n // 5 * 5:03}.py"] for n in range(10)}

    shards = plan(files, by="imports", smallest=2, largest=6, imports=graph)

    home = {path: shard.name for shard in shards for path in shard.paths}
    assert all(home[one] == home[other] for one, [other] in graph.items())
    assert {home["models/f000.py"], home["models/f005.py"]} == {"models/f000", "models/f005"}


def test_a_shard_has_two_halves_by_weight():
    files = (SourceFile("a.py", 900), SourceFile("b.py", 300), SourceFile("c.py", 600))

    first, second = halves(Shard("api[1/2]", files))

    assert (first.name, first.paths) == ("api[1/2].1", ("a.py",))
    assert (second.name, second.paths) == ("api[1/2].2", ("b.py", "c.py"))
    assert halves(first) == []


@given(codebases())
def test_halves_are_the_whole(files):
    shard = Shard("s", tuple(files))

    found = halves(shard)

    assert len(found) == (2 if len(files) > 1 else 0)
    assert all(one.files for one in found)
    assert not found or found[0].files + found[1].files == shard.files
    assert Shard.from_dict(shard.as_dict()) == shard


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"by": "author"}, "'author' is no way to divide files"),
        ({"smallest": 0}, "a shard can't have from 0 to 20 files"),
        ({"largest": 4}, "a shard can't have from 5 to 4 files"),
        ({"first": "auth("}, "'auth(' is no regular expression"),
    ],
)
def test_what_cannot_be_asked_for_is_said(options, said):
    with pytest.raises(RelayqError) as caught:
        plan(made(("a", 3)), **options)

    assert caught.value.message.startswith(said)
    assert caught.value.hint
