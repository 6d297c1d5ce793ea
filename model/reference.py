"""The oracle: Mixtral in one process, one sequence, a plain loop, fp32, no cache.

Tests compare the distributed path with it; the two share nothing but the checkpoint reader.
"""

from pathlib import Path

import torch
import torch.nn.functional as F

from model.checkpoint.folder import Checkpoint
from model.checkpoint.weights import Tensors


class Reference:
    def __init__(self, folder: Path) -> None:
        checkpoint = Checkpoint.open(folder)
        self.config = checkpoint.config
        self.w = dict(Tensors(checkpoint, checkpoint.tensors, torch.float32))

    @torch.inference_mode()
    def logits(self, token_ids: list[int]) -> torch.Tensor:
        """fp32 logits [len(token_ids), vocab_size] of a text."""
        c, w = self.config, self.w
        x = w["model.embed_tokens.weight"][token_ids]
        for i in range(c.num_hidden_layers):
            at = f"model.layers.{i}."
            x = x + self._attention(at + "self_attn.", self._norm(x, at + "input_layernorm.weight"))
            x = x + self._experts(at + "block_sparse_moe.", self._norm(x, at + "post_attention_layernorm.weight"))
        x = self._norm(x, "model.norm.weight")
        return x @ w["model.embed_tokens.weight" if c.tie_word_embeddings else "lm_head.weight"].T

    def greedy(self, token_ids: list[int], count: int) -> list[int]:
        """The next `count` ids under greedy decoding; end-of-sequence does not stop it."""
        ids = list(token_ids)
        for _ in range(count):
            ids.append(int(self.logits(ids)[-1].argmax()))
        return ids[len(token_ids) :]

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return self.w[name] * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.config.rms_norm_eps)

    def _attention(self, at: str, x: torch.Tensor) -> torch.Tensor:
        c, n = self.config, x.shape[0]
        q = self._rope((x @ self.w[at + "q_proj.weight"].T).view(n, -1, c.head_dim))
        k = self._rope((x @ self.w[at + "k_proj.weight"].T).view(n, -1, c.head_dim))
        v = (x @ self.w[at + "v_proj.weight"].T).view(n, -1, c.head_dim)
        groups = c.num_attention_heads // c.num_key_value_heads
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        scores = torch.einsum("ihd,jhd->hij", q, k) / c.head_dim**0.5
        i, j = torch.arange(n)[:, None], torch.arange(n)[None, :]
        visible = (j <= i) & (j > i - (c.sliding_window or n))
        weights = scores.masked_fill(~visible, float("-inf")).softmax(-1)
        return torch.einsum("hij,jhd->ihd", weights, v).flatten(1) @ self.w[at + "o_proj.weight"].T

    def _rope(self, x: torch.Tensor) -> torch.Tensor:
        d = self.config.head_dim
        angles = torch.arange(x.shape[0])[:, None] / self.config.rope_theta ** (torch.arange(0, d, 2) / d)
        cos, sin = angles.cos()[:, None], angles.sin()[:, None]
        a, b = x[..., : d // 2], x[..., d // 2 :]
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)

    def _experts(self, at: str, x: torch.Tensor) -> torch.Tensor:
        probabilities = (x @ self.w[at + "gate.weight"].T).softmax(-1)
        out = torch.zeros_like(x)
        for t in range(x.shape[0]):
            top, chosen = probabilities[t].topk(self.config.num_experts_per_tok)
            for weight, expert in zip(top / top.sum(), chosen.tolist(), strict=True):
                own = f"{at}experts.{expert}."
                gate, up = x[t] @ self.w[own + "w1.weight"].T, x[t] @ self.w[own + "w3.weight"].T
                out[t] += weight * ((F.silu(gate) * up) @ self.w[own + "w2.weight"].T)
        return out
