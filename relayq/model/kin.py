"""The jobs that a job may know: those that it submitted, and those that these did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from relayq.errors import AmbiguousId, NoSuchJob
from relayq.model.jobs import JobRecord, Spec, normal_id
from relayq.model.selectors import SHORTEST_PREFIX, Group, Last, Word, check_filters, parse, passes


class Kin:
    """A job's descendants, among records that may be anybody's."""

    def __init__(self, own: Spec) -> None:
        self._own = own

    def has(self, record: JobRecord) -> bool:
        """Whether the record is of a descendant."""
        return record.spec is not None and self._own.id in record.spec.ancestors

    def among(self, records: Iterable[JobRecord]) -> list[JobRecord]:
        """Return the descendants among these, the newest first."""
        found = [record for record in records if self.has(record)]
        return sorted(found, key=lambda record: record.created_at, reverse=True)

    def find(self, text: str, family: Sequence[JobRecord]) -> str:
        """Return the id that this text begins, the job's own included."""
        prefix = normal_id(text)
        ids = [self._own.id, *(record.id for record in family)]
        found = [id for id in ids if prefix and id.startswith(prefix)]
        if not found:
            raise NoSuchJob(f"no such job: {text} (a job knows those that it submitted)")
        if len(found) > 1 and prefix not in found:
            raise AmbiguousId(text, found)
        return prefix if prefix in found else found[0]

    def select(self, texts: Sequence[str], family: Sequence[JobRecord]) -> list[str]:
        """Return the ids that selectors name, as `store/lookup.py` does of all jobs."""
        chosen = [id for text in texts for id in self._select(text, family)]
        return list(dict.fromkeys(chosen))

    def _select(self, text: str, family: Sequence[JobRecord]) -> Sequence[str]:
        match parse(text):
            case Last(back):
                ids = [record.id for record in family][back : back + 1]
            case Group(name, first, last):
                group = [one.id for one in reversed(family) if one.spec and one.spec.group == name]
                ids = group[first - 1 : last]
            case Word(word):
                ids = [one.id for one in family if one.spec and one.spec.name == word][:1]
                if not ids and len(word) >= SHORTEST_PREFIX:
                    ids = [self.find(word, family)]
        if not ids:
            raise NoSuchJob(f"no such job: {text} (a job knows those that it submitted)")
        return ids

    def passing(self, filters: Mapping[str, str], family: Iterable[JobRecord]) -> list[str]:
        """Return the ids of those that pass the filters."""
        check_filters(filters)
        return [record.id for record in family if passes(record, filters)]
