"""What a request costs before it is queued, bounded in places, time and memory."""
