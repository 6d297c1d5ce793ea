"""The layout of a ragged batch, against a plain loop over its tokens."""

from hypothesis import given, settings
from hypothesis import strategies as st

from model.attention.ragged import RaggedBatch, Segment


def test_the_documented_example() -> None:
    batch = RaggedBatch.build([Segment(0, 3, 6, [9, 5, 7])], [11, 12, 13], [2], page_size=4)
    assert batch.positions_T.tolist() == [6, 7, 8]
    assert batch.kv_rows_T.tolist() == [5 * 4 + 2, 5 * 4 + 3, 7 * 4 + 0]
    assert batch.token_ids_T.tolist() == [11, 12, 13] and batch.logit_rows.tolist() == [2]


def test_no_chunks_make_an_empty_batch() -> None:
    batch = RaggedBatch.build([], [], [], page_size=4)
    assert batch.segments == () and batch.positions_T.shape == batch.kv_rows_T.shape == (0,)


def test_keys_of_a_chunk_reach_to_its_own_end() -> None:
    assert Segment(row=5, length=3, start=6, pages=[]).kv_length == 9


@settings(deadline=None, derandomize=True)
@given(
    st.data(), st.integers(1, 9), st.lists(st.tuples(st.integers(1, 12), st.integers(0, 30)), min_size=1, max_size=5)
)
def test_every_token_has_the_position_and_slot_of_its_sequence(
    data: st.DataObject, page_size: int, chunks: list[tuple[int, int]]
) -> None:
    pages = iter(data.draw(st.permutations(range(len(chunks) * 50))))
    segments, row = list[Segment](), 0
    for length, start in chunks:
        segments.append(Segment(row, length, start, [next(pages) for _ in range(-(-(start + length) // page_size))]))
        row += length
    batch = RaggedBatch.build(segments, range(row), [row - 1], page_size)
    seen = set()
    for segment in segments:
        for i in range(segment.length):
            position = int(batch.positions_T[segment.row + i])
            page, offset = divmod(int(batch.kv_rows_T[segment.row + i]), page_size)
            assert position == segment.start + i
            assert page == segment.pages[position // page_size] and offset == position % page_size
            seen.add((page, offset))
    assert len(seen) == row == len(batch.kv_rows_T)
