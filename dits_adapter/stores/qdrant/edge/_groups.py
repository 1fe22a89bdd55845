"""Groups of points, which Qdrant Edge has not: found by several searches for points."""

from __future__ import annotations

from collections.abc import Callable

from qdrant_client import models
from qdrant_client.conversions.common_types import QueryResponse

from dits_adapter.stores.qdrant._schema import group_values, matching

__all__ = ["Groups", "find_groups"]

Groups = dict[str | int, list[models.ScoredPoint]]
"""Points of each group, best first, by the group's value."""


def find_groups(
    query: Callable[[list[models.QueryRequest]], list[QueryResponse]],
    request: models.QueryRequest,
    group_by: str,
    *,
    limit: int,
    group_size: int,
    ascending: bool,
) -> Groups:
    """Find the groups with the points nearest to a vector: the `limit` best, and the best points of each.

    Points are searched until enough groups have one, each time without the groups that are known; then the groups
    that are short of points are filled.

    Args:
        query: answers queries.
        request: the search for points, with its limit.
        group_by: payload field whose values are the groups.
        limit: number of groups.
        group_size: number of points of each group.
        ascending: True where a lower score is a nearer one.
    """
    condition = request.filter

    def narrowed(within: models.Filter) -> models.QueryRequest:
        conditions: list[models.Condition] = [within] if condition is None else [within, condition]
        return request.model_copy(update={"filter": models.Filter(must=conditions)})

    groups: Groups = {}
    ungrouped = models.IsEmptyCondition(is_empty=models.PayloadField(key=group_by))
    while True:
        others = models.Filter(must_not=[ungrouped, *matching(group_by, groups)])
        (answer,) = query([narrowed(others)])
        fresh: Groups = {}
        for point in answer.points:
            for value in group_values(point.payload, group_by):
                if value not in groups:
                    fresh.setdefault(value, []).append(point)
        first, complete = not groups, len(answer.points) < limit * group_size
        groups |= fresh
        if complete or not fresh or len(groups) >= limit:
            break
    best = sorted(groups, key=lambda value: groups[value][0].score * (1 if ascending else -1))[:limit]
    short = [value for value in best if len(groups[value]) < group_size]
    if short and not (first and complete):
        fill = [narrowed(models.Filter(must=matching(group_by, [value]))) for value in short]
        fill = [filling.model_copy(update={"limit": group_size}) for filling in fill]
        for value, more in zip(short, query(fill), strict=True):
            groups[value] = more.points or groups[value]
    return {value: groups[value][:group_size] for value in best}
