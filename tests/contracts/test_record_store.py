"""All record stores fulfil the protocol: in memory, and in a cache's database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyte_build.cas.digest import Digest, Key
from flyte_build.cas.encoding import key
from flyte_build.cas.records import Record
from flyte_build.graph.node import RecordStore
from tests.support.caches import opened
from tests.support.files import temporary
from tests.support.nodes import MemoryRecords, digest_of

pytestmark = pytest.mark.quick

KINDS = ("memory", "database")


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RecordStore]:
    if request.param == "memory":
        yield MemoryRecords()
    else:
        with opened(tmp_path / "cache") as cache:
            yield cache.records


def key_of(name: str) -> Key:
    """Return the key of a made-up node."""
    return key("test", 1, {"name": name})


def record_of(name: str, artifact: str = "", *refs: str) -> Record:
    """Return a record of a made-up node."""
    return Record(
        key_of(name),
        "test",
        digest_of(artifact or name),
        tuple(map(digest_of, refs)),
        {"name": name, "list": [1, "a", None], "nested": {"digest": digest_of(name)}},
    )


def test_a_record_comes_back_as_it_was_added(store: RecordStore) -> None:
    record = record_of("a", "artifact", "x", "y", "x")
    assert store.find(record.key) is None
    store.add(record)
    found = store.find(record.key)
    assert found == record and isinstance(found.artifact, Digest)
    assert [type(ref) for ref in found.refs] == [Digest] * 3


def test_a_second_record_of_a_key_replaces_the_first(store: RecordStore) -> None:
    store.add(record_of("a", "one", "ref"))
    store.add(record_of("a", "two"))
    assert store.find(key_of("a")) == record_of("a", "two")


def test_a_label_leads_to_the_last_record(store: RecordStore) -> None:
    assert store.last("label") is None
    for name in ("a", "b"):
        store.add(record_of(name))
        store.set_last("label", key_of(name))
        assert store.last("label") == record_of(name)
    assert store.last("other") is None and store.find(key_of("a")) == record_of("a")


def test_a_label_whose_record_is_not_there_leads_to_none(store: RecordStore) -> None:
    store.set_last("label", key_of("never added"))
    assert store.last("label") is None


def test_a_label_shows_the_record_as_it_is_now(store: RecordStore) -> None:
    store.add(record_of("a", "one"))
    store.set_last("label", key_of("a"))
    store.add(record_of("a", "two"))
    assert store.last("label") == record_of("a", "two")


steps = st.lists(
    st.tuples(st.sampled_from(["add", "label"]), st.sampled_from("abc"), st.sampled_from("xyz"))
)


@settings(max_examples=30)
@given(steps)
def test_all_kinds_answer_alike(steps: list[tuple[str, str, str]]) -> None:
    """All kinds of stores agree, whatever is added and labelled, in whatever order."""
    with temporary() as folder, opened(folder) as cache:
        stores: list[RecordStore] = [MemoryRecords(), cache.records]
        for step, name, other in steps:
            for store in stores:
                if step == "add":
                    store.add(record_of(name, other))
                else:
                    store.set_last(other, key_of(name))
            for name in "abc":
                assert stores[0].find(key_of(name)) == stores[1].find(key_of(name))
            for label in "xyz":
                assert stores[0].last(label) == stores[1].last(label)
