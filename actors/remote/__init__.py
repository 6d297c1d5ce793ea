"""Ray, applied: the only home of Ray in the data plane."""

from actors.threads import settle

settle()  # whatever of this package is imported first, torch comes later
