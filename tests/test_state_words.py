"""The words of pages for the state of a job: a complete table, and no word of a finding on any page."""

from __future__ import annotations

import re

from carina.jobs.queue import JobEnd, JobState
from carina.service.pages.state_words import STATE_WORDS, state_word
from carina.service.rest.job_pages import ShownState

FINDING = re.compile(r"\b(healthy|faulted|pending)\b")


def test_the_table_has_each_state_that_a_job_is_shown_in_with_a_word_of_its_own() -> None:
    ends = {*JobState} - {JobState.STOPPED} | {*JobEnd}
    assert set(STATE_WORDS) == set(ShownState) == ends
    assert len(set(STATE_WORDS.values())) == len(ShownState)
    assert not FINDING.search(" ".join(STATE_WORDS.values()))
    assert [state_word(one) for one in ("healthy", "faulted", "pending")] == ["done", "failed", "waiting"]
