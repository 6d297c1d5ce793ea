from actors.remote.exits import memory_reason

DETAIL = """1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 127.0.0.1) was \
0.84GB used / 23.54GB limit (0.035702)
OOM kill reason: Memory usage 902430720B exceeded threshold of 505530368B (2.0% of"""


def test_rays_text_is_cut_to_what_an_operator_needs() -> None:
    assert memory_reason(DETAIL).startswith(
        "Ray ended it as its machine's memory was full (0.84GB used / 23.54GB limit): end"
    )
    assert memory_reason("something else").startswith("Ray ended it as its machine's memory was full: end")
