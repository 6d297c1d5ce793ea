"""Ray, applied: the only home of Ray in the data plane."""

from actors.environment import let_threads_sleep, use_large_pages

let_threads_sleep()  # whatever of this package is imported first, torch comes later
use_large_pages()
