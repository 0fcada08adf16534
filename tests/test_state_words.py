"""The words of pages for the state of a job: a complete table, and no word of a finding on any page."""

from __future__ import annotations

import re

import pytest

from carina.jobs.queue import JobEnd, JobState
from carina.pipeline.manifest import OperatorRecord, State
from carina.service.pages.state_words import STATE_WORDS, state_word
from carina.service.rest.job_pages import ShownState

FINDING = re.compile(r"\b(healthy|faulted|pending)\b")


def test_the_table_has_each_state_that_a_job_is_shown_in_with_a_word_of_its_own() -> None:
    ends = {*JobState} - {JobState.STOPPED} | {*JobEnd}
    assert set(STATE_WORDS) == set(ShownState) == ends
    assert len(set(STATE_WORDS.values())) == len(ShownState)
    assert not FINDING.search(" ".join(STATE_WORDS.values()))
    assert [state_word(one) for one in ("healthy", "faulted", "pending")] == ["done", "failed", "waiting"]


@pytest.mark.parametrize(
    ("state", "facts", "has_handed_over"),
    [
        (State.DONE, {"deliveries": []}, True),
        (State.DONE, {"deliveries": [{"destination": "PACS"}]}, False),
        (State.DONE, {}, False),
        (State.FAILED, {"deliveries": []}, False),
    ],
)
def test_an_operator_that_sent_nothing_itself_has_handed_its_objects_over(
    state: State, facts: dict[str, list[object]], *, has_handed_over: bool
) -> None:
    assert OperatorRecord(image="x", state=state, facts=facts).has_handed_over is has_handed_over
