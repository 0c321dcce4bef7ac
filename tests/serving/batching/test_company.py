"""When the event loop is turned a few times more before a call begins."""

from serving.batching.company import Company


def turns(company: Company, arrivals: dict[int, int] | None = None) -> int:
    """Turns before a call begins for which a row waits, `arrivals` being rows that come, by turn."""
    rows = 1
    turn = 0
    while company.may_come(rows):
        turn += 1
        rows += (arrivals or {}).get(turn, 0)
    company.begins(rows)
    return turn


def test_where_nobody_comes_it_is_seldom_looked_for() -> None:
    company = Company()
    looked = [turns(company) > 0 for _ in range(310)]
    assert sum(looked) == 10


def test_where_others_come_they_are_waited_for_as_long_as_they_come() -> None:
    company = Company()
    for _ in range(200):
        turns(company, {3: 1})
    alone = turns(company)
    assert alone > 3
    assert turns(company, {3: 1}) == alone + 3
    assert turns(company, {3: 1, 10: 2, 11: 1}) == alone + 11


def test_it_is_noticed_when_they_come_and_when_they_come_no_more() -> None:
    company = Company()
    for _ in range(200):
        turns(company)
    for _ in range(200):
        turns(company, {2: 1})
    assert all(turns(company, {2: 1}) for _ in range(20))
    for _ in range(200):
        turns(company)
    assert sum(turns(company) > 0 for _ in range(200)) <= 7


def test_a_call_that_begins_while_it_is_looked_counts_too() -> None:
    company = Company()
    for _ in range(200):  # the batch is full before the last turn
        if company.may_come(1):
            company.may_come(4)
        company.begins(4)
    assert company.may_come(1)
