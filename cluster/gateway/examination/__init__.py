"""Work on a request before it is queued, bounded in places, time and memory."""
