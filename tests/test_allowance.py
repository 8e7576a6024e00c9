"""What a run may still send: requests are counted out, tokens set aside before they are spent."""

from __future__ import annotations

import random

import pytest

from tokenswarm.ending import REQUESTS, TOKEN_BUDGET
from tokenswarm.load.allowance import MARGIN, UNKNOWN_OUTPUT, Allowance, Reserved, deal


def taken(allowance: Allowance, size: int = 0, most: int | None = None) -> Reserved:
    found = allowance.take(size, most)
    assert found is not None
    return found


def test_without_limits_everything_is_given_and_nothing_counted() -> None:
    allowance = Allowance()
    assert all(taken(allowance, 10**9, 10**9).tokens == 0 for _ in range(3))
    assert (allowance.over, allowance.short, allowance.open) == ("", False, 3)


@pytest.mark.parametrize(("total", "seats"), [(10, 1), (10, 3), (2, 4), (0, 2), (1_000_003, 7)])
def test_shares_add_up_and_differ_by_one_at_most(total: int, seats: int) -> None:
    shares = [deal(total, seat, seats) for seat in range(seats)]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1
    assert deal(total, seats, seats) == 0, "who came later has none"


def test_the_last_request_is_known_as_such_when_it_is_taken() -> None:
    allowance = Allowance(requests=2)
    taken(allowance)
    assert allowance.over == ""
    taken(allowance)
    assert allowance.over == REQUESTS
    assert allowance.take() is None
    assert allowance.open == 2


def test_what_is_shed_counts_as_a_request() -> None:
    allowance = Allowance(requests=2)
    allowance.shed()
    taken(allowance)
    assert allowance.over == REQUESTS
    allowance.shed()
    assert allowance.open == 1


def test_a_share_of_nothing_is_over_from_the_start() -> None:
    assert Allowance(requests=0).over == REQUESTS
    assert Allowance(tokens=0).over == TOKEN_BUDGET


def test_a_request_that_does_not_fit_waits_for_others_and_is_refused_without_any() -> None:
    allowance = Allowance(tokens=100)
    first = taken(allowance, 20, 50)
    assert allowance.take(20, 50) is None
    assert (allowance.over, allowance.short) == ("", True)
    allowance.settle(first, 20, 10)
    second = taken(allowance, 20, 50)
    assert allowance.take(20, 50) is None
    allowance.settle(second, 20, 40)
    assert allowance.spent == 90
    assert allowance.take(20, 50) is None
    assert allowance.over == TOKEN_BUDGET


@pytest.mark.parametrize("seed", range(20))
def test_with_a_known_length_the_budget_is_never_overdrawn(seed: int) -> None:
    chance = random.Random(seed)
    budget = chance.randrange(500, 50_000)
    allowance = Allowance(tokens=budget)
    spent, in_flight = 0, []
    while not allowance.over:
        size = chance.randrange(50, 400)
        reserved = allowance.take(size, 200)
        if reserved is None:
            if in_flight:
                done = in_flight.pop(chance.randrange(len(in_flight)))
                costs = round(done.size * chance.uniform(0.2, 0.4)), chance.randrange(1, 201)
                spent += sum(costs)
                allowance.settle(done, *costs)
        else:
            in_flight.append(reserved)
        if len(in_flight) > 50:
            done = in_flight.pop()
            costs = round(done.size * 0.4), 200
            spent += sum(costs)
            allowance.settle(done, *costs)
    assert spent == allowance.spent <= budget
    assert spent > budget - 200 - MARGIN * 0.4 * 400, "and is spent but for what one more might have cost"


def test_a_prompt_whose_bytes_do_not_fit_waits_until_it_is_alone_and_counts_by_the_dearest_so_far() -> None:
    allowance = Allowance(tokens=1000)
    first, second = taken(allowance, 400, 10), taken(allowance, 100, 10)
    allowance.settle(first, 100, 10)
    assert allowance.take(1000, 10) is None
    assert not allowance.over
    allowance.settle(second, 10, 10)
    assert taken(allowance, 1000, 10).input == MARGIN * 250


def test_a_prompt_whose_cost_nobody_told_counts_as_others_of_its_size() -> None:
    allowance = Allowance(tokens=10_000)
    first, second, third = (taken(allowance, size, 10) for size in (400, 400, 100))
    allowance.settle(first, None, 10)
    assert allowance.spent == 410, "nothing is known: at most its bytes"
    allowance.settle(second, 100, 10)
    allowance.settle(third, None, 10)
    assert allowance.spent == 410 + 110 + 35


def test_a_reply_without_a_limit_costs_the_mean_of_those_so_far() -> None:
    allowance = Allowance(tokens=100_000)
    first, second = taken(allowance), taken(allowance)
    assert first.output == second.output == UNKNOWN_OUTPUT
    allowance.settle(first, 0, 100)
    allowance.settle(second, 0, 300)
    assert taken(allowance).output == 200


def test_a_hundred_users_at_once_do_not_overdraw_a_small_budget_of_which_nothing_is_known() -> None:
    allowance = Allowance(tokens=10_000)
    at_once = [reserved for _ in range(100) if (reserved := allowance.take(200, None))]
    assert len(at_once) == 2
    assert not allowance.short, "it waits to learn, and not because the budget is near its end"


def test_a_budget_smaller_than_the_guess_buys_one_reply_first() -> None:
    allowance = Allowance(tokens=1000)
    first = taken(allowance, 100)
    assert first.tokens == 1000
    assert allowance.take(100) is None
    allowance.settle(first, 25, 75)
    assert taken(allowance, 100).tokens == 175


def test_what_nobody_told_counts_as_what_was_set_aside() -> None:
    allowance = Allowance(tokens=1000)
    allowance.settle(taken(allowance, 100, 50), None, None)
    assert allowance.spent == 150


def test_a_refused_request_costs_nothing() -> None:
    allowance = Allowance(tokens=1000)
    allowance.refund(taken(allowance, 100, 50))
    assert (allowance.spent, allowance.open) == (0, 0)
    assert taken(allowance, 100, 900).tokens == 1000
