"""What goes when room is lacking: the order, and what never goes, for any stock."""

import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.delivery.retention import (
    GOING,
    SEVERITIES,
    Action,
    Item,
    Kind,
    Plan,
    Rule,
    Rules,
    Stock,
    in_turn,
    plan,
    refused_severities,
)

HOUR_S = 3600.0
RULES = Rules(
    max_bytes=10_000,
    kinds={
        Kind.RECEIPTED: Rule(least_s=24 * HOUR_S, most_s=30 * 24 * HOUR_S),
        Kind.QUARANTINE: Rule(least_s=90 * 24 * HOUR_S),
    },
    recordings_least_bytes=1000,
)
OLD_S = 25 * HOUR_S


def clip(name: str, size: int = 1000, age_s: float = OLD_S, guard: str = "") -> Item:
    return Item(Kind.RECEIPTED, name, size, age_s, guard)


def unreceipted(name: str, size: int = 1000, age_s: float = 1e9) -> Item:
    return Item(Kind.CLIP, name, size, age_s, "no receipt")


def names(found: Plan) -> list[str]:
    return [step.name for step in found.steps if step.action is Action.DELETE]


def shrinks(found: Plan) -> int:
    return sum(step.size_bytes for step in found.steps if step.action is Action.SHRINK)


def test_nothing_goes_while_there_is_room() -> None:
    found = plan(Stock((clip("a"), unreceipted("b")), 5000), RULES)
    assert (found.steps, found.lacking_bytes, found.refused) == ((), 0, 0)
    assert found.recordings_max_bytes == 9900 - 1000  # receipted clips make way for recordings


def test_receipted_clips_go_first_oldest_first_and_no_more_than_needed() -> None:
    clips = (clip("new", age_s=OLD_S), clip("old", age_s=2 * OLD_S), clip("mid", age_s=1.5 * OLD_S))
    found = plan(Stock(clips, 8000), RULES)  # 11000 used; 9800 is aimed at
    assert names(found) == ["old", "mid"]
    assert shrinks(found) == 0
    assert {step.rule for step in found.steps} == {"room"}


def test_a_clip_stays_its_least_time_and_the_recordings_shrink_instead() -> None:
    found = plan(Stock((clip("young", age_s=23 * HOUR_S),), 10_000), RULES)
    assert names(found) == []
    assert shrinks(found) == 1100
    assert found.recordings_max_bytes == 8900


def test_what_had_its_days_goes_whatever_the_room() -> None:
    found = plan(Stock((clip("a", age_s=31 * 24 * HOUR_S), clip("b")), 100), RULES)
    assert names(found) == ["a"]
    assert found.steps[0].rule == "days"


def test_a_kind_has_a_share_of_its_own() -> None:
    rules = replace(RULES, kinds={Kind.EXPORT: Rule(most_bytes=1500)})
    items = tuple(Item(Kind.EXPORT, name, 1000, age) for name, age in (("x", 1), ("y", 3)))
    found = plan(Stock(items, 0), rules)
    assert [(step.name, step.rule) for step in found.steps] == [("y", "share")]


def test_quarantine_goes_past_its_days_and_only_for_room() -> None:
    old = Item(Kind.QUARANTINE, "old", 1000, 91 * 24 * HOUR_S)
    young = Item(Kind.QUARANTINE, "young", 1000, 89 * 24 * HOUR_S)
    assert plan(Stock((old, young), 5000), RULES).steps == ()
    found = plan(Stock((old, young), 9000), RULES)
    assert names(found) == ["old"]
    assert shrinks(found) == 100


def test_pins_and_holds_win_over_everything() -> None:
    held = clip("held", age_s=1e12, guard="hold 7")
    found = plan(Stock((held, unreceipted("new", 12_000)), 2000), RULES)
    assert names(found) == []
    assert shrinks(found) == 1000  # to their floor
    assert found.refused == 3
    assert found.lacking_bytes == 1000 + 12_000 + 1000 - 9900
    assert "clip without a receipt: 12000 bytes" in found.lacking_reason
    assert "receipted clip: 1000 bytes" in found.lacking_reason


def test_recordings_that_a_hold_keeps_do_not_shrink() -> None:
    found = plan(Stock((unreceipted("new", 5000),), 8000, recordings_kept_bytes=7000), RULES)
    assert shrinks(found) == 1000
    assert found.recordings_max_bytes == 7000
    assert found.lacking_bytes == 2100


def test_the_disk_itself_is_a_bound_too() -> None:
    stock = Stock((clip("a", 2000),), 3000, free_bytes=500, reserve_bytes=1500)
    found = plan(stock, replace(RULES, max_bytes=sys.maxsize))
    assert found.share_bytes == 4000
    assert names(found) == ["a"]


@pytest.mark.parametrize(
    ("headroom", "before", "level"),
    [
        (1000, 0, 0),
        (999, 0, 1),
        (1000, 1, 1),
        (1250, 1, 0),
        (499, 0, 2),
        (600, 2, 2),
        (625, 2, 1),
        (0, 0, 3),
        (-5, 0, 3),
        (2, 3, 2),
    ],
)
def test_clips_are_refused_by_severity_and_taken_again_a_little_later(
    headroom: int, before: int, level: int
) -> None:
    assert refused_severities(headroom, 1000, before) == level


def test_refusal_is_a_step_with_words() -> None:
    found = plan(Stock((unreceipted("new", 8200),), 1000), RULES)  # 700 of 1000 are left
    assert [(step.action, step.name) for step in found.steps] == [(Action.REFUSE, "info")]
    assert found.steps[0].reason == "room for 700 bytes of clips is left"


_ITEMS = st.lists(
    st.builds(
        Item,
        st.sampled_from(Kind),
        st.uuids().map(str),
        st.integers(0, 5000),
        st.floats(0, 1e8),
        st.sampled_from(["", "", "", "hold 7", "pinned", "no receipt"]),
    ),
    max_size=25,
    unique_by=lambda item: item.name,
)
_STOCKS = st.builds(
    lambda items, recordings, kept, free, reserve, coming: Stock(
        tuple(items), recordings, min(kept, recordings), coming, free, reserve
    ),
    _ITEMS,
    st.integers(0, 50_000),
    st.integers(0, 50_000),
    st.integers(0, 100_000),
    st.integers(0, 20_000),
    st.integers(0, 5000),
)
_RULE = st.builds(
    Rule,
    st.floats(0, 1e7),
    st.floats(0, 1e8),
    st.one_of(st.just(sys.maxsize), st.integers(0, 9000)),
)
_RULES = st.builds(
    Rules,
    st.one_of(st.just(sys.maxsize), st.integers(0, 100_000)),
    st.dictionaries(st.sampled_from(Kind), _RULE, max_size=6),
    st.integers(0, 20_000),
    st.floats(0, 0.5),
)
many = settings(max_examples=200, deadline=None)


def after(stock: Stock, found: Plan) -> Stock:
    """The stock once the plan was carried out; what is freed is free."""
    gone = set(names(found))
    rest = tuple(item for item in stock.items if item.name not in gone)
    left = stock.recordings_bytes - shrinks(found)
    return replace(
        stock,
        items=rest,
        recordings_bytes=left,
        free_bytes=stock.free_bytes + found.frees_bytes,
    )


@many
@given(_STOCKS, _RULES)
def test_what_must_stay_is_never_in_a_plan(stock: Stock, rules: Rules) -> None:
    by_name = {item.name: item for item in stock.items}
    for name in names(plan(stock, rules)):
        item = by_name[name]
        assert item.kind in GOING
        assert item.kind is not Kind.CLIP
        assert not item.guard
        assert item.age_s >= rules.kinds.get(item.kind, Rule()).least_s


@many
@given(_STOCKS, _RULES)
def test_a_plan_frees_enough_or_says_what_is_lacking(stock: Stock, rules: Rules) -> None:
    found = plan(stock, rules)
    left = found.used_bytes - found.frees_bytes
    assert left - found.lacking_bytes <= found.share_bytes
    assert bool(found.lacking_bytes) == bool(found.lacking_reason)
    if found.lacking_bytes:  # then nothing that may go was left, nor recordings above their floor
        rest = after(stock, found)
        assert not [item for item in in_turn(rest, rules) if item.size_bytes]
        floor = max(rules.recordings_least_bytes, stock.recordings_kept_bytes)
        assert rest.recordings_bytes <= max(floor, 0) or shrinks(found) == 0
        assert found.refused == len(SEVERITIES)
    assert stock.recordings_bytes - shrinks(found) >= min(
        stock.recordings_bytes, stock.recordings_kept_bytes
    )


@many
@given(_STOCKS, _RULES)
def test_a_plan_once_carried_out_leaves_nothing_to_do(stock: Stock, rules: Rules) -> None:
    found = plan(stock, rules)
    again = plan(after(stock, found), rules)
    assert [step for step in again.steps if step.action is not Action.REFUSE] == []
    assert again.lacking_bytes == found.lacking_bytes


@many
@given(_STOCKS, _RULES, st.randoms())
def test_the_order_does_not_depend_on_how_things_were_found(stock, rules, random) -> None:
    items = list(stock.items)
    random.shuffle(items)
    assert plan(replace(stock, items=tuple(items)), rules) == plan(stock, rules)


@many
@given(_STOCKS, _RULES, st.integers(0, 20_000))
def test_with_less_room_the_same_things_go_and_more(stock, rules, less: int) -> None:
    tighter = replace(stock, reserve_bytes=stock.reserve_bytes + less)
    wide, narrow = plan(stock, rules), plan(tighter, rules)
    assert set(names(wide)) <= set(names(narrow))
    assert shrinks(wide) <= shrinks(narrow)
    assert wide.refused <= narrow.refused
    assert wide.lacking_bytes <= narrow.lacking_bytes
    assert wide.recordings_max_bytes >= narrow.recordings_max_bytes


@many
@given(_STOCKS, _RULES)
def test_kinds_go_in_their_order_and_recordings_after_them(stock: Stock, rules: Rules) -> None:
    found = plan(stock, rules)
    order = list(Kind)
    for_room = [step for step in found.steps if step.rule == "room"]
    deleted = [step for step in for_room if step.action is Action.DELETE]
    places = [order.index(Kind(step.kind)) for step in deleted]
    assert places == sorted(places)
    if shrinks(found):
        assert not [item for item in in_turn(after(stock, found), rules) if item.size_bytes]
    actions = [step.action for step in found.steps]
    assert actions == sorted(actions, key=list(Action).index)
