"""Routing against transformers' router, and grouping and combining against plain loops."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralExperts, MixtralTopKRouter

from model.routing import Dispatch, combine, group, route


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("experts", "k"), [(8, 2), (8, 1), (8, 3), (4, 4), (16, 2)])
def test_route_chooses_and_weighs_as_transformers_does(experts: int, k: int, dtype: torch.dtype) -> None:
    torch.manual_seed(7)
    config = MixtralConfig(hidden_size=32, num_local_experts=experts, num_experts_per_tok=k)
    router: Any = MixtralTopKRouter(config)
    router.weight.data = torch.randn(experts, 32)
    router.to(dtype)
    with torch.inference_mode():
        logits, weights, chosen = router(torch.randn(200, 32).to(dtype))
    experts_TK, weights_TK = route(logits, k)
    dense, ours = torch.zeros(200, experts), torch.zeros(200, experts)
    assert torch.equal(ours.scatter(1, experts_TK, weights_TK), dense.scatter(1, chosen, weights))
    assert weights_TK.dtype == torch.float32
    assert (experts_TK.diff(dim=-1) > 0).all()  # ascending, none twice
    assert torch.allclose(weights_TK.sum(-1), torch.ones(200))


def test_the_documented_example_of_a_grouping() -> None:
    grouping = group(torch.tensor([[0, 2], [0, 1]]), 3)
    assert grouping.tokens_R.tolist() == [0, 1, 1, 0] and grouping.counts == (2, 1, 1)
    assert [rows.tolist() for rows in grouping.rows_KT] == [[0, 1], [3, 2]]


@settings(deadline=None, derandomize=True)
@given(st.data(), st.integers(1, 9), st.integers(0, 20))
def test_grouping_sorts_by_expert_and_keeps_token_order(data: st.DataObject, experts: int, tokens: int) -> None:
    k = data.draw(st.integers(1, experts))
    choices = [sorted(data.draw(st.permutations(range(experts)))[:k]) for _ in range(tokens)]
    grouping = group(torch.tensor(choices, dtype=torch.int64).view(tokens, k), experts)
    rows = sorted((expert, token) for token, chosen in enumerate(choices) for expert in chosen)
    assert grouping.tokens_R.tolist() == [token for _, token in rows]
    assert grouping.counts == tuple(sum(expert == e for expert, _ in rows) for e in range(experts))
    assert [[rows[row] for row in rows_T.tolist()] for rows_T in grouping.rows_KT] == [
        [(chosen[j], token) for token, chosen in enumerate(choices)] for j in range(k)
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("k", [1, 2, 3])
def test_combine_adds_bit_for_bit_as_transformers_does(k: int, dtype: torch.dtype) -> None:
    """Its experts' own loop, made exact: matrices whose products have one term, an activation without rounding."""
    torch.manual_seed(8)
    experts, tokens, hidden = 5, 40, 16
    config = MixtralConfig(hidden_size=hidden, intermediate_size=hidden, num_local_experts=experts)
    config._experts_implementation = "eager"
    theirs: Any = MixtralExperts(config)
    theirs.act_fn = torch.nn.ReLU()
    scales = torch.randn(experts)
    theirs.gate_up_proj.data = torch.eye(hidden).repeat(experts, 2, 1)
    theirs.down_proj.data = torch.eye(hidden) * scales[:, None, None]
    theirs.to(dtype)
    x = torch.randn(tokens, hidden).to(dtype)
    experts_TK, weights_TK = route(torch.randn(tokens, experts), k)
    with torch.inference_mode():
        expected = theirs(x, experts_TK, weights_TK)
        grouping = group(experts_TK, experts)
        rows = x[grouping.tokens_R]
        scale = scales.to(dtype).repeat_interleave(torch.tensor(grouping.counts))[:, None]
        outputs = torch.relu(rows) * rows * scale
        found = combine(weights_TK, grouping.rows_KT, outputs)
    assert found.dtype == dtype and torch.equal(found, expected)


def test_combine_of_no_tokens_is_empty() -> None:
    nothing = Dispatch(0, torch.empty(0, 6), torch.empty(0, 2, dtype=torch.int64), torch.empty(0, 2))
    assert combine(nothing.weights_TK, group(nothing.experts_TK, 4).rows_KT, torch.empty(0, 6)).shape == (0, 6)


def test_combine_leaves_its_arguments_alone() -> None:
    experts_TK, weights_TK = route(torch.randn(9, 4), 2)
    dispatch = Dispatch(0, torch.randn(9, 6), experts_TK, weights_TK)
    outputs = torch.randn(18, 6)
    before = [x.clone() for x in (dispatch.x_TD, outputs, weights_TK)]
    combine(dispatch.weights_TK, group(experts_TK, 4).rows_KT, outputs)
    assert all(torch.equal(a, b) for a, b in zip(before, (dispatch.x_TD, outputs, weights_TK), strict=True))
